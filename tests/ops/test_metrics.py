"""Metrics: what a worker's events come to, as EMF lines and as Prometheus text."""

import io
import json
import re
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from scripts.write_metrics_doc import filled

from hevcq.domain.events import EventName, JobEvent, WorkerEventName
from hevcq.domain.job import Phase, Progress, RenditionRef, Source
from hevcq.domain.verdict import FailureClass
from hevcq.errors import ConfigError, EncoderFailed, SourceDamaged, Unavailable
from hevcq.ports.queue import QueueDepth
from hevcq.util import log
from hevcq.util.log import get_logger
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.monitoring.metrics import (
    ATTEMPT_ENDS,
    METRICS,
    EventMeter,
    Exposition,
    Metrics,
    MetricsReport,
)
from hevcq.worker.monitoring.watchers import PoolState
from hevcq.worker.slot import Slot
from support.clips import ManualClock
from support.fakes.farm import Farm

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


def test_a_finished_job_is_its_phases_speed_bytes_and_overhead():
    farm = Metered()
    farm.event(EventName.JOB_STARTED)
    farm.phase(Phase.PROBE, 1)
    farm.phase(Phase.ENCODE, 20, speed=1.5)
    farm.phase(Phase.VERIFY, 5, speed=40)
    farm.phase(Phase.PUBLISH, 2)
    farm.done()

    seen = farm.text()

    assert seen['hevcq_jobs_ended_total{profile="hevc",end="done",class="none"}'] == 1
    assert seen['hevcq_phase_seconds_sum{profile="hevc",phase="encode"}'] == 20
    assert seen['hevcq_phase_seconds_sum{profile="hevc",phase="publish"}'] == 2
    assert seen['hevcq_encode_speed_sum{profile="hevc"}'] == 1.5
    assert seen['hevcq_encode_speed_count{profile="hevc"}'] == 1
    assert seen['hevcq_verify_overhead_percent_sum{profile="hevc"}'] == 25
    assert seen['hevcq_source_bytes_total{profile="hevc"}'] == 1000
    assert seen['hevcq_rendition_bytes_total{profile="hevc"}'] == 400


@pytest.mark.parametrize("kind", list(ATTEMPT_ENDS))
def test_every_end_is_counted_by_its_name_and_class(kind):
    farm = Metered()
    farm.event(EventName.JOB_STARTED)
    farm.event(kind, failure_class=FailureClass.DAMAGED)

    (line,) = [line for line in farm.lines() if "JobsEnded" in line]
    assert (line["End"], line["Class"], line["JobsEnded"]) == (ATTEMPT_ENDS[kind], "damaged", 1)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "hevcq"
    assert line["_aws"]["Timestamp"] == round(farm.clock.now() * 1000)
    assert directive["Dimensions"] == [["Profile", "End", "Class"], ["Profile", "End"]]
    lost = [line for line in farm.text() if "leases_lost" in line]
    assert bool(lost) is (kind is EventName.JOB_ABANDONED)


def test_every_kind_of_event_that_ends_an_attempt_is_an_end():
    going_on = {EventName.JOB_STARTED, EventName.JOB_PROGRESS, EventName.JOB_NOTICE}
    # A video that was shared out, and a chunk that is done, are no end of a job.
    shared = {EventName.JOB_SPLIT, EventName.PART_DONE}

    assert set(get_args(WorkerEventName)) - going_on - shared == set(ATTEMPT_ENDS)


def test_an_attempt_that_failed_leaves_nothing_for_the_next_one():
    farm = Metered()
    farm.event(EventName.JOB_STARTED)
    farm.phase(Phase.ENCODE, 100, speed=9)
    farm.event(EventName.JOB_RETRY, failure_class=FailureClass.ENCODER)
    farm.event(EventName.JOB_STARTED)
    farm.phase(Phase.ENCODE, 10)
    farm.done(rendition=1500)

    assert farm.text()['hevcq_phase_seconds_sum{profile="hevc",phase="encode"}'] == 10
    assert 'hevcq_encode_speed_sum{profile="hevc"}' not in farm.text()


def test_a_line_holds_the_increase_since_the_last_one_and_gauges_stay():
    farm = Metered()
    farm.done()
    farm.done()
    farm.meter.slots(PoolState(slots=2, alive=2, handled=0, oldest_poll_s=0, busy=1))
    first = farm.lines()
    second = farm.lines()
    farm.done()
    third = farm.lines()

    assert [line["JobsEnded"] for line in first if "JobsEnded" in line] == [2]
    assert [line.get("SlotsBusy") for line in second] == [1]
    assert [line["JobsEnded"] for line in third if "JobsEnded" in line] == [1]


def test_the_real_handler_feeds_the_meter(tmp_path):
    farm, metered = Farm(tmp_path), Metered()
    metered.meter._clock = farm.clock
    farm.with_context(on_event=metered.meter.note)
    farm.submit("good.mp4")
    farm.handle()
    farm.submit("bad.mp4")
    farm.encoder.errors["preflight"] = [SourceDamaged("no packets")]
    farm.handle()
    farm.submit("odd.mp4")
    farm.encoder.errors["encode"] = [EncoderFailed("exit 1")] * 2
    # The first time it may be the worker's fault, and goes back uncounted.
    farm.clock.advance(farm.handle().verdict.delay_s)
    farm.handle()

    seen = metered.text()
    ends = {name: n for name, n in seen.items() if name.startswith("hevcq_jobs_ended_total")}
    assert set(ends.values()) == {1}
    assert {tuple(re.findall('"(.*?)"', name)[1:]) for name in ends} == {
        ("done", "none"),
        ("buried", "damaged"),
        ("released", "none"),
        ("retry", "encoder"),
    }
    assert seen['hevcq_source_bytes_total{profile="hevc"}'] == 4


class Queue:
    """A queue of which only the depth is asked."""

    def __init__(self, *depths: QueueDepth | Exception) -> None:
        self.depths = list(depths)

    def depth(self) -> QueueDepth:
        found = self.depths.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def report_of(farm: Farm, metered: Metered, queue: Queue, written: list[str]) -> MetricsReport:
    served = [ProfileQueue(farm.profile, queue)]
    return MetricsReport(metered.meter, served, metered.clock, write=written.append)


def test_a_report_counts_the_queues_and_writes_lines_at_its_pace(tmp_path):
    metered, written = Metered(), []
    queue = Queue(*[QueueDepth(ready=3, in_flight=1, delayed=0, dead=0, oldest_s=5.0)] * 3)
    report = report_of(Farm(tmp_path), metered, queue, written)
    metered.done()

    assert report.step() == 60

    names = {name for line in written for name in checked(line)}
    assert {"JobsEnded", "QueueReady", "QueueOldestSeconds"} <= names
    report.observe(PoolState(slots=1, alive=1, handled=0, oldest_poll_s=0))
    written.clear()
    metered.done()
    report.close()
    assert sum(checked(line).get("JobsEnded", 0) for line in written) == 1, "the last report"


def test_a_queue_that_does_not_answer_loses_its_old_numbers_and_is_reported_once(tmp_path, capsys):
    metered, written = Metered(), []
    depth = QueueDepth(ready=3, in_flight=1, delayed=0, dead=2, oldest_s=60.0)
    queue = Queue(depth, *[Unavailable("SQS does not answer.")] * 3)
    report = report_of(Farm(tmp_path), metered, queue, written)
    report.step()
    assert 2 in [value for name, value in metered.text().items() if "queue_dead_letters" in name]
    for _ in range(3):
        metered.done()
        report.step()

    assert [checked(line).get("JobsEnded") for line in written].count(1) == 3
    assert not [name for name in metered.text() if "queue" in name]
    assert ["QueueReady" in checked(line) for line in written].count(True) == 1
    said = capsys.readouterr()
    assert (said.out + said.err).count("queue_not_counted") == 1


def test_prometheus_gets_the_metrics_until_the_worker_ends():
    metrics = Metrics()
    metrics.record("JobsEnded", ('a"b\\c', "done", "none"), 1)
    served = Exposition("127.0.0.1:0", metrics)
    clock = ManualClock()
    report = MetricsReport(EventMeter(metrics, clock), [], clock, exposition=served)
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/metrics", timeout=10) as answer:
        body, kind = answer.read().decode(), answer.headers["Content-Type"]
    report.close()

    assert kind.startswith("text/plain; version=0.0.4")
    assert "# TYPE hevcq_jobs_ended_total counter\n" in body
    assert 'profile="a\\"b\\\\c"' in body
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", served.port), timeout=1)


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "x:y", "127.0.0.1:{taken}"])
def test_an_address_that_cannot_be_served_is_one_sentence(address):
    first = Exposition("127.0.0.1:0", Metrics())
    with pytest.raises(ConfigError, match="cannot be served"):
        Exposition(address.format(taken=first.port), Metrics())
    first.close()


PAGE = Path(__file__).resolve().parents[2] / "docs" / "farm" / "metrics.md"


def test_the_table_is_that_of_the_code():
    page = PAGE.read_text(encoding="utf-8")

    assert page == filled(page), "run python scripts/write_metrics_doc.py"


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    log.configure("debug", "json", stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def worker_of(farm: Farm) -> Slot:
    return Slot(farm.context, farm.handler(), [ProfileQueue(farm.profile, farm.queue)])


def named(line: dict[str, object]) -> dict[str, object]:
    return {name: line.get(name) for name in ("job", "profile", "attempt", "source")}


@pytest.mark.parametrize("error", [None, EncoderFailed("exit 1"), ZeroDivisionError("a defect")])
def test_every_line_about_a_job_names_it(tmp_path, stream, error):
    farm = Farm(tmp_path)
    source = farm.submit()
    farm.encoder.during["encode"] = lambda: get_logger().info("from_deep_below")
    if error is not None:
        farm.encoder.errors["verify"] = [error]

    worker_of(farm).step()

    written = lines(stream)
    expected = {
        "job": farm.record(source).job_id,
        "profile": "hevc",
        "attempt": 1,
        "source": source.key,
    }
    assert [named(line) for line in written] == [expected] * len(written)
    assert {"job_started", "from_deep_below"} < {line["event"] for line in written}
