"""Write metrics as log lines in CloudWatch's embedded metric format.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
A line holds the values of one set of labels since the last line: the increase of counters, all
values of summaries, the current value of gauges.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator

from hevcq.worker.monitoring.metrics import NAMESPACE, Kind, Labels, Metric

MAX_VALUES = 100
"""Maximum values of one metric in one line, by the specification."""

Group = tuple[Labels, tuple[tuple[str, ...], ...]]
"""The key of one line: its labels and the rollups of its metrics."""


class Batch:
    """A sink that collects values until they are taken."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._values: dict[tuple[Metric, Labels], list[float]] = {}
        self._gauges: dict[tuple[Metric, Labels], float] = {}

    def record(self, metric: Metric, labels: Labels, value: float) -> None:
        """Add to a counter or a summary, or set a gauge; `value` is in the metric's unit."""
        key = (metric, labels)
        with self._guard:
            if metric.kind is Kind.GAUGE:
                self._gauges[key] = value
            elif metric.kind is Kind.COUNTER:
                self._values[key] = [self._values.get(key, [0.0])[0] + value]
            else:
                self._values.setdefault(key, []).append(value)

    def forget(self, metric: Metric, labels: Labels) -> None:
        """Drop a gauge whose value is no longer known."""
        with self._guard:
            self._gauges.pop((metric, labels), None)

    def drain(self) -> dict[tuple[Metric, Labels], list[float]]:
        """Return the values since the last call, and the current gauges."""
        with self._guard:
            taken, self._values = self._values, {}
            return {**taken, **{key: [value] for key, value in self._gauges.items()}}


def lines(taken: dict[tuple[Metric, Labels], list[float]], now: float) -> Iterator[str]:
    """Yield one line of JSON for each set of labels; `now` is seconds since the Unix epoch."""
    groups: dict[Group, dict[Metric, list[float]]] = defaultdict(dict)
    for (metric, labels), values in taken.items():
        groups[labels, metric.rollups][metric] = values
    for (labels, rollups), values_of in groups.items():
        for start in range(0, max(map(len, values_of.values())), MAX_VALUES):
            part = {k: v[start : start + MAX_VALUES] for k, v in values_of.items()}
            yield _line(labels, rollups, {k: v for k, v in part.items() if v}, now)


def _line(
    labels: Labels,
    rollups: tuple[tuple[str, ...], ...],
    values_of: dict[Metric, list[float]],
    now: float,
) -> str:
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [[name for name, _ in labels], *map(list, rollups)],
        "Metrics": [{"Name": metric.name, "Unit": metric.unit.value} for metric in values_of],
    }
    document: dict[str, object] = {
        "_aws": {"Timestamp": round(now * 1000), "CloudWatchMetrics": [directive]},
        **dict(labels),
    }
    for metric, values in values_of.items():
        document[metric.name] = values[0] if len(values) == 1 else values
    return json.dumps(document, separators=(",", ":"))
