"""Implement the ledger port over one DynamoDB table, by conditional writes.

Write units of a job whose item is at most 1 KiB (a job with a long key takes 2 instead of 1):
registration 3 (table and two indexes), each transition 3 (the table, and the old and new entry of
`by_state`), and the digest of its certificate 1, so 10 for a job that succeeds at once. A running job
adds 1 for each heartbeat and at most 1 every PROGRESS_EVERY_S seconds: an hour's encode with a 60 s
heartbeat costs 10 + 60 + 120. A claim reads one item. Each job is one item, so there are no
transactions. A subjob is one item in no index, so each of its transitions costs 1 unit. The subjobs of
an earlier split are left to expire, because nothing refers to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from pydantic import ValidationError

from hevcq.backends.aws.dynamodb.job_table import JobTable
from hevcq.backends.aws.dynamodb.schema import (
    DECISION_RETENTION_S,
    LETTER,
    PAUSE_PK,
    TTL,
    UNSENT,
    Item,
    item_of,
    job_pk,
    read_number,
    read_text,
    record_of,
    remembered_pk,
    text,
)
from hevcq.domain.job import (
    Change,
    JobRecord,
    JobState,
    Source,
    SubjobOf,
    change_if_unmoved,
    decide_reopening,
    job_id,
    new_job,
    new_subjob,
)
from hevcq.domain.schedule import Pause
from hevcq.ports.ledger import Claim, Ledger, Remembered, subjob_ids
from hevcq.util.log import get_logger

READ_EVERY_S = 5.0
PAUSE_PREFIX = "of:"
"""The attribute of a profile's pause is this prefix and the profile; the prefix alone pauses all."""
PROGRESS_EVERY_S = 30.0
"""Seconds between two records of progress: each is a write unit, so 120 for an hour's encode.

A chunk of a cancelled job stops within this time. At 5 s each chunk would cost 720 writes and as many
consistent reads an hour, which is more than 25 s of an unwanted encode.
"""


class DynamoLedger(JobTable, Ledger):
    """Job states in one DynamoDB table."""

    pauses_read_every_s = READ_EVERY_S
    progress_every_s = PROGRESS_EVERY_S

    def check(self) -> None:
        self.item("check")

    def register(self, source: Source, profiles: list[str]) -> list[JobRecord]:
        return [self.ensure_registered(source, profile, unsent=False)[0] for profile in profiles]

    def ensure_registered(
        self, source: Source, profile: str, *, unsent: bool
    ) -> tuple[JobRecord, bool]:
        """Register a job unless it exists; return its record, and whether its message is still unsent.

        `unsent` marks a new job as not sent yet.
        """
        name = job_id(source, profile)
        present = self.job_item(name, profile)
        if present is not None:
            return record_of(present), UNSENT in present
        item = item_of(new_job(source, profile, self.clock.now()), job_pk(name, profile))
        if unsent:
            item[UNSENT] = {"BOOL": True}
        if not self.create(item):
            item = dict(self.job_item(name, profile) or item)  # another was first
        return record_of(item), UNSENT in item

    def mark_sent(self, name: str) -> None:
        self.apply(name, Change(frozenset(), {"job_id": name}, {UNSENT: None}))

    def mark_resent(self, seen: JobRecord) -> None:
        """Record that an expired message was sent again, unless the job has changed since `seen`."""
        now = {"state": seen.state, "updated_at": self.clock.now()}
        self.apply(seen.job_id, change_if_unmoved(seen, now))

    def claim(self, source: Source, profile: str, *, owner: str, lease_s: float) -> Claim:
        """Claim a job; look for it under its profile only."""
        self.cache_profile(job_pk(job_id(source, profile), profile))
        return super().claim(source, profile, owner=owner, lease_s=lease_s)

    def reopen_unsent(self, name: str, *, who: str, why: str) -> bool:
        """Reopen a settled job and mark it as not sent yet; return False if it is not settled."""

        def decision(record: JobRecord) -> Change | None:
            change = decide_reopening(record, who, why, self.clock.now())
            return change and replace(change, to={**change.to, UNSENT: True})

        return self.decide(name, decision)

    def note_letter(self, job_id: str) -> None:
        self.apply(job_id, Change(frozenset({JobState.DEAD}), {}, {LETTER: True}))

    def has_letter(self, job_id: str) -> bool:
        item = self.job_item(job_id)
        return item is not None and LETTER in item

    def counts(self) -> dict[tuple[str, JobState], int]:
        """Count the entries of the index, which lags by seconds; a request reads 4,000."""
        counts: Counter[tuple[str, JobState]] = Counter()
        for state in JobState:
            entries = chain.from_iterable(self.partitions([state], None))
            counts.update((read_text(entry, "profile"), state) for entry in entries)
        return dict(counts)

    def remember(self, source_sha256: str, profile: str, revision: str, reason: str) -> None:
        now = self.clock.now()
        decision = {"reason": reason, "made_at": now, TTL: int(now) + DECISION_RETENTION_S}
        pk = remembered_pk(source_sha256, profile, revision)
        self.update(pk, Change(frozenset(), {}, decision), "remember a decision")

    def recall(self, source_sha256: str, profile: str, revision: str) -> Remembered | None:
        item = self.item(remembered_pk(source_sha256, profile, revision))
        if item is None:
            return None
        return Remembered(
            reason=read_text(item, "reason"), made_at=read_number(item, "made_at") or 0.0
        )

    def add_parts(self, job_id: str, change: Change, parts: Sequence[SubjobOf]) -> bool:
        """Add the subjobs, then move the job: a kill in between leaves subjobs that nothing refers to."""
        job = self.get(job_id)
        if job is None or job.state not in change.states or job.fence != change.when["fence"]:
            return False
        for part in parts:
            subjob = new_subjob(job, part, self.clock.now())
            # An existing item is the same subjob: the name of a split is never used twice.
            self.create(item_of(subjob, self.pk_of(subjob.job_id)))
        return self.apply(job_id, change)

    def subjobs(self, job_id: str) -> list[JobRecord]:
        names = subjob_ids(self.get(job_id))
        return self.read([{"pk": text(self.pk_of(name))} for name in names])

    def pauses(self) -> tuple[Pause, ...]:
        return self._active_pauses(self.item(PAUSE_PK) or {})

    def _active_pauses(self, item: Item) -> tuple[Pause, ...]:
        now, pauses = self.clock.now(), []
        for name in sorted(name for name in item if name.startswith(PAUSE_PREFIX)):
            try:
                pause = Pause.model_validate_json(read_text(item, name))
            except ValidationError as error:
                get_logger().warning("pause_unreadable", name=name, reason=str(error))
                continue
            if pause.until is None or now < pause.until:
                pauses.append(pause)
        return tuple(pauses)

    def pause(self, pause: Pause) -> None:
        self._write_pauses({f"{PAUSE_PREFIX}{pause.profile}": pause})

    def resume(self, profile: str | None) -> tuple[Pause, ...]:
        item = self.item(PAUSE_PK) or {}
        active = self._active_pauses(item)
        names = item if profile is None else [PAUSE_PREFIX + profile]
        if removed := [name for name in names if name.startswith(PAUSE_PREFIX)]:
            self._write_pauses(dict.fromkeys(removed))
        return tuple(pause for pause in active if profile in (None, pause.profile))

    def _write_pauses(self, pauses: Mapping[str, Pause | None]) -> None:
        self.update(PAUSE_PK, Change(frozenset(), {}, pauses), "set a pause")
