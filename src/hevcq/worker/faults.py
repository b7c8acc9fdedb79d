"""The numbered points at which the fault campaign may kill a worker: around every I/O call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Faults = Callable[[str], None]
"""Called with `before-<step>` and `after-<step>`; normally does nothing."""

STEPS = (
    "claim",
    "check",
    "fetch",
    "probe",
    "hash-source",
    "recall",
    "stat",
    "read-certificate",
    "hash-published",
    "preflight",
    "encode",
    "verify",
    "remember",
    "recheck",
    "hash-output",
    "put-certificate",
    "publish",
    "complete",
    "skip",
    "fail",
    "interrupt",
    "bury",
    "bury-unclaimed",
    "ack",
    "release",
    "bury-delivery",
)
"""Every I/O step of the handler, in the order of the way of a task."""
SPLIT_STEPS = (
    "look",
    "keyframes",
    "put-plan",
    "split",
    "count",
    "send-chunks",
    "announce",
    "read-plan",
    "stat-part",
    "read-report",
    "hash-found-part",
    "encode-chunk",
    "hash-part",
    "put-report",
    "publish-part",
    "send-join",
    "collect-parts",
    "redo",
    "join",
    "end-complete",
    "end-skip",
    "end-bury",
    "end-unsplit",
    "sweep",
)
"""The steps that only split jobs have, in the order of the split, its chunks and the join."""
POINTS = tuple(f"{side}-{step}" for step in STEPS for side in ("before", "after"))
SPLIT_POINTS = tuple(f"{side}-{step}" for step in SPLIT_STEPS for side in ("before", "after"))


def no_faults(_point: str) -> None:
    """Do nothing: what runs outside the fault campaign."""


@contextmanager
def around(faults: Faults, step: str) -> Iterator[None]:
    """Mark the I/O call inside as `step`; nothing is marked after a call that raised."""
    faults(f"before-{step}")
    yield
    faults(f"after-{step}")
