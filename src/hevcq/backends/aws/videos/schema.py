"""The table of uploaded videos in DynamoDB, and the conversion of records to items. Pure.

Its own table, because only the web service writes it: workers know nothing of owners. One item a
video, `video#<id>`, with the record as JSON and beside it what the indexes need: `by_owner`
(owner and state, then id) and `by_status` (state, then id) list, `by_due` finds what wants a look,
`by_slug` what is public. Sums for quotas are items, `usage#farm` and `usage#owner#<id>`; they are
changed in the transaction that changes the video. Idempotency keys are `request#<digest>`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.dynamodb.schema import Item, float_of, number, string, text
from hevcq.domain.videos.record import Video, VideoStatus
from hevcq.ports.videos import VideoUsage

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import CreateTableInputTypeDef

BY_OWNER = "by_owner"
BY_STATUS = "by_status"
BY_DUE = "by_due"
BY_SLUG = "by_slug"
DUE = "due"
WORDS = "words"
MAX_WORDS = 1_000
"""Characters of a video that a search sees: they are written to two indexes with each change."""
INDEXES: dict[str, tuple[str, str | None, list[str]]] = {
    BY_OWNER: ("owner_status", "video_id", [WORDS]),
    BY_STATUS: ("status", "video_id", [WORDS]),
    BY_DUE: ("due", "due_at", []),
    BY_SLUG: ("slug", None, []),
}
"""Partition key, sort key and projected attributes of each index."""
FARM = "usage#farm"


def table_definition(name: str) -> CreateTableInputTypeDef:
    """Return the arguments of CreateTable; Terraform creates the same table."""
    kinds = {"due_at": "N"}
    keys = ["pk", *dict.fromkeys(k for h, r, _ in INDEXES.values() for k in (h, r) if k)]
    return {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": key, "AttributeType": kinds.get(key, "S")}  # type: ignore[typeddict-item]
            for key in keys
        ],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        "GlobalSecondaryIndexes": [_index(index) for index in INDEXES],
    }


def _index(name: str) -> Any:
    partition, order, others = INDEXES[name]
    keys = [{"AttributeName": partition, "KeyType": "HASH"}]
    if order is not None:
        keys.append({"AttributeName": order, "KeyType": "RANGE"})
    projection: dict[str, Any] = {"ProjectionType": "KEYS_ONLY"}
    if others:
        projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": others}
    return {"IndexName": name, "KeySchema": keys, "Projection": projection}


def video_pk(video_id: str) -> str:
    """Return the key of a video's item."""
    return f"video#{video_id}"


def usage_pk(owner: str | None) -> str:
    """Return the key of the sums of an owner, or of the farm."""
    return FARM if owner is None else f"usage#owner#{owner}"


def request_pk(request: str) -> str:
    """Return the key of an idempotency key's item."""
    return f"request#{hashlib.sha256(request.encode()).hexdigest()}"


def owner_status(owner: str, status: VideoStatus) -> str:
    """Return the partition of an owner's videos in one state."""
    return f"{status.value}#{owner}"


def item_of(video: Video) -> dict[str, Any]:
    """Return the item of a record."""
    item: dict[str, Any] = {
        "pk": text(video_pk(video.video_id)),
        "video_id": text(video.video_id),
        "owner_status": text(owner_status(video.owner, video.status)),
        "status": text(video.status.value),
        "revision": number(video.revision),
        "bytes": number(video.charged_bytes),
        WORDS: text(video.search_text[:MAX_WORDS]),
        "record": text(video.model_dump_json()),
    }
    if video.slug is not None:
        item["slug"] = text(video.slug)
    if video.due_at is not None:
        item |= {"due": text(DUE), "due_at": number(video.due_at)}
    return item


def video_of(item: Item) -> Video:
    """Return the record in an item."""
    return Video.model_validate_json(string(item, "record"))


def usage_of(item: Item) -> VideoUsage:
    """Return the sums in an item."""
    found = [int(float_of(item, name) or 0) for name in ("videos", "open", "bytes")]
    return VideoUsage(*found)
