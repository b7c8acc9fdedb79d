"""The ledger port over one DynamoDB table, by conditional writes alone.

Write units of a job, for an item up to 1 KiB (a job with a long key takes 2 where it says 1):
register 3 (table and two indexes), each transition 3 (the table, and the old and new place in
`by_state`), so 9 for a job that succeeds at once; while it runs 1 a heartbeat and at most 1 every
PROGRESS_EVERY_S seconds for progress. An hour's encode with a 60 s heartbeat costs 9 + 60 + 120.
A claim reads one item. Nothing is a transaction, because each job is one item.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from hevcq.aws.changes import LEASE, WHY, Change, absent, as_seen, blame, moved
from hevcq.aws.faults import code_of, translated
from hevcq.aws.listing import Listing
from hevcq.aws.table import (
    RECORD_KEPT_S,
    REMEMBERED_KEPT_S,
    TTL,
    Item,
    float_of,
    job_pk,
    new_item,
    number,
    record_of,
    remembered_pk,
    string,
    text,
)
from hevcq.clock import Clock
from hevcq.domain.job import (
    SETTLED,
    JobRecord,
    JobState,
    Phase,
    Progress,
    RenditionRef,
    Source,
    job_id,
)
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence, Unavailable
from hevcq.ports.ledger import (
    AlreadySettled,
    Claim,
    Granted,
    Held,
    JobFilter,
    Ledger,
    Remembered,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

CLAIM_TRIES = 10
"""Looks at one job before giving up: each failed one means that somebody else changed it."""
PROGRESS_EVERY_S = 30.0
UNSENT = "unsent"
"""Set on a job that was registered to be queued and whose message has not gone out yet."""


class Registered(NamedTuple):
    """A job, and whether its message is still to be sent."""

    record: JobRecord
    unsent: bool


class DynamoLedger(Ledger):
    """Job states in DynamoDB.

    Each write carries a token of its own. A write whose answer was lost is sent again by botocore
    and then refused, because it has happened: the token in the item tells that from a real
    refusal.
    """

    def __init__(
        self, client: DynamoDBClient, table: str, clock: Clock, tokens: Callable[[], str]
    ) -> None:
        self._db, self._table, self._clock, self._tokens = client, table, clock, tokens
        self._listing = Listing(client, table)
        self._told: dict[str, tuple[float, Phase]] = {}
        self._told_lock = threading.Lock()

    def check(self) -> None:
        """Raise ConfigError unless the table is there."""
        self._item("check")

    def register(self, source: Source, profiles: list[str]) -> list[JobRecord]:
        """Make sure a QUEUED record exists for each profile's job: one conditional put each."""
        return [self.registered(source, profile, unsent=False).record for profile in profiles]

    def registered(self, source: Source, profile: str, *, unsent: bool) -> Registered:
        """Return the job as it is; a new one is marked as not sent yet if `unsent`."""
        name = job_id(source, profile)
        item = new_item(source, profile, name, self._clock.now())
        if unsent:
            item[UNSENT] = {"BOOL": True}
        with translated(f"register the job {name}"):
            try:
                self._db.put_item(
                    TableName=self._table,
                    Item=item,
                    ConditionExpression="attribute_not_exists(pk)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except self._db.exceptions.ConditionalCheckFailedException as error:
                item = dict(error.response["Item"])  # type: ignore[typeddict-item]
        return Registered(record_of(item), UNSENT in item)

    def seen(self, name: str) -> Registered | None:
        """Return the job and whether its message waits to be sent, or None."""
        item = self._item(job_pk(name))
        return None if item is None else Registered(record_of(item), UNSENT in item)

    def sent(self, name: str) -> None:
        """Record that the job's message has been sent."""
        with translated(f"record that the job {name} was sent"):
            self._db.update_item(
                TableName=self._table,
                Key={"pk": text(job_pk(name))},
                UpdateExpression=f"REMOVE {UNSENT}",
                ConditionExpression="attribute_exists(pk)",
            )

    def claim(self, source: Source, profile: str, *, owner: str, lease_s: float) -> Claim:
        """Try to take the job; each look that somebody else outdates is repeated."""
        name = job_id(source, profile)
        for _ in range(CLAIM_TRIES):
            item = self._item(job_pk(name))
            record = record_of(item) if item else self.register(source, [profile])[0]
            if record.state in SETTLED:
                return AlreadySettled(record)
            now = self._clock.now()
            running = record.state is JobState.RUNNING
            live = running and record.lease_until > now
            if live and record.owner != owner:
                return Held(record.lease_until)
            crashes = record.crashes + (1 if running and not live else 0)
            taken = Change(
                when=as_seen(record),
                set={
                    **moved(JobState.RUNNING, now),
                    "fence": number(record.fence + 1),
                    "crashes": number(crashes),
                    "owner": text(owner),
                    "lease_until": number(now + lease_s),
                    "started_at": number(now),
                },
                remove=("progress", UNSENT),
            )
            if self._write(name, taken):
                return Granted(record.fence + 1, record.failures, crashes)
        raise Unavailable(f"The job {name} is being changed by too many others.")

    def renew(self, job_id: str, fence: int, *, lease_s: float) -> None:
        """Extend the lease to `lease_s` from now."""
        until = number(self._clock.now() + lease_s)
        self._under(job_id, fence, {"lease_until": until})

    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        """Record how far the job is: at most every PROGRESS_EVERY_S, and each new phase."""
        now = self._clock.monotonic()
        with self._told_lock:
            at, phase = self._told.get(job_id, (float("-inf"), None))
            if phase is progress.phase and now - at < PROGRESS_EVERY_S:
                return
            self._told[job_id] = (now, progress.phase)
        self._under(job_id, fence, {"progress": text(progress.model_dump_json())})

    def complete(self, job_id: str, fence: int, rendition: RenditionRef, *, cpu_s: float) -> None:
        """RUNNING to DONE."""
        made = {"rendition": text(rendition.model_dump_json()), "cpu_s": number(cpu_s)}
        self._end(job_id, fence, JobState.DONE, made)

    def skip(self, job_id: str, fence: int, reason: str) -> None:
        """RUNNING to SKIPPED with the reason."""
        self._end(job_id, fence, JobState.SKIPPED, {"reason": text(reason)})

    def bury(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        """RUNNING to DEAD with the reason and class."""
        self._end(job_id, fence, JobState.DEAD, blame(reason, failure_class))

    def fail(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        """RUNNING to QUEUED with one more counted failure."""
        self._back(job_id, fence, blame(reason, failure_class), {"failures": number(1)})

    def interrupt(self, job_id: str, fence: int, reason: str) -> None:
        """RUNNING to QUEUED; nothing is counted."""
        self._back(job_id, fence, {"reason": text(reason)}, {})

    def _end(
        self, name: str, fence: int, state: JobState, facts: Mapping[str, AttributeValueTypeDef]
    ) -> None:
        self._under(name, fence, self._ended(state, facts), absent(facts, *LEASE, *WHY))
        self._forget(name)

    def _back(
        self,
        name: str,
        fence: int,
        facts: Mapping[str, AttributeValueTypeDef],
        add: Mapping[str, AttributeValueTypeDef],
    ) -> None:
        sets = {**moved(JobState.QUEUED, self._clock.now()), "lease_until": number(0.0), **facts}
        self._under(name, fence, sets, LEASE, add)
        self._forget(name)

    def _ended(
        self, state: JobState, facts: Mapping[str, AttributeValueTypeDef]
    ) -> Mapping[str, AttributeValueTypeDef]:
        now = self._clock.now()
        return {
            **moved(state, now),
            "lease_until": number(0.0),
            "finished_at": number(now),
            TTL: number(int(now) + RECORD_KEPT_S),
            **facts,
        }

    def _under(
        self,
        name: str,
        fence: int,
        sets: Mapping[str, AttributeValueTypeDef],
        remove: tuple[str, ...] = (),
        add: Mapping[str, AttributeValueTypeDef] | None = None,
    ) -> None:
        running = {"state": text(JobState.RUNNING.value), "fence": number(fence)}
        if not self._write(name, Change(when=running, set=sets, remove=remove, add=add or {})):
            self._forget(name)
            raise StaleFence(f"The job {name} is not running under fence {fence}.")

    def _write(self, name: str, change: Change) -> bool:
        """Carry out a change; False if its condition does not hold."""
        token = text(self._tokens())
        signed = Change(change.when, {**change.set, "last_write": token}, change.remove, change.add)

        try:
            with translated(f"write the job {name}"):
                self._db.update_item(
                    TableName=self._table,
                    Key={"pk": text(job_pk(name))},
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **signed.arguments(),
                )
        except Unavailable as error:
            if code_of(error.__cause__) != "ConditionalCheckFailedException":
                raise
            there: Item = getattr(error.__cause__, "response", {}).get("Item", {})
            return there.get("last_write") == token
        return True

    def bury_unclaimed(self, job_id: str, reason: str, failure_class: FailureClass) -> bool:
        """QUEUED (or RUNNING with its lease run out) to DEAD."""
        for _ in range(CLAIM_TRIES):
            record = self.get(job_id)
            if record is None or record.state in SETTLED:
                return False
            if record.state is JobState.RUNNING and record.lease_until > self._clock.now():
                return False
            facts = blame(reason, failure_class)
            dead = Change(as_seen(record), self._ended(JobState.DEAD, facts), LEASE)
            if self._write(job_id, dead):
                return True
        raise Unavailable(f"The job {job_id} is being changed by too many others.")

    def reopen(self, job_id: str, *, who: str, why: str) -> bool:
        """An end state to QUEUED with counts reset; the fence is kept."""
        return self.reopened(job_id, who=who, why=why, unsent=False)

    def reopened(self, name: str, *, who: str, why: str, unsent: bool) -> bool:
        """Reopen a settled job; mark it as not sent yet if `unsent`."""
        record = self.get(name)
        if record is None or record.state not in SETTLED:
            return False
        now = self._clock.now()
        mark: dict[str, AttributeValueTypeDef] = {UNSENT: {"BOOL": True}} if unsent else {}
        sets = {
            **moved(JobState.QUEUED, now),
            "failures": number(0),
            "crashes": number(0),
            "reason": text(f"reopened by {who}: {why}"),
            "reopened_at": number(now),
            "reopened_by": text(who),
            **mark,
        }
        gone = ("failure_class", "rendition", "finished_at", "cpu_s", TTL)
        return self._write(name, Change(as_seen(record), sets, gone))

    def get(self, job_id: str) -> JobRecord | None:
        """Return the record, or None."""
        item = self._item(job_pk(job_id))
        return None if item is None else record_of(item)

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        """Yield matching records, most recently moved first, a page at a time."""
        return self._listing.jobs(wanted)

    def counts(self) -> dict[tuple[str, JobState], int]:
        """Return the number of jobs by profile and state, from the index (seconds behind)."""
        return self._listing.counts()

    def remember(self, source_sha256: str, profile: str, revision: str, reason: str) -> None:
        """Record that these bytes under this recipe are not worth encoding again."""
        now = self._clock.now()
        with translated("remember a decision"):
            self._db.put_item(
                TableName=self._table,
                Item={
                    "pk": text(remembered_pk(source_sha256, profile, revision)),
                    "reason": text(reason),
                    "made_at": number(now),
                    TTL: number(int(now) + REMEMBERED_KEPT_S),
                },
            )

    def recall(self, source_sha256: str, profile: str, revision: str) -> Remembered | None:
        """Return what was remembered for these bytes and this recipe, or None."""
        item = self._item(remembered_pk(source_sha256, profile, revision))
        if item is None:
            return None
        return Remembered(reason=string(item, "reason"), made_at=float_of(item, "made_at") or 0.0)

    def _item(self, pk: str) -> Item | None:
        with translated(f"read the ledger {self._table}"):
            answer = self._db.get_item(
                TableName=self._table, Key={"pk": text(pk)}, ConsistentRead=True
            )
        return answer.get("Item")

    def _forget(self, name: str) -> None:
        with self._told_lock:
            self._told.pop(name, None)
