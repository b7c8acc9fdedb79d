"""An S3-compatible server beside a database: opened only once it has shown that it keeps conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import boto3
from botocore.exceptions import ClientError

from hevcq.backends.aws.clients import Clients, make_clients, translate_errors
from hevcq.backends.aws.factory import MISSING
from hevcq.backends.aws.s3.store import Buckets, S3Store
from hevcq.backends.aws.videos.files import S3VideoFiles
from hevcq.errors import ConfigError, SourceChanged, StorageError, UsageError
from hevcq.ports.store import Store
from hevcq.settings.model import AwsSettings, Settings
from hevcq.util.clock import Clock

MARK = "hevcq-files"
"""The object that says whose renditions the bucket has; the probe writes it again, byte by byte."""
OTHER = {"IfMatch": '"00000000000000000000000000000000"'}
UNKNOWN = {"NotImplemented": (UsageError, "the server has no such condition")}


class CompatibleStore:
    """A bucket on an S3-compatible server: its store, its uploads and the mark of its database."""

    def __init__(self, settings: Settings, clock: Clock, clients: Clients | None = None) -> None:
        s3 = settings.s3
        with translate_errors("start a session"):
            region = boto3.Session().region_name or "us-east-1"  # what servers expect by default
        where = AwsSettings(region=region, endpoint_url=s3.endpoint_url)
        self._clients = clients if clients is not None else make_clients(where)
        self.bucket, self.where = s3.bucket, f"the bucket {s3.bucket} of {s3.endpoint_url}"
        buckets, client = Buckets(s3.bucket, s3.bucket), self._clients.s3
        notes = settings.data_dir / "uploads"
        self.objects: Store = S3Store(client, buckets, clock, notes, control=self._clients.control)
        self.video_files = S3VideoFiles(client, buckets, clock)

    def close(self) -> None:
        self._clients.close()

    def read(self) -> str:
        """Return the mark, "" if there is none. Raises ConfigError if there is no such bucket."""
        with translate_errors(f"find {self.where}", MISSING):
            self._clients.s3.head_bucket(Bucket=self.bucket)
        if self.objects.stat(MARK) is None:
            return ""
        with self.objects.open(MARK) as file:
            return file.read().decode("utf-8", "replace")

    def write(self, mark: str) -> None:
        """Mark the bucket, unless another database was first: then its mark stays."""
        if self.read():  # asked first: the server may ignore the condition
            return
        with suppress(SourceChanged), translate_errors(f"mark {self.where}"):
            self._put(mark.encode(), IfNoneMatch="*")

    def prove(self) -> None:
        """Raise ConfigError if the server ignores a condition on which a rendition depends.

        Each request has to be refused; one that is not writes the bytes that are there already.
        """
        with self.objects.open(MARK) as file:
            content = file.read()
        ignored = [
            name for name, call in self._conditions(content) if not self._refuses(name, call)
        ]
        if ignored:
            raise ConfigError(
                f"{self.where[0].upper()}{self.where[1:]} ignores {'; '.join(ignored)}: of two workers, one"
                " could overwrite what the other published.",
                remedy="Use a server that keeps these conditions, such as a current MinIO or Ceph, or share"
                " a folder (postgres.files_dir).",
            )
        if self.read().encode() != content:
            raise StorageError(f"{self.where} does not give back the bytes that were written.")

    def _conditions(self, content: bytes) -> Iterator[tuple[str, Callable[[], object]]]:
        read = partial(self._clients.s3.get_object, Bucket=self.bucket, Key=MARK)
        yield "If-Match when reading", partial(read, IfMatch=OTHER["IfMatch"])
        for name, condition in (("If-None-Match", {"IfNoneMatch": "*"}), ("If-Match", OTHER)):
            yield f"{name} when writing", partial(self._put, content, **condition)
            yield f"{name} when joining parts", partial(self._join, content, condition)

    def _refuses(self, name: str, call: Callable[[], object]) -> bool:
        try:
            with translate_errors(f"try {name} with {self.where}", UNKNOWN):
                call()
        except SourceChanged:
            return True
        except UsageError:
            pass
        return False

    def _put(self, content: bytes, **condition: Any) -> None:
        self._clients.s3.put_object(
            Bucket=self.bucket, Key=MARK, Body=content, ChecksumAlgorithm="SHA256", **condition
        )

    def _join(self, content: bytes, condition: dict[str, Any]) -> None:
        s3: Any = self._clients.s3
        place = {"Bucket": self.bucket, "Key": MARK}
        begun = s3.create_multipart_upload(**place)["UploadId"]
        try:
            part = s3.upload_part(**place, UploadId=begun, PartNumber=1, Body=content)
            parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            s3.complete_multipart_upload(
                **place, UploadId=begun, MultipartUpload=parts, **condition
            )
        finally:
            with suppress(ClientError):  # joined after all, or gone with the refusal
                s3.abort_multipart_upload(**place, UploadId=begun)
