"""A published object as a file: streamed by ranges, of one version, taken up where it broke off."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.errors import translate_errors
from hevcq.backends.aws.s3.metadata import pinned
from hevcq.errors import Unavailable

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

RESUMES = 3


class ObjectReader(io.RawIOBase):
    """Bytes of one object, from `start` on, as they arrive in `answer` (of a GetObject).

    The stream stays that of the object it began with. Taken up again after a break, it raises
    SourceChanged if the object was replaced meanwhile, and Unavailable when it breaks too often.
    """

    def __init__(
        self, s3: S3Client, place: Mapping[str, str], start: int, answer: GetObjectOutputTypeDef
    ) -> None:
        super().__init__()
        self._s3 = s3
        self._where: dict[str, Any] = {**place, **pinned(answer)}
        self._at, self._end = start, start + answer["ContentLength"]
        self._body: StreamingBody | None = answer["Body"]

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as one read goes; 0 at the end."""
        wanted = min(len(buffer), self._end - self._at)
        if wanted <= 0:
            return 0
        content = self._read(wanted)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def _read(self, wanted: int) -> bytes:
        for attempt in range(RESUMES + 1):
            try:
                with translate_errors(f"read {self._where['Key']!r}"):
                    content: bytes = self._stream().read(wanted)
            except Unavailable:
                self._drop()
                if attempt == RESUMES:
                    raise
                continue
            if content:
                return content
            self._drop()
        raise Unavailable(f"S3 answered {self._where['Key']!r} with fewer bytes than it has.")

    def _stream(self) -> StreamingBody:
        if self._body is None:
            span = f"bytes={self._at}-{self._end - 1}"
            self._body = self._s3.get_object(**self._where, Range=span)["Body"]
        return self._body

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        """End the stream."""
        self._drop()
        super().close()
