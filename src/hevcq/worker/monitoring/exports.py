"""Export metrics: to Prometheus over HTTP, and to CloudWatch as log lines in its embedded metric format.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
A line holds the values of one set of labels since the last line: the increase of counters, all
values of summaries, the current value of gauges.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from hevcq.errors import ConfigError
from hevcq.util.log import get_logger
from hevcq.util.text import reason_of
from hevcq.worker.monitoring.metrics import METRICS, NAMESPACE, Metric, Metrics

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MAX_VALUES = 100
"""Maximum values of one metric in one line, by the specification."""

Group = tuple[tuple[tuple[str, str], ...], tuple[tuple[str, ...], ...]]
"""The key of one line: its labels and the rollups of its metrics."""


def lines(metrics: Metrics, now: float) -> Iterator[str]:
    """Yield one line of JSON for each set of labels; `now` is seconds since the Unix epoch."""
    groups: dict[Group, dict[Metric, list[float]]] = defaultdict(dict)
    for metric in METRICS:
        for labels, values in metrics.since_last(metric).items():
            named = tuple(zip(metric.labels, labels, strict=True))
            groups[named, metric.rollups][metric] = values
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
        "Metrics": [{"Name": metric.name, "Unit": metric.unit.value} for metric in values_of],
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
