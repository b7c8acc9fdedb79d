"""The ledger port over one DynamoDB table, by conditional writes alone.

Write units of a job whose item is at most 1 KiB (a job with a long key takes 2 instead of 1):
registration 3 (table and two indexes) and each transition 3 (the table, and the old and new entry
of `by_state`), and the digest of its certificate 1, so 10 for a job that succeeds at once. A running
job adds 1 for each heartbeat and at most 1 every PROGRESS_EVERY_S seconds: an hour's encode with a
60 s heartbeat costs 10 + 60 + 120. A claim reads one item. There are no transactions, because each job
is one item. A subjob is one item as well and in no index, so its transitions cost 1 unit each. The
subjobs of an earlier split are left to expire, because nothing refers to them any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hevcq.backends.aws.dynamodb.job_table import JobTable
from hevcq.backends.aws.dynamodb.schema import (
    LETTER,
    PAUSE_PK,
    REMEMBERED_KEPT_S,
    TTL,
    UNSENT,
    Item,
    float_of,
    item_of,
    job_pk,
    record_of,
    remembered_pk,
    string,
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

if TYPE_CHECKING:
    pass

READ_EVERY_S = 5.0
PREFIX = "of:"
"""Begins the name of the attribute of a profile; that of all profiles is the prefix alone."""


PROGRESS_EVERY_S = 30.0
"""Seconds between two records of progress: each is a write unit, so 120 for an hour's encode.

A chunk of a cancelled job stops within this time. Every 5 s it would cost each chunk 720 writes and
as many consistent reads an hour, more than 25 s of an unwanted encode are worth.
"""


class DynamoLedger(JobTable, Ledger):
    """Job states in one DynamoDB table."""

    pauses_read_every_s = READ_EVERY_S
    progress_every_s = PROGRESS_EVERY_S

    def check(self) -> None:
        self.item("check")

    def register(self, source: Source, profiles: list[str]) -> list[JobRecord]:
        return [self.registered(source, profile, unsent=False)[0] for profile in profiles]

    def registered(self, source: Source, profile: str, *, unsent: bool) -> tuple[JobRecord, bool]:
        """Register a job; return its current record, and whether its message is still unsent.

        `unsent` marks a new one as not sent yet.
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

    def sent(self, name: str) -> None:
        self.apply(name, Change(frozenset(), {"job_id": name}, {UNSENT: None}))

    def sent_anew(self, seen: JobRecord) -> None:
        """Record that an expired message was sent again, unless the job has moved since `seen`."""
        now = {"state": seen.state, "updated_at": self.clock.now()}
        self.apply(seen.job_id, change_if_unmoved(seen, now))

    def claim(self, source: Source, profile: str, *, owner: str, lease_s: float) -> Claim:
        """Claim, looking for the job under its profile alone."""
        self.found_at(job_pk(job_id(source, profile), profile))
        return super().claim(source, profile, owner=owner, lease_s=lease_s)

    def reopened(self, name: str, *, who: str, why: str) -> bool:
        """Reopen a settled job, marked as not sent yet; False if it is not settled."""

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
        """Count the entries of the index, which is seconds behind; 4,000 are read in a request."""
        found: Counter[tuple[str, JobState]] = Counter()
        for state in JobState:
            entries = chain.from_iterable(self.partitions([state], None))
            found.update((string(e, "profile"), state) for e in entries)
        return dict(found)

    def remember(self, source_sha256: str, profile: str, revision: str, reason: str) -> None:
        now = self.clock.now()
        kept = {"reason": reason, "made_at": now, TTL: int(now) + REMEMBERED_KEPT_S}
        pk = remembered_pk(source_sha256, profile, revision)
        self.update(pk, Change(frozenset(), {}, kept), "remember a decision")

    def recall(self, source_sha256: str, profile: str, revision: str) -> Remembered | None:
        item = self.item(remembered_pk(source_sha256, profile, revision))
        if item is None:
            return None
        return Remembered(reason=string(item, "reason"), made_at=float_of(item, "made_at") or 0.0)

    def add_parts(self, job_id: str, change: Change, parts: Sequence[SubjobOf]) -> bool:
        """Add the subjobs, then move the job: a kill between leaves subjobs that nothing refers to."""
        job = self.get(job_id)
        if job is None or job.state not in change.states or job.fence != change.when["fence"]:
            return False
        for part in parts:
            made = new_subjob(job, part, self.clock.now())
            # One that exists stays: the name of a split is never used twice.
            self.create(item_of(made, self.pk_of(made.job_id)))
        return self.apply(job_id, change)

    def subjobs(self, job_id: str) -> list[JobRecord]:
        names = subjob_ids(self.get(job_id))
        return self.read([{"pk": text(self.pk_of(name))} for name in names])

    def pauses(self) -> tuple[Pause, ...]:
        return self._held(self.item(PAUSE_PK) or {})

    def _held(self, item: Item) -> tuple[Pause, ...]:
        now, found = self.clock.now(), []
        for name in sorted(each for each in item if each.startswith(PREFIX)):
            try:
                pause = Pause.model_validate_json(string(item, name))
            except ValidationError as error:
                get_logger().warning("pause_unreadable", name=name, reason=str(error))
                continue
            if pause.until is None or now < pause.until:
                found.append(pause)
        return tuple(found)

    def pause(self, pause: Pause) -> None:
        self._set_pauses({f"{PREFIX}{pause.profile}": pause})

    def resume(self, profile: str | None) -> tuple[Pause, ...]:
        item = self.item(PAUSE_PK) or {}
        ended = tuple(each for each in self._held(item) if profile in (None, each.profile))
        names = item if profile is None else [PREFIX + profile]
        if gone := [name for name in names if name.startswith(PREFIX)]:
            self._set_pauses(dict.fromkeys(gone))
        return ended

    def _set_pauses(self, pauses: Mapping[str, Pause | None]) -> None:
        self.update(PAUSE_PK, Change(frozenset(), {}, pauses), "set a pause")
