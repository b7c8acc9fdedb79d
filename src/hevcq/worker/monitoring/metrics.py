"""The metrics of a worker: their names, units and meanings, and their values in prometheus_client.

docs/farm/metrics.md shows the table. prometheus_client is imported only where values are kept: a worker
without metrics starts faster.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

NAMESPACE = "hevcq"
"""The CloudWatch namespace, and the prefix of Prometheus names."""

Labels = tuple[str, ...]
"""The values that identify a series of a metric, in the order of `Metric.labels`."""
Series = dict[Labels, list[float]]


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

    @property
    def exposed(self) -> str:
        """The name in Prometheus."""
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", self.name).lower()
        return f"{NAMESPACE}_{snake}" + ("_total" if self.kind is Kind.COUNTER else "")


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


class Metrics:
    """The values of METRICS, in a registry that Prometheus reads. Every method is thread-safe.

    With `keep_values` also the single values of summaries until `since_last` takes them.
    """

    def __init__(self, *, keep_values: bool = False) -> None:
        import prometheus_client as library

        library.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry: CollectorRegistry = library.CollectorRegistry()
        self._kinds: dict[Kind, Any] = {
            Kind.COUNTER: library.Counter,
            Kind.GAUGE: library.Gauge,
            Kind.SUMMARY: library.Summary,
        }
        self._objects: dict[Metric, Any] = {}
        self._guard, self._keep_values = threading.Lock(), keep_values
        self._values: dict[Metric, Series] = {}
        self._told: dict[tuple[Metric, Labels], float] = {}

    def _object(self, metric: Metric) -> Any:
        """Return the library's object, made with the first value: until then nothing is exposed."""
        with self._guard:
            if metric not in self._objects:
                names = [label.lower() for label in metric.labels]
                made = self._kinds[metric.kind]
                self._objects[metric] = made(
                    metric.exposed, metric.meaning, names, registry=self.registry
                )
            return self._objects[metric]

    def record(self, metric: Metric, labels: Labels, value: float) -> None:
        """Add to a counter or a summary, or set a gauge; `value` is in the metric's unit."""
        series = self._object(metric)
        series = series.labels(*labels) if labels else series
        match metric.kind:
            case Kind.COUNTER:
                series.inc(value)
            case Kind.GAUGE:
                series.set(value)
            case Kind.SUMMARY:
                series.observe(value)
                if self._keep_values:
                    with self._guard:
                        self._values.setdefault(metric, {}).setdefault(labels, []).append(value)

    def forget(self, metric: Metric, labels: Labels) -> None:
        """Drop a gauge whose value is no longer known."""
        with suppress(KeyError):
            self._object(metric).remove(*labels)

    def since_last(self, metric: Metric) -> Series:
        """Return a counter's increase, a summary's values since the last call, a gauge as it is."""
        with self._guard:
            if metric.kind is Kind.SUMMARY or metric not in self._objects:
                return self._values.pop(metric, {})
            (family,) = self._objects[metric].collect()
            now = {tuple(each.labels.values()): each.value for each in family.samples}
            if metric.kind is Kind.COUNTER:
                before = {labels: self._told.get((metric, labels), 0.0) for labels in now}
                self._told |= {(metric, labels): value for labels, value in now.items()}
                now = {labels: value - before[labels] for labels, value in now.items()}
                return {labels: [value] for labels, value in now.items() if value}
            return {labels: [value] for labels, value in now.items()}
