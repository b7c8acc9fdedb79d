"""List and count jobs by the table's indexes, page by page."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from hevcq.backends.aws.dynamodb.schema import (
    BY_FOLDER,
    BY_SHARD,
    BY_SOURCE,
    RECORD_KEPT_S,
    Item,
    count_pk,
    float_of,
    moved_in,
    number,
    record_of,
    shards_of,
    state_in,
    string,
    text,
)
from hevcq.backends.aws.errors import translate_errors
from hevcq.domain.job import SETTLED, JobRecord, JobState
from hevcq.errors import Unavailable
from hevcq.ports.ledger import JobFilter
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger

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


def read_item(db: DynamoDBClient, table: str, pk: str, what: str) -> Item | None:
    """Return an item by a consistent read, or None; `what` names the read in an error."""
    with translate_errors(what):
        answer = db.get_item(TableName=table, Key={"pk": text(pk)}, ConsistentRead=True)
    return answer.get("Item")


def read_items(db: DynamoDBClient, table: str, keys: Sequence[str], what: str) -> dict[str, Item]:
    """Return the items that exist by key, by consistent reads."""
    found: dict[str, Item] = {}
    for start in range(0, len(keys), PAGE):
        page = [{"pk": text(key)} for key in keys[start : start + PAGE]]
        asked: Any = {table: {"Keys": page, "ConsistentRead": True}}
        for _ in range(UNPROCESSED_ROUNDS):
            with translate_errors(what):
                answer = db.batch_get_item(RequestItems=asked)
            for item in answer["Responses"].get(table, []):
                found[string(item, "pk")] = item
            asked = answer.get("UnprocessedKeys")
            if not asked:
                break
        else:
            raise Unavailable(f"DynamoDB did not {what}: it put off some of a page.")
    return found


def pages(db: DynamoDBClient, asked: dict[str, Any], what: str) -> Iterator[Item]:
    """Yield what a query finds, page by page."""
    while True:
        with translate_errors(what):
            answer = db.query(**asked)
        yield from answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return
        asked["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


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
        return pages(
            self._db,
            {
                "TableName": self._table,
                "IndexName": BY_FOLDER,
                "KeyConditionExpression": "#b = :b AND begins_with(#k, :k)",
                "ExpressionAttributeNames": {"#b": "bucket", "#k": "source_key"},
                "ExpressionAttributeValues": {":b": text(self._bucket), ":k": text(prefix)},
            },
            f"list the jobs in {self._table}",
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
        return pages(self._db, asked, f"list the jobs in {self._table}")

    def get_many(self, keys: Sequence[str]) -> list[JobRecord]:
        """Return the jobs or subjobs at these keys by consistent reads, in this order."""
        return self._read([{"pk": text(key)} for key in keys])

    def _read(self, entries: Sequence[Item]) -> list[JobRecord]:
        """Return the jobs of index entries by consistent reads, each once, in the entries' order."""
        keys = list(dict.fromkeys(string(entry, "pk") for entry in entries))
        items = read_items(self._db, self._table, keys, f"read the jobs in {self._table}")
        for key in items:
            self._found_at(key)
        return [record_of(items[key]) for key in keys if key in items]


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


DAY_S = 86_400
SETTLES_S = 7_200
"""Seconds after its end until a day is complete: indexes lag, and clocks of workers differ."""

Days = dict[int, Counter[str]]
"""Jobs by profile for each day, by its number since the Unix epoch."""


class JobCounts:
    """The numbers of jobs by profile and state; exact but for entries that the index still lacks.

    Jobs that are open are few and are counted as they are. Jobs that ended pile up for half a year; how
    many ended on each day is kept in one item for each state, so that a count reads only the entries since
    then. Nothing is written by workers: whoever counts writes the days that are over. A job that is
    reopened moves the item's time back to its day, which is then counted again.
    """

    def __init__(
        self, client: DynamoDBClient, table: str, queries: JobQueries, clock: Clock
    ) -> None:
        self._db, self._table, self._queries, self._clock = client, table, queries, clock

    def counts(self) -> dict[tuple[str, JobState], int]:
        """Count the jobs by profile and state. Raises ConfigError, Unavailable."""
        found: Counter[tuple[str, JobState]] = Counter()
        for state in JobState:
            if state in SETTLED:
                for profiles in self._ended(state).values():
                    found.update({(name, state): count for name, count in profiles.items()})
                continue
            for entry in self._queries.in_state(state):
                found[string(entry, "profile"), state] += 1
        return {each: count for each, count in found.items() if count}

    def _ended(self, state: JobState) -> Days:
        upto, known = self._stored(state)
        now = self._clock.now()
        oldest = int((now - RECORD_KEPT_S) // DAY_S)
        days: Days = {d: c for d, c in known.items() if oldest <= d < upto // DAY_S}
        after = upto - 1e-3 if upto else None
        for entry in self._queries.in_state(state, after):
            day = int(moved_in(entry) // DAY_S)
            days.setdefault(day, Counter())[string(entry, "profile")] += 1
        complete = float((now - SETTLES_S) // DAY_S * DAY_S)
        if complete > upto:
            self._store(state, upto, complete, days)
        return days

    def _stored(self, state: JobState) -> tuple[float, Days]:
        pk, what = count_pk(state), f"read the ledger {self._table}"
        item = read_item(self._db, self._table, pk, what) or {}
        days: dict[str, dict[str, int]] = json.loads(string(item, "days") or "{}")
        return float_of(item, "upto") or 0.0, {int(d): Counter(c) for d, c in days.items()}

    def _store(self, state: JobState, before: float, upto: float, days: Days) -> None:
        kept = {d: dict(c) for d, c in days.items() if d < upto // DAY_S}
        self._try(
            "put_item",
            Item={
                "pk": text(count_pk(state)),
                "upto": number(upto),
                "days": text(json.dumps(kept)),
            },
            ConditionExpression="attribute_not_exists(pk) OR upto = :before",
            ExpressionAttributeValues={":before": number(before)},
        )

    def recount(self, job: JobRecord) -> None:
        """Count the day on which this job ended again: it was reopened. Never raises a HevcqError."""
        day = number(float(job.updated_at // DAY_S * DAY_S))
        self._try(
            "update_item",
            Key={"pk": text(count_pk(job.state))},
            UpdateExpression="SET upto = :day",
            ConditionExpression="upto > :day",
            ExpressionAttributeValues={":day": day},
        )

    def _try(self, call: str, **asked: Any) -> None:
        """Write what only saves the next count work; a role may lack the right, or be too late."""
        try:
            getattr(self._db, call)(TableName=self._table, **asked)
        except ClientError as error:
            get_logger().debug("count_not_kept", reason=str(error))
