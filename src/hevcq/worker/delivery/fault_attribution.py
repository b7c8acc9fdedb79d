"""Whose fault a failed job is: its source's, its own, or this worker's.

A worker that is at fault is taken out, not the jobs it fails; and a source that changed or went
while it was read has failed nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from hevcq.domain.profile import Profile
from hevcq.domain.verdict import Bury, FailureClass, Handling, handling
from hevcq.errors import HevcqError, SourceChanged, SourceGone
from hevcq.ports.ledger import Granted
from hevcq.util.log import get_logger

SICK_AFTER = 5
"""Jobs that may fail one after another in ways that do not point at their source. Five different
videos in a row that all break the encoder are far likelier a broken encoder than broken videos. A
worker whose encoder fails a trial right after the first is taken out at once. Where the trial finds
nothing, each of these failures is doubtful, and goes back uncounted while its message has receives
to spare. So neither costs a job an attempt."""
SUSPECT = frozenset({FailureClass.ENCODER, FailureClass.STALLED, FailureClass.INTERNAL})
"""The classes that may be this machine's fault."""

SOURCE_SUSPECT = frozenset({Handling.NEVER_AGAIN, Handling.LATER})
"""How errors are handled that the source may have caused."""


def suspect(failure_class: FailureClass) -> bool:
    """Return whether failures of this class may be this machine's fault."""
    return failure_class in SUSPECT


class CircuitBreaker:
    """Count different jobs that failed in a row; shared by all slots of a process."""

    def __init__(self, sick_after: int = SICK_AFTER) -> None:
        self._sick_after = sick_after
        self._failing: set[str] = set()
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """Note that a job ended well here: this worker can encode."""
        with self._lock:
            self._failing.clear()

    def doubtful(self, job_id: str, failure_class: FailureClass, *, first: bool) -> bool:
        """Return whether a failure of this job may rather be this worker's: ask before `failed`.

        It may when none of the job's ever was (`first`): who fell sick a moment ago has no other
        failure to show for it, so a second opinion is asked for. Later it may where another job
        failed here too and nothing succeeded in between. The caller must bound how often it
        believes this, so that what always breaks the encoder still ends.
        """
        with self._lock:
            others = bool(self._failing - {job_id})
        return suspect(failure_class) and (first or others)

    def failed(self, job_id: str, failure_class: FailureClass) -> bool:
        """Note a failure; return whether this worker must be held to be sick.

        The same job failing again is that job's trouble, and counts once.
        """
        if not suspect(failure_class):
            return False
        with self._lock:
            self._failing.add(job_id)
            return len(self._failing) >= self._sick_after


def blame_source(check: Callable[[], None], error: Exception) -> Exception:
    """Return SourceGone or SourceChanged instead of an `error` that it may have caused.

    `check` looks at the source in its store and raises what became of it. A file that is
    overwritten or removed under its reader reads as damaged, or fails a gate; its owner must not
    be told that of a video which is whole.
    """
    if handling(error) not in SOURCE_SUSPECT:
        return error
    try:
        check()
    except (SourceGone, SourceChanged) as became:
        became.__cause__ = error
        return became
    except HevcqError as unknown:
        get_logger().info("source_not_asked", reason=str(unknown))
    return error


def crashed_too_often(granted: Granted, profile: Profile) -> Bury | None:
    """Return the burial of a job whose worker died `max_crashes` times, else None."""
    if granted.crashes < profile.queue.max_crashes:
        return None
    reason = f"The worker died {granted.crashes} times during this job (out of memory?)."
    return Bury(reason=reason, failure_class=FailureClass.CRASHED)
