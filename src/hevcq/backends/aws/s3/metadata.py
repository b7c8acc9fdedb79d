"""Read S3's answers about an object: its metadata, its version, whether it is there, its tags.

S3 says 404 for a missing key only to a caller with an unconditional s3:ListBucket, otherwise 403
(https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html). The roles of workers may
list only their own prefixes, so that one profile does not learn the names of another's videos, and a
condition on `s3:prefix` never holds for HeadObject. A listing of the very key then decides, because
for it the condition holds.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from hevcq.backends.aws.clients import DENIED, code_of, translate_errors
from hevcq.domain.job import Source
from hevcq.errors import SourceChanged, SourceUnreadable, Unavailable
from hevcq.ports.store import StoredObject
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

JOB, FENCE, SHA256 = "hevcq-job", "hevcq-fence", "hevcq-sha256"
"""The store's own metadata, in addition to that of a publication. S3 allows 2 KB in total
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html)."""
OWN = frozenset({JOB, FENCE, SHA256})
OCTETS = "application/octet-stream"
PACKED = "b64:"
ETAG = re.compile(r"^[0-9a-f]{32}(-[0-9]{1,5})?$")
"""The form of an ETag; a source whose version has it is read and tagged without naming a version."""
ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})


def version_of(answer: Mapping[str, Any]) -> str:
    """Return the version id in an answer, or else its ETag."""
    version = answer.get("VersionId")
    return version if version and version != "null" else str(answer["ETag"]).strip('"')


def is_version(answer: Mapping[str, Any], version: str) -> bool:
    """Return whether the answer is for `version`, a version id or an ETag.

    Both are asked: version ids of SeaweedFS have the form of an ETag.
    """
    return version in (answer.get("VersionId"), str(answer["ETag"]).strip('"'))


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


ABSENT = frozenset({"404", "NoSuchKey"})


def find_object(
    s3: S3Client, bucket: str, key: str, *, unknown_is_absent: bool
) -> HeadObjectOutputTypeDef | None:
    """Return the answer of HeadObject for the newest object at `key`, or None if there is none.

    Where neither HeadObject nor a listing is allowed, `unknown_is_absent` decides: it may be set
    only where the next write is conditional on the object's absence, or is repeatable. Raises
    Unavailable if the object exists but may not be read, or if this is unknown.
    """
    with translate_errors(f"look at {key!r} in the bucket {bucket}"):
        try:
            return s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if code_of(error) in ABSENT:
                return None
            if code_of(error) not in DENIED:
                raise
            listed = _is_listed(s3, bucket, key)
            if listed is False or (listed is None and unknown_is_absent):
                return None
            raise


def _is_listed(s3: S3Client, bucket: str, key: str) -> bool | None:
    """Return whether a listing shows the key; None if listing is denied as well."""
    try:
        with translate_errors(f"list {key!r} in the bucket {bucket}"):
            # In a listing's order, no other key with this prefix comes before the key itself.
            found = s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    except Unavailable as error:
        if code_of(error.__cause__) not in DENIED:
            raise
        get_logger().debug("presence_unknown", bucket=bucket, key=key)
        return None
    return any(entry["Key"] == key for entry in found.get("Contents", []))


KEY, DONE, AGAIN = "hevcq", "done", "again"
"""AGAIN replaces DONE on a source that is encoded again: S3 has no call that removes a single tag, and
writing an empty set of tags needs the permission to delete tags."""
MAX_TAGS = 10
"""S3's limit (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html)."""


def mark_source_finished(s3: S3Client, source: Source, *, collected: bool) -> bool:
    """Tag the version; return False if it has to stay. See `Store.mark_source_finished`.

    A bucket without versioning is left alone, because a newer upload could be tagged instead of the
    encoded one. Other tags are kept, and so is any other value of `hevcq` (such as "keep"), which
    a person has set. Raises SourceGone, Unavailable.
    """
    if ETAG.match(source.version):
        return False
    place = _place(source)
    with translate_errors(f"look at {source.key!r} in the bucket {source.bucket}"):
        found = unpack(s3.head_object(**place)["Metadata"])
    if SHA256 in found and not collected:
        return False  # uploaded by `hevcq ingest`, whose machine reports when it is collected
    tags = _tags(s3, place)
    if tags.get(KEY, AGAIN) != AGAIN:
        return tags[KEY] == DONE
    if KEY not in tags and len(tags) >= MAX_TAGS:
        get_logger().warning("source_has_too_many_tags", source=source.key)
        return False
    _write(s3, place, {**tags, KEY: DONE})
    return True


def unmark_source_finished(s3: S3Client, source: Source) -> None:
    """Replace the tag, because the source is needed again. Raises SourceGone, Unavailable."""
    if ETAG.match(source.version):
        return
    place = _place(source)
    tags = _tags(s3, place)
    if tags.get(KEY) == DONE:
        _write(s3, place, {**tags, KEY: AGAIN})


def _tags(s3: S3Client, place: Mapping[str, str]) -> dict[str, str]:
    with translate_errors(f"read the tags of {place['Key']!r}"):
        answer = s3.get_object_tagging(**place)  # type: ignore[arg-type]
    return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


def _write(s3: S3Client, place: Mapping[str, str], tags: Mapping[str, str]) -> None:
    wanted: Any = {"TagSet": [{"Key": k, "Value": v} for k, v in tags.items()]}
    with translate_errors(f"tag {place['Key']!r}"):
        s3.put_object_tagging(**place, Tagging=wanted)  # type: ignore[arg-type]


def _place(source: Source) -> dict[str, Any]:
    return {"Bucket": source.bucket, "Key": source.key, "VersionId": source.version}
