"""Whether this worker is fit: a sick worker is taken out, not the jobs it fails."""

from __future__ import annotations

import threading

from hevcq.domain.verdict import FailureClass

SICK_AFTER = 5
"""Jobs that may fail one after another in ways that do not point at their source. Five different
films in a row that all break the encoder are far likelier a broken encoder than broken films; the
four before the last lose one of their attempts, and max_failures must leave them another."""
SUSPECT = frozenset({FailureClass.ENCODER, FailureClass.STALLED, FailureClass.INTERNAL})
"""The classes that may be this machine's fault."""


class Fitness:
    """Counts different jobs that failed in a row; shared by all slots of a process."""

    def __init__(self, sick_after: int = SICK_AFTER) -> None:
        self._sick_after = sick_after
        self._failing: set[str] = set()
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """Note that a job ended well here: this worker can encode."""
        with self._lock:
            self._failing.clear()

    def failed(self, job_id: str, failure_class: FailureClass) -> bool:
        """Note a failure; return whether this worker must be held to be sick.

        The same job failing again is that job's trouble, and counts once.
        """
        if failure_class not in SUSPECT:
            return False
        with self._lock:
            self._failing.add(job_id)
            return len(self._failing) >= self._sick_after
