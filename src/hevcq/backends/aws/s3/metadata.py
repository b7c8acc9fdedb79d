"""Convert S3's answers to hevcq's values, and encode metadata for HTTP headers. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hevcq.domain.job import Source
from hevcq.errors import SourceChanged, SourceUnreadable
from hevcq.ports.store import StoredObject

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

JOB, FENCE, SHA256 = "hevcq-job", "hevcq-fence", "hevcq-sha256"
"""The store's own metadata, in addition to that of a publication. S3 allows 2 KB in total
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html)."""
OWN = frozenset({JOB, FENCE, SHA256})
PACKED = "b64:"
ETAG = re.compile(r"^[0-9a-f]{32}(-[0-9]{1,5})?$")
"""The form of an ETag. Version ids of AWS use 64 characters, so one never looks like an ETag by
accident; if one did, reads would be refused and never return other bytes."""
ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})


def version_of(answer: Mapping[str, Any]) -> str:
    """Return the version id in an answer, or else its ETag."""
    version = answer.get("VersionId")
    return version if version and version != "null" else str(answer["ETag"]).strip('"')


def is_version(answer: Mapping[str, Any], version: str) -> bool:
    """Return whether the answer is for `version`, a version id or an ETag."""
    if ETAG.match(version):
        return str(answer["ETag"]).strip('"') == version
    return answer.get("VersionId") == version


def pinned(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments that pin a read to the object of `answer`."""
    pins = {"IfMatch": str(answer["ETag"])}
    version = answer.get("VersionId")
    return pins | ({"VersionId": version} if version and version != "null" else {})


def require_source(head: HeadObjectOutputTypeDef, source: Source) -> None:
    """Raise SourceChanged or SourceUnreadable unless the newest object at the key is `source`."""
    if not is_version(head, source.version) or head["ContentLength"] != source.size:
        raise SourceChanged(f"{source.key} was replaced since it was queued.")
    ready = 'ongoing-request="false"' in head.get("Restore", "")
    if head.get("StorageClass") in ARCHIVED and not ready:
        raise SourceUnreadable(
            f"{source.key} is archived in {head.get('StorageClass')}.", remedy="Restore it first."
        )


def stored(key: str, head: HeadObjectOutputTypeDef) -> StoredObject:
    """Convert the answer of HeadObject to a StoredObject."""
    found = unpack(head["Metadata"])
    modified = head.get("LastModified")
    return StoredObject(
        key=key,
        version=version_of(head),
        size=head["ContentLength"],
        sha256=found.get(SHA256, ""),
        metadata={name: value for name, value in found.items() if name not in OWN},
        modified_at=modified.timestamp() if isinstance(modified, datetime) else 0.0,
    )


def pack(metadata: Mapping[str, str]) -> dict[str, str]:
    """Encode metadata for HTTP headers: printable ASCII as it is, else base64 of UTF-8."""
    return {name: _packed(value) for name, value in metadata.items()}


def unpack(metadata: Mapping[str, str]) -> dict[str, str]:
    """Decode metadata encoded by `pack`; other metadata is unchanged."""
    return {name.lower(): _unpacked(value) for name, value in metadata.items()}


def _packed(value: str) -> str:
    plain = value.isascii() and value.isprintable() and value == value.strip() and value != ""
    if plain and not value.startswith(PACKED):
        return value
    return PACKED + base64.b64encode(value.encode("utf-8", "surrogatepass")).decode("ascii")


def _unpacked(value: str) -> str:
    if not value.startswith(PACKED):
        return value
    try:
        raw = base64.b64decode(value.removeprefix(PACKED), validate=True)
        return raw.decode("utf-8", "surrogatepass")
    except (binascii.Error, UnicodeDecodeError):
        return value
