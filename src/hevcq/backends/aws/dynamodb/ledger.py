"""The ledger port over one DynamoDB table, by conditional writes alone.

Write units of a job, for an item up to 1 KiB (a job with a long key takes 2 where it says 1):
register 3 (table and two indexes), each transition 3 (the table, and the old and new place in
`by_state`), so 9 for a job that succeeds at once; while it runs 1 a heartbeat and at most 1 every
PROGRESS_EVERY_S seconds for progress. An hour's encode with a 60 s heartbeat costs 9 + 60 + 120.
A claim reads one item. Nothing is a transaction, because each job is one item; a part of a split
job is one too, in no index, so that its transitions are 1 unit each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hevcq.backends.aws.dynamodb.job_table import (
    CLAIM_TRIES,
    LEASE,
    WHY,
    Change,
    JobTable,
    absent,
    as_seen,
    blame,
    moved,
)
from hevcq.backends.aws.dynamodb.queries import Listing
from hevcq.backends.aws.dynamodb.schema import (
    PART_KEPT_S,
    RECORD_KEPT_S,
    REMEMBERED_KEPT_S,
    TTL,
    UNSENT,
    float_of,
    job_pk,
    new_item,
    number,
    record_of,
    remembered_pk,
    string,
    text,
)
from hevcq.backends.aws.dynamodb.subjobs import SubjobTable
from hevcq.backends.aws.errors import translate_errors
from hevcq.domain.job import (
    SETTLED,
    JobRecord,
    JobState,
    Progress,
    RenditionRef,
    Source,
    Split,
    is_part,
    job_id,
)
from hevcq.domain.verdict import FailureClass
from hevcq.errors import Unavailable
from hevcq.ports.backend import Ledger
from hevcq.ports.ledger import Claim, JobFilter
from hevcq.ports.skip_memory import Remembered
from hevcq.util.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

PROGRESS_EVERY_S = 30.0
"""Every record is a write unit, so an hour's encode costs 120 of them."""


class Registered(NamedTuple):
    """A job, and whether its message is still to be sent."""

    record: JobRecord
    unsent: bool


class DynamoLedger(Ledger):
    """Job states in DynamoDB, by a table of jobs, one of subjobs beside them, and their indexes."""

    def __init__(
        self, client: DynamoDBClient, table: str, clock: Clock, tokens: Callable[[], str]
    ) -> None:
        self._clock = clock
        self._jobs = JobTable(client, table, clock, tokens)
        self._listing = Listing(client, table)
        self._subjobs = SubjobTable(self._jobs, self._listing)

    progress_every_s = PROGRESS_EVERY_S

    def check(self) -> None:
        """Raise ConfigError unless the table is there."""
        self._jobs.item("check")

    def register(self, source: Source, profiles: list[str]) -> list[JobRecord]:
        """Make sure a QUEUED record exists for each profile's job: one conditional put each."""
        return [self.registered(source, profile, unsent=False).record for profile in profiles]

    def registered(self, source: Source, profile: str, *, unsent: bool) -> Registered:
        """Return the job as it is; a new one is marked as not sent yet if `unsent`."""
        name = job_id(source, profile)
        item = new_item(source, profile, name, self._clock.now())
        if unsent:
            item[UNSENT] = {"BOOL": True}
        with translate_errors(f"register the job {name}"):
            try:
                self._jobs.db.put_item(
                    TableName=self._jobs.name,
                    Item=item,
                    ConditionExpression="attribute_not_exists(pk)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except self._jobs.db.exceptions.ConditionalCheckFailedException as error:
                item = dict(error.response["Item"])  # type: ignore[typeddict-item]
        return Registered(record_of(item), UNSENT in item)

    def seen(self, name: str) -> Registered | None:
        """Return the job and whether its message waits to be sent, or None."""
        item = self._jobs.item(job_pk(name))
        return None if item is None else Registered(record_of(item), UNSENT in item)

    def sent(self, name: str) -> None:
        """Record that the job's message has been sent."""
        with translate_errors(f"record that the job {name} was sent"):
            self._jobs.db.update_item(
                TableName=self._jobs.name,
                Key={"pk": text(job_pk(name))},
                UpdateExpression=f"REMOVE {UNSENT}",
                ConditionExpression="attribute_exists(pk)",
            )

    def sent_anew(self, seen: JobRecord) -> None:
        """Record that a job that waited in vain has a message from now on, unless it moved since."""
        now = moved(seen.job_id, seen.state, self._clock.now())
        self._jobs.change(seen.job_id, Change(as_seen(seen), now))

    def claim(self, source: Source, profile: str, *, owner: str, lease_s: float) -> Claim:
        """Try to take the job; each look that somebody else outdates is repeated."""
        name = job_id(source, profile)

        def look() -> JobRecord:
            return self._jobs.get(name) or self.register(source, [profile])[0]

        found = self._jobs.claim(name, look, owner, lease_s)
        assert found is not None
        return found

    def renew(self, job_id: str, fence: int, *, lease_s: float) -> None:
        """Extend the lease to `lease_s` from now."""
        until = number(self._clock.now() + lease_s)
        self._jobs.change_under(job_id, fence, {"lease_until": until})

    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        """Record how far the job is."""
        self._jobs.change_under(job_id, fence, {"progress": text(progress.model_dump_json())})

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

    def interrupt(self, job_id: str, fence: int, reason: str, *, doubted: bool = False) -> None:
        """RUNNING to QUEUED; nothing is counted but a doubt."""
        counted = {"doubts": number(1)} if doubted else {}
        self._back(job_id, fence, {"reason": text(reason)}, counted)

    def _end(
        self, name: str, fence: int, state: JobState, facts: Mapping[str, AttributeValueTypeDef]
    ) -> None:
        ended = self._ended(name, state, facts)
        self._jobs.change_under(name, fence, ended, absent(facts, *LEASE, *WHY), ends=True)

    def _back(
        self,
        name: str,
        fence: int,
        facts: Mapping[str, AttributeValueTypeDef],
        add: Mapping[str, AttributeValueTypeDef],
    ) -> None:
        sets = {
            **moved(name, JobState.QUEUED, self._clock.now()),
            "lease_until": number(0.0),
            **facts,
        }
        self._jobs.change_under(name, fence, sets, LEASE, add)

    def _ended(
        self, name: str, state: JobState, facts: Mapping[str, AttributeValueTypeDef]
    ) -> Mapping[str, AttributeValueTypeDef]:
        now = self._clock.now()
        kept = PART_KEPT_S if is_part(name) else RECORD_KEPT_S
        return {
            **moved(name, state, now),
            "lease_until": number(0.0),
            "finished_at": number(now),
            TTL: number(int(now) + kept),
            **facts,
        }

    def bury_unclaimed(self, job_id: str, reason: str, failure_class: FailureClass) -> bool:
        """QUEUED (or RUNNING with its lease run out) to DEAD."""

        def stays(record: JobRecord) -> bool:
            held = record.state is JobState.RUNNING and record.lease_until > self._clock.now()
            return held or record.state is JobState.SPLIT

        return self._killed(job_id, blame(reason, failure_class), stays)

    def cancel(self, job_id: str, reason: str) -> bool:
        """QUEUED, RUNNING or SPLIT to DEAD; each look that a worker outdates is repeated."""
        facts = blame(reason, FailureClass.CANCELLED)
        return self._killed(job_id, facts, lambda record: record.part is not None)

    def _killed(
        self,
        job_id: str,
        facts: Mapping[str, AttributeValueTypeDef],
        stays: Callable[[JobRecord], bool],
    ) -> bool:
        """To DEAD as last seen, looking again at what changed meanwhile.

        False if there is no such job, if it is settled, or if it `stays`.
        """
        for _ in range(CLAIM_TRIES):
            record = self._jobs.get(job_id)
            if record is None or record.state in SETTLED or stays(record):
                return False
            dead = Change(as_seen(record), self._ended(job_id, JobState.DEAD, facts), LEASE)
            if self._jobs.change(job_id, dead):
                return True
        raise Unavailable(f"The job {job_id} is being changed by too many others.")

    def reopen(self, job_id: str, *, who: str, why: str) -> bool:
        """An end state to QUEUED with counts reset; the fence is kept."""
        return self.reopened(job_id, who=who, why=why, unsent=False)

    def reopened(self, name: str, *, who: str, why: str, unsent: bool) -> bool:
        """Reopen a settled job; mark it as not sent yet if `unsent`."""
        record = self._jobs.get(name)
        if record is None or record.state not in SETTLED:
            return False
        now = self._clock.now()
        mark: dict[str, AttributeValueTypeDef] = {UNSENT: {"BOOL": True}} if unsent else {}
        sets = {
            **moved(name, JobState.QUEUED, now),
            "failures": number(0),
            "crashes": number(0),
            "doubts": number(0),
            "reason": text(f"reopened by {who}: {why}"),
            "reopened_at": number(now),
            "reopened_by": text(who),
            **mark,
        }
        gone = ("failure_class", "rendition", "finished_at", "cpu_s", "split", "whole", TTL)
        return self._jobs.change(name, Change(as_seen(record), sets, gone))

    def split(self, job_id: str, fence: int, split: Split, frames: Sequence[int]) -> None:
        """RUNNING to SPLIT, after its subjobs are there."""
        self._subjobs.split(job_id, fence, split, frames)

    def announce(self, job_id: str, split: str) -> None:
        """Mark the split as sent."""
        self._subjobs.announce(job_id, split)

    def unsplit(self, job_id: str, fence: int, reason: str) -> None:
        """SPLIT to QUEUED."""
        self._subjobs.unsplit(job_id, fence, reason)

    def claim_part(self, part_id: str, *, owner: str, lease_s: float) -> Claim | None:
        """Try to claim a subjob, which is an item like a job."""
        return self._subjobs.claim_part(part_id, owner=owner, lease_s=lease_s)

    def parts(self, job_id: str) -> list[JobRecord]:
        """Read the subjobs by their names."""
        return self._subjobs.parts(job_id)

    def get(self, job_id: str) -> JobRecord | None:
        """Return the record, or None."""
        return self._jobs.get(job_id)

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        """Yield matching records, most recently moved first, a page at a time."""
        return self._listing.jobs(wanted)

    def counts(self) -> dict[tuple[str, JobState], int]:
        """Return the number of jobs by profile and state, from the index (seconds behind)."""
        return self._listing.counts()

    def remember(self, source_sha256: str, profile: str, revision: str, reason: str) -> None:
        """Record that these bytes under this recipe are not worth encoding again."""
        now = self._clock.now()
        with translate_errors("remember a decision"):
            self._jobs.db.put_item(
                TableName=self._jobs.name,
                Item={
                    "pk": text(remembered_pk(source_sha256, profile, revision)),
                    "reason": text(reason),
                    "made_at": number(now),
                    TTL: number(int(now) + REMEMBERED_KEPT_S),
                },
            )

    def recall(self, source_sha256: str, profile: str, revision: str) -> Remembered | None:
        """Return what was remembered for these bytes and this recipe, or None."""
        item = self._jobs.item(remembered_pk(source_sha256, profile, revision))
        if item is None:
            return None
        return Remembered(reason=string(item, "reason"), made_at=float_of(item, "made_at") or 0.0)
