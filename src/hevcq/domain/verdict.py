"""Decide the verdict on a delivery in one pure function; the worker only carries it out."""

from __future__ import annotations

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
    SourceChanged,
    SourceDamaged,
    SourceGone,
    SourceUnreadable,
    StaleFence,
    StorageError,
    Trailing,
    Unavailable,
    VerificationFailed,
    WorkerUnfit,
)

REQUEUED_CHUNK_DELAY_S = 3.0
"""Seconds a requeued chunk stays hidden, so that another worker can become free for it."""


class FailureClass(StrEnum):
    """Why a delivery was buried; `hevcq redrive --class` selects by it."""

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
    """A rendition is published and recorded: acknowledge."""


class Skipped(Frozen):
    """There is nothing to do, for a reason that is recorded: acknowledge."""

    reason: str


class RetryIn(Frozen):
    """Count one failure and come back after `seconds`."""

    seconds: float = Field(ge=0)
    reason: str
    failure_class: FailureClass


class Bury(Frozen):
    """Make it a dead letter with the reason."""

    reason: str
    failure_class: FailureClass
    tail: tuple[str, ...] = ()


class Release(Frozen):
    """Give the work back at once, uncounted.

    What it is delayed for, this worker's next work would meet as well, so the worker waits too. Not
    if its failure may be this worker's (`suspected_worker_fault`): then another worker is to have it first.
    """

    reason: str
    delay_s: float = 0.0
    suspected_worker_fault: bool = False


class Abandon(Frozen):
    """Touch nothing: the lease is no longer ours, so another worker decides."""

    reason: str


Verdict = Done | Skipped | RetryIn | Bury | Release | Abandon


class Limits(Frozen):
    """A profile's numbers that the verdict depends on."""

    max_failures: int = Field(default=3, ge=1)
    max_crashes: int = Field(default=3, ge=1)
    backoff_base_s: float = Field(default=30.0, gt=0)
    backoff_cap_s: float = Field(default=3600.0, gt=0)


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
    """Return the failure class of `error`; an exception nobody named is INTERNAL."""
    for kind, failure_class in _CLASSES:
        if isinstance(error, kind):
            return failure_class
    return FailureClass.INTERNAL


class Handling(StrEnum):
    """The four ways an error is handled."""

    NEVER_AGAIN = "never_again"
    LATER = "later"
    GIVE_BACK = "give_back"
    HANDS_OFF = "hands_off"


def handling(error: BaseException) -> Handling:
    """Return how `error` is handled; unknown exceptions retry until the failures are used up."""
    if isinstance(error, (LeaseLost, StaleFence)):
        return Handling.HANDS_OFF
    if isinstance(error, (Interruption, WorkerUnfit, DiskFull, StorageError)):
        return Handling.GIVE_BACK
    if isinstance(error, (PermanentError, BadKey)):
        return Handling.NEVER_AGAIN
    return Handling.LATER


def verdict(
    error: BaseException, *, failures: int, limits: Limits, jitter: float, attempt: int = 1
) -> Verdict:
    """Decide what becomes of a delivery whose work ended in `error`.

    `failures` counts earlier failures of this job; `jitter` is a random number in [0, 1) that
    spreads the back-off over the upper half of its interval. A full disk or a sick worker gives
    the work back uncounted, because the job is not to blame; a disk that stays full backs off by
    `attempt`, the receives of this message, so that it does not use up the queue's max_receives.
    """
    reason, failure_class = sentence(error), classify(error)
    tail = tuple(error.tail) if isinstance(error, EncoderFailed) else ()
    how = handling(error)
    match how:
        case Handling.HANDS_OFF:
            return Abandon(reason=reason)
        case Handling.GIVE_BACK:
            if isinstance(error, Trailing):
                # At once it would be this very worker that takes it again.
                return Release(reason=reason, delay_s=REQUEUED_CHUNK_DELAY_S)
            waits = isinstance(error, (DiskFull, StorageError))
            delay = backoff(max(0, attempt - 1), limits, jitter) if waits else 0.0
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
    whole = min(limits.backoff_cap_s, limits.backoff_base_s * 2.0 ** min(failures, 32))
    return whole * (0.5 + jitter / 2)


def sentence(error: BaseException) -> str:
    """Return one line that says what went wrong, for people."""
    if isinstance(error, HevcqError):
        return " ".join(str(error).split())
    return " ".join(f"{type(error).__name__}: {error}".split())
