"""The DynamoDB items of jobs and subjobs: read, claim, update them conditionally, list them by index."""

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
    moved_in,
    number,
    profile_in,
    record_of,
    string,
    text,
)
from hevcq.domain.job import Change, JobRecord, JobState
from hevcq.errors import Unavailable
from hevcq.ports.ledger import JobFilter
from hevcq.util.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

Span = tuple[float, float] | None
"""Moved later than the first and not after the second, in Unix seconds; None: whenever."""
FAR_S = 1e12
PAGE = 100
"""The limit of DynamoDB's BatchGetItem, in items."""
UNPROCESSED_ROUNDS = 8
MAX_KNOWN = 10_000
"""Jobs whose key is kept: a worker has a few at a time, a listing passes over many."""
DECIDE_TRIES = 10
"""Reads of one job before giving up: after each failed update another process has changed it."""


def new_token() -> str:
    """Return a name that is never used twice, for one write."""
    return secrets.token_hex(16)


def update_of(pk: str, change: Change, token: str) -> dict[str, Any]:
    """Return the arguments of UpdateItem that make a change of an item, signed by a token.

    Every name uses a placeholder: `state`, `size` and `owner` are reserved words, and that of a pause
    holds other signs.
    """
    job_id = pk.rpartition("#")[2]
    to = {"last_write": text(token), **attributes_of(job_id, change.to)}
    when, add = attributes_of(job_id, change.when), attributes_of(job_id, change.add)
    states = {f":in_{state.value}": text(state.value) for state in change.states}
    named = list(dict.fromkeys([*to, *add, *when, *(["state"] if states else [])]))
    at = {name: number for number, name in enumerate(named)}
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
        "ExpressionAttributeNames": {f"#n{number}": name for name, number in at.items()},
        "ExpressionAttributeValues": values,
        **({"ConditionExpression": " AND ".join(conditions)} if conditions else {}),
    }


def _clause(word: str, parts: list[str]) -> str:
    return f"{word} {', '.join(parts)}" if parts else ""


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
    that moved in between is left out of the state it has left. Every method may raise ConfigError and
    Unavailable.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        clock: Clock,
        profiles: Sequence[str] = (),
    ) -> None:
        """`profiles` are those whose jobs are looked for by their id alone."""
        self.db, self.name, self.clock = client, table, clock
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

    def decide(
        self,
        job_id: str,
        decision: Callable[[JobRecord], Change | None],
        *,
        durable: bool = True,  # noqa: ARG002 - each write is
    ) -> bool:
        """Change a job as `decision` says of its record, read again when another changed it meanwhile.

        Returns False without a change or a job. Raises Unavailable after DECIDE_TRIES reads.
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
        """Add an item; return False if there is one, unless this very call added it."""
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
                there: Item = dict(error.response).get("Item", {})  # type: ignore[assignment]
                return there.get("last_write") == token
            finally:
                self.found_at(str(item["pk"].get("S")))
        return True

    def apply(self, job_id: str, change: Change, *, durable: bool = True) -> bool:  # noqa: ARG002
        """Change a job by one conditional write, which is always durable."""
        return self.update(self.pk_of(job_id), change, f"write the job {job_id}")

    def update(self, pk: str, change: Change, what: str) -> bool:
        """Change an item, which `what` names in an error; return False if the conditions do not hold."""
        token = new_token()
        try:
            with translate_errors(what):
                self.db.update_item(
                    TableName=self.name,
                    Key={"pk": text(pk)},
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **update_of(pk, change, token),
                )
        except Unavailable as error:
            if code_of(error.__cause__) != "ConditionalCheckFailedException":
                raise
            there: Item = getattr(error.__cause__, "response", {}).get("Item", {})
            return there.get("last_write") == text(token)
        return True

    def item(self, pk: str) -> Item | None:
        return read_item(self.db, self.name, pk, f"read the ledger {self.name}")

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        if wanted.before is not None:
            # The listing is by the last transition; progress since then shows in `updated_at`.
            at, job_id = wanted.before
            item = self.job_item(job_id)
            wanted = replace(
                wanted, before=(at if item is None else min(at, moved_in(item)), job_id)
            )
        if wanted.source_key is not None:
            entries = list(self._pages(BY_SOURCE, "source_key", wanted.source_key, None))
            records = sorted(self.read(entries), key=lambda r: (-r.updated_at, r.job_id))
            yield from (record for record in records if wanted.matches(record))
            return
        found, told = self._entries(wanted), set[str]()
        while page := list(islice(found, PAGE)):
            # A job that moves while the states are queried one by one may appear in two of them, or in
            # none as it is now: a list has it where it is now, and no command leaves out one of a folder.
            seen_in = {(string(e, "pk").rpartition("#")[2], string(e, "state")) for e in page}
            for record in self.read(page):
                there = (record.job_id, record.state.value) in seen_in
                if wanted.key_prefixes:
                    there = record.job_id not in told
                    told.add(record.job_id)
                if there and wanted.matches(record):
                    yield record

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
        return [self._pages(BY_STATE, "state", state.value, span) for state in states]

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
