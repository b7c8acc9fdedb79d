"""Tag finished sources with `hevcq=done`, for the input bucket's lifecycle rule to expire them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.errors import translate_errors
from hevcq.backends.aws.s3 import metadata as object_metadata
from hevcq.domain.job import Source
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

KEY, DONE, AGAIN = "hevcq", "done", "again"
"""AGAIN replaces DONE on a source that is encoded again: S3 has no call that removes a single tag, and
writing an empty set of tags needs the permission to delete tags."""
MAX_TAGS = 10
"""S3's limit (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html)."""


class DoneTags:
    """Tags exact versions of sources, never the newest object at a key.

    A bucket without versioning is left alone, because a newer upload could be tagged instead of the
    encoded one. Other tags are kept, and so is any other value of `hevcq` (such as "keep"), which
    a person has set.
    """

    def __init__(self, s3: S3Client) -> None:
        self._s3 = s3

    def mark_source_finished(self, source: Source, *, collected: bool) -> bool:
        """Tag the version; return False if it has to stay. See `Store.mark_source_finished`.

        Raises SourceGone, Unavailable.
        """
        if object_metadata.ETAG.match(source.version):
            return False
        place = _place(source)
        with translate_errors(f"look at {source.key!r} in the bucket {source.bucket}"):
            metadata = object_metadata.unpack(self._s3.head_object(**place)["Metadata"])
        if object_metadata.SHA256 in metadata and not collected:
            return False  # uploaded by `hevcq ingest`, whose machine reports when it is collected
        tags = self._tags(place)
        if tags.get(KEY, AGAIN) != AGAIN:
            return tags[KEY] == DONE
        if KEY not in tags and len(tags) >= MAX_TAGS:
            get_logger().warning("source_has_too_many_tags", source=source.key)
            return False
        self._write(place, {**tags, KEY: DONE})
        return True

    def unmark_source_finished(self, source: Source) -> None:
        """Replace the tag, because the source is needed again. Raises SourceGone, Unavailable."""
        if object_metadata.ETAG.match(source.version):
            return
        place = _place(source)
        tags = self._tags(place)
        if tags.get(KEY) == DONE:
            self._write(place, {**tags, KEY: AGAIN})

    def _tags(self, place: Mapping[str, str]) -> dict[str, str]:
        with translate_errors(f"read the tags of {place['Key']!r}"):
            answer = self._s3.get_object_tagging(**place)  # type: ignore[arg-type]
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def _write(self, place: Mapping[str, str], tags: Mapping[str, str]) -> None:
        wanted: Any = {"TagSet": [{"Key": k, "Value": v} for k, v in tags.items()]}
        with translate_errors(f"tag {place['Key']!r}"):
            self._s3.put_object_tagging(**place, Tagging=wanted)  # type: ignore[arg-type]


def _place(source: Source) -> dict[str, Any]:
    return {"Bucket": source.bucket, "Key": source.key, "VersionId": source.version}
