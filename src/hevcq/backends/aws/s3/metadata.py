"""Existence, version, metadata and tags of an object on S3.

S3 answers 404 for a missing key only to a caller with an unconditional s3:ListBucket, otherwise 403
(https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html). A worker's role may list only its
own prefixes, so that one profile does not learn the names of another's videos. A condition on
`s3:prefix` never holds for HeadObject, but it holds for a listing of the key: that listing decides.
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
OWN_KEYS = frozenset({JOB, FENCE, SHA256})
OCTETS = "application/octet-stream"
BASE64_PREFIX = "b64:"
ETAG = re.compile(r"^[0-9a-f]{32}(-[0-9]{1,5})?$")
"""The form of an ETag. A source whose version has it is read and tagged without a version id."""
ARCHIVE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})


def version_of(answer: Mapping[str, Any]) -> str:
    """Return the version id in an answer, or else its ETag."""
    version = answer.get("VersionId")
    return version if version and version != "null" else str(answer["ETag"]).strip('"')


def is_version(answer: Mapping[str, Any], version: str) -> bool:
    """Return whether the answer is for `version`, a version id or an ETag.

    Both are compared, because version ids of SeaweedFS have the form of an ETag.
    """
    return version in (answer.get("VersionId"), str(answer["ETag"]).strip('"'))


def pins_of(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments that pin a read to the object of `answer`."""
    pins = {"IfMatch": str(answer["ETag"])}
    version = answer.get("VersionId")
    return pins | ({"VersionId": version} if version and version != "null" else {})


def require_source(head: HeadObjectOutputTypeDef, source: Source) -> None:
    """Raise SourceChanged or SourceUnreadable unless the newest object at the key is `source`."""
    if not is_version(head, source.version) or head["ContentLength"] != source.size:
        raise SourceChanged(f"{source.key} was replaced since it was queued.")
    ready = 'ongoing-request="false"' in head.get("Restore", "")
    if head.get("StorageClass") in ARCHIVE_CLASSES and not ready:
        raise SourceUnreadable(
            f"{source.key} is archived in {head.get('StorageClass')}.", remedy="Restore it first."
        )


def to_stored_object(key: str, head: HeadObjectOutputTypeDef) -> StoredObject:
    """Convert the answer of HeadObject to a StoredObject."""
    metadata = unpack(head["Metadata"])
    modified = head.get("LastModified")
    return StoredObject(
        key=key,
        version=version_of(head),
        size=head["ContentLength"],
        sha256=metadata.get(SHA256, ""),
        metadata={name: value for name, value in metadata.items() if name not in OWN_KEYS},
        modified_at=modified.timestamp() if isinstance(modified, datetime) else 0.0,
    )


def pack(metadata: Mapping[str, str]) -> dict[str, str]:
    """Encode metadata for HTTP headers: printable ASCII stays, other text becomes base64 of UTF-8."""
    return {name: _pack_value(value) for name, value in metadata.items()}


def unpack(metadata: Mapping[str, str]) -> dict[str, str]:
    """Decode metadata encoded by `pack`; other metadata is unchanged."""
    return {name.lower(): _unpack_value(value) for name, value in metadata.items()}


def _pack_value(value: str) -> str:
    plain = value.isascii() and value.isprintable() and value == value.strip() and value != ""
    if plain and not value.startswith(BASE64_PREFIX):
        return value
    return BASE64_PREFIX + base64.b64encode(value.encode("utf-8", "surrogatepass")).decode("ascii")


def _unpack_value(value: str) -> str:
    if not value.startswith(BASE64_PREFIX):
        return value
    try:
        raw = base64.b64decode(value.removeprefix(BASE64_PREFIX), validate=True)
        return raw.decode("utf-8", "surrogatepass")
    except (binascii.Error, UnicodeDecodeError):
        return value


ABSENT = frozenset({"404", "NoSuchKey"})


def find_object(
    s3: S3Client, bucket: str, key: str, *, unknown_is_absent: bool
) -> HeadObjectOutputTypeDef | None:
    """Return the answer of HeadObject for the newest object at `key`, or None if there is none.

    If neither HeadObject nor a listing is allowed, `unknown_is_absent` decides. Set it only if the next
    write is conditional on the object's absence, or may be repeated. Raises Unavailable if the object
    exists but may not be read, or if its existence is unknown.
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
            # The key itself is listed before any other key with this prefix.
            listing = s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    except Unavailable as error:
        if code_of(error.__cause__) not in DENIED:
            raise
        get_logger().debug("presence_unknown", bucket=bucket, key=key)
        return None
    return any(entry["Key"] == key for entry in listing.get("Contents", []))


TAG, DONE, AGAIN = "hevcq", "done", "again"
"""AGAIN replaces DONE on a source that is encoded again. S3 has no call that removes a single tag, and
removing all of them needs another permission."""
MAX_TAGS = 10
"""S3's limit (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html)."""


def mark_source_finished(s3: S3Client, source: Source, *, collected: bool) -> bool:
    """Tag the version as done; return False if it must stay. See `Store.mark_source_finished`.

    Nothing is tagged in a bucket without versioning, because that could tag a newer upload. Other tags
    stay, and so does any other value of the tag (such as "keep"), which a person has set. Raises
    SourceGone, Unavailable.
    """
    if ETAG.match(source.version):
        return False
    place = _place(source)
    with translate_errors(f"look at {source.key!r} in the bucket {source.bucket}"):
        metadata = unpack(s3.head_object(**place)["Metadata"])
    if SHA256 in metadata and not collected:
        return (
            False  # `hevcq ingest` uploaded it, and that machine still has to collect the rendition
        )
    tags = _read_tags(s3, place)
    if tags.get(TAG, AGAIN) != AGAIN:
        return tags[TAG] == DONE
    if TAG not in tags and len(tags) >= MAX_TAGS:
        get_logger().warning("source_has_too_many_tags", source=source.key)
        return False
    _write_tags(s3, place, {**tags, TAG: DONE})
    return True


def unmark_source_finished(s3: S3Client, source: Source) -> None:
    """Replace the tag, because the source is needed again. Raises SourceGone, Unavailable."""
    if ETAG.match(source.version):
        return
    place = _place(source)
    tags = _read_tags(s3, place)
    if tags.get(TAG) == DONE:
        _write_tags(s3, place, {**tags, TAG: AGAIN})


def _read_tags(s3: S3Client, place: Mapping[str, str]) -> dict[str, str]:
    with translate_errors(f"read the tags of {place['Key']!r}"):
        answer = s3.get_object_tagging(**place)  # type: ignore[arg-type]
    return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


def _write_tags(s3: S3Client, place: Mapping[str, str], tags: Mapping[str, str]) -> None:
    tag_set: Any = {"TagSet": [{"Key": k, "Value": v} for k, v in tags.items()]}
    with translate_errors(f"tag {place['Key']!r}"):
        s3.put_object_tagging(**place, Tagging=tag_set)  # type: ignore[arg-type]


def _place(source: Source) -> dict[str, Any]:
    return {"Bucket": source.bucket, "Key": source.key, "VersionId": source.version}
