"""The ledger port over one DynamoDB table, by conditional writes alone.

Write units of a job whose item is at most 1 KiB (a job with a long key takes 2 instead of 1):
registration 4 (table and three indexes) and each transition 3 (the table, and the old and new entry
of `by_shard`), and the digest of its certificate 1, so 11 for a job that succeeds at once. A running
job adds 1 for each heartbeat and at most 1 every PROGRESS_EVERY_S seconds: an hour's encode with a
60 s heartbeat costs 11 + 60 + 120. A claim reads one item. There are no transactions, because each job
is one item. A subjob is one item as well and in no index, so its transitions cost 1 unit each. The
subjobs of an earlier split are left to expire, because nothing refers to them any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from hevcq.backends.aws.clients import translate_errors
from hevcq.backends.aws.dynamodb.job_table import (
    CLAIM_TRIES,
    FAILURE,
    LEASE,
    ConditionalUpdate,
    JobTable,
    absent,
    failure_facts,
    transition,
    unchanged_since,
)
from hevcq.backends.aws.dynamodb.schema import (
    LETTER,
    PART_KEPT_S,
    PAUSE_PK,
    RECORD_KEPT_S,
    REMEMBERED_KEPT_S,
    TTL,
    UNSENT,
    Item,
    float_of,
    moved_in,
    new_item,
    number,
    part_item,
    record_of,
    remembered_pk,
    string,
    text,
)
from hevcq.domain.job import (
    SETTLED,
    JobRecord,
    JobState,
    Progress,
    RenditionRef,
    Source,
    Split,
    SubjobOf,
    is_subjob,
    job_id,
    subjob_id,
)
from hevcq.domain.schedule import Pause
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence, Unavailable
from hevcq.ports.ledger import Claim, JobFilter, Ledger, Remembered
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

READ_EVERY_S = 5.0
PREFIX = "of:"
"""Begins the name of the attribute of a profile; that of all profiles is the prefix alone."""


PROGRESS_EVERY_S = 30.0
"""Seconds between two records of progress: each is a write unit, so 120 for an hour's encode.

A chunk of a cancelled job stops within this time. Every 5 s it would cost each chunk 720 writes and
as many consistent reads an hour, more than 25 s of an unwanted encode are worth.
"""


class Registered(NamedTuple):
    """A job, and whether its message is still unsent."""

    record: JobRecord
    unsent: bool


class DynamoLedger(Ledger):
    """Job states in one DynamoDB table."""

    pauses_read_every_s = READ_EVERY_S
    progress_every_s = PROGRESS_EVERY_S

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        clock: Clock,
        tokens: Callable[[], str],
        profiles: Sequence[str] = (),
        *,
        bucket: str,
    ) -> None:
        """`profiles` are those whose jobs are looked for by their id alone; `bucket` has all sources."""
        self._clock = clock
        self._jobs = JobTable(client, table, clock, tokens, profiles, bucket=bucket)

    def check(self) -> None:
        self._jobs.item("check")

    def register(self, source: Source, profiles: list[str]) -> list[JobRecord]:
        return [self.registered(source, profile, unsent=False).record for profile in profiles]

    def registered(self, source: Source, profile: str, *, unsent: bool) -> Registered:
        """Register a job and return its current record; `unsent` marks a new one as not sent yet."""
        name = job_id(source, profile)
        item = new_item(source, profile, name, self._clock.now())
        present = self._jobs.job_item(name, profile)
        if present is not None:
            return Registered(record_of(present), UNSENT in present)
        if unsent:
            item[UNSENT] = {"BOOL": True}
        if not self._jobs.create(item):
            item = dict(self._jobs.job_item(name, profile) or item)  # another was first
        return Registered(record_of(item), UNSENT in item)

    def seen(self, name: str) -> Registered | None:
        item = self._jobs.job_item(name)
        return None if item is None else Registered(record_of(item), UNSENT in item)

    def sent(self, name: str) -> None:
        there = {"job_id": text(name)}
        self._jobs.change(name, ConditionalUpdate(there, remove=(UNSENT,)))

    def sent_anew(self, seen: JobRecord) -> None:
        """Record that an expired message was sent again, unless the job has moved since `seen`."""
        now = transition(seen.job_id, seen.state, self._clock.now())
        self._jobs.change(seen.job_id, ConditionalUpdate(unchanged_since(seen), now))

    def claim(self, source: Source, profile: str, *, owner: str, lease_s: float) -> Claim:
        name = job_id(source, profile)

        def look() -> JobRecord:
            return self._jobs.get(name, profile) or self.register(source, [profile])[0]

        found = self._jobs.claim(name, look, owner, lease_s)
        assert found is not None
        return found

    def renew(self, job_id: str, fence: int, *, lease_s: float) -> None:
        until = number(self._clock.now() + lease_s)
        self._jobs.change_under(job_id, fence, {"lease_until": until})

    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        self._jobs.change_under(job_id, fence, {"progress": text(progress.model_dump_json())})

    def certify(self, job_id: str, fence: int, certificate_sha256: str) -> None:
        digest = {"certificate_sha256": text(certificate_sha256)}
        self._jobs.change_under(job_id, fence, digest, ends=True)

    def complete(self, job_id: str, fence: int, rendition: RenditionRef, *, cpu_s: float) -> None:
        made = {"rendition": text(rendition.model_dump_json()), "cpu_s": number(cpu_s)}
        self._end(job_id, fence, JobState.DONE, made)

    def skip(self, job_id: str, fence: int, reason: str) -> None:
        self._end(job_id, fence, JobState.SKIPPED, {"reason": text(reason)})

    def bury(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        self._end(job_id, fence, JobState.DEAD, failure_facts(reason, failure_class))

    def fail(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        self._requeue(job_id, fence, failure_facts(reason, failure_class), {"failures": number(1)})

    def interrupt(
        self, job_id: str, fence: int, reason: str, *, suspected_worker_fault: bool = False
    ) -> None:
        counted = {"doubts": number(1)} if suspected_worker_fault else {}
        self._requeue(job_id, fence, {"reason": text(reason)}, counted)

    def _end(
        self, name: str, fence: int, state: JobState, facts: Mapping[str, AttributeValueTypeDef]
    ) -> None:
        ended = self._end_attributes(name, state, facts)
        self._jobs.change_under(name, fence, ended, absent(facts, *LEASE, *FAILURE), ends=True)

    def _requeue(
        self,
        name: str,
        fence: int,
        facts: Mapping[str, AttributeValueTypeDef],
        add: Mapping[str, AttributeValueTypeDef],
    ) -> None:
        sets = {
            **transition(name, JobState.QUEUED, self._clock.now()),
            "lease_until": number(0.0),
            **facts,
        }
        self._jobs.change_under(name, fence, sets, LEASE, add)

    def _end_attributes(
        self, name: str, state: JobState, facts: Mapping[str, AttributeValueTypeDef]
    ) -> Mapping[str, AttributeValueTypeDef]:
        now = self._clock.now()
        kept = PART_KEPT_S if is_subjob(name) else RECORD_KEPT_S
        return {
            **transition(name, state, now),
            "lease_until": number(0.0),
            "finished_at": number(now),
            TTL: number(int(now) + kept),
            **facts,
        }

    def bury_unclaimed(self, job_id: str, reason: str, failure_class: FailureClass) -> bool:

        def stays(record: JobRecord) -> bool:
            held = record.state is JobState.RUNNING and record.lease_until > self._clock.now()
            return held or record.state is JobState.SPLIT

        return self._move_to_dead(job_id, failure_facts(reason, failure_class), stays)

    def cancel(self, job_id: str, reason: str) -> bool:
        facts = failure_facts(reason, FailureClass.CANCELLED)
        return self._move_to_dead(job_id, facts, lambda record: record.subjob is not None)

    def _move_to_dead(
        self,
        job_id: str,
        facts: Mapping[str, AttributeValueTypeDef],
        stays: Callable[[JobRecord], bool],
    ) -> bool:
        """Move a job to DEAD unless it is settled or `stays`, reading it again whenever it changed.

        Raises Unavailable if others keep changing the job.
        """
        for _ in range(CLAIM_TRIES):
            record = self._jobs.get(job_id)
            if record is None or record.state in SETTLED or stays(record):
                return False
            dead = ConditionalUpdate(
                unchanged_since(record), self._end_attributes(job_id, JobState.DEAD, facts), LEASE
            )
            if self._jobs.change(job_id, dead):
                return True
        raise Unavailable(f"The job {job_id} is being changed by too many others.")

    def reopen(self, job_id: str, *, who: str, why: str) -> bool:
        return self.reopened(job_id, who=who, why=why, unsent=False)

    def reopened(self, name: str, *, who: str, why: str, unsent: bool) -> bool:
        """Reopen a settled job, marked as not sent yet if `unsent`; False if it is not settled."""
        record = self._jobs.get(name)
        if record is None or record.state not in SETTLED:
            return False
        now = self._clock.now()
        mark: dict[str, AttributeValueTypeDef] = {UNSENT: {"BOOL": True}} if unsent else {}
        sets = {
            **transition(name, JobState.QUEUED, now),
            "failures": number(0),
            "crashes": number(0),
            "doubts": number(0),
            "reason": text(f"reopened by {who}: {why}"),
            "reopened_at": number(now),
            "reopened_by": text(who),
            **mark,
        }
        gone = ("failure_class", "rendition", "finished_at", "cpu_s", "split", "whole", LETTER, TTL)
        return self._jobs.change(name, ConditionalUpdate(unchanged_since(record), sets, gone))

    def get(self, job_id: str) -> JobRecord | None:
        return self._jobs.get(job_id)

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        if wanted.before is not None:
            # The listing is by the last transition; progress since then shows in `updated_at`.
            at, job_id = wanted.before
            item = self._jobs.job_item(job_id)
            at = min(at, at if item is None else moved_in(item))
            wanted = replace(wanted, before=(at, job_id))
        return self._jobs.jobs(wanted)

    def note_letter(self, job_id: str) -> None:
        dead = {"state": text(JobState.DEAD.value)}
        self._jobs.change(job_id, ConditionalUpdate(dead, {LETTER: {"BOOL": True}}))

    def has_letter(self, job_id: str) -> bool:
        item = self._jobs.job_item(job_id)
        return item is not None and LETTER in item

    def counts(self) -> dict[tuple[str, JobState], int]:
        """Count the entries of the index, which is seconds behind; 4,000 are read in a request."""
        found: Counter[tuple[str, JobState]] = Counter()
        for state in JobState:
            entries = chain.from_iterable(self._jobs.partitions([state], None))
            found.update((string(e, "profile"), state) for e in entries)
        return dict(found)

    def remember(self, source_sha256: str, profile: str, revision: str, reason: str) -> None:
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
        item = self._jobs.item(remembered_pk(source_sha256, profile, revision))
        if item is None:
            return None
        return Remembered(reason=string(item, "reason"), made_at=float_of(item, "made_at") or 0.0)

    def split(self, job_id: str, fence: int, split: Split, frames: Sequence[int]) -> None:
        """Add the subjobs, then move the job to SPLIT.

        A kill between the two leaves subjobs that nothing refers to. Raises StaleFence.
        """
        job = self._jobs.get(job_id)
        if job is None or job.state is not JobState.RUNNING or job.fence != fence:
            raise StaleFence(f"The job {job_id} is not running under fence {fence}.")
        chunks: list[tuple[int | None, int]] = [*enumerate(frames), (None, 0)]
        for chunk, held in chunks:
            part = SubjobOf(job_id=job_id, split=split.name, chunk=chunk, frames=held)
            name = subjob_id(job_id, split.name, chunk)
            # One that exists stays: the name of a split is never used twice.
            self._jobs.create(part_item(job, name, self._jobs.pk_of(name), part, self._clock.now()))
        now = self._jobs.clock.now()
        sets = {
            **transition(job_id, JobState.SPLIT, now),
            "lease_until": number(0.0),
            "split": text(split.model_dump_json()),
        }
        self._jobs.change_under(job_id, fence, sets, (*LEASE, *FAILURE))

    def mark_enqueued(self, job_id: str, split: str) -> None:
        job = self._jobs.get(job_id)
        if job is None or job.split is None or job.split.name != split:
            return
        enqueued = job.split.model_copy(update={"announced": True})
        as_split = {
            "state": text(JobState.SPLIT.value),
            "split": text(job.split.model_dump_json()),
        }
        self._jobs.change(
            job_id, ConditionalUpdate(as_split, {"split": text(enqueued.model_dump_json())})
        )

    def abandon_split(self, job_id: str, fence: int, reason: str) -> None:
        under = {"state": text(JobState.SPLIT.value), "fence": number(fence)}
        sets = {
            **transition(job_id, JobState.QUEUED, self._jobs.clock.now()),
            "whole": text(reason),
            "reason": text(reason),
        }
        if not self._jobs.change(
            job_id, ConditionalUpdate(under, sets, (*absent(sets, *FAILURE), "split"))
        ):
            raise StaleFence(f"The job {job_id} is not split under fence {fence}.")

    def claim_subjob(self, subjob_id: str, *, owner: str, lease_s: float) -> Claim | None:
        return self._jobs.claim(subjob_id, lambda: self._jobs.get(subjob_id), owner, lease_s)

    def subjobs(self, job_id: str) -> list[JobRecord]:
        job = self._jobs.get(job_id)
        if job is None or job.state is not JobState.SPLIT or job.split is None:
            return []
        wanted: list[int | None] = [*range(job.split.chunks), None]
        names = [subjob_id(job_id, job.split.name, chunk) for chunk in wanted]
        return self._jobs.read([{"pk": text(self._jobs.pk_of(name))} for name in names])

    def pauses(self) -> tuple[Pause, ...]:
        return self._held(self._jobs.item(PAUSE_PK))

    def pause(self, pause: Pause) -> None:
        self._update(
            "SET #name = :pause",
            {"#name": f"{PREFIX}{pause.profile}"},
            {":pause": text(pause.model_dump_json())},
        )

    def resume(self, profile: str | None) -> tuple[Pause, ...]:
        found = self._jobs.item(PAUSE_PK) or {}
        wanted = [PREFIX + profile] if profile is not None else sorted(found)
        names = {f"#n{i}": name for i, name in enumerate(n for n in wanted if n.startswith(PREFIX))}
        if not names:
            return ()
        before = self._update(f"REMOVE {', '.join(names)}", names)
        return tuple(p for p in self._held(before) if profile in (None, p.profile))

    def _update(
        self,
        expression: str,
        names: dict[str, str],
        values: dict[str, AttributeValueTypeDef] | None = None,
    ) -> Item | None:
        asked: dict[str, Any] = {"ExpressionAttributeValues": values} if values else {}
        with translate_errors("set a pause"):
            answer = self._jobs.db.update_item(
                TableName=self._jobs.name,
                Key={"pk": text(PAUSE_PK)},
                UpdateExpression=expression,
                ExpressionAttributeNames=names,
                ReturnValues="ALL_OLD",
                **asked,
            )
        return answer.get("Attributes")

    def _held(self, item: Item | None) -> tuple[Pause, ...]:
        now, found = self._clock.now(), []
        for name in sorted(item or {}):
            if not name.startswith(PREFIX):
                continue
            try:
                pause = Pause.model_validate_json(string(item or {}, name))
            except ValidationError as error:
                get_logger().warning("pause_unreadable", name=name, reason=str(error))
                continue
            if pause.until is None or now < pause.until:
                found.append(pause)
        return tuple(found)
