"""Track queued jobs in the ledger to their end, collect each rendition, and sum up the results.

The ledger holds the jobs of this process, of others on the same data folder, and of a fleet alike.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.domain.job import SETTLED, JobRecord, JobState, Progress, split_progress
from hevcq.domain.planning.encode_plan import skip_in_words
from hevcq.domain.verdict import FailureClass
from hevcq.errors import DiskFull, HevcqError, Interruption, Unavailable
from hevcq.ports.catalog import Mode
from hevcq.ports.ledger import JobFilter, Ledger
from hevcq.usecases.ingest.decide import Disposition, IngestPlan, Item
from hevcq.usecases.placement.collect import Collected, Collector
from hevcq.util.clock import Clock
from hevcq.util.text import printable


class IngestOutcome(StrEnum):
    """The result for one file and one profile; values are stable: `summary` in `--json` counts them."""

    PLACED = "placed"
    EARLIER = "done_earlier"
    SKIPPED = "skipped"
    REFUSED = "refused"
    FAILED = "failed"
    NOT_PLACED = "not_placed"
    QUEUED = "queued"
    OPEN = "open"


GOOD = frozenset(
    {
        IngestOutcome.PLACED,
        IngestOutcome.EARLIER,
        IngestOutcome.SKIPPED,
        IngestOutcome.QUEUED,
    }
)
PLANNED_OUTCOMES: dict[Disposition, IngestOutcome] = {
    Disposition.DONE: IngestOutcome.EARLIER,
    Disposition.SKIP: IngestOutcome.SKIPPED,
    Disposition.REFUSE: IngestOutcome.REFUSED,
    Disposition.FAILED: IngestOutcome.FAILED,
    Disposition.UNREADABLE: IngestOutcome.REFUSED,
}
"""The outcome of items that are never queued."""


@dataclass(frozen=True, slots=True)
class IngestResult:
    """One line of the closing table; `seconds` is the wall time of the encode.

    `done` is where its rendition is. `notices` are the rendition's losses that the plan did not know.
    """

    item: Item
    outcome: IngestOutcome
    reason: str = ""
    done: Collected | None = None
    seconds: float | None = None
    notices: tuple[str, ...] = ()

    @property
    def placed(self) -> Collected | None:
        """The rendition if this ingest placed it."""
        return None if self.done is None or self.done.already else self.done

    @property
    def saved(self) -> int:
        """Bytes by which the rendition is smaller; 0 unless this ingest placed it."""
        return 0 if self.placed is None else max(0, self.item.size - self.placed.size)


@dataclass(slots=True)
class IngestSummary:
    """Collects results; `interrupted`: open jobs were left behind on purpose."""

    results: list[IngestResult] = field(default_factory=list)
    interrupted: bool = False

    def add(self, result: IngestResult) -> None:
        self.results.append(result)

    def add_planned(self, plan: IngestPlan) -> None:
        for item in plan.items:
            outcome = PLANNED_OUTCOMES.get(item.disposition)
            if outcome is not None:
                self.add(IngestResult(item, outcome, item.reason))

    def counts(self) -> dict[IngestOutcome, int]:
        """Return the number of results of each outcome, in the order of the enum."""
        outcomes = [result.outcome for result in self.results]
        return {kind: outcomes.count(kind) for kind in IngestOutcome if kind in outcomes}

    @property
    def replaced(self) -> list[IngestResult]:
        """The results whose rendition replaced its original in this ingest."""
        return [each for each in self.results if each.placed and each.placed.mode is Mode.REPLACE]

    @property
    def beside(self) -> list[IngestResult]:
        """The results that this ingest placed beside their originals, or in another folder."""
        return [
            each for each in self.results if each.placed and each.placed.mode is not Mode.REPLACE
        ]

    @property
    def added(self) -> int:
        """Bytes of the renditions in `beside`."""
        return sum(each.placed.size for each in self.beside if each.placed)

    @property
    def saved(self) -> int:
        """Bytes that will be free once the originals in `replaced` are deleted."""
        return sum(result.saved for result in self.replaced)

    @property
    def settled(self) -> bool:
        left = {IngestOutcome.OPEN, IngestOutcome.QUEUED}
        return not any(result.outcome in left for result in self.results)

    @property
    def all_good(self) -> bool:
        """Whether nothing failed, was refused, or is still open."""
        return all(result.outcome in GOOD for result in self.results)


def item_event(name: EventName, at: float, item: Item, **fields: object) -> IngestEvent:
    """Return an event about an item, `at` in wall seconds; fields that are None are left out."""
    given = {key: value for key, value in fields.items() if value is not None}
    base = {
        "event": name,
        "at": at,
        "path": printable(item.path),
        "profile": item.profile.name if item.profile else None,
        "job": item.job_id or None,
    }
    return IngestEvent.model_validate(base | given)


SLACK_S = 60.0
"""Largest difference between the clocks of two machines at which no change is missed."""
SWEEP_S = 30.0
"""Seconds between two reads of every open job by id, in addition to the listing by time."""
WORKED_ON = frozenset({JobState.RUNNING, JobState.SPLIT})
NOT_FINISHED = "Not finished; run the same command to resume."
RETRY_FIRST_S = 0.5
RETRY_PLACE_S = 5.0
"""Seconds until the first and each later retry of a placement, after the disk was full or away."""


@dataclass(slots=True)
class _Open:
    item: Item
    job: JobRecord
    place_after: float = 0.0
    tries: int = 0
    paused: str = ""
    shown: Progress | None = None
    local: bool = False


class JobTracker:
    """Tracks the open jobs of one ingest; `add` and `step` may run in different threads."""

    def __init__(
        self,
        ledger: Ledger,
        collector: Collector,
        summary: IngestSummary,
        emit: Listener,
        clock: Clock,
    ) -> None:
        """Create a tracker without jobs.

        `sweep` is called before open jobs are read by id, `on_encoded` with each item that was encoded
        and put in place; neither may raise.
        """
        self._ledger, self._collector = ledger, collector
        self.summary, self._emit, self._clock = summary, emit, clock
        self.sweep: Callable[[], object] = lambda: None
        self.on_encoded: Callable[[Item, JobRecord, Collected], object] = lambda *_: None
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}
        self._paused: set[str] = set()
        self._cursor = 0.0
        self._next_sweep = clock.monotonic() + SWEEP_S

    @property
    def open(self) -> int:
        with self._lock:
            return len(self._open)

    @property
    def profiles(self) -> set[str]:
        with self._lock:
            return {entry.job.profile for entry in self._open.values()}

    def follows(self, job_id: str) -> bool:
        with self._lock:
            return job_id in self._open

    def add(self, item: Item, job: JobRecord) -> None:
        with self._lock:
            self._open[job.job_id] = _Open(item, job)
        self.tell(EventName.JOB_QUEUED, item, job=job.job_id)

    def step(self, stop: threading.Event) -> None:
        """Handle the changes since the last call; collect finished renditions."""
        for job in self._changed():
            with self._lock:
                entry = self._open.get(job.job_id)
            if entry is None:
                continue
            before, entry.job = entry.job, job
            self._handle(entry, before, stop)
            if stop.is_set():
                return

    def note(self, job_id: str, progress: Progress) -> None:
        """Record the progress of a job of this process, ahead of the ledger."""
        with self._lock:
            entry = self._open.get(job_id)
        if entry is not None:
            entry.local = True
            self._progress(entry, progress)

    def leave(
        self, outcome: IngestOutcome = IngestOutcome.OPEN, reason: str = NOT_FINISHED
    ) -> None:
        """Count every open job as `outcome`, because the ingest ends before they do."""
        with self._lock:
            entries = list(self._open.values())
            self._open.clear()
        for entry in entries:
            self._end(entry, outcome, reason)

    def _changed(self) -> list[JobRecord]:
        with self._lock:
            open_now = {name: entry.job for name, entry in self._open.items()}
        if not open_now:
            return []
        jobs = {name: job for name, job in open_now.items() if job.state in SETTLED}
        if self._clock.monotonic() >= self._next_sweep:
            self._next_sweep = self._clock.monotonic() + SWEEP_S
            self.sweep()
            to_read = set(open_now)
        else:
            jobs.update(self._list_active())
            ran = {name for name, job in open_now.items() if job.state in WORKED_ON}
            to_read = ran - jobs.keys()
        jobs.update({n: job for n in to_read if (job := self._ledger.get(n)) is not None})
        return list(jobs.values())

    def _list_active(self) -> dict[str, JobRecord]:
        """Return running and recently ended jobs: few rows, however many jobs are queued."""
        running = JobFilter(states=WORKED_ON)
        ended = JobFilter(states=SETTLED, updated_after=max(0.0, self._cursor - SLACK_S))
        jobs = {job.job_id: job for job in self._ledger.jobs(running)}
        for job in self._ledger.jobs(ended):
            jobs[job.job_id] = job
            self._cursor = max(self._cursor, job.updated_at)
        return jobs

    def _handle(self, entry: _Open, before: JobRecord, stop: threading.Event) -> None:
        job = entry.job
        match job.state:
            case JobState.DONE:
                self._collect(entry, stop)
            case JobState.SKIPPED:
                self._collector.mark_source_finished(job.source)
                code, words = skip_in_words(job.reason)
                self._end(entry, IngestOutcome.SKIPPED, words)
                self.tell(EventName.JOB_SKIPPED, entry.item, reason=words, skip=code)
            case JobState.DEAD:
                why = job.failure_class.value if job.failure_class else None
                reason = job.reason or "The job failed."
                self._end(entry, IngestOutcome.FAILED, reason)
                self.tell(EventName.JOB_FAILED, entry.item, reason=reason, failure_class=why)
            case JobState.QUEUED if job.reason and job.reason != before.reason:
                self._tell_retry(entry, job)
            case JobState.RUNNING:
                self._tell_running(entry, before)
            case JobState.SPLIT:
                entry.local = False
                chunks = split_progress(entry.job, self._ledger.subjobs(entry.job.job_id))
                self._progress(entry, chunks.progress if chunks is not None else None)
            case _:
                return

    def _tell_retry(self, entry: _Open, job: JobRecord) -> None:
        """Tell why a job waits; a full or missing disk once, because all its jobs wait for that reason."""
        words = job.reason.lower()
        no_disk = job.failure_class is FailureClass.DISK or "space" in words
        if no_disk or words.startswith("the folder "):
            if job.reason not in self._paused:
                self._paused.add(job.reason)
                self.tell(EventName.PAUSED, entry.item, reason=job.reason)
        else:
            self.tell(EventName.JOB_RETRY, entry.item, reason=job.reason)

    def _tell_running(self, entry: _Open, before: JobRecord) -> None:
        if entry.job.fence != before.fence:
            entry.local = False
        if entry.job.progress is not None:  # the disk is back
            self._paused.clear()
        # The ledger lags behind this process's own workers: the bar would jump back.
        if not entry.local:
            self._progress(entry, entry.job.progress)

    def _progress(self, entry: _Open, progress: Progress | None) -> None:
        if progress is None or entry.shown == progress:
            return
        entry.shown = progress
        self.tell(
            EventName.JOB_PROGRESS,
            entry.item,
            phase=progress.phase.value,
            percent=round(progress.percent, 1),
            speed=progress.speed,
            eta_s=progress.eta_s,
        )

    def _collect(self, entry: _Open, stop: threading.Event) -> None:
        if self._clock.monotonic() < entry.place_after:
            return
        try:
            done = self._collector.collect(entry.job, stop)
        except Interruption:
            return
        except (DiskFull, Unavailable) as error:
            # The first time, another ingest may be placing the same job.
            wait = RETRY_PLACE_S if entry.tries else RETRY_FIRST_S
            entry.place_after = self._clock.monotonic() + wait
            entry.tries += 1
            if entry.tries > 1 and entry.paused != str(error):
                entry.paused = str(error)
                self.tell(EventName.PAUSED, entry.item, reason=entry.paused)
        except HevcqError as error:
            self._end(entry, IngestOutcome.NOT_PLACED, str(error))
            self.tell(EventName.PLACE_FAILED, entry.item, reason=str(error))
        else:
            self._placed(entry, done)

    def _placed(self, entry: _Open, done: Collected) -> None:
        entry.item = replace(entry.item, target=done.target)
        self.tell(
            EventName.JOB_DONE,
            entry.item,
            size=entry.item.size,
            output_size=done.size,
            bytes_saved=None if done.already else entry.item.size - done.size,
            seconds=_seconds(entry.job),
        )
        if done.already:
            words = f"Already in place: {printable(done.target)}."
            self._end(entry, IngestOutcome.EARLIER, words, done)
            return
        self.on_encoded(entry.item, entry.job, done)
        self._end(entry, IngestOutcome.PLACED, " ".join(done.notices), done)
        self.tell(
            EventName.PLACED,
            entry.item,
            target=printable(done.target),
            mode=done.mode.value,
            notices=(*_unplanned_notices(entry), *done.notices) or None,
        )

    def _end(
        self,
        entry: _Open,
        outcome: IngestOutcome,
        reason: str,
        done: Collected | None = None,
    ) -> None:
        with self._lock:
            self._open.pop(entry.job.job_id, None)
        notices = () if done is None or done.already else _unplanned_notices(entry)
        took_s = _seconds(entry.job)
        self.summary.add(IngestResult(entry.item, outcome, reason, done, took_s, notices))

    def tell(self, name: EventName, item: Item, **fields: object) -> None:
        self._emit(item_event(name, self._clock.now(), item, **fields))


def _unplanned_notices(entry: _Open) -> tuple[str, ...]:
    """Return the notices of a rendition that its plan did not have, so that a dry run could not show them."""
    rendition, plan = entry.job.rendition, entry.item.plan
    planned = () if plan is None else plan.notices
    return () if rendition is None else tuple(n for n in rendition.notices if n not in planned)


def _seconds(job: JobRecord) -> float | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return round(max(0.0, job.finished_at - job.started_at), 2)
