"""The numbered points at which the fault campaign may kill a worker: around every I/O call."""

from __future__ import annotations

from collections.abc import Callable

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


class around:  # noqa: N801 - used as a verb, and a class costs a third of a generator
    """Mark the I/O call inside as `step`; nothing is marked after a call that raised."""

    __slots__ = ("_faults", "_step")

    def __init__(self, faults: Faults, step: str) -> None:
        self._faults, self._step = faults, step

    def __enter__(self) -> None:
        self._faults("before-" + self._step)

    def __exit__(self, kind: type[BaseException] | None, *_more: object) -> None:
        if kind is None:
            self._faults("after-" + self._step)
