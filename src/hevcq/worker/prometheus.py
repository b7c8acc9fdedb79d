"""Metrics for Prometheus: totals since the start, as text over HTTP.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hevcq.errors import ConfigError
from hevcq.util.log import get_logger
from hevcq.worker.metrics import METRICS, NAMESPACE, Kind, Labels, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Totals:
    """A sink that keeps sums: counters and summaries since the start, gauges as they are."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._sums: dict[tuple[Metric, Labels], tuple[float, int]] = {}

    def record(self, metric: Metric, labels: Labels, value: float) -> None:
        """Add to a counter or a summary; set a gauge."""
        key = (metric, labels)
        with self._guard:
            before, count = self._sums.get(key, (0.0, 0))
            self._sums[key] = (value if metric.kind is Kind.GAUGE else before + value, count + 1)

    def forget(self, metric: Metric, labels: Labels) -> None:
        """Drop a gauge whose value is not known any more."""
        with self._guard:
            self._sums.pop((metric, labels), None)

    def text(self) -> str:
        """Return everything in the text format."""
        with self._guard:
            sums = sorted(self._sums.items(), key=lambda item: item[0][1])
        written = []
        for metric in METRICS:
            name = exposed(metric)
            series = [(labels, seen) for (which, labels), seen in sums if which is metric]
            if series:
                written.append(f"# HELP {name} {metric.meaning}")
                written.append(f"# TYPE {name} {metric.kind.value}")
            for labels, (total, count) in series:
                ending = "_sum" if metric.kind is Kind.SUMMARY else ""
                written.append(f"{name}{ending}{_labels(labels)} {total:.10g}")
                if metric.kind is Kind.SUMMARY:
                    written.append(f"{name}_count{_labels(labels)} {count}")
        return "".join(f"{line}\n" for line in written)


def exposed(metric: Metric) -> str:
    """Return the name that Prometheus knows a metric by."""
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", metric.name).lower()
    return f"{NAMESPACE}_{snake}" + ("_total" if metric.kind is Kind.COUNTER else "")


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    pairs = [f'{name.lower()}="{_escaped(value)}"' for name, value in labels]
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Exposition:
    """Serves `GET /metrics` at `address`, which is host:port (a port of 0 takes a free one).

    Raises ConfigError if the address cannot be listened on.
    """

    def __init__(self, address: str, totals: Totals) -> None:
        host, _, port = address.rpartition(":")
        try:
            self._server = _Server((host.strip("[]"), int(port)), totals)
        except (OSError, OverflowError, ValueError) as error:
            raise ConfigError(
                f"Metrics cannot be served at {address}: {error}.",
                remedy="Set metrics_address to a free host:port, or leave it empty.",
            ) from error
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="hevcq-metrics", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        get_logger().info("metrics_served", port=self.port)

    def close(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], totals: Totals) -> None:
        self.totals = totals
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    timeout = 10.0
    server: _Server

    def do_GET(self) -> None:
        """Answer with the metrics."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        body = self.server.totals.text().encode()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing: a scrape every few seconds is no event."""
