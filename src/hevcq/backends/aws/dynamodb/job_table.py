"""The DynamoDB items of jobs and subjobs: reads, conditional writes, and listings by index."""

from __future__ import annotations

import heapq
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.clients import code_of, translate_errors
from hevcq.backends.aws.dynamodb.schema import (
    BY_SOURCE,
    BY_STATE,
    Item,
    attributes_of,
    job_pk,
    number,
    profile_of,
    read_moved_at,
    read_text,
    record_of,
    text,
)
from hevcq.domain.job import Change, JobRecord, JobState
from hevcq.errors import Unavailable
from hevcq.ports.ledger import JobFilter
from hevcq.util.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

Span = tuple[float, float] | None
"""The range of the last transition in Unix seconds, without its start; None is unlimited."""
FAR_FUTURE_S = 1e12
PAGE = 100
"""The limit of DynamoDB's BatchGetItem, in items."""
UNPROCESSED_ROUNDS = 8
MAX_CACHED_PROFILES = 10_000
"""Jobs whose profile is cached: a worker needs a few at a time, a listing reads many."""
DECIDE_TRIES = 10
"""Reads of one job before giving up: each failed update means that another process changed the job."""


def new_token() -> str:
    """Return a unique token for one write."""
    return secrets.token_hex(16)


def update_request(pk: str, change: Change, token: str) -> dict[str, Any]:
    """Return the arguments of UpdateItem that change an item and store a token in it.

    Every name uses a placeholder: `state`, `size` and `owner` are reserved words, and the name of a pause
    contains special characters.
    """
    job_id = pk.rpartition("#")[2]
    to = {"last_write": text(token), **attributes_of(job_id, change.to)}
    when, add = attributes_of(job_id, change.when), attributes_of(job_id, change.add)
    states = {f":in_{state.value}": text(state.value) for state in change.states}
    names = dict.fromkeys([*to, *add, *when, *(["state"] if states else [])])
    at = {name: index for index, name in enumerate(names)}
    kept, gone = [n for n, v in to.items() if v is not None], [n for n in to if to[n] is None]
    conditions = [f"#n{at[n]} = :if{at[n]}" for n in when]
    if states:
        conditions.append(f"#n{at['state']} IN ({', '.join(states)})")
    parts = [
        _clause("SET", [f"#n{at[n]} = :v{at[n]}" for n in kept]),
        _clause("REMOVE", [f"#n{at[n]}" for n in gone]),
        _clause("ADD", [f"#n{at[n]} :v{at[n]}" for n in add]),
    ]
    values = {f":v{at[n]}": v for n, v in {**to, **add}.items() if v is not None}
    values |= {f":if{at[n]}": v for n, v in when.items() if v is not None} | states
    return {
        "UpdateExpression": " ".join(part for part in parts if part),
        "ExpressionAttributeNames": {f"#n{index}": name for name, index in at.items()},
        "ExpressionAttributeValues": values,
        **({"ConditionExpression": " AND ".join(conditions)} if conditions else {}),
    }


def _clause(word: str, parts: list[str]) -> str:
    return f"{word} {', '.join(parts)}" if parts else ""


def read_item(db: DynamoDBClient, table: str, pk: str, what: str) -> Item | None:
    """Return an item by a consistent read, or None. Errors describe the read as `what`."""
    with translate_errors(what):
        answer = db.get_item(TableName=table, Key={"pk": text(pk)}, ConsistentRead=True)
    return answer.get("Item")


def read_items(db: DynamoDBClient, table: str, keys: Sequence[str], what: str) -> dict[str, Item]:
    """Return the items that exist by key, by consistent reads."""
    items: dict[str, Item] = {}
    for start in range(0, len(keys), PAGE):
        page = [{"pk": text(key)} for key in keys[start : start + PAGE]]
        request: Any = {table: {"Keys": page, "ConsistentRead": True}}
        for _ in range(UNPROCESSED_ROUNDS):
            with translate_errors(what):
                answer = db.batch_get_item(RequestItems=request)
            for item in answer["Responses"].get(table, []):
                items[read_text(item, "pk")] = item
            request = answer.get("UnprocessedKeys")
            if not request:
                break
        else:
            raise Unavailable(f"DynamoDB did not {what}: it put off some of a page.")
    return items


def query_pages(db: DynamoDBClient, query: dict[str, Any], what: str) -> Iterator[Item]:
    """Yield the items that match a query, page by page."""
    while True:
        with translate_errors(what):
            answer = db.query(**query)
        yield from answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return
        query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


class JobTable:
    """The items of jobs and subjobs in one table.

    Each write carries a unique token. If an answer is lost, botocore repeats the write, and its condition
    fails because the first write took effect: the token in the item distinguishes this from a conflict.
    Listings query the indexes, which lag, and then read the jobs themselves: a job that has left a state
    meanwhile is not listed in it. Every method may raise ConfigError and Unavailable.
    """

    def __init__(
        self, client: DynamoDBClient, table: str, clock: Clock, profiles: Sequence[str] = ()
    ) -> None:
        """A job is searched in `profiles` if only its id is known."""
        self.db, self.name, self.clock = client, table, clock
        self._profiles, self._profile_by_job = tuple(profiles), dict[str, str]()

    def get(self, job_id: str, profile: str = "") -> JobRecord | None:
        """Return the record of a job or subjob, or None; with `profile` no search is needed."""
        item = self.job_item(job_id, profile)
        return None if item is None else record_of(item)

    def job_item(self, job_id: str, profile: str = "") -> Item | None:
        """Return the item of a job or subjob, or None; see `get`."""
        whole = job_id.partition(".")[0]
        if whole in self._profile_by_job:
            return self.item(job_pk(job_id, self._profile_by_job[whole]))
        for candidate in [profile] if profile else self._profiles:
            item = self.item(job_pk(whole, candidate))
            if item is not None:
                self.cache_profile(job_pk(whole, candidate))
                return item if whole == job_id else self.item(job_pk(job_id, candidate))
        return None

    def cache_profile(self, pk: str) -> None:
        """Cache the profile in the key of a job's item, for later calls with the job id."""
        if len(self._profile_by_job) >= MAX_CACHED_PROFILES:
            self._profile_by_job.clear()
        self._profile_by_job[pk.rpartition("#")[2].partition(".")[0]] = profile_of(pk)

    def pk_of(self, job_id: str) -> str:
        """Return the key of the item of a job or subjob; for an unknown job a key without an item."""
        whole = job_id.partition(".")[0]
        if whole not in self._profile_by_job:
            self.job_item(whole)
        return job_pk(job_id, self._profile_by_job.get(whole, ""))

    def decide(
        self,
        job_id: str,
        decision: Callable[[JobRecord], Change | None],
        *,
        durable: bool = True,  # noqa: ARG002 - each write is
    ) -> bool:
        """Apply the change that `decision` makes of a job's record; decide again after a conflict.

        Returns False if there is no job or no change. Raises Unavailable after DECIDE_TRIES reads.
        """
        for _ in range(DECIDE_TRIES):
            record = self.get(job_id)
            change = None if record is None else decision(record)
            if change is None:
                return False
            if self.apply(job_id, change):
                return True
        raise Unavailable(f"The job {job_id} is being changed by too many others.")

    def create(self, item: Item) -> bool:
        """Add an item; return False if one with its key exists that this call did not add."""
        token = text(new_token())
        with translate_errors(f"register {item['pk'].get('S')}"):
            try:
                self.db.put_item(
                    TableName=self.name,
                    Item={**item, "last_write": token},
                    ConditionExpression="attribute_not_exists(pk)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except self.db.exceptions.ConditionalCheckFailedException as error:
                present: Item = dict(error.response).get("Item", {})  # type: ignore[assignment]
                return present.get("last_write") == token
            finally:
                self.cache_profile(str(item["pk"].get("S")))
        return True

    def apply(self, job_id: str, change: Change, *, durable: bool = True) -> bool:  # noqa: ARG002
        """Change a job by one conditional write, which is always durable."""
        return self.update(self.pk_of(job_id), change, f"write the job {job_id}")

    def update(self, pk: str, change: Change, what: str) -> bool:
        """Change an item; return False if the conditions do not hold. Errors describe it as `what`."""
        token = new_token()
        try:
            with translate_errors(what):
                self.db.update_item(
                    TableName=self.name,
                    Key={"pk": text(pk)},
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **update_request(pk, change, token),
                )
        except Unavailable as error:
            if code_of(error.__cause__) != "ConditionalCheckFailedException":
                raise
            present: Item = getattr(error.__cause__, "response", {}).get("Item", {})
            return present.get("last_write") == text(token)
        return True

    def item(self, pk: str) -> Item | None:
        return read_item(self.db, self.name, pk, f"read the ledger {self.name}")

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        if wanted.before is not None:
            # The index sorts by the last transition, but progress since then has changed `updated_at`.
            at, job_id = wanted.before
            item = self.job_item(job_id)
            wanted = replace(
                wanted, before=(at if item is None else min(at, read_moved_at(item)), job_id)
            )
        if wanted.source_key is not None:
            entries = list(self._pages(BY_SOURCE, "source_key", wanted.source_key, None))
            records = sorted(self.read(entries), key=lambda r: (-r.updated_at, r.job_id))
            yield from (record for record in records if wanted.matches(record))
            return
        merged, yielded = self._entries(wanted), set[str]()
        while page := list(islice(merged, PAGE)):
            # A job that moves between the queries of two states may be found in both, or only in its old
            # one. A listing shows it in its present state only; a command for a folder must not miss it.
            states = {(read_text(e, "pk").rpartition("#")[2], read_text(e, "state")) for e in page}
            for record in self.read(page):
                is_listed = (record.job_id, record.state.value) in states
                if wanted.key_prefixes:
                    is_listed = record.job_id not in yielded
                    yielded.add(record.job_id)
                if is_listed and wanted.matches(record):
                    yield record

    def _entries(self, wanted: JobFilter) -> Iterator[Item]:
        """Merge the entries of all states, newest first; each partition is already in that order."""
        states = [state for state in JobState if not wanted.states or state in wanted.states]
        span = (wanted.updated_after or 0.0, wanted.before[0] if wanted.before else FAR_FUTURE_S)
        streams = self.partitions(states, span)
        merged: Iterator[Item] = heapq.merge(
            *streams, key=lambda e: (-read_moved_at(e), read_text(e, "pk"))
        )
        if wanted.before is not None:
            merged = _after_cursor(merged, *wanted.before)
        prefixes = wanted.key_prefixes or ("",)
        return (
            entry
            for entry in merged
            if wanted.profile in (None, read_text(entry, "profile"))
            and read_text(entry, "source_key").startswith(prefixes)
        )

    def partitions(self, states: Sequence[JobState], span: Span) -> list[Iterator[Item]]:
        """Return the entries of each state in the index, newest first."""
        return [self._pages(BY_STATE, "state", state.value, span) for state in states]

    def _pages(self, index: str, name: str, value: str, span: Span) -> Iterator[Item]:
        query: dict[str, Any] = {
            "TableName": self.name,
            "IndexName": index,
            "KeyConditionExpression": "#n = :v",
            "ExpressionAttributeNames": {"#n": name},
            "ExpressionAttributeValues": {":v": text(value)},
            "ScanIndexForward": False,
        }
        if span is not None:  # BETWEEN includes the start, which `JobFilter.matches` excludes again
            query["KeyConditionExpression"] += " AND moved_at BETWEEN :after AND :until"
            ends = {":after": number(span[0]), ":until": number(span[1])}
            query["ExpressionAttributeValues"] |= ends
        return query_pages(self.db, query, f"list the jobs in {self.name}")

    def read(self, entries: Sequence[Item]) -> list[JobRecord]:
        """Read the jobs of index entries consistently, each once; return them in the entries' order."""
        keys = list(dict.fromkeys(read_text(entry, "pk") for entry in entries))
        items = read_items(self.db, self.name, keys, f"read the jobs in {self.name}")
        for key in items:
            self.cache_profile(key)
        return [record_of(items[key]) for key in keys if key in items]


def _after_cursor(entries: Iterator[Item], at: float, job_id: str) -> Iterator[Item]:
    """Yield the entries after the job that moved at `at`; if it is missing, all that moved then or earlier."""
    same: list[Item] = []
    for entry in entries:
        if read_moved_at(entry) < at:
            entries = chain([entry], entries)
            break
        same.append(entry)
    ids = [read_text(entry, "pk").rpartition("#")[2] for entry in same]
    yield from same[ids.index(job_id) + 1 if job_id in ids else 0 :]
    yield from entries
