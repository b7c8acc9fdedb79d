"""Implement the records of uploaded videos, and the accounts of the page, in one DynamoDB table."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.dynamodb.schema import TTL, Item, number, string, text
from hevcq.backends.aws.errors import translate_errors
from hevcq.backends.aws.videos.schema import (
    BY_DUE,
    BY_OWNER,
    BY_SLUG,
    BY_STATUS,
    DUE,
    INDEXES,
    WORDS,
    item_of,
    owner_status,
    request_pk,
    usage_of,
    usage_pk,
    video_of,
    video_pk,
)
from hevcq.domain.videos.record import Video, VideoStatus, Visibility
from hevcq.errors import Conflict, QuotaExceeded, Unavailable
from hevcq.ports.videos import (
    MAX_PAGE,
    QUOTA_REMEDY,
    AccountKind,
    Accounts,
    Page,
    Quota,
    Reservation,
    VideoFilter,
    VideoRecords,
    VideoUsage,
    exceeded,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

TRIES = 8
"""Attempts of a transaction that met another one at the same sums."""
ROUNDS = 8
"""Requests for the items that a batch left out."""
FAILED, CONFLICT = "ConditionalCheckFailed", "TransactionConflict"


@dataclass(frozen=True, slots=True)
class _Change:
    """What a transaction adds to sums, and the most that they may be afterwards (None: no limit)."""

    videos: int
    opened: int
    size: int
    most_size: int | None = None
    most_open: int | None = None


class DynamoVideoRecords(VideoRecords):
    """One item for each video. A write is one transaction of the item and the sums that it changes.

    `tokens` returns names that are never repeated: with one, a request that botocore repeats after
    a lost answer takes effect once.
    """

    def __init__(self, client: DynamoDBClient, table: str, tokens: Callable[[], str]) -> None:
        self._db, self._table, self._tokens = client, table, tokens

    def reserve(self, request: str, made: Reservation, *, expires_at: float) -> Reservation:
        """Put the item unless there is one; time to live removes it."""
        key = {"pk": text(request_pk(request))}
        item = {
            **key,
            "video_id": text(made.video_id),
            "digest": text(made.digest),
            TTL: number(int(expires_at)),
        }
        with translate_errors("note a request"):
            try:
                self._db.put_item(
                    TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(pk)"
                )
            except self._db.exceptions.ConditionalCheckFailedException:
                answer = self._db.get_item(TableName=self._table, Key=key, ConsistentRead=True)
                if "Item" not in answer:  # its time ended just now
                    raise Unavailable(
                        "The request's key has just expired; send it again."
                    ) from None
                item = dict(answer["Item"])
        return Reservation(string(item, "video_id"), string(item, "digest"))

    def create(self, video: Video, quota: Quota) -> None:
        """Put the item and add to the sums, on condition that they leave room for it."""
        put = {
            "Put": {
                "TableName": self._table,
                "Item": item_of(video),
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }
        size = video.charged_bytes
        opened = int(video.open)
        sums = [
            self._sum(video.owner, _Change(1, opened, size, quota.owner_size, quota.owner_open)),
            self._sum(None, _Change(1, opened, size, quota.farm_size, quota.farm_open)),
        ]
        refused = self._transact([put, *sums], f"add the video {video.video_id}")
        if refused[0]:
            raise Conflict(f"There is a video {video.video_id} already.")
        if any(refused):
            owner, farm = self.usage(video.owner), self.usage()
            problem = exceeded(quota, owner, farm, size) or "A limit is reached."
            raise QuotaExceeded(problem, remedy=QUOTA_REMEDY)

    def get(self, video_id: str) -> Video | None:
        """Read one item consistently."""
        item = self._item(video_pk(video_id))
        return None if item is None else video_of(item)

    def update(self, video: Video) -> Video:
        """Put the item on condition of its revision, and change the sums by the difference."""
        changed = f"The video {video.video_id} was changed meanwhile."
        before = self.get(video.video_id)
        if before is None or before.revision != video.revision:
            raise Conflict(changed)
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
        sums = self._difference(before, new)
        if any(self._transact([put, *sums], f"change the video {video.video_id}")):
            raise Conflict(changed)
        return new

    def delete(self, video: Video) -> None:
        """Delete the item on condition of its revision, and take it from the sums."""
        gone = {
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
        sums = [
            self._sum(scope, _Change(-1, -int(before.open), -before.charged_bytes))
            for scope in (before.owner, None)
        ]
        refused = before.revision != video.revision or any(
            self._transact([gone, *sums], f"delete the video {video.video_id}")
        )
        if refused and self.get(video.video_id) is not None:
            raise Conflict(f"The video {video.video_id} was changed meanwhile.")

    def page(self, wanted: VideoFilter) -> Page:
        """Merge the entries of each state, newest first, and read the videos themselves.

        The indexes lag: what has left its state or is gone is left out.
        """
        limit = max(1, min(wanted.limit, MAX_PAGE))
        streams = [self._listed(wanted, status, limit + 1) for status in wanted.in_order]
        merged = heapq.merge(*streams, key=lambda entry: string(entry, "video_id"), reverse=True)
        ids = list(dict.fromkeys(string(e, "video_id") for e in islice(merged, limit + 1)))
        states = frozenset(wanted.in_order)
        found = [video for video in self._read(ids[:limit]) if video.status in states]
        return Page(tuple(found), ids[limit - 1] if len(ids) > limit else "")

    def by_slug(self, slug: str) -> Video | None:
        """Find the id in the index, then read the video itself, which decides."""
        found = self._by_slug(slug)
        return found if found is not None and found.visibility is Visibility.PUBLIC else None

    def due(self, now: float) -> Iterator[Video]:
        """Page through the index by the time the videos are due."""
        entries = self._query(BY_DUE, DUE, "due_at <= :order", number(now), forward=True)
        while page := list(islice(entries, 100)):
            ids = [string(entry, "pk").partition("#")[2] for entry in page]
            yield from (v for v in self._read(ids) if v.due_at is not None and v.due_at <= now)

    def usage(self, owner: str | None = None) -> VideoUsage:
        """Read one item of sums consistently."""
        item = self._item(usage_pk(owner))
        return VideoUsage() if item is None else usage_of(item)

    def _by_slug(self, slug: str) -> Video | None:
        for entry in self._query(BY_SLUG, slug):
            found = self.get(string(entry, "pk").partition("#")[2])
            if found is not None and found.slug == slug:
                return found
        return None

    def _listed(self, wanted: VideoFilter, status: VideoStatus, limit: int) -> Iterator[Item]:
        index = BY_STATUS if wanted.owner is None else BY_OWNER
        value = status.value if wanted.owner is None else owner_status(wanted.owner, status)
        order = ("video_id < :order", text(wanted.before)) if wanted.before else ("", None)
        return islice(self._query(index, value, *order, words=wanted.text.casefold()), limit)

    def _query(
        self, index: str, value: str, order: str = "", bound: Any = None, **how: Any
    ) -> Iterator[Item]:
        asked: dict[str, Any] = {
            "TableName": self._table,
            "IndexName": index,
            "KeyConditionExpression": "#key = :key" + (f" AND {order}" if order else ""),
            "ExpressionAttributeNames": {"#key": INDEXES[index][0]},
            "ExpressionAttributeValues": {":key": text(value)},
            "ScanIndexForward": bool(how.get("forward")),
        }
        if bound is not None:
            asked["ExpressionAttributeValues"][":order"] = bound
        if how.get("words"):
            asked["FilterExpression"] = f"contains({WORDS}, :words)"
            asked["ExpressionAttributeValues"][":words"] = text(how["words"])
        elif index in {BY_OWNER, BY_STATUS}:
            asked["Limit"] = MAX_PAGE + 1  # a merge of the states reads a page of each
        while True:
            with translate_errors(f"list the videos in {self._table}"):
                answer = self._db.query(**asked)
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            asked["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _read(self, ids: Sequence[str]) -> list[Video]:
        """Return the videos that exist by consistent reads, in this order."""
        found: dict[str, Video] = {}
        for start in range(0, len(ids), 100):
            keys = [{"pk": text(video_pk(video_id))} for video_id in ids[start : start + 100]]
            asked: Any = {self._table: {"Keys": keys, "ConsistentRead": True}}
            for _ in range(ROUNDS):
                with translate_errors(f"read the videos in {self._table}"):
                    answer = self._db.batch_get_item(RequestItems=asked)
                for item in answer["Responses"].get(self._table, []):
                    found[string(item, "video_id")] = video_of(item)
                asked = answer.get("UnprocessedKeys")
                if not asked:
                    break
            else:
                raise Unavailable(f"DynamoDB did not read all videos of a page of {self._table}.")
        return [found[video_id] for video_id in ids if video_id in found]

    def _item(self, pk: str) -> Item | None:
        with translate_errors(f"read {pk.partition('#')[0]} in {self._table}"):
            answer = self._db.get_item(
                TableName=self._table, Key={"pk": text(pk)}, ConsistentRead=True
            )
        return answer.get("Item")

    def _difference(self, before: Video, after: Video) -> list[dict[str, Any]]:
        size = after.charged_bytes - before.charged_bytes
        opened = int(after.open) - int(before.open)
        if not size and not opened:
            return []
        return [self._sum(scope, _Change(0, opened, size)) for scope in (after.owner, None)]

    def _sum(self, owner: str | None, change: _Change) -> dict[str, Any]:
        """Return the change of one item of sums, on condition that it stays within its limits."""
        amounts = {"videos": change.videos, "open": change.opened, "bytes": change.size}
        conditions, values = [], {f":{name}": number(more) for name, more in amounts.items()}
        for name, most in (("bytes", change.most_size), ("open", change.most_open)):
            if most is None:
                continue
            room = most - amounts[name]
            values[f":room_{name}"] = number(room)
            absent = f"attribute_not_exists(#{name}) OR " if room >= 0 else ""
            conditions.append(f"({absent}#{name} <= :room_{name})")
        update: dict[str, Any] = {
            "TableName": self._table,
            "Key": {"pk": text(usage_pk(owner))},
            "UpdateExpression": "ADD #videos :videos, #open :open, #bytes :bytes",
            "ExpressionAttributeNames": {f"#{name}": name for name in amounts},
            "ExpressionAttributeValues": values,
        }
        if conditions:
            update["ConditionExpression"] = " AND ".join(conditions)
        return {"Update": update}

    def _transact(self, items: Sequence[Any], what: str) -> list[bool]:
        """Write all or nothing; return which conditions failed (none: it is written).

        Sums are shared, so a transaction may meet another; it is then sent again.
        """
        for _ in range(TRIES):
            with translate_errors(what):
                try:
                    self._db.transact_write_items(
                        TransactItems=items, ClientRequestToken=self._tokens()
                    )
                except self._db.exceptions.TransactionCanceledException as error:
                    reasons = [r.get("Code", "") for r in error.response["CancellationReasons"]]
                    if FAILED in reasons:
                        return [reason == FAILED for reason in reasons]
                    if CONFLICT not in reasons:
                        raise
                else:
                    return [False] * len(items)
        raise Unavailable(f"DynamoDB was too busy to {what}.")


LISTED = frozenset({AccountKind.USER, AccountKind.PROGRAM})
"""Kinds that are listed; the index holds no sessions, of which there are many."""


class DynamoAccounts(Accounts):
    """Items `web#<kind>#<key>`, in the index `by_status` under `web#<kind>`; time to live removes them."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._db, self._table = client, table
        self.where = f"the table {table}"

    def all(self, kind: AccountKind) -> Mapping[str, Mapping[str, Any]]:
        """Find the keys in the index, then read each row, which decides."""
        found: dict[str, Mapping[str, Any]] = {}
        pages = self._db.get_paginator("query").paginate(
            TableName=self._table,
            IndexName=BY_STATUS,
            KeyConditionExpression="#status = :kind",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":kind": text(_kind(kind))},
        )
        with translate_errors(f"list the {kind}"):
            keys = [string(item, "video_id") for page in pages for item in page["Items"]]
        for key in keys:
            row = self.get(kind, key)
            if row is not None:
                found[key] = row
        return found

    def get(self, kind: AccountKind, key: str) -> Mapping[str, Any] | None:
        """Read the item consistently."""
        with translate_errors("look up who is asking"):
            answer = self._db.get_item(
                TableName=self._table, Key=_key(kind, key), ConsistentRead=True
            )
        return _row(answer["Item"]) if "Item" in answer else None

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


def _row(item: Item) -> Mapping[str, Any]:
    found = json.loads(string(item, "row"))
    assert isinstance(found, dict)
    return found
