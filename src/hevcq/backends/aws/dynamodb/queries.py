"""List and count jobs by the table's indexes, page by page."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.dynamodb.schema import (
    BY_SHARD,
    BY_SOURCE,
    BY_STATE,
    Item,
    moved_in,
    number,
    record_of,
    shards_of,
    state_in,
    string,
    text,
)
from hevcq.backends.aws.errors import code_of, translate_errors
from hevcq.domain.job import JobRecord, JobState
from hevcq.errors import Unavailable
from hevcq.ports.ledger import JobFilter

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

PAGE = 100
"""The limit of DynamoDB's BatchGetItem, in items."""
UNPROCESSED_ROUNDS = 8


class JobQueries:
    """Queries of the indexes, which lag, followed by consistent reads of the jobs themselves.

    A job that moved in between is left out of the state it has left. Every method may raise
    ConfigError and Unavailable.
    """

    def __init__(self, client: DynamoDBClient, table: str, found_at: Callable[[str], None]) -> None:
        """`found_at` is called with the key of each item that is read."""
        self._db, self._table, self._found_at = client, table, found_at

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        """Yield the matching records, most recently moved first."""
        if wanted.source_key is not None:
            entries = list(self._pages(BY_SOURCE, "source_key", wanted.source_key, None))
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

    def _entries(self, wanted: JobFilter) -> Iterator[Item]:
        """Merge the entries of all states, newest first; each partition is already in that order."""
        states = [state for state in JobState if not wanted.states or state in wanted.states]
        streams = self._partitions(states, wanted.updated_after)
        merged = heapq.merge(*streams, key=lambda e: (-moved_in(e), string(e, "pk")))
        prefixes = wanted.key_prefixes or ("",)
        return (
            entry
            for entry in merged
            if wanted.profile in (None, string(entry, "profile"))
            and string(entry, "source_key").startswith(prefixes)
        )

    def in_state(self, state: JobState, after: float | None = None) -> Iterator[Item]:
        """Yield the index entries of a state that moved later than `after` (Unix seconds)."""
        return chain.from_iterable(self._partitions([state], after))

    def _partitions(self, states: Sequence[JobState], after: float | None) -> list[Iterator[Item]]:
        shards = [
            self._pages(BY_SHARD, "shard", shard, after) for s in states for shard in shards_of(s)
        ]
        if not self._has_old_entries():
            return shards
        return shards + [self._pages(BY_STATE, "state", s.value, after) for s in states]

    def _has_old_entries(self) -> bool:
        """Return whether any job has not moved since a release before shards; one read."""
        with translate_errors(f"list the jobs in {self._table}"):
            try:
                answer = self._db.scan(TableName=self._table, IndexName=BY_STATE, Limit=1)
            except self._db.exceptions.ClientError as error:
                if code_of(error) == "ValidationException":  # the old index was removed
                    return False
                raise
        return bool(answer["Items"])

    def _pages(self, index: str, name: str, value: str, after: float | None) -> Iterator[Item]:
        asked: dict[str, Any] = {
            "TableName": self._table,
            "IndexName": index,
            "KeyConditionExpression": "#n = :v",
            "ExpressionAttributeNames": {"#n": name},
            "ExpressionAttributeValues": {":v": text(value)},
            "ScanIndexForward": False,
        }
        if after is not None:
            moved = "moved_at" if index == BY_SHARD else "updated_at"
            asked["KeyConditionExpression"] += f" AND {moved} > :after"
            asked["ExpressionAttributeValues"][":after"] = number(after)
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
        items: dict[str, Item] = {}
        for start in range(0, len(keys), PAGE):
            items.update(self._batch(keys[start : start + PAGE]))
        for key in items:
            self._found_at(key)
        return [record_of(items[key]) for key in keys if key in items]

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
