"""The records of uploaded videos, and the page's accounts, in one DynamoDB table.

The table is separate because only the web service writes it: workers know nothing of owners. A video is
an item `video#<id>` that holds the record as JSON and the attributes of the indexes: `by_owner` (owner
and state, then id) and `by_status` (state, then id) serve listings, `by_due` finds videos that are due
for work, `by_slug` finds public videos. Sums for quotas are the items `usage#farm` and
`usage#owner#<id>`, which change in the transaction that changes the video.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.clients import translate_errors
from hevcq.backends.aws.dynamodb.job_table import new_token, query_pages, read_item, read_items
from hevcq.backends.aws.dynamodb.schema import TTL, Item, number, read_number, read_text, text
from hevcq.domain.videos import (
    QUOTA_REMEDY,
    Quota,
    Video,
    VideoStatus,
    VideoUsage,
    Visibility,
    quota_refusal,
)
from hevcq.errors import Conflict, QuotaExceeded, Unavailable
from hevcq.ports.videos import MAX_PAGE, AccountKind, Accounts, Page, VideoFilter, VideoRecords

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

TRANSACTION_TRIES = 8
"""Attempts of a transaction that conflicts with others on the same sums."""
CONDITION_FAILED, CONFLICT = "ConditionalCheckFailed", "TransactionConflict"
BY_OWNER = "by_owner"
BY_STATUS = "by_status"
BY_DUE = "by_due"
BY_SLUG = "by_slug"
DUE = "due"
WORDS = "words"
MAX_WORDS = 1_000
"""Characters of a video's text that a search covers: each change writes them to two indexes."""
INDEXES: dict[str, tuple[list[str], list[str]]] = {
    BY_OWNER: (["owner_status", "video_id"], [WORDS]),
    BY_STATUS: (["status", "video_id"], [WORDS]),
    BY_DUE: (["due", "due_at"], []),
    BY_SLUG: (["slug"], []),
}
"""Keys and projected attributes of each index, as Terraform makes them."""
NUMBERS = frozenset({"due_at"})
"""Keys that hold numbers; all others are strings."""
FARM_PK = "usage#farm"


def video_pk(video_id: str) -> str:
    return f"video#{video_id}"


def usage_pk(owner: str | None) -> str:
    return FARM_PK if owner is None else f"usage#owner#{owner}"


def owner_status(owner: str, status: VideoStatus) -> str:
    return f"{status.value}#{owner}"


def item_of(video: Video) -> dict[str, Any]:
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
    return Video.model_validate_json(read_text(item, "record"))


class DynamoVideoRecords(VideoRecords):
    """One item for each video. A write is one transaction of the item and the sums that it changes.

    A token makes a request that botocore repeats after a lost answer take effect once.
    """

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._db, self._table = client, table

    def create(self, video: Video, quota: Quota) -> None:
        """Put the item and add to the sums, on condition that the quotas allow it."""
        put = {
            "Put": {
                "TableName": self._table,
                "Item": item_of(video),
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }
        size = video.charged_bytes
        sums = self._sum_updates(video.owner, 1, int(video.is_uploading), size, quota)
        failed = self._transact([put, *sums], f"add the video {video.video_id}")
        if failed[0]:
            raise Conflict(f"There is a video {video.video_id} already.")
        if any(failed):
            owner, farm = self.usage(video.owner), self.usage()
            refusal = quota_refusal(quota, owner, farm, size)
            raise refusal or QuotaExceeded("A limit is reached.", remedy=QUOTA_REMEDY)

    def get(self, video_id: str) -> Video | None:
        item = self._item(video_pk(video_id))
        return None if item is None else video_of(item)

    def update(self, video: Video) -> Video:
        """Put the item on condition of its revision, and change the sums by the difference."""
        conflict = Conflict(f"The video {video.video_id} was changed meanwhile.")
        before = self.get(video.video_id)
        if before is None or before.revision != video.revision:
            raise conflict
        new = video.model_copy(update={"revision": video.revision + 1})
        if new.slug is not None and new.slug != before.slug:
            taken = self._by_slug(new.slug)
            if taken is not None and taken.video_id != new.video_id:
                raise Conflict(f"The address {new.slug!r} is taken.")
        put = {
            "Put": {
                "TableName": self._table,
                "Item": item_of(new),
                "ConditionExpression": "revision = :revision",
                "ExpressionAttributeValues": {":revision": number(video.revision)},
            }
        }
        size, opened = (
            new.charged_bytes - before.charged_bytes,
            int(new.is_uploading) - int(before.is_uploading),
        )
        sums = self._sum_updates(new.owner, 0, opened, size) if size or opened else []
        if any(self._transact([put, *sums], f"change the video {video.video_id}")):
            raise conflict
        return new

    def delete(self, video: Video) -> None:
        """Delete the item on condition of its revision, and subtract it from the sums."""
        delete = {
            "Delete": {
                "TableName": self._table,
                "Key": {"pk": text(video_pk(video.video_id))},
                "ConditionExpression": "revision = :revision",
                "ExpressionAttributeValues": {":revision": number(video.revision)},
            }
        }
        before = self.get(video.video_id)
        if before is None:
            return
        sums = self._sum_updates(before.owner, -1, -int(before.is_uploading), -before.charged_bytes)
        failed = before.revision != video.revision or any(
            self._transact([delete, *sums], f"delete the video {video.video_id}")
        )
        if failed and self.get(video.video_id) is not None:
            raise Conflict(f"The video {video.video_id} was changed meanwhile.")

    def page(self, wanted: VideoFilter) -> Page:
        """Merge the index entries of each state, newest first, and read the videos themselves.

        The indexes lag: a video that was deleted or has left its state is left out.
        """
        limit = max(1, min(wanted.limit, MAX_PAGE))
        streams = [self._entries(wanted, status, limit + 1) for status in wanted.in_order]
        merged = heapq.merge(*streams, key=lambda entry: read_text(entry, "video_id"), reverse=True)
        ids = list(dict.fromkeys(read_text(e, "video_id") for e in islice(merged, limit + 1)))
        states = frozenset(wanted.in_order)
        videos = [video for video in self._read_videos(ids[:limit]) if video.status in states]
        return Page(tuple(videos), ids[limit - 1] if len(ids) > limit else "")

    def by_slug(self, slug: str) -> Video | None:
        video = self._by_slug(slug)
        return video if video is not None and video.visibility is Visibility.PUBLIC else None

    def due(self, now: float) -> Iterator[Video]:
        entries = self._query(BY_DUE, DUE, "due_at <= :order", number(now))
        while page := list(islice(entries, 100)):
            ids = [read_text(entry, "pk").partition("#")[2] for entry in page]
            yield from (
                v for v in self._read_videos(ids) if v.due_at is not None and v.due_at <= now
            )

    def usage(self, owner: str | None = None) -> VideoUsage:
        item = self._item(usage_pk(owner)) or {}
        return VideoUsage(*(int(read_number(item, n) or 0) for n in ("videos", "open", "bytes")))

    def _by_slug(self, slug: str) -> Video | None:
        """Find the video by the index, which lags, and read it to make sure."""
        for entry in self._query(BY_SLUG, slug):
            video = self.get(read_text(entry, "pk").partition("#")[2])
            if video is not None and video.slug == slug:
                return video
        return None

    def _entries(self, wanted: VideoFilter, status: VideoStatus, limit: int) -> Iterator[Item]:
        index = BY_STATUS if wanted.owner is None else BY_OWNER
        value = status.value if wanted.owner is None else owner_status(wanted.owner, status)
        order, bound = ("video_id < :order", text(wanted.before)) if wanted.before else ("", None)
        return islice(self._query(index, value, order, bound, wanted.text.casefold()), limit)

    def _query(
        self, index: str, value: str, order: str = "", bound: Any = None, words: str = ""
    ) -> Iterator[Item]:
        query: dict[str, Any] = {
            "TableName": self._table,
            "IndexName": index,
            "KeyConditionExpression": "#key = :key" + (f" AND {order}" if order else ""),
            "ExpressionAttributeNames": {"#key": INDEXES[index][0][0]},
            "ExpressionAttributeValues": {":key": text(value)},
            "ScanIndexForward": index == BY_DUE,
        }
        if bound is not None:
            query["ExpressionAttributeValues"][":order"] = bound
        if words:
            query["FilterExpression"] = f"contains({WORDS}, :words)"
            query["ExpressionAttributeValues"][":words"] = text(words)
        elif index in {BY_OWNER, BY_STATUS}:
            query["Limit"] = MAX_PAGE + 1  # the merge reads one page of each state
        return query_pages(self._db, query, f"list the videos in {self._table}")

    def _read_videos(self, ids: Sequence[str]) -> list[Video]:
        """Return the existing videos by consistent reads, in the order of their ids."""
        keys = [video_pk(video_id) for video_id in ids]
        items = read_items(self._db, self._table, keys, f"read the videos in {self._table}")
        return [video_of(items[key]) for key in keys if key in items]

    def _item(self, pk: str) -> Item | None:
        return read_item(self._db, self._table, pk, f"read {pk.partition('#')[0]} in {self._table}")

    def _sum_updates(
        self, owner: str, videos: int, opened: int, size: int, quota: Quota | None = None
    ) -> list[dict[str, Any]]:
        """Return the updates of the owner's and the farm's sums, on condition of their quotas."""
        limits = quota or Quota()
        amounts = {"videos": videos, "open": opened, "bytes": size}
        owner_limits = {"bytes": limits.owner_size, "open": limits.owner_open}
        farm_limits = {"bytes": limits.farm_size, "open": limits.farm_open}
        return [
            self._sum_update(usage_pk(owner), amounts, owner_limits),
            self._sum_update(FARM_PK, amounts, farm_limits),
        ]

    def _sum_update(
        self, pk: str, amounts: Mapping[str, int], limits: Mapping[str, int | None]
    ) -> dict[str, Any]:
        conditions, values = [], {f":{name}": number(amount) for name, amount in amounts.items()}
        for name, limit in limits.items():
            if limit is None:
                continue
            room = limit - amounts[name]
            values[f":room_{name}"] = number(room)
            absent = f"attribute_not_exists(#{name}) OR " if room >= 0 else ""
            conditions.append(f"({absent}#{name} <= :room_{name})")
        update: dict[str, Any] = {
            "TableName": self._table,
            "Key": {"pk": text(pk)},
            "UpdateExpression": "ADD #videos :videos, #open :open, #bytes :bytes",
            "ExpressionAttributeNames": {f"#{name}": name for name in amounts},
            "ExpressionAttributeValues": values,
        }
        if conditions:
            update["ConditionExpression"] = " AND ".join(conditions)
        return {"Update": update}

    def _transact(self, items: Sequence[Any], what: str) -> list[bool]:
        """Write all items or none; return for each item whether its condition failed.

        Sums are shared, so a transaction may conflict with another; then it is sent again.
        """
        for _ in range(TRANSACTION_TRIES):
            with translate_errors(what):
                try:
                    self._db.transact_write_items(
                        TransactItems=items, ClientRequestToken=new_token()
                    )
                except self._db.exceptions.TransactionCanceledException as error:
                    reasons = [r.get("Code", "") for r in error.response["CancellationReasons"]]
                    if CONDITION_FAILED in reasons:
                        return [reason == CONDITION_FAILED for reason in reasons]
                    if CONFLICT not in reasons:
                        raise
                else:
                    return [False] * len(items)
        raise Unavailable(f"DynamoDB was too busy to {what}.")


LISTED = frozenset({AccountKind.USER, AccountKind.PROGRAM})
"""Kinds that can be listed; the index leaves out sessions, because there are many."""


class DynamoAccounts(Accounts):
    """Items `web#<kind>#<key>`, in the index `by_status` under `web#<kind>`; they may have a time to live."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._db, self._table = client, table
        self.where = f"the table {table}"

    def all(self, kind: AccountKind) -> Mapping[str, Mapping[str, Any]]:
        """Find the keys in the index, which lags, and read each row to make sure."""
        query = {
            "TableName": self._table,
            "IndexName": BY_STATUS,
            "KeyConditionExpression": "#status = :kind",
            "ExpressionAttributeNames": {"#status": "status"},
            "ExpressionAttributeValues": {":kind": text(_kind(kind))},
        }
        keys = [
            read_text(item, "video_id") for item in query_pages(self._db, query, f"list the {kind}")
        ]
        rows = {key: self.get(kind, key) for key in keys}
        return {key: row for key, row in rows.items() if row is not None}

    def get(self, kind: AccountKind, key: str) -> Mapping[str, Any] | None:
        pk = read_text(_key(kind, key), "pk")
        item = read_item(self._db, self._table, pk, "look up who is asking")
        return None if item is None else dict(json.loads(read_text(item, "row")))

    def put(
        self,
        kind: AccountKind,
        key: str,
        row: Mapping[str, Any],
        *,
        expires_at: float | None = None,
    ) -> bool:
        item: dict[str, Any] = {**_key(kind, key), "row": text(json.dumps(dict(row)))}
        if kind in LISTED:
            item |= {"status": text(_kind(kind)), "video_id": text(key)}
        if expires_at is not None:
            item[TTL] = number(int(expires_at) + 1)
        with translate_errors(f"change the {kind}"):
            answer = self._db.put_item(TableName=self._table, Item=item, ReturnValues="ALL_OLD")
        return not answer.get("Attributes")

    def remove(self, kind: AccountKind, key: str) -> bool:
        with translate_errors(f"change the {kind}"):
            answer = self._db.delete_item(
                TableName=self._table, Key=_key(kind, key), ReturnValues="ALL_OLD"
            )
        return bool(answer.get("Attributes"))


def _kind(kind: AccountKind) -> str:
    return f"web#{kind.value}"


def _key(kind: AccountKind, key: str) -> dict[str, Any]:
    return {"pk": text(f"{_kind(kind)}#{key}")}
