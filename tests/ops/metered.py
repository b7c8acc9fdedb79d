"""A meter, and readers that hold its output to the formats."""

import json

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hevcq.domain.events import EventName, JobEvent, WorkerEventName
from hevcq.domain.job import Phase, Progress, RenditionRef, Source
from hevcq.worker.monitoring.metrics import METRICS, EventMeter, Metrics
from support.clips import ManualClock

SOURCE = Source(bucket="b", key="TODO/a.mp4", version="1", size=1000)
LABELS = ("profile", "phase", "end", "class")
UNITS = {metric.unit for metric in METRICS.values()}


class Metered:
    """A meter on a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.metrics = Metrics(emf=True)
        self.meter = EventMeter(self.metrics, self.clock)

    def event(self, kind: WorkerEventName, **facts: object) -> None:
        self.meter.note(JobEvent(kind, "job", SOURCE, "hevc", "here:0", **facts))

    def phase(self, phase: Phase, seconds: float, speed: float | None = None) -> None:
        self.event(EventName.JOB_PROGRESS, progress=Progress(phase=phase))
        self.clock.advance(seconds)
        self.event(EventName.JOB_PROGRESS, progress=Progress(phase=phase, percent=99, speed=speed))

    def done(self, rendition: int = 400) -> None:
        ref = RenditionRef(key="k", size=rendition, sha256="0" * 64, certificate_key="c")
        self.event(EventName.JOB_DONE, rendition=ref)

    def lines(self) -> list[dict]:
        return [checked(line) for line in self.metrics.lines(self.clock.now())]

    def text(self) -> dict[str, float]:
        return parsed(generate_latest(self.metrics.registry).decode())


def checked(line: str) -> dict:
    """Return a line's document after holding it to the EMF specification."""
    document = json.loads(line)
    assert "\n" not in line
    meta = document["_aws"]
    assert isinstance(meta["Timestamp"], int)
    for directive in meta["CloudWatchMetrics"]:
        assert 1 <= len(directive["Namespace"]) <= 1024
        assert len(directive["Dimensions"]) >= 1
        assert 1 <= len(directive["Metrics"]) <= 100
        for keys in directive["Dimensions"]:
            assert len(keys) <= 30
            assert all(1 <= len(document[key]) <= 1024 for key in keys)
        for metric in directive["Metrics"]:
            assert metric["Unit"] in UNITS
            values = document[metric["Name"]]
            values = values if isinstance(values, list) else [values]
            assert 1 <= len(values) <= 100
            assert all(isinstance(value, int | float) for value in values)
    return document


def parsed(text: str) -> dict[str, float]:
    """Return each sample of the text format, its labels in the order of docs/farm/metrics.md."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            shown = ",".join(f'{k}="{sample.labels[k]}"' for k in LABELS if k in sample.labels)
            assert set(sample.labels) <= set(LABELS)
            found[sample.name + (f"{{{shown}}}" if shown else "")] = sample.value
    return found
