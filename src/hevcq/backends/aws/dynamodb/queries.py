"""List and count jobs by the table's indexes, page by page."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.dynamodb.schema import (
    BY_FOLDER,
    BY_SHARD,
    BY_SOURCE,
    Item,
    moved_in,
    number,
    record_of,
    shards_of,
    state_in,
    string,
    text,
)
from hevcq.backends.aws.errors import translate_errors
from hevcq.domain.job import JobRecord, JobState
from hevcq.errors import Unavailable
from hevcq.ports.ledger import JobFilter

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

Span = tuple[float | None, float | None]
"""Moved later than the first and not after the second, in Unix seconds."""
ALL: Span = (None, None)
PAGE = 100
"""The limit of DynamoDB's BatchGetItem, in items."""
UNPROCESSED_ROUNDS = 8
MANY = 10_000
"""Jobs of a folder that are sorted in memory (about 40 MB). More are found by reading the whole index by time,
4,000 entries a request: that is little beside reading these jobs themselves, 100 a request."""


class JobQueries:
    """Queries of the indexes, which lag, followed by consistent reads of the jobs themselves.

    A job that moved in between is left out of the state it has left. Every method may raise
    ConfigError and Unavailable.
    """

    def __init__(
        self, client: DynamoDBClient, table: str, bucket: str, found_at: Callable[[str], None]
    ) -> None:
        """`bucket` is that of all sources; `found_at` is called with the key of each item that is read."""
        self._db, self._table, self._bucket, self._found_at = client, table, bucket, found_at

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        """Yield the matching records, most recently moved first."""
        if wanted.source_key is None:
            entries = self._in_folders(wanted)
        else:
            entries = list(self._pages(BY_SOURCE, "source_key", wanted.source_key, ALL))
        if entries is not None:
            records = sorted(self._read(entries), key=lambda r: (-r.updated_at, r.job_id))
            yield from (record for record in records if wanted.matches(record))
            return
        found = self._entries(wanted)
        while page := list(islice(found, PAGE)):
            # A job that moves while the states are queried one by one may appear in two of them.
            seen_in = {(string(entry, "pk").rpartition("#")[2], state_in(entry)) for entry in page}
            for record in self._read(page):
                there = (record.job_id, record.state.value) in seen_in
                if there and wanted.matches(record):
                    yield record

    def _in_folders(self, wanted: JobFilter) -> list[Item] | None:
        """Return the entries of the wanted folders, in no order of time.

        Returns None where the jobs are to be found by time: no folder or a page is asked for, or the
        folders hold more than MANY jobs.
        """
        if not wanted.key_prefixes or "" in wanted.key_prefixes or wanted.before is not None:
            return None
        entries = chain.from_iterable(self._below(prefix) for prefix in wanted.key_prefixes)
        found = list(islice(entries, MANY + 1))
        return found if len(found) <= MANY else None

    def _below(self, prefix: str) -> Iterator[Item]:
        return self._answers(
            {
                "TableName": self._table,
                "IndexName": BY_FOLDER,
                "KeyConditionExpression": "#b = :b AND begins_with(#k, :k)",
                "ExpressionAttributeNames": {"#b": "bucket", "#k": "source_key"},
                "ExpressionAttributeValues": {":b": text(self._bucket), ":k": text(prefix)},
            }
        )

    def _entries(self, wanted: JobFilter) -> Iterator[Item]:
        """Merge the entries of all states, newest first; each partition is already in that order."""
        states = [state for state in JobState if not wanted.states or state in wanted.states]
        span = (wanted.updated_after, wanted.before[0] if wanted.before else None)
        streams = self._partitions(states, span)
        merged: Iterator[Item] = heapq.merge(
            *streams, key=lambda e: (-moved_in(e), string(e, "pk"))
        )
        if wanted.before is not None:
            merged = _following(merged, *wanted.before)
        prefixes = wanted.key_prefixes or ("",)
        return (
            entry
            for entry in merged
            if wanted.profile in (None, string(entry, "profile"))
            and string(entry, "source_key").startswith(prefixes)
        )

    def in_state(self, state: JobState, after: float | None = None) -> Iterator[Item]:
        """Yield the index entries of a state that moved later than `after` (Unix seconds)."""
        return chain.from_iterable(self._partitions([state], (after, None)))

    def _partitions(self, states: Sequence[JobState], span: Span) -> list[Iterator[Item]]:
        return [
            self._pages(BY_SHARD, "shard", shard, span) for s in states for shard in shards_of(s)
        ]

    def _pages(self, index: str, name: str, value: str, span: Span) -> Iterator[Item]:
        asked: dict[str, Any] = {
            "TableName": self._table,
            "IndexName": index,
            "KeyConditionExpression": "#n = :v",
            "ExpressionAttributeNames": {"#n": name},
            "ExpressionAttributeValues": {":v": text(value)},
            "ScanIndexForward": False,
        }
        values = dict(zip((":after", ":until"), span, strict=True))
        given = {name: number(each) for name, each in values.items() if each is not None}
        if given:  # BETWEEN takes its ends with it; the filter leaves the first one out again
            words = {":after": "moved_at > :after", ":until": "moved_at <= :until"}
            both = "moved_at BETWEEN :after AND :until"
            asked["KeyConditionExpression"] += (
                f" AND {both if len(given) == 2 else words[min(given)]}"
            )
            asked["ExpressionAttributeValues"] |= given
        return self._answers(asked)

    def _answers(self, asked: dict[str, Any]) -> Iterator[Item]:
        while True:
            with translate_errors(f"list the jobs in {self._table}"):
                answer = self._db.query(**asked)
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            asked["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def get_many(self, keys: Sequence[str]) -> list[JobRecord]:
        """Return the jobs or subjobs at these keys by consistent reads, in this order."""
        return self._read([{"pk": text(key)} for key in keys])

    def _read(self, entries: Sequence[Item]) -> list[JobRecord]:
        """Return the jobs of index entries by consistent reads, each once, in the entries' order."""
        keys = list(dict.fromkeys(string(entry, "pk") for entry in entries))
        records: list[JobRecord] = []
        for start in range(0, len(keys), PAGE):
            page = keys[start : start + PAGE]
            items = self._batch(page)
            for key in items:
                self._found_at(key)
            records += [record_of(items[key]) for key in page if key in items]
        return records

    def _batch(self, keys: Sequence[str]) -> dict[str, Item]:
        found: dict[str, Item] = {}
        asked: Any = {
            self._table: {"Keys": [{"pk": text(key)} for key in keys], "ConsistentRead": True}
        }
        for _ in range(UNPROCESSED_ROUNDS):
            with translate_errors(f"read the jobs in {self._table}"):
                answer = self._db.batch_get_item(RequestItems=asked)
            for item in answer["Responses"].get(self._table, []):
                found[string(item, "pk")] = item
            asked = answer.get("UnprocessedKeys")
            if not asked:
                return found
        raise Unavailable(f"DynamoDB did not read all jobs of a page of {self._table}.")


def _following(entries: Iterator[Item], at: float, job_id: str) -> Iterator[Item]:
    """Yield what comes after a job that moved at `at`; if it is not there, all that moved then."""
    same: list[Item] = []
    for entry in entries:
        if moved_in(entry) < at:
            entries = chain([entry], entries)
            break
        same.append(entry)
    ids = [string(entry, "pk").rpartition("#")[2] for entry in same]
    yield from same[ids.index(job_id) + 1 if job_id in ids else 0 :]
    yield from entries
