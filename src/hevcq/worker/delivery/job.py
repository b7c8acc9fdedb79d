"""The base class of encode, chunk and join jobs, their events, and whose fault a failure is.

A job is one attempt at a claimed task. `run` does the work and returns a verdict or raises;
`record` writes the verdict to the ledger. `decide` classifies an error once, and blames the source,
the job or this worker. A worker at fault goes out of service, and its jobs are not charged. A source
that changed or disappeared while it was read is no failure of the job. `worker/handler.py` calls these.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import assert_never

from structlog.typing import FilteringBoundLogger

from hevcq.domain.certificate import GateResult, why_keep_original
from hevcq.domain.events import EventName, WorkerEventName
from hevcq.domain.job import Phase, Progress, RenditionRef
from hevcq.domain.keys import MASTER, rendition_key, set_version
from hevcq.domain.planning.encode_plan import EncodePlan, SkipReason, Work
from hevcq.domain.verdict import (
    Abandon,
    Bury,
    Done,
    FailureClass,
    Handling,
    Release,
    RetryIn,
    Skipped,
    Verdict,
    backoff,
    classify,
    handling,
    verdict,
)
from hevcq.errors import (
    DatabaseBusy,
    EncoderFailed,
    HevcqError,
    Paused,
    SourceAway,
    SourceChanged,
    SourceGone,
    StaleFence,
    StorageError,
    TransientError,
    Unavailable,
    WorkerUnfit,
)
from hevcq.ports.encoder import (
    COPIED_AS,
    EncodeProgress,
    EncodeReport,
    EncodeRequest,
    OnProgress,
    SetFile,
)
from hevcq.ports.ledger import Granted
from hevcq.ports.queue import Delivery
from hevcq.util.log import get_logger
from hevcq.worker.delivery.claim import ClaimedTask, LedgerTransitions, WorkerContext, delay_of
from hevcq.worker.out_of_service import SUSPECT

JOB_ENDS = frozenset({EventName.JOB_DONE, EventName.JOB_SKIPPED, EventName.JOB_BURIED})
"""The events that end the whole job, even if a subjob caused them."""


def emit_started(
    context: WorkerContext, claimed: ClaimedTask, delivery: Delivery, *, part: str = ""
) -> None:
    fields = {"part": part} if part else {}
    _log(claimed).info(EventName.JOB_STARTED.value, attempt=delivery.attempt, **fields)
    context.emit(claimed.event(EventName.JOB_STARTED, part=part))


def emit_settled(
    context: WorkerContext,
    claimed: ClaimedTask,
    decided: Verdict,
    part: str,
    rendition: RenditionRef | None,
) -> None:
    """Report the verdict on a job, or on a subjob that did not end its job."""
    kind, reason, failure_class = _event_facts(decided)
    if kind is EventName.JOB_DONE and rendition is None:
        kind = EventName.PART_DONE if part else EventName.JOB_SPLIT
    log = _log(claimed)
    write = log.warning if kind in {EventName.JOB_BURIED, EventName.JOB_RETRY} else log.info
    class_name = failure_class.value if failure_class else None
    write(kind.value, reason=reason, failure_class=class_name, delay_s=delay_of(decided))
    event = claimed.event(
        kind,
        reason=reason,
        failure_class=failure_class,
        delay_s=delay_of(decided),
        rendition=rendition if kind is EventName.JOB_DONE else None,
        part="" if kind in JOB_ENDS else part,
    )
    context.emit(event)


def _log(claimed: ClaimedTask) -> FilteringBoundLogger:
    return get_logger(
        job=claimed.task.job_id,
        profile=claimed.task.profile,
        source=claimed.task.source.key,
        fence=claimed.fence.number,
        worker=claimed.worker,
    )


def _event_facts(decided: Verdict) -> tuple[WorkerEventName, str, FailureClass | None]:
    match decided:
        case Done():
            return EventName.JOB_DONE, "", None
        case Skipped():
            return EventName.JOB_SKIPPED, decided.reason, None
        case RetryIn():
            return EventName.JOB_RETRY, decided.reason, decided.failure_class
        case Bury():
            return EventName.JOB_BURIED, decided.reason, decided.failure_class
        case Release():
            return EventName.JOB_RELEASED, decided.reason, None
        case Abandon():
            return EventName.JOB_ABANDONED, decided.reason, None
        case _:
            assert_never(decided)


class Reporter:
    """Report one job's progress. Errors here never fail the job, but a stale fence ends it."""

    def __init__(
        self,
        context: WorkerContext,
        claimed: ClaimedTask,
        part: str = "",
        after_write: Callable[[], None] = lambda: None,
    ) -> None:
        """`part` labels a subjob; `after_write` is called after each write of progress to the ledger."""
        self._context, self._claimed, self._part = context, claimed, part
        self._lease, self._fence = claimed.lease, claimed.fence
        self._after_write = after_write
        self._written: tuple[Phase | None, float] = (None, 0.0)

    def phase(self, phase: Phase) -> None:
        self._report(Progress(phase=phase))

    def moved(self, phase: Phase, total: int) -> Callable[[int], None]:
        """Return a callback that takes the bytes moved so far, of a transfer of `total` bytes."""
        return lambda moved: self.percent(phase, 100 * moved / total if total else 100.0)

    def encoding(self, phase: Phase, expected_s: float | None) -> OnProgress:
        """Return a callback for an encode or a verification of `expected_s` seconds of video."""

        def on_progress(now: EncodeProgress) -> None:
            eta = None
            if expected_s and now.speed:
                eta = max(0.0, expected_s - now.out_time_s) / now.speed
            self.percent(phase, now.fraction * 100, speed=now.speed, eta_s=eta)

        return on_progress

    def percent(
        self,
        phase: Phase,
        percent: float,
        *,
        speed: float | None = None,
        eta_s: float | None = None,
    ) -> None:
        """Report a percentage, clamped to 0 to 100; `eta_s` is seconds, `speed` 1 at real time."""
        bounded = min(100.0, max(0.0, percent))
        self._report(Progress(phase=phase, percent=bounded, speed=speed, eta_s=eta_s))

    def _report(self, progress: Progress) -> None:
        # Reading `cause` notices a deadline that passed while a heartbeat hangs.
        if self._lease.cause is not None:
            return
        event = self._claimed.event(EventName.JOB_PROGRESS, progress=progress, part=self._part)
        self._context.emit(event)
        now = self._context.clock.monotonic()
        phase, written_at = self._written
        if progress.phase is phase and now - written_at < self._fence.ledger.progress_every_s:
            return
        self._written = (progress.phase, now)
        try:
            self._fence.ledger.progress(self._fence.job_id, self._fence.number, progress)
        except StaleFence as error:
            self._lease.end(error)
        except (TransientError, StorageError) as error:
            get_logger(job=self._claimed.task.job_id).debug(
                "progress_not_written", reason=str(error)
            )
        self._after_write()


@dataclass(frozen=True, slots=True)
class VerifiedEncode:
    """An encode that passed its gates and is not yet published; `verify_s` in seconds.

    For a set, `file` is the master playlist. `join` is the fence of the join that made it, else 0.
    """

    key: str
    file: Path
    source_sha256: str
    plan: EncodePlan
    report: EncodeReport
    gates: tuple[GateResult, ...]
    verify_s: float
    join: int = 0

    @property
    def members(self) -> tuple[SetFile, ...]:
        return tuple(file for file in self.report.files if file.name != MASTER)


class Job(ABC):
    """One attempt at a claimed task: from its source to a verdict in the ledger.

    `rendition` is set once the job is complete. `part` labels a chunk or a join for people, and is
    empty for a whole video. `sent_back` says that a join requeued a chunk. The join then returns in a
    new message whose attempt number starts again, so only the ledger's failure count limits that loop.
    """

    part = ""

    def __init__(self, context: WorkerContext, claimed: ClaimedTask, granted: Granted) -> None:
        self.claimed, self.granted = claimed, granted
        self.rendition: RenditionRef | None = None
        self.sent_back = False
        self._context = context
        self._task, self._profile = claimed.task, claimed.profile
        self._lease, self._source = claimed.lease, claimed.task.source
        self._store, self._ledger = context.backend.store, context.backend.ledger
        self.transitions = LedgerTransitions(context, claimed.lease, claimed.fence)
        self._report = Reporter(context, claimed)

    def run(self) -> Verdict:
        """Check that the source is still the queued version, then do the work.

        May raise any HevcqError; `delivery.decide` turns it into a verdict.
        """
        self._context.retry_control_call(lambda: self._store.check(self._source))
        return self._run()

    @abstractmethod
    def _run(self) -> Verdict:
        """Do the work; return Done, Skipped or Release."""

    def record(self, verdict: Verdict) -> Verdict:
        """Write the verdict to the ledger; return the verdict on the delivery.

        Raises StaleFence if this attempt no longer owns the job, and Unavailable or
        StorageError if the ledger does not answer.
        """
        self.transitions.record(verdict)
        return verdict

    def _emit_notices(self, notices: tuple[str, ...]) -> None:
        for sentence in notices:
            self._context.emit(self.claimed.event(EventName.JOB_NOTICE, reason=sentence))

    @contextmanager
    def _fetched(self, folder: Path) -> Iterator[tuple[Path, str]]:
        """Fetch the source; yield its path and its location for the encoder.

        Raises Unavailable if the store handed out no local file.
        """
        moved = self._report.moved(Phase.FETCH, self._source.size)
        with self._store.fetch(self._source, folder, moved=moved, stop=self._lease.stop) as fetched:
            if fetched.path is None:
                raise Unavailable("The store handed out no local file to read the source from.")
            yield fetched.path, fetched.location

    def _request(self, work: Work, location: str, output: Path) -> EncodeRequest:
        return EncodeRequest(
            profile=work.recipe,
            plan=work.plan,
            info=work.info,
            location=location,
            output=output,
            duration_s=work.duration_s,
            source_size=self._source.size,
            max_seconds=self._lease.left_s,
            threads=work.recipe.bounds.threads or self._context.threads,
            measured=work.measured,
            version=self._version,
        )

    @property
    def _version(self) -> str:
        """The name of this attempt's folder, if it makes a set."""
        return set_version(self._task.job_id, self.claimed.fence.number)

    def _key(self, work: Work) -> str:
        return rendition_key(self._source.key, work.recipe.name, work.plan.extension)

    def _verify(
        self, work: Work, location: str, output: Path, report: EncodeReport
    ) -> VerifiedEncode | Skipped:
        """Run the gates over an encode. Return it, or Skipped if the original is to be kept.

        Raises VerificationFailed if a gate fails.
        """
        self._emit_notices(report.notices)
        self._report.phase(Phase.VERIFY)
        began = self._context.clock.monotonic()
        encoder, stop = self._context.encoder, self._lease.stop
        request = self._request(work, location, output).to_verify(report)
        on_progress = self._report.encoding(Phase.VERIFY, work.duration_s)
        gates = encoder.verify(request, on_progress=on_progress, stop=stop)
        reason = why_keep_original(gates)
        if reason is not None:
            return self._remember_skip(work, reason)
        plan = work.plan.with_notices(*report.notices)
        if plan.aim is not None:
            plan = plan.with_verified_quality(encoder.check_quality(request, stop=stop))
        verify_s = self._context.clock.monotonic() - began
        return VerifiedEncode(
            key=self._key(work),
            file=output / MASTER if report.files else output,
            source_sha256=work.source_sha256,
            plan=plan,
            report=report,
            gates=gates,
            verify_s=verify_s,
        )

    def _remember_skip(self, work: Work, reason: str) -> Skipped:
        """Record that these bytes are not worth encoding, then skip them.

        Recorded first, so that a kill in between costs no second encode.
        """
        sha256, recipe = work.source_sha256, work.recipe
        self._context.retry_control_call(
            lambda: self._ledger.remember(sha256, recipe.name, recipe.revision, reason)
        )
        return Skipped(reason=f"{SkipReason.NOT_SMALLER.value}: {reason}")


SOURCE_SUSPECT = frozenset({Handling.NEVER_AGAIN, Handling.LATER})
"""The handling of errors that the source may have caused."""


def decide(
    context: WorkerContext, job: Job, error: Exception, delivery: Delivery
) -> tuple[Verdict, HevcqError | None]:
    """Return the verdict on a job that raised `error`, and why this worker is unfit, if it is.

    An error after a lost lease or a stop is attributed to that. A changed source is blamed before
    the job, and an unfit worker before both.
    """
    claimed, profile = job.claimed, job.claimed.profile
    cause = claimed.lease.cause or _name_source(context, error, claimed)
    source, store = claimed.task.source, context.backend.store
    # With too few receives to spare, the queue would give the job up before max_failures is reached.
    has_spare = delivery.attempt < profile.queue.max_receives - profile.queue.max_failures
    check = partial(context.retry_control_call, lambda: store.check(source))
    cause = _blame_source(check, cause, has_spare=has_spare)
    is_suspect = not job.sent_back and context.breaker.may_be_worker_fault(
        claimed.task.job_id, classify(cause), first=not job.granted.suspected_worker_faults
    )
    cause = _blame_worker(context, cause, claimed)
    unfit = cause if isinstance(cause, HevcqError) and is_unfit(cause) else None
    if not isinstance(cause, HevcqError):
        get_logger(job=claimed.task.job_id).exception("job_broke", exc_info=cause)
    limits, jitter = profile.queue.limits, context.random()
    failures, attempt = job.granted.failures, delivery.attempt
    decided = verdict(cause, failures=failures, limits=limits, jitter=jitter, attempt=attempt)
    if isinstance(cause, (Paused, SourceAway)) and not has_spare:
        # Being stopped every night, or waiting for a disk, must not use up a job's receives.
        decided = Release(reason=str(cause), afresh=True)
    if is_suspect and has_spare and isinstance(decided, (RetryIn, Bury)):
        # The delay keeps this worker from being the first to receive the job again.
        decided = Release(
            reason=f"Perhaps this worker's fault: {decided.reason}",
            delay_s=backoff(0, limits, jitter),
            suspected_worker_fault=True,
        )
    return decided, unfit


def _name_source(context: WorkerContext, error: Exception, claimed: ClaimedTask) -> Exception:
    """Put the source's key in place of its path in the scratch folder; return the error.

    Such a path says nothing to a person, and no longer exists when the dead letter is read.
    """
    if not isinstance(error, HevcqError):
        return error
    source, folder = claimed.task.source, re.escape(str(context.scratch.folder))
    below = rf"{folder}/hevcq-\d+-\d+/[^/\s]+/"
    fetched = re.compile(rf"(?:{below})?\b{source.source_id}(?:\.[A-Za-z0-9]{{1,8}}\b)?")
    copied = re.compile(rf"{below}{COPIED_AS}\.[a-z]+\b")
    other = re.compile(rf"{below}([^/\s'\":,;]+)")

    def replace_paths(text: str) -> str:
        for pattern in fetched, copied:
            text = pattern.sub(lambda _match: source.key, text)
        return other.sub(r"the temporary file \1", text)

    error.message = replace_paths(error.message)
    error.args = (error.message, *error.args[1:])
    if isinstance(error, EncoderFailed):
        error.tail = tuple(replace_paths(line) for line in error.tail)
    return error


def is_unfit(error: Exception) -> bool:
    """Return whether an error means that this machine must go out of service."""
    is_lasting = isinstance(error, (WorkerUnfit, StorageError))
    return is_lasting and not isinstance(error, DatabaseBusy)


def _blame_source(check: Callable[[], None], error: Exception, *, has_spare: bool) -> Exception:
    """Return the error of the source instead of an `error` that its change may have caused.

    `check` examines the source in its store. It raises if the source changed, is gone, or is away with
    its whole disk or store. A file that is overwritten or removed during the read seems damaged or
    fails a gate; its owner must not get such a report about an intact video. A store that did not
    answer and still does not has an outage, which costs no job an attempt while its message
    `has_spare` receives.
    """
    if handling(error) not in SOURCE_SUSPECT:
        return error
    try:
        check()
    except (SourceGone, SourceChanged, SourceAway) as source_error:
        source_error.__cause__ = error
        return source_error
    except HevcqError as check_error:
        is_silent = type(error) is type(check_error) is Unavailable
        if is_silent and has_spare and not isinstance(check_error.__cause__, OSError):
            return SourceAway(str(check_error))
        get_logger().info("source_not_asked", reason=str(check_error))
    return error


def _blame_worker(context: WorkerContext, error: Exception, claimed: ClaimedTask) -> Exception:
    """Return WorkerUnfit instead of `error` if this worker is to blame and not the job."""
    blamed = _blame_encoder(context, error, claimed)
    may_pass_later = handling(blamed) is Handling.LATER
    if may_pass_later and context.breaker.record_failure(claimed.task.job_id, classify(error)):
        return WorkerUnfit(
            "Different jobs failed here one after another, so this worker takes no more.",
            remedy=f"See `hevcq doctor`. The last error was: {error}",
        )
    return blamed


def _blame_encoder(context: WorkerContext, error: Exception, claimed: ClaimedTask) -> Exception:
    """Return WorkerUnfit if the encoder fails its self-test after a failure that it may have caused.

    So even the first job that fails on an unfit worker is not charged.
    """
    if handling(error) is Handling.LATER and classify(error) in SUSPECT:
        try:
            with context.scratch.job("self-test") as folder:
                context.encoder.self_test(
                    claimed.profile, folder, stop=claimed.lease.stop, again=True
                )
        except WorkerUnfit as unfit:
            get_logger(job=claimed.task.job_id).error("trial_failed", reason=str(unfit))
            return unfit
        except HevcqError as test_error:
            get_logger().info("trial_ended", reason=str(test_error))
    return error
