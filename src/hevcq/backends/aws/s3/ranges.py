"""Check that the answer to a ranged GetObject holds exactly the bytes that were asked for. Pure.

Some servers and caches ignore `Range` or `If-Match`; their bytes at the wrong place would look like
a damaged video.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hevcq.errors import Unavailable

_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+)$")


def range_header(start: int, end: int | None) -> str:
    """Return the value of `Range` for the bytes from `start` up to `end`, or to the last one."""
    return f"bytes={start}-" + ("" if end is None else str(end - 1))


def require_range(
    answer: Mapping[str, Any],
    key: str,
    span: tuple[int, int | None],
    *,
    size: int | None = None,
    pins: Mapping[str, Any] | None = None,
) -> tuple[int, int]:
    """Return the offset after the answer's last byte, and the size of the whole object in bytes.

    `span` (start, end) was asked for; `size` is that of the object, where it is known; `pins` are
    the arguments IfMatch and VersionId of the request. Raises Unavailable if status, Content-Range,
    length, ETag or version are not those of the request. Status 200 is right only where the whole
    object was asked for.
    """
    pins = pins or {}
    start, end = span
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    length = int(answer["ContentLength"])
    if status == 206:
        got = _content_range(answer, key)
    else:
        got = 0, length, length
        if status != 200 or start != 0 or end not in (None, length):
            raise _wrong(key, f"status {status} to a request for {range_header(start, end)}")
    total = got[2]
    if size is not None and total != size:
        raise _wrong(key, f"a size of {total} bytes instead of {size}")
    if got[:2] != (start, total if end is None else min(end, total)):
        raise _wrong(key, f"bytes {got[0]}-{got[1] - 1} instead of {range_header(start, end)}")
    if length != got[1] - got[0]:
        raise _wrong(key, f"{length} bytes instead of {got[1] - got[0]}")
    _require_version(answer, key, pins)
    return got[1:]


def _content_range(answer: Mapping[str, Any], key: str) -> tuple[int, int, int]:
    """Return first byte, offset after the last byte, and size of the object, in bytes."""
    found = _CONTENT_RANGE.match(str(answer.get("ContentRange", "")))
    if found is None:
        raise _wrong(key, f"the Content-Range {answer.get('ContentRange')!r}")
    first, last, total = (int(part) for part in found.groups())
    return first, last + 1, total


def _require_version(answer: Mapping[str, Any], key: str, pins: Mapping[str, Any]) -> None:
    etag, version = answer.get("ETag"), answer.get("VersionId")
    if "IfMatch" in pins and etag != pins["IfMatch"]:
        raise _wrong(key, f"the ETag {etag} instead of {pins['IfMatch']}")
    if "VersionId" in pins and version is not None and version != pins["VersionId"]:
        raise _wrong(key, f"the version {version} instead of {pins['VersionId']}")


def _wrong(key: str, what: str) -> Unavailable:
    return Unavailable(
        f"The server answered the read of {key!r} with {what}.",
        remedy="A proxy, cache or S3-compatible server in between does not support ranged reads.",
    )
