"""Serve metrics to Prometheus: totals since the start, over HTTP by prometheus_client.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format

prometheus_client is imported only if metrics are served: a worker without them starts faster.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from hevcq.errors import ConfigError
from hevcq.util.log import get_logger
from hevcq.util.text import reason_of
from hevcq.worker.monitoring.metrics import METRICS, NAMESPACE, Kind, Labels, Metric

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    import prometheus_client
    from prometheus_client.core import Metric as Family


class Totals:
    """A sink that keeps totals: counters and summaries since the start, gauges as they are.

    Also a collector of prometheus_client, which calls `collect` at every scrape.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._sums: dict[tuple[Metric, Labels], tuple[float, int]] = {}

    def record(self, metric: Metric, labels: Labels, value: float) -> None:
        """Add to a counter or a summary, or set a gauge; `value` is in the metric's unit."""
        key = (metric, labels)
        with self._guard:
            before, count = self._sums.get(key, (0.0, 0))
            self._sums[key] = (value if metric.kind is Kind.GAUGE else before + value, count + 1)

    def forget(self, metric: Metric, labels: Labels) -> None:
        """Drop a gauge whose value is no longer known."""
        with self._guard:
            self._sums.pop((metric, labels), None)

    def collect(self) -> Iterator[Family]:
        """Yield each metric that has a value, its series sorted by labels."""
        with self._guard:
            sums = sorted(self._sums.items(), key=lambda item: item[0][1])
        for metric in METRICS:
            series = [(labels, seen) for (which, labels), seen in sums if which is metric]
            if series:
                yield _family(metric, series)

    def registry(self) -> prometheus_client.CollectorRegistry:
        """Return a registry of only these metrics."""
        from prometheus_client import CollectorRegistry

        found = CollectorRegistry()
        found.register(self)
        return found


def exposed(metric: Metric) -> str:
    """Return the Prometheus name of a metric."""
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", metric.name).lower()
    return f"{NAMESPACE}_{snake}" + ("_total" if metric.kind is Kind.COUNTER else "")


def _family(metric: Metric, series: list[tuple[Labels, tuple[float, int]]]) -> Family:
    from prometheus_client.core import Metric as Family

    name = exposed(metric)
    # The library appends `_total` to a counter's name in its HELP and TYPE.
    family = Family(name.removesuffix("_total"), metric.meaning, metric.kind.value)
    for labels, (total, count) in series:
        pairs = {label.lower(): value for label, value in labels}
        if metric.kind is Kind.SUMMARY:
            family.add_sample(f"{name}_sum", pairs, total)
            family.add_sample(f"{name}_count", pairs, count)
        else:
            family.add_sample(name, pairs, total)
    return family


class Exposition:
    """Serve `GET /metrics` at `address`, a host:port (port 0 picks a free one).

    Daemon threads answer from construction to `close`. Raises ConfigError if the address cannot be
    listened on.
    """

    def __init__(self, address: str, totals: Totals) -> None:
        from prometheus_client import make_wsgi_app, start_http_server

        registry = totals.registry()
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
