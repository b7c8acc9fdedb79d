"""Metrics handed out: lines at a pace, and an address that Prometheus reads."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from hevcq.errors import ConfigError, Unavailable
from hevcq.ports.queue import Depth
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.monitoring import metrics as m
from hevcq.worker.monitoring.health import Health
from hevcq.worker.monitoring.prometheus import Exposition, Totals
from hevcq.worker.monitoring.reporter import MetricsReport, Outlets
from ops.metered import Metered, checked
from support.fakes.farm import Farm


class Queue:
    """A queue of which only the depth is asked."""

    def __init__(self, *depths: Depth | Exception) -> None:
        self.depths = list(depths)

    def depth(self) -> Depth:
        found = self.depths.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def report_of(farm: Farm, metered: Metered, queue: Queue, written: list[str]) -> MetricsReport:
    outlets = Outlets(metered.batch, written.append)
    served = [ProfileQueue(farm.profile, queue)]
    return MetricsReport(metered.meter, served, outlets, metered.clock, every_s=60)


def test_a_report_counts_the_queues_and_writes_lines_at_its_pace(tmp_path):
    metered, written = Metered(), []
    queue = Queue(Depth(ready=3, in_flight=1, delayed=0, dead=0, oldest_s=5.0))
    report = report_of(Farm(tmp_path), metered, queue, written)
    metered.done()

    assert report.step() == 60

    names = {name for line in written for name in checked(line)}
    assert {"JobsEnded", "QueueReady", "QueueOldestSeconds"} <= names


def test_a_queue_that_does_not_answer_is_said_once_and_the_rest_is_reported(tmp_path, capsys):
    metered, written = Metered(), []
    queue = Queue(*[Unavailable("SQS does not answer.")] * 3)
    report = report_of(Farm(tmp_path), metered, queue, written)
    for _ in range(3):
        metered.done()
        report.step()

    assert [checked(line).get("JobsEnded") for line in written].count(1) == 3
    said = capsys.readouterr()
    assert (said.out + said.err).count("queue_not_counted") == 1


def test_the_last_report_is_written_when_the_worker_ends(tmp_path):
    metered, written = Metered(), []
    depth = Depth(ready=0, in_flight=0, delayed=0, dead=0)
    report = report_of(Farm(tmp_path), metered, Queue(*[depth] * 9), written)
    report.look(Health(slots=1, alive=1, handled=0, oldest_poll_s=0))
    metered.done()
    report.close()

    assert sum(checked(line).get("JobsEnded", 0) for line in written) == 1


def test_prometheus_gets_the_metrics_at_its_own_path_and_nothing_else():
    totals = Totals()
    totals.record(m.JOBS_ENDED, (("Profile", 'a"b\\c'), ("End", "done"), ("Class", "none")), 1)
    served = Exposition("127.0.0.1:0", totals)
    try:
        base = f"http://127.0.0.1:{served.port}"
        with urllib.request.urlopen(f"{base}/metrics", timeout=10) as answer:
            body, kind = answer.read().decode(), answer.headers["Content-Type"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{base}/etc/passwd", timeout=10).close()
    finally:
        served.close()

    assert kind.startswith("text/plain; version=0.0.4")
    assert "# TYPE hevcq_jobs_ended_total counter\n" in body
    assert 'profile="a\\"b\\\\c"' in body


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "no.such.host.invalid:9464", "x:y"])
def test_an_address_that_cannot_be_served_is_one_sentence(address):
    with pytest.raises(ConfigError, match="metrics_address"):
        Exposition(address, Totals())


def test_a_port_that_is_taken_is_one_sentence():
    first = Exposition("127.0.0.1:0", Totals())
    with pytest.raises(ConfigError, match="cannot be served"):
        Exposition(f"127.0.0.1:{first.port}", Totals())
    first.close()
