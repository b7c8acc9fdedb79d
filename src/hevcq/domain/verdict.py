"""Decide the verdict on a delivery in one pure function; the worker only executes it."""

from enum import StrEnum
from typing import assert_never

from pydantic import Field

from hevcq.domain.model import Frozen
from hevcq.errors import (
    BadKey,
    BadMessage,
    DiskFull,
    EncoderFailed,
    EncoderStalled,
    HevcqError,
    Interruption,
    LeaseLost,
    LimitExceeded,
    MediaRefused,
    NeedsReview,
    OutOfMemory,
    PermanentError,
    SourceAway,
    SourceChanged,
    SourceDamaged,
    SourceGone,
    SourceUnreadable,
    StaleFence,
    StorageError,
    Unavailable,
    VerificationFailed,
    WorkerUnfit,
)

MAX_AWAY_S = 300.0
"""Longest delay before a task whose source's storage was away is tried again."""


class FailureClass(StrEnum):
    """The class of failure that buried a delivery; `hevcq failures list --class` selects by it."""

    MESSAGE = "message"
    GONE = "gone"
    CHANGED = "changed"
    UNREADABLE = "unreadable"
    DAMAGED = "damaged"
    UNSUPPORTED = "unsupported"
    VERIFICATION = "verification"
    REVIEW = "review"
    LIMIT = "limit"
    ENCODER = "encoder"
    STALLED = "stalled"
    MEMORY = "memory"
    DISK = "disk"
    NETWORK = "network"
    CRASHED = "crashed"
    WORKER = "worker"
    RECEIVES = "receives"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class Done(Frozen):
    """Acknowledge: a rendition is published and recorded."""


class Skipped(Frozen):
    """Acknowledge: there is nothing to do, for a recorded reason."""

    reason: str


class RetryIn(Frozen):
    """Count one failure and retry the delivery after `seconds`."""

    seconds: float = Field(ge=0)
    reason: str
    failure_class: FailureClass


class Bury(Frozen):
    """Make the delivery a dead letter, with the reason."""

    reason: str
    failure_class: FailureClass
    tail: tuple[str, ...] = ()


class Release(Frozen):
    """Return the task to the queue without counting a failure.

    A delay applies to the worker as well, because its next delivery would hit the same condition. It
    does not if the worker may be the cause (`suspected_worker_fault`): another worker tries first.
    With `afresh` the task comes back in a new message, so that its receives are counted from one.
    """

    reason: str
    delay_s: float = 0.0
    suspected_worker_fault: bool = False
    afresh: bool = False


class Abandon(Frozen):
    """Leave the delivery unchanged: the lease is lost, so another worker decides."""

    reason: str


Verdict = Done | Skipped | RetryIn | Bury | Release | Abandon


LONGEST_DELAY = 120
"""Largest delay after a failure, as a multiple of the first delay."""


class Limits(Frozen):
    """The limits of a profile (`QueueNumbers` has their defaults) that the verdict depends on."""

    max_failures: int = Field(ge=1)
    backoff_base_s: float = Field(gt=0)


_CLASSES: tuple[tuple[type[HevcqError], FailureClass], ...] = (
    (BadMessage, FailureClass.MESSAGE),
    (BadKey, FailureClass.MESSAGE),
    (SourceGone, FailureClass.GONE),
    (SourceChanged, FailureClass.CHANGED),
    (SourceUnreadable, FailureClass.UNREADABLE),
    (SourceDamaged, FailureClass.DAMAGED),
    (MediaRefused, FailureClass.UNSUPPORTED),
    (VerificationFailed, FailureClass.VERIFICATION),
    (NeedsReview, FailureClass.REVIEW),
    (LimitExceeded, FailureClass.LIMIT),
    (EncoderStalled, FailureClass.STALLED),
    (OutOfMemory, FailureClass.MEMORY),
    (EncoderFailed, FailureClass.ENCODER),
    (DiskFull, FailureClass.DISK),
    (Unavailable, FailureClass.NETWORK),
    (WorkerUnfit, FailureClass.WORKER),
    (StorageError, FailureClass.DISK),
)


def classify(error: BaseException) -> FailureClass:
    """Return the failure class of `error`; an unlisted exception is INTERNAL."""
    for kind, failure_class in _CLASSES:
        if isinstance(error, kind):
            return failure_class
    return FailureClass.INTERNAL


class Handling(StrEnum):
    """The four ways to handle an error."""

    NEVER_AGAIN = "never_again"
    LATER = "later"
    GIVE_BACK = "give_back"
    HANDS_OFF = "hands_off"


def handling(error: BaseException) -> Handling:
    """Return the handling of `error`; unknown exceptions are retried until the failures are used up."""
    if isinstance(error, (LeaseLost, StaleFence)):
        return Handling.HANDS_OFF
    if isinstance(error, (Interruption, WorkerUnfit, DiskFull, StorageError, SourceAway)):
        return Handling.GIVE_BACK
    if isinstance(error, (PermanentError, BadKey)):
        return Handling.NEVER_AGAIN
    return Handling.LATER


def verdict(
    error: BaseException, *, failures: int, limits: Limits, jitter: float, attempt: int = 1
) -> Verdict:
    """Decide the verdict on a delivery whose work ended in `error`.

    `failures` counts earlier failures of this job; `jitter` is a random number in [0, 1) that
    spreads the back-off over the upper half of its interval. A full disk, absent storage or an unfit
    worker returns the task without counting a failure, because the job is not the cause. A disk that
    stays full backs off by `attempt`, the receives of this message, to stay below max_receives.
    """
    reason, failure_class = sentence(error), classify(error)
    tail = tuple(error.tail) if isinstance(error, EncoderFailed) else ()
    how = handling(error)
    match how:
        case Handling.HANDS_OFF:
            return Abandon(reason=reason)
        case Handling.GIVE_BACK:
            waits = isinstance(error, (DiskFull, StorageError, SourceAway))
            delay = backoff(max(0, attempt - 1), limits, jitter) if waits else 0.0
            if isinstance(error, SourceAway):
                delay = min(delay, MAX_AWAY_S)
            return Release(reason=reason, delay_s=delay)
        case Handling.NEVER_AGAIN:
            return Bury(reason=reason, failure_class=failure_class, tail=tail)
        case Handling.LATER:
            if failures + 1 >= limits.max_failures:
                return Bury(reason=reason, failure_class=failure_class, tail=tail)
            seconds = backoff(failures, limits, jitter)
            return RetryIn(seconds=seconds, reason=reason, failure_class=failure_class)
        case _:
            assert_never(how)


def backoff(failures: int, limits: Limits, jitter: float) -> float:
    """Return the delay in seconds after `failures` earlier failures: doubling, capped, jittered."""
    whole = limits.backoff_base_s * min(LONGEST_DELAY, 2.0 ** min(failures, 32))
    return whole * (0.5 + jitter / 2)


def sentence(error: BaseException) -> str:
    """Return a one-line description of `error` for people."""
    if isinstance(error, HevcqError):
        return " ".join(str(error).split())
    return " ".join(f"{type(error).__name__}: {error}".split())
