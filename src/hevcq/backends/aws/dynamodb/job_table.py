"""The DynamoDB items of jobs and subjobs: read, claim, update them conditionally, list them by index."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.clients import code_of, translate_errors
from hevcq.backends.aws.dynamodb.schema import (
    BY_FOLDER,
    BY_SHARD,
    BY_SOURCE,
    UNSENT,
    Item,
    job_pk,
    moved_at,
    moved_in,
    number,
    profile_in,
    record_of,
    shard_of,
    shards_of,
    state_in,
    string,
    text,
)
from hevcq.domain.job import SETTLED, JobRecord, JobState, is_subjob
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence, Unavailable
from hevcq.ports.ledger import AlreadySettled, AlreadySplit, Claim, Granted, Held, JobFilter
from hevcq.util.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

Span = tuple[float, float] | None
"""Moved later than the first and not after the second, in Unix seconds; None: whenever."""
FAR_S = 1e12
PAGE = 100
"""The limit of DynamoDB's BatchGetItem, in items."""
UNPROCESSED_ROUNDS = 8
MANY = 10_000
"""Jobs of a folder that are sorted in memory (about 40 MB). More are found by reading the whole index by time,
4,000 entries a request: that is little beside reading these jobs themselves, 100 a request."""


MAX_KNOWN = 10_000
"""Jobs whose key is kept: a worker has a few at a time, a listing passes over many."""
CLAIM_TRIES = 10
"""Reads of one job before giving up: after each failed update another process has changed it."""


@dataclass(frozen=True, slots=True)
class ConditionalUpdate:
    """An update of attributes on the condition that those in `when` have exactly these values.

    Every name uses a placeholder, because `state`, `size` and `owner` are reserved words.
    """

    when: Mapping[str, AttributeValueTypeDef]
    set: Mapping[str, AttributeValueTypeDef] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    add: Mapping[str, AttributeValueTypeDef] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        parts = [
            _clause("SET", [f"#{n} = :{n}" for n in self.set]),
            _clause("REMOVE", [f"#{n}" for n in self.remove]),
            _clause("ADD", [f"#{n} :{n}" for n in self.add]),
        ]
        names = {*self.when, *self.set, *self.remove, *self.add}
        values = {f":{n}": v for n, v in {**self.set, **self.add}.items()}
        return {
            "UpdateExpression": " ".join(part for part in parts if part),
            "ConditionExpression": " AND ".join(f"#{n} = :if_{n}" for n in self.when),
            "ExpressionAttributeNames": {f"#{n}": n for n in sorted(names)},
            "ExpressionAttributeValues": values | {f":if_{n}": v for n, v in self.when.items()},
        }


def _clause(word: str, parts: list[str]) -> str:
    return f"{word} {', '.join(parts)}" if parts else ""


LEASE = ("owner", "progress")
"""Attributes that are removed when a lease ends."""
FAILURE = ("reason", "failure_class")


def absent(facts: Mapping[str, AttributeValueTypeDef], *names: str) -> tuple[str, ...]:
    return tuple(name for name in names if name not in facts)


def transition(job_id: str, state: JobState, now: float) -> dict[str, AttributeValueTypeDef]:
    """Return the attributes that every transition of a job or subjob sets; `now` in Unix seconds."""
    shard = {} if is_subjob(job_id) else {"shard": text(shard_of(job_id, state))}
    return {"state": text(state.value), moved_at(job_id): number(now), **shard}


def failure_facts(reason: str, failure_class: FailureClass) -> dict[str, AttributeValueTypeDef]:
    """Return the attributes that describe a failure."""
    return {"reason": text(reason), "failure_class": text(failure_class.value)}


def unchanged_since(record: JobRecord) -> dict[str, AttributeValueTypeDef]:
    """Return the condition that the job was not moved, claimed or renewed since it was read."""
    return {
        "state": text(record.state.value),
        "fence": number(record.fence),
        "lease_until": number(record.lease_until),
    }


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


class JobTable:
    """The items of jobs and subjobs in one table.

    Each write carries a unique token. When an answer is lost, botocore repeats the write and the
    condition fails, because the first one took effect: the token in the item tells this apart from
    a real conflict. Listings query the indexes, which lag, and then read the jobs themselves: a job
    that moved in between is left out of the state it has left. `bucket` is that of all sources. Every
    method may raise ConfigError and Unavailable.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        clock: Clock,
        tokens: Callable[[], str],
        profiles: Sequence[str],
        *,
        bucket: str,
    ) -> None:
        self.db, self.name, self.clock, self._tokens = client, table, clock, tokens
        self._bucket = bucket
        self._profiles, self._known = tuple(profiles), dict[str, str]()

    def get(self, job_id: str, profile: str = "") -> JobRecord | None:
        """Return the record of a job or subjob, or None; `profile` spares a search for its key."""
        item = self.job_item(job_id, profile)
        return None if item is None else record_of(item)

    def job_item(self, job_id: str, profile: str = "") -> Item | None:
        """Return the item of a job or subjob, or None; see `get`."""
        whole = job_id.partition(".")[0]
        if whole in self._known:
            return self.item(job_pk(job_id, self._known[whole]))
        for each in [profile] if profile else self._profiles:
            found = self.item(job_pk(whole, each))
            if found is not None:
                self.found_at(job_pk(whole, each))
                return found if whole == job_id else self.item(job_pk(job_id, each))
        return None

    def found_at(self, pk: str) -> None:
        """Keep the profile in the key of a job's item, for later calls with the job's id."""
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[pk.rpartition("#")[2].partition(".")[0]] = profile_in(pk)

    def pk_of(self, job_id: str) -> str:
        """Return the key of the item of a job or subjob; one that no item has if it is unknown."""
        whole = job_id.partition(".")[0]
        if whole not in self._known:
            self.job_item(whole)
        return job_pk(job_id, self._known.get(whole, ""))

    def claim(
        self, name: str, look: Callable[[], JobRecord | None], owner: str, lease_s: float
    ) -> Claim | None:
        """Claim the job that `look` reads under its next fence, for `lease_s` seconds.

        Reads again when another process changed the job meanwhile. Returns None if there is no
        such job. Raises Unavailable after CLAIM_TRIES reads.
        """
        for _ in range(CLAIM_TRIES):
            record = look()
            if record is None:
                return None
            if record.state in SETTLED:
                return AlreadySettled(record)
            if record.state is JobState.SPLIT:
                return AlreadySplit(record)
            now = self.clock.now()
            running = record.state is JobState.RUNNING
            live = running and record.lease_until > now
            if live and record.owner != owner:
                return Held(record.lease_until)
            crashes = record.crashes + (1 if running and not live else 0)
            taken = ConditionalUpdate(
                when=unchanged_since(record),
                set={
                    **transition(name, JobState.RUNNING, now),
                    "fence": number(record.fence + 1),
                    "crashes": number(crashes),
                    "owner": text(owner),
                    "lease_until": number(now + lease_s),
                    "started_at": number(now),
                },
                remove=("progress", UNSENT),
            )
            if self.change(name, taken):
                return Granted(
                    record.fence + 1, record.failures, crashes, record.suspected_worker_faults
                )
        raise Unavailable(f"The job {name} is being changed by too many others.")

    def create(self, item: Item) -> bool:
        """Add an item; return False if there is one, unless this very call added it."""
        token = text(self._tokens())
        with translate_errors(f"register {item['pk'].get('S')}"):
            try:
                self.db.put_item(
                    TableName=self.name,
                    Item={**item, "last_write": token},
                    ConditionExpression="attribute_not_exists(pk)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except self.db.exceptions.ConditionalCheckFailedException as error:
                there: Item = dict(error.response).get("Item", {})  # type: ignore[assignment]
                return there.get("last_write") == token
            finally:
                self.found_at(str(item["pk"].get("S")))
        return True

    def change_under(
        self,
        name: str,
        fence: int,
        sets: Mapping[str, AttributeValueTypeDef],
        remove: tuple[str, ...] = (),
        add: Mapping[str, AttributeValueTypeDef] | None = None,
        *,
        ends: bool = False,
    ) -> None:
        """Update a job that is RUNNING under `fence`, or SPLIT if the update `ends` the job.

        Raises StaleFence if it is neither.
        """
        for state in (JobState.RUNNING, JobState.SPLIT) if ends else (JobState.RUNNING,):
            under = {"state": text(state.value), "fence": number(fence)}
            if self.change(
                name, ConditionalUpdate(when=under, set=sets, remove=remove, add=add or {})
            ):
                return
        raise StaleFence(f"The job {name} is not running under fence {fence}.")

    def change(self, name: str, change: ConditionalUpdate) -> bool:
        """Apply an update; return False if its condition does not hold."""
        token = text(self._tokens())
        signed = replace(change, set={**change.set, "last_write": token})
        try:
            with translate_errors(f"write the job {name}"):
                self.db.update_item(
                    TableName=self.name,
                    Key={"pk": text(self.pk_of(name))},
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **signed.arguments(),
                )
        except Unavailable as error:
            if code_of(error.__cause__) != "ConditionalCheckFailedException":
                raise
            there: Item = getattr(error.__cause__, "response", {}).get("Item", {})
            return there.get("last_write") == token
        return True

    def item(self, pk: str) -> Item | None:
        return read_item(self.db, self.name, pk, f"read the ledger {self.name}")

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        if wanted.source_key is None:
            entries = self._in_folders(wanted)
        else:
            entries = list(self._pages(BY_SOURCE, "source_key", wanted.source_key, None))
        if entries is not None:
            records = sorted(self.read(entries), key=lambda r: (-r.updated_at, r.job_id))
            yield from (record for record in records if wanted.matches(record))
            return
        found = self._entries(wanted)
        while page := list(islice(found, PAGE)):
            # A job that moves while the states are queried one by one may appear in two of them.
            seen_in = {(string(entry, "pk").rpartition("#")[2], state_in(entry)) for entry in page}
            for record in self.read(page):
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
            self.db,
            {
                "TableName": self.name,
                "IndexName": BY_FOLDER,
                "KeyConditionExpression": "#b = :b AND begins_with(#k, :k)",
                "ExpressionAttributeNames": {"#b": "bucket", "#k": "source_key"},
                "ExpressionAttributeValues": {":b": text(self._bucket), ":k": text(prefix)},
            },
            f"list the jobs in {self.name}",
        )

    def _entries(self, wanted: JobFilter) -> Iterator[Item]:
        """Merge the entries of all states, newest first; each partition is already in that order."""
        states = [state for state in JobState if not wanted.states or state in wanted.states]
        span = (wanted.updated_after or 0.0, wanted.before[0] if wanted.before else FAR_S)
        streams = self.partitions(states, span)
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

    def partitions(self, states: Sequence[JobState], span: Span) -> list[Iterator[Item]]:
        return [
            self._pages(BY_SHARD, "shard", shard, span) for s in states for shard in shards_of(s)
        ]

    def _pages(self, index: str, name: str, value: str, span: Span) -> Iterator[Item]:
        asked: dict[str, Any] = {
            "TableName": self.name,
            "IndexName": index,
            "KeyConditionExpression": "#n = :v",
            "ExpressionAttributeNames": {"#n": name},
            "ExpressionAttributeValues": {":v": text(value)},
            "ScanIndexForward": False,
        }
        if span is not None:  # takes its ends with it; the filter leaves the first one out again
            asked["KeyConditionExpression"] += " AND moved_at BETWEEN :after AND :until"
            ends = {":after": number(span[0]), ":until": number(span[1])}
            asked["ExpressionAttributeValues"] |= ends
        return pages(self.db, asked, f"list the jobs in {self.name}")

    def read(self, entries: Sequence[Item]) -> list[JobRecord]:
        """Return the jobs of index entries by consistent reads, each once, in the entries' order."""
        keys = list(dict.fromkeys(string(entry, "pk") for entry in entries))
        items = read_items(self.db, self.name, keys, f"read the jobs in {self.name}")
        for key in items:
            self.found_at(key)
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
