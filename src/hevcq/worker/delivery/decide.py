"""Decide on a failed job: classify its error once; blame the source, the job or this worker.

A worker at fault stops, and its jobs are not charged. A source that changed or disappeared while it
was read is no failure of the job.
"""

import re
from collections.abc import Callable
from functools import partial

from hevcq.domain.verdict import (
    Bury,
    Handling,
    Release,
    RetryIn,
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
    StorageError,
    Unavailable,
    WorkerUnfit,
)
from hevcq.ports.encoder import COPIED_AS
from hevcq.ports.queue import Delivery
from hevcq.util.log import get_logger
from hevcq.worker.admission import SUSPECT
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.job import Job

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
    cause = claimed.lease.cause or _named(context, error, claimed)
    source, store = claimed.task.source, context.backend.store
    # With too few receives to spare, the queue would give the job up before max_failures is reached.
    spare = delivery.attempt < profile.queue.max_receives - profile.queue.max_failures
    check = partial(context.retry_control_call, lambda: store.check(source))
    cause = _blame_source(check, cause, spare=spare)
    doubtful = not job.sent_back and context.breaker.doubtful(
        claimed.task.job_id, classify(cause), first=not job.granted.suspected_worker_faults
    )
    cause = _blame_worker(context, cause, claimed)
    unfit = cause if isinstance(cause, HevcqError) and is_unfit(cause) else None
    if not isinstance(cause, HevcqError):
        get_logger(job=claimed.task.job_id).exception("job_broke", exc_info=cause)
    limits, jitter = profile.queue.limits, context.random()
    decided = verdict(
        cause,
        failures=job.granted.failures,
        limits=limits,
        jitter=jitter,
        attempt=delivery.attempt,
    )
    if isinstance(cause, (Paused, SourceAway)) and not spare:
        # A job that is stopped every night, or waits for a disk, must not run out of receives by that.
        decided = Release(reason=str(cause), afresh=True)
    if doubtful and spare and isinstance(decided, (RetryIn, Bury)):
        # The delay keeps this worker from being the first to receive the job again.
        decided = Release(
            reason=f"Perhaps this worker's fault: {decided.reason}",
            delay_s=backoff(0, limits, jitter),
            suspected_worker_fault=True,
        )
    return decided, unfit


def _named(context: WorkerContext, error: Exception, claimed: ClaimedTask) -> Exception:
    """Return the error with the source's key in place of paths in the scratch folder.

    Such a path says nothing to a person, and is gone when the dead letter is read.
    """
    if not isinstance(error, HevcqError):
        return error
    source, folder = claimed.task.source, re.escape(str(context.scratch.folder))
    below = rf"{folder}/hevcq-\d+-\d+/[^/\s]+/"
    fetched = re.compile(rf"(?:{below})?\b{source.source_id}(?:\.[A-Za-z0-9]{{1,8}}\b)?")
    copied = re.compile(rf"{below}{COPIED_AS}\.[a-z]+\b")
    other = re.compile(rf"{below}([^/\s'\":,;]+)")

    def named(text: str) -> str:
        for of_source in fetched, copied:
            text = of_source.sub(lambda _found: source.key, text)
        return other.sub(r"the temporary file \1", text)

    error.message = named(error.message)
    error.args = (error.message, *error.args[1:])
    if isinstance(error, EncoderFailed):
        error.tail = tuple(named(line) for line in error.tail)
    return error


def is_unfit(error: Exception) -> bool:
    """Return whether an error means that this machine must take no more work: it is unfit."""
    sick = isinstance(error, (WorkerUnfit, StorageError))
    return sick and not isinstance(error, DatabaseBusy)


def _blame_source(check: Callable[[], None], error: Exception, *, spare: bool) -> Exception:
    """Return what became of the source instead of an `error` that it may have caused.

    `check` examines the source in its store and raises if it changed, is gone, or is away with all
    that lies beside it. A file that is overwritten or removed while it is read seems damaged or fails
    a gate; its owner must not get such a report about an intact video. A store that did not answer and
    still does not is in an outage, which no job is charged for while its message has receives to spare.
    """
    if handling(error) not in SOURCE_SUSPECT:
        return error
    try:
        check()
    except (SourceGone, SourceChanged, SourceAway) as became:
        became.__cause__ = error
        return became
    except HevcqError as unknown:
        silent = type(error) is type(unknown) is Unavailable
        if silent and spare and not isinstance(unknown.__cause__, OSError):
            return SourceAway(str(unknown))
        get_logger().info("source_not_asked", reason=str(unknown))
    return error


def _blame_worker(context: WorkerContext, error: Exception, claimed: ClaimedTask) -> Exception:
    """Return WorkerUnfit instead of `error` if this worker is to blame and not the job."""
    blame = _self_tested(context, error, claimed)
    later = handling(blame) is Handling.LATER
    if later and context.breaker.failed(claimed.task.job_id, classify(error)):
        return WorkerUnfit(
            "Different jobs failed here one after another, so this worker takes no more.",
            remedy=f"See `hevcq doctor`. The last error was: {error}",
        )
    return blame


def _self_tested(context: WorkerContext, error: Exception, claimed: ClaimedTask) -> Exception:
    """Return WorkerUnfit if the encoder fails its self-test after a failure that it may have caused.

    So not even the first job on an unfit worker is charged for its fault.
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
        except HevcqError as unknown:
            get_logger().info("trial_ended", reason=str(unknown))
    return error
