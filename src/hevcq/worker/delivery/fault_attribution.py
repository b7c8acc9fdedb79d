"""Attribute a failure to the source, the job or this worker.

A worker at fault stops, and its jobs are not charged. A source that changed or disappeared while it
was read is no failure of the job.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from hevcq.domain.profile import Profile
from hevcq.domain.verdict import Bury, FailureClass, Handling, handling
from hevcq.errors import HevcqError, SourceAway, SourceChanged, SourceGone, Unavailable
from hevcq.ports.ledger import Granted
from hevcq.util.log import get_logger

SICK_AFTER = 5
"""Different jobs that must fail in a row, in ways that do not point at their source, before the
worker stops: five such videos in a row mean a broken encoder rather than broken videos. A worker
whose encoder fails its self-test right after the first failure stops at once. If the self-test
passes, each of these failures is suspected to be the worker's and returns uncounted while its
message has receives to spare. So neither costs a job an attempt."""
SUSPECT = frozenset({FailureClass.ENCODER, FailureClass.STALLED, FailureClass.INTERNAL})
"""The failure classes that may be this machine's fault."""

SOURCE_SUSPECT = frozenset({Handling.NEVER_AGAIN, Handling.LATER})
"""The handling of errors that the source may have caused."""


def suspect(failure_class: FailureClass) -> bool:
    """Return whether failures of this class may be this machine's fault."""
    return failure_class in SUSPECT


class CircuitBreaker:
    """Count different jobs that failed in a row; shared by all slots of a process.

    After `sick_after` such jobs the worker counts as unfit.
    """

    def __init__(self, sick_after: int = SICK_AFTER) -> None:
        self._sick_after = sick_after
        self._failing: set[str] = set()
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """Record that a job ended well here: this worker can encode."""
        with self._lock:
            self._failing.clear()

    def doubtful(self, job_id: str, failure_class: FailureClass, *, first: bool) -> bool:
        """Return whether this job's failure may be the worker's fault; call it before `failed`.

        It may be if no failure of the job was suspected before (`first`): a worker that has just
        become unfit shows no other failure, so another worker tries too. Later it may be if another
        job failed here too and none succeeded in between. The caller must limit how often it acts
        on this, so that a video that always breaks the encoder still ends.
        """
        with self._lock:
            others = bool(self._failing - {job_id})
        return suspect(failure_class) and (first or others)

    def failed(self, job_id: str, failure_class: FailureClass) -> bool:
        """Record a failure; return whether this worker is unfit.

        Repeated failures of one job count once: they are that job's problem.
        """
        if not suspect(failure_class):
            return False
        with self._lock:
            self._failing.add(job_id)
            return len(self._failing) >= self._sick_after


def blame_source(check: Callable[[], None], error: Exception) -> Exception:
    """Return what became of the source instead of an `error` that it may have caused.

    `check` examines the source in its store and raises if it changed, is gone, or is away with all
    that lies beside it. A file that is overwritten or removed while it is read seems damaged or fails
    a gate; its owner must not get such a report about an intact video. A store that did not answer and
    still does not is in an outage, which no job is charged for.
    """
    if handling(error) not in SOURCE_SUSPECT:
        return error
    try:
        check()
    except (SourceGone, SourceChanged, SourceAway) as became:
        became.__cause__ = error
        return became
    except HevcqError as unknown:
        if type(error) is type(unknown) is Unavailable:
            return SourceAway(str(unknown))
        get_logger().info("source_not_asked", reason=str(unknown))
    return error


def crashed_too_often(granted: Granted, profile: Profile) -> Bury | None:
    """Return the burial of a job whose worker died `max_crashes` times, else None."""
    if granted.crashes < profile.queue.max_crashes:
        return None
    reason = f"The worker died {granted.crashes} times during this job (out of memory?)."
    return Bury(reason=reason, failure_class=FailureClass.CRASHED)
