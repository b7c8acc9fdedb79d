"""The metrics of a worker: names, meanings and values, for Prometheus and for CloudWatch.

Prometheus reads them over HTTP. CloudWatch gets lines in its embedded metric format (EMF). A line holds
the values of one set of labels since the last line: the increase of counters, all values of summaries,
the current value of gauges.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

docs/farm/metrics.md shows the table. prometheus_client is imported only if metrics are exported, so that
a worker without them starts faster.
"""

import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hevcq.domain.events import EventName, JobEvent
from hevcq.domain.job import Phase
from hevcq.errors import ConfigError, HevcqError
from hevcq.ports.queue import QueueDepth
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.text import reason_of
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.monitoring.watchers import Background, PoolState

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

NAMESPACE = "hevcq"
"""The CloudWatch namespace, and the prefix of Prometheus names."""
MAX_VALUES = 100
"""Maximum values of one metric in one EMF line, by the specification."""
Kind = Literal["counter", "gauge", "summary"]
SETTERS: Mapping[Kind, str] = {"counter": "inc", "gauge": "set", "summary": "observe"}
"""The method of prometheus_client's object that takes a value of each kind."""
Labels = tuple[str, ...]
"""The values that identify a series of a metric, in the order of `Metric.labels`."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. CloudWatch stores it under `labels`, and also under each shorter list in `rollups`."""

    name: str
    kind: Kind
    meaning: str
    unit: Literal["Count", "Seconds", "Bytes", "Percent", "None"] = "Count"
    labels: tuple[str, ...] = ("Profile",)
    rollups: tuple[tuple[str, ...], ...] = ()

    @property
    def exposed(self) -> str:
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", self.name).lower()
        return f"{NAMESPACE}_{snake}" + ("_total" if self.kind == "counter" else "")


_ALL = (
    Metric(
        "JobsEnded",
        "counter",
        "attempts that ended, by end (done, skipped, retry, buried, released, abandoned) "
        "and failure class (retry and buried; else `none`)",
        labels=("Profile", "End", "Class"),
        rollups=(("Profile", "End"),),
    ),
    Metric(
        "LeasesLost",
        "counter",
        "attempts given up because the lease ran out or another worker holds the job",
    ),
    Metric(
        "EncodeSpeed",
        "summary",
        "seconds of video a second, as ffmpeg last printed it, one value for each finished encode",
        "None",
    ),
    Metric(
        "PhaseSeconds",
        "summary",
        "time in each phase of a finished job: fetch, probe, preflight, encode, verify, publish",
        "Seconds",
        ("Profile", "Phase"),
    ),
    Metric(
        "VerifyOverheadPercent",
        "summary",
        "time in the gates as a share of the time in the encoder, for each finished job",
        "Percent",
    ),
    Metric("SourceBytes", "counter", "size of the sources of finished jobs", "Bytes"),
    Metric("RenditionBytes", "counter", "size of their renditions", "Bytes"),
    Metric("QueueReady", "gauge", "messages that could be taken now"),
    Metric("QueueInFlight", "gauge", "messages that some worker holds"),
    Metric("QueueDelayed", "gauge", "messages that wait for a later time"),
    Metric("QueueDeadLetters", "gauge", "dead letters"),
    Metric(
        "QueueOldestSeconds",
        "gauge",
        "age of the oldest waiting message; on AWS the queue's own ApproximateAgeOfOldestMessage "
        "says it instead",
        "Seconds",
    ),
    Metric("Slots", "gauge", "slots of this worker that live", labels=()),
    Metric("SlotsBusy", "gauge", "slots of it with work in hand", labels=()),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}


class Metrics:
    """The values of METRICS, in a registry that Prometheus reads; with `emf` also for EMF lines.

    Every method is thread-safe.
    """

    def __init__(self, *, emf: bool = False) -> None:
        import prometheus_client as library

        library.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry: CollectorRegistry = library.CollectorRegistry()
        self._library, self._emf, self._guard = library, emf, threading.Lock()
        self._objects: dict[str, Any] = {}
        self._unwritten: dict[str, dict[Labels, list[float]]] = defaultdict(dict)

    def _series(self, metric: Metric, labels: Labels) -> Any:
        """Return the library's object, created by the first value: until then nothing is exposed."""
        if metric.name not in self._objects:
            create = getattr(self._library, metric.kind.title())
            names = [label.lower() for label in metric.labels]
            self._objects[metric.name] = create(
                metric.exposed, metric.meaning, names, registry=self.registry
            )
        series = self._objects[metric.name]
        return series.labels(*labels) if labels else series

    def record(self, name: str, labels: Labels, value: float) -> None:
        """Add to a counter or a summary, or set a gauge; `value` is in the metric's unit."""
        metric = METRICS[name]
        with self._guard:
            getattr(self._series(metric, labels), SETTERS[metric.kind])(value)
            if not self._emf:
                return
            before = self._unwritten[name].get(labels, [])
            if metric.kind == "summary":
                self._unwritten[name][labels] = [*before, value]
            else:
                total = sum(before) if metric.kind == "counter" else 0.0
                self._unwritten[name][labels] = [total + value]

    def forget(self, name: str, labels: Labels) -> None:
        with self._guard, suppress(KeyError):
            del self._unwritten[name][labels]
        with self._guard, suppress(KeyError):
            self._objects[name].remove(*labels)

    def lines(self, now: float) -> Iterator[str]:
        """Yield one EMF line for each set of labels; `now` is seconds since the Unix epoch."""
        groups: dict[Any, dict[Metric, list[float]]] = defaultdict(dict)
        with self._guard:
            for name, metric in METRICS.items():
                for values_of_labels, values in self._unwritten[name].items():
                    labels = tuple(zip(metric.labels, values_of_labels, strict=True))
                    groups[labels, metric.rollups][metric] = values
                if metric.kind != "gauge":
                    self._unwritten[name] = {}
        for (labels, rollups), values_of in groups.items():
            for start in range(0, max(map(len, values_of.values())), MAX_VALUES):
                part = {k: v[start : start + MAX_VALUES] for k, v in values_of.items()}
                yield _emf_line(dict(labels), rollups, {k: v for k, v in part.items() if v}, now)


def _emf_line(
    labels: Mapping[str, str],
    rollups: tuple[tuple[str, ...], ...],
    values_of: dict[Metric, list[float]],
    now: float,
) -> str:
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [list(labels), *map(list, rollups)],
        "Metrics": [{"Name": metric.name, "Unit": metric.unit} for metric in values_of],
    }
    document: dict[str, object] = {
        "_aws": {"Timestamp": round(now * 1000), "CloudWatchMetrics": [directive]},
        **labels,
    }
    for metric, values in values_of.items():
        document[metric.name] = values[0] if len(values) == 1 else values
    return json.dumps(document, separators=(",", ":"))


class Exposition:
    """Serve the metrics over HTTP at `address`, a host:port (port 0 picks a free one), until `close`.

    Raises ConfigError if nothing can listen at the address.
    """

    def __init__(self, address: str, metrics: Metrics) -> None:
        from prometheus_client import start_http_server

        host, _, port = address.rpartition(":")
        try:
            self._server, self._thread = start_http_server(
                int(port), host.strip("[]"), metrics.registry
            )
        except (OSError, OverflowError, ValueError) as error:
            raise ConfigError(
                f"Metrics cannot be served at {address}: {reason_of(error)}.",
                remedy="Set metrics_address to a free host:port, or leave it empty.",
            ) from error
        self.port = self._server.server_port
        get_logger().info("metrics_served", port=self.port)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


ATTEMPT_ENDS = {
    EventName.JOB_DONE: "done",
    EventName.JOB_SKIPPED: "skipped",
    EventName.JOB_RETRY: "retry",
    EventName.JOB_BURIED: "buried",
    EventName.JOB_RELEASED: "released",
    EventName.JOB_ABANDONED: "abandoned",
}
"""The events that end an attempt."""
NO_CLASS = "none"
QUEUE_METRICS = (
    "QueueReady",
    "QueueInFlight",
    "QueueDelayed",
    "QueueDeadLetters",
    "QueueOldestSeconds",
)
REPORT_EVERY_S = 60.0
"""Seconds between two reports."""


@dataclass(slots=True)
class _Attempt:
    """A running attempt: seconds by phase, and the last speed that ffmpeg reported (1 is real time).

    `since` is the monotonic time in seconds at which the current phase began.
    """

    since: float
    phase: Phase | None = None
    seconds: dict[Phase, float] = field(default_factory=dict)
    speed: float | None = None

    def enter(self, phase: Phase | None, now: float) -> None:
        if phase is self.phase:
            return
        if self.phase is not None:
            self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self.since
        self.phase, self.since = phase, now


class EventMeter:
    """Record job events and states in `metrics`. Every method may be called from any thread, and is quick."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self.metrics, self._clock = metrics, clock
        self._guard = threading.Lock()
        self._attempts: dict[tuple[str, str], _Attempt] = {}

    def note(self, event: JobEvent) -> None:
        now, key = self._clock.monotonic(), (event.worker, event.job_id)
        if event.kind in ATTEMPT_ENDS:
            with self._guard:
                attempt = self._attempts.pop(key, None) or _Attempt(now)
            attempt.enter(None, now)
            self._record_end(event, attempt)
            return
        with self._guard:
            if event.kind is EventName.JOB_STARTED:
                self._attempts[key] = _Attempt(now)
            running = self._attempts.get(key)
            if event.kind in {EventName.JOB_SPLIT, EventName.PART_DONE}:
                # The attempt ended, but the job did not.
                self._attempts.pop(key, None)
                return
            if running is not None and event.progress is not None:
                running.enter(event.progress.phase, now)
                if event.progress.phase is Phase.ENCODE and event.progress.speed is not None:
                    running.speed = event.progress.speed

    def slots(self, state: PoolState) -> None:
        self.metrics.record("Slots", (), state.alive)
        self.metrics.record("SlotsBusy", (), state.busy)

    def queue(self, profile: str, depth: QueueDepth | None) -> None:
        values: tuple[float | None, ...] = (None,) * len(QUEUE_METRICS)
        if depth is not None:
            oldest_s = depth.oldest_s if depth.ready else depth.oldest_s or 0.0
            values = depth.ready, depth.in_flight, depth.delayed, depth.dead, oldest_s
        for name, value in zip(QUEUE_METRICS, values, strict=True):
            if value is None:
                self.metrics.forget(name, (profile,))
            else:
                self.metrics.record(name, (profile,), value)

    def _record_end(self, event: JobEvent, attempt: _Attempt) -> None:
        profile = event.profile
        class_name = event.failure_class.value if event.failure_class is not None else NO_CLASS
        self.metrics.record("JobsEnded", (profile, ATTEMPT_ENDS[event.kind], class_name), 1)
        if event.kind is EventName.JOB_ABANDONED:
            self.metrics.record("LeasesLost", (profile,), 1)
        if event.kind is EventName.JOB_DONE:
            self._record_done(event, attempt, profile)

    def _record_done(self, event: JobEvent, attempt: _Attempt, profile: str) -> None:
        for phase, seconds in attempt.seconds.items():
            self.metrics.record("PhaseSeconds", (profile, phase.value), seconds)
        encode = attempt.seconds.get(Phase.ENCODE, 0.0)
        if encode > 0:
            share = 100 * attempt.seconds.get(Phase.VERIFY, 0.0) / encode
            self.metrics.record("VerifyOverheadPercent", (profile,), share)
        if attempt.speed is not None:
            self.metrics.record("EncodeSpeed", (profile,), attempt.speed)
        if event.rendition is not None:
            self.metrics.record("SourceBytes", (profile,), event.source.size)
            self.metrics.record("RenditionBytes", (profile,), event.rendition.size)


class MetricsReport:
    """A watcher that counts the queues and writes the lines every REPORT_EVERY_S seconds.

    It runs in a thread of its own because a queue may be slow to answer.
    """

    def __init__(
        self,
        meter: EventMeter,
        queues: Sequence[ProfileQueue],
        clock: Clock,
        *,
        write: Callable[[str], None] | None = None,
        exposition: Exposition | None = None,
    ) -> None:
        """Lines go to `write`; `exposition` answers Prometheus until the report ends."""
        self._meter, self._queues, self._clock = meter, tuple(queues), clock
        self._write, self._exposition = write, exposition
        self._failed: set[str] = set()
        self._thread = Background("hevcq-metrics-report", self.step, clock)

    def observe(self, state: PoolState) -> None:
        self._meter.slots(state)
        self._thread.observe(state)

    def close(self) -> None:
        self._thread.close()
        if self._exposition is not None:
            self._exposition.close()

    def step(self) -> float:
        """Count the queues and write the lines; return the seconds until the next report."""
        for served in self._queues:
            self._count(served)
        if self._write is not None:
            for line in self._meter.metrics.lines(self._clock.now()):
                self._write(line)
        return REPORT_EVERY_S

    def _count(self, served: ProfileQueue) -> None:
        name = served.profile.name
        try:
            depth = served.queue.depth()
        except HevcqError as error:
            if name not in self._failed:
                get_logger(profile=name).warning("queue_not_counted", reason=str(error))
            self._failed.add(name)
            self._meter.queue(name, None)
            return
        self._failed.discard(name)
        self._meter.queue(name, depth)
