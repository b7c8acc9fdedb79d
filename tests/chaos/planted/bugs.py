"""Every planted bug."""

from __future__ import annotations

from . import domain_bugs, embedded_bugs, library_bugs, worker_bugs

BUGS = (*worker_bugs.BUGS, *domain_bugs.BUGS, *embedded_bugs.BUGS, *library_bugs.BUGS)
