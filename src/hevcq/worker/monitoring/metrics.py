"""The metrics of a worker: their names, units and meanings; docs/farm/metrics.md shows this table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

NAMESPACE = "hevcq"
"""The CloudWatch namespace, and the prefix of Prometheus names."""

Labels = tuple[tuple[str, str], ...]
"""Names and values that identify a series of a metric, in the order of `Metric.labels`."""


class Kind(StrEnum):
    """How values of a metric are aggregated."""

    COUNTER = "counter"
    GAUGE = "gauge"
    SUMMARY = "summary"


class Unit(StrEnum):
    """Units as CloudWatch names them."""

    COUNT = "Count"
    SECONDS = "Seconds"
    BYTES = "Bytes"
    PERCENT = "Percent"
    NONE = "None"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `rollups` are shorter label lists under which CloudWatch stores it too."""

    name: str
    kind: Kind
    unit: Unit
    labels: tuple[str, ...]
    meaning: str
    rollups: tuple[tuple[str, ...], ...] = ()


PROFILE = ("Profile",)
JOBS_ENDED = Metric(
    "JobsEnded",
    Kind.COUNTER,
    Unit.COUNT,
    ("Profile", "End", "Class"),
    "attempts that ended, by end (done, skipped, retry, buried, released, abandoned) "
    "and failure class (retry and buried; else `none`)",
    rollups=(("Profile", "End"),),
)
LEASES_LOST = Metric(
    "LeasesLost",
    Kind.COUNTER,
    Unit.COUNT,
    PROFILE,
    "attempts given up because the lease ran out or another worker holds the job",
)
ENCODE_SPEED = Metric(
    "EncodeSpeed",
    Kind.SUMMARY,
    Unit.NONE,
    PROFILE,
    "seconds of video a second, as ffmpeg last printed it, one value for each finished encode",
)
PHASE_SECONDS = Metric(
    "PhaseSeconds",
    Kind.SUMMARY,
    Unit.SECONDS,
    ("Profile", "Phase"),
    "time in each phase of a finished job: fetch, probe, preflight, encode, verify, publish",
)
VERIFY_OVERHEAD = Metric(
    "VerifyOverheadPercent",
    Kind.SUMMARY,
    Unit.PERCENT,
    PROFILE,
    "time in the gates as a share of the time in the encoder, for each finished job",
)
SOURCE_BYTES = Metric(
    "SourceBytes", Kind.COUNTER, Unit.BYTES, PROFILE, "size of the sources of finished jobs"
)
RENDITION_BYTES = Metric(
    "RenditionBytes", Kind.COUNTER, Unit.BYTES, PROFILE, "size of their renditions"
)
SAVED_BYTES = Metric(
    "SavedBytes",
    Kind.COUNTER,
    Unit.BYTES,
    PROFILE,
    "source less rendition; a rendition that is larger counts as 0",
)
QUEUE_READY = Metric(
    "QueueReady", Kind.GAUGE, Unit.COUNT, PROFILE, "messages that could be taken now"
)
QUEUE_IN_FLIGHT = Metric(
    "QueueInFlight", Kind.GAUGE, Unit.COUNT, PROFILE, "messages that some worker holds"
)
QUEUE_DELAYED = Metric(
    "QueueDelayed", Kind.GAUGE, Unit.COUNT, PROFILE, "messages that wait for a later time"
)
QUEUE_DEAD = Metric("QueueDeadLetters", Kind.GAUGE, Unit.COUNT, PROFILE, "dead letters")
QUEUE_OLDEST = Metric(
    "QueueOldestSeconds",
    Kind.GAUGE,
    Unit.SECONDS,
    PROFILE,
    "age of the oldest waiting message; on AWS the queue's own ApproximateAgeOfOldestMessage "
    "says it instead",
)
SLOTS = Metric("Slots", Kind.GAUGE, Unit.COUNT, (), "slots of this worker that live")
SLOTS_BUSY = Metric("SlotsBusy", Kind.GAUGE, Unit.COUNT, (), "slots of it with work in hand")

METRICS: tuple[Metric, ...] = (
    JOBS_ENDED,
    LEASES_LOST,
    ENCODE_SPEED,
    PHASE_SECONDS,
    VERIFY_OVERHEAD,
    SOURCE_BYTES,
    RENDITION_BYTES,
    SAVED_BYTES,
    QUEUE_READY,
    QUEUE_IN_FLIGHT,
    QUEUE_DELAYED,
    QUEUE_DEAD,
    QUEUE_OLDEST,
    SLOTS,
    SLOTS_BUSY,
)


class Sink(Protocol):
    """Receives values from several threads at once."""

    def record(self, metric: Metric, labels: Labels, value: float) -> None:
        """Add to a counter or a summary, or set a gauge; `value` is in the metric's unit."""

    def forget(self, metric: Metric, labels: Labels) -> None:
        """Drop a gauge whose value is no longer known."""
