"""The tag `hevcq=done` on a source, by which the input bucket's lifecycle rule lets it go."""

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
"""AGAIN replaces DONE on a source that is worked on anew: S3 has no call that takes one tag off, and
to write an empty set of tags would need a right to delete them."""
MAX_TAGS = 10
"""S3's limit (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html)."""


class DoneTags:
    """Tags versions of sources, and never "whatever is at the key now".

    A bucket without versions is left alone: a newer upload could be tagged in place of the one
    that was worked on. The other tags stay, and `hevcq` with another value than "done" (say
    "keep") is a person's word, which stands.
    """

    def __init__(self, s3: S3Client) -> None:
        self._s3 = s3

    def mark_source_finished(self, source: Source, *, collected: bool) -> bool:
        """Tag the version; False if it has to stay. See `Store.mark_source_finished`."""
        if object_metadata.ETAG.match(source.version):
            return False
        place = _place(source)
        with translate_errors(f"look at {source.key!r} in the bucket {source.bucket}"):
            metadata = object_metadata.unpack(self._s3.head_object(**place)["Metadata"])
        if object_metadata.SHA256 in metadata and not collected:
            return False  # taken in by `hevcq ingest`, whose machine says when it is collected
        tags = self._tags(place)
        if tags.get(KEY, AGAIN) != AGAIN:
            return tags[KEY] == DONE
        if KEY not in tags and len(tags) >= MAX_TAGS:
            get_logger().warning("source_has_too_many_tags", source=source.key)
            return False
        self._write(place, {**tags, KEY: DONE})
        return True

    def unmark_source_finished(self, source: Source) -> None:
        """Let the tag say that the source is needed again."""
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
