"""The metrics of a worker: names, units, meanings and values, for Prometheus and for CloudWatch.

Prometheus reads them over HTTP. CloudWatch gets lines in its embedded metric format (EMF): a line holds
the values of one set of labels since the last line, that is the increase of counters, all values of
summaries, the current value of gauges.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

docs/farm/metrics.md shows the table. prometheus_client is imported only where values are kept: a worker
without metrics starts faster.
"""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hevcq.errors import ConfigError
from hevcq.util.log import get_logger
from hevcq.util.text import reason_of

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

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
    """One metric. `rollups` are shorter label lists under which CloudWatch stores it too."""

    name: str
    kind: Kind
    unit: Literal["Count", "Seconds", "Bytes", "Percent", "None"]
    labels: tuple[str, ...]
    meaning: str
    rollups: tuple[tuple[str, ...], ...] = ()

    @property
    def exposed(self) -> str:
        """The name in Prometheus."""
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", self.name).lower()
        return f"{NAMESPACE}_{snake}" + ("_total" if self.kind == "counter" else "")


PROFILE = ("Profile",)
_ALL = (
    Metric(
        "JobsEnded",
        "counter",
        "Count",
        ("Profile", "End", "Class"),
        "attempts that ended, by end (done, skipped, retry, buried, released, abandoned) "
        "and failure class (retry and buried; else `none`)",
        rollups=(("Profile", "End"),),
    ),
    Metric(
        "LeasesLost",
        "counter",
        "Count",
        PROFILE,
        "attempts given up because the lease ran out or another worker holds the job",
    ),
    Metric(
        "EncodeSpeed",
        "summary",
        "None",
        PROFILE,
        "seconds of video a second, as ffmpeg last printed it, one value for each finished encode",
    ),
    Metric(
        "PhaseSeconds",
        "summary",
        "Seconds",
        ("Profile", "Phase"),
        "time in each phase of a finished job: fetch, probe, preflight, encode, verify, publish",
    ),
    Metric(
        "VerifyOverheadPercent",
        "summary",
        "Percent",
        PROFILE,
        "time in the gates as a share of the time in the encoder, for each finished job",
    ),
    Metric("SourceBytes", "counter", "Bytes", PROFILE, "size of the sources of finished jobs"),
    Metric("RenditionBytes", "counter", "Bytes", PROFILE, "size of their renditions"),
    Metric(
        "SavedBytes",
        "counter",
        "Bytes",
        PROFILE,
        "source less rendition; a rendition that is larger counts as 0",
    ),
    Metric("QueueReady", "gauge", "Count", PROFILE, "messages that could be taken now"),
    Metric("QueueInFlight", "gauge", "Count", PROFILE, "messages that some worker holds"),
    Metric("QueueDelayed", "gauge", "Count", PROFILE, "messages that wait for a later time"),
    Metric("QueueDeadLetters", "gauge", "Count", PROFILE, "dead letters"),
    Metric(
        "QueueOldestSeconds",
        "gauge",
        "Seconds",
        PROFILE,
        "age of the oldest waiting message; on AWS the queue's own ApproximateAgeOfOldestMessage "
        "says it instead",
    ),
    Metric("Slots", "gauge", "Count", (), "slots of this worker that live"),
    Metric("SlotsBusy", "gauge", "Count", (), "slots of it with work in hand"),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}


class Metrics:
    """The values of METRICS, in a registry that Prometheus reads. Every method is thread-safe.

    With `emf` also what `lines` tells.
    """

    def __init__(self, *, emf: bool = False) -> None:
        import prometheus_client as library

        library.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry: CollectorRegistry = library.CollectorRegistry()
        self._library, self._emf, self._guard = library, emf, threading.Lock()
        self._objects: dict[str, Any] = {}
        self._untold: dict[str, dict[Labels, list[float]]] = defaultdict(dict)

    def _series(self, metric: Metric, labels: Labels) -> Any:
        """Return the library's object, made with the first value: until then nothing is exposed."""
        if metric.name not in self._objects:
            made = getattr(self._library, metric.kind.title())
            names = [label.lower() for label in metric.labels]
            self._objects[metric.name] = made(
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
            before = self._untold[name].get(labels, [])
            if metric.kind == "summary":
                self._untold[name][labels] = [*before, value]
            else:
                total = sum(before) if metric.kind == "counter" else 0.0
                self._untold[name][labels] = [total + value]

    def forget(self, name: str, labels: Labels) -> None:
        """Drop a gauge whose value is no longer known."""
        with self._guard, suppress(KeyError):
            del self._untold[name][labels]
        with self._guard, suppress(KeyError):
            self._objects[name].remove(*labels)

    def lines(self, now: float) -> Iterator[str]:
        """Yield one EMF line for each set of labels; `now` is seconds since the Unix epoch."""
        groups: dict[Any, dict[Metric, list[float]]] = defaultdict(dict)
        with self._guard:
            for name, metric in METRICS.items():
                for labels, values in self._untold[name].items():
                    named = tuple(zip(metric.labels, labels, strict=True))
                    groups[named, metric.rollups][metric] = values
                if metric.kind != "gauge":
                    self._untold[name] = {}
        for (named, rollups), values_of in groups.items():
            for start in range(0, max(map(len, values_of.values())), MAX_VALUES):
                part = {k: v[start : start + MAX_VALUES] for k, v in values_of.items()}
                yield _line(dict(named), rollups, {k: v for k, v in part.items() if v}, now)


def _line(
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
    """Serve `GET /metrics` at `address`, a host:port (port 0 picks a free one).

    Daemon threads answer from construction to `close`. Raises ConfigError if the address cannot be
    listened on.
    """

    def __init__(self, address: str, metrics: Metrics) -> None:
        from prometheus_client import make_wsgi_app, start_http_server

        registry = metrics.registry
        host, _, port = address.rpartition(":")
        try:
            self._server, self._thread = start_http_server(int(port), host.strip("[]"), registry)
        except (OSError, OverflowError, ValueError) as error:
            raise ConfigError(
                f"Metrics cannot be served at {address}: {reason_of(error)}.",
                remedy="Set metrics_address to a free host:port, or leave it empty.",
            ) from error
        self._server.set_app(_at_its_path_alone(make_wsgi_app(registry)))
        self.port = self._server.server_port
        get_logger().info("metrics_served", port=self.port)

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _at_its_path_alone(app: WSGIApplication) -> WSGIApplication:
    """Return `app` restricted to /metrics; the library's application answers at every path."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [])
            return [b""]
        return app(environ, start_response)

    return answer
