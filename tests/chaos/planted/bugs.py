"""Every planted bug."""

from __future__ import annotations

from . import aws_bugs, chunk_bugs, domain_bugs, embedded_bugs, home_bugs, library_bugs, worker_bugs

BUGS = (
    *worker_bugs.BUGS,
    *chunk_bugs.BUGS,
    *domain_bugs.BUGS,
    *embedded_bugs.BUGS,
    *aws_bugs.BUGS,
    *library_bugs.BUGS,
    *home_bugs.BUGS,
)
