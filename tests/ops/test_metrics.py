"""Metrics: what a worker's events come to, as EMF lines and as Prometheus text."""

from __future__ import annotations

import re
import threading
from typing import get_args

import pytest
from prometheus_client import generate_latest

from hevcq.domain.events import EventName, WorkerEventName
from hevcq.domain.job import Phase
from hevcq.domain.verdict import FailureClass
from hevcq.errors import EncoderFailed, SourceDamaged
from hevcq.ports.queue import Depth
from hevcq.worker.monitoring import metrics as m
from hevcq.worker.monitoring.cloudwatch_emf import MAX_VALUES
from hevcq.worker.monitoring.health import Health
from hevcq.worker.monitoring.prometheus import exposed
from hevcq.worker.monitoring.recorder import ENDS
from ops.metered import Metered
from support.fakes.farm import Farm


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
    assert seen['hevcq_saved_bytes_total{profile="hevc"}'] == 600


def test_what_was_adopted_without_an_encode_has_no_speed_and_no_overhead():
    farm = Metered()
    farm.event(EventName.JOB_STARTED)
    farm.phase(Phase.PROBE, 1)
    farm.done()

    assert not [name for name in farm.text() if "speed" in name or "overhead" in name]


def test_a_rendition_larger_than_its_source_saves_nothing_and_lowers_no_counter():
    farm = Metered()
    farm.done(rendition=1500)

    assert farm.text()['hevcq_saved_bytes_total{profile="hevc"}'] == 0


@pytest.mark.parametrize("kind", list(ENDS))
def test_every_end_is_counted_by_its_name_and_class(kind):
    farm = Metered()
    farm.event(EventName.JOB_STARTED)
    farm.event(kind, failure_class=FailureClass.DAMAGED)

    (line,) = [line for line in farm.lines() if "JobsEnded" in line]
    assert (line["End"], line["Class"], line["JobsEnded"]) == (ENDS[kind], "damaged", 1)
    lost = [line for line in farm.text() if "leases_lost" in line]
    assert bool(lost) is (kind is EventName.JOB_ABANDONED)


def test_every_kind_of_event_that_ends_an_attempt_is_an_end():
    going_on = {EventName.JOB_STARTED, EventName.JOB_PROGRESS, EventName.JOB_NOTICE}
    # A video that was shared out, and a chunk that is done, are no end of a job.
    shared = {EventName.JOB_SPLIT, EventName.PART_DONE}

    assert set(get_args(WorkerEventName)) - going_on - shared == set(ENDS)


@pytest.mark.parametrize("kind", [EventName.JOB_SPLIT, EventName.PART_DONE])
def test_what_is_done_to_a_part_of_a_video_is_no_job_that_ended(kind):
    farm = Metered()
    farm.event(EventName.JOB_STARTED)
    farm.event(kind)

    assert [line for line in farm.lines() if "JobsEnded" in line] == []


def test_an_attempt_that_failed_leaves_nothing_for_the_next_one():
    farm = Metered()
    farm.event(EventName.JOB_STARTED)
    farm.phase(Phase.ENCODE, 100, speed=9)
    farm.event(EventName.JOB_RETRY, failure_class=FailureClass.ENCODER)
    farm.event(EventName.JOB_STARTED)
    farm.phase(Phase.ENCODE, 10)
    farm.done()

    assert farm.text()['hevcq_phase_seconds_sum{profile="hevc",phase="encode"}'] == 10
    assert 'hevcq_encode_speed_sum{profile="hevc"}' not in farm.text()


def test_a_job_counts_by_end_and_by_end_and_class_in_cloudwatch():
    farm = Metered()
    farm.event(EventName.JOB_BURIED, failure_class=FailureClass.NETWORK)

    (line,) = farm.lines()

    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "hevcq"
    assert directive["Dimensions"] == [["Profile", "End", "Class"], ["Profile", "End"]]
    assert line["_aws"]["Timestamp"] == round(farm.clock.now() * 1000)


def test_a_line_holds_the_increase_since_the_last_one_and_gauges_stay():
    farm = Metered()
    farm.done()
    farm.done()
    farm.meter.slots(Health(slots=2, alive=2, handled=0, oldest_poll_s=0, busy=1))
    first = farm.lines()
    second = farm.lines()
    farm.done()
    third = farm.lines()

    assert [line["JobsEnded"] for line in first if "JobsEnded" in line] == [2]
    assert [line.get("SlotsBusy") for line in second] == [1]
    assert [line["JobsEnded"] for line in third if "JobsEnded" in line] == [1]


def test_more_values_than_one_line_may_hold_become_more_lines():
    farm = Metered()
    for number in range(2 * MAX_VALUES + 50):
        farm.batch.record(m.ENCODE_SPEED, (("Profile", "hevc"),), float(number))

    sizes = [len(line["EncodeSpeed"]) for line in farm.lines()]

    assert sizes == [100, 100, 50]


def test_metrics_without_labels_have_one_empty_set_of_dimensions():
    farm = Metered()
    farm.meter.slots(Health(slots=2, alive=2, handled=0, oldest_poll_s=0, busy=1))

    (line,) = farm.lines()

    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [[]]
    assert (line["Slots"], line["SlotsBusy"]) == (2, 1)


def test_a_queue_that_cannot_be_counted_any_more_loses_its_old_numbers():
    farm = Metered()
    farm.meter.queue("hevc", Depth(ready=3, in_flight=1, delayed=0, dead=2, oldest_s=60.0))
    assert farm.text()['hevcq_queue_oldest_seconds{profile="hevc"}'] == 60
    assert farm.text()['hevcq_queue_dead_letters{profile="hevc"}'] == 2

    farm.meter.queue("hevc", None)

    assert (farm.text(), farm.lines()) == ({}, [])


@pytest.mark.parametrize(("ready", "oldest"), [(0, 0.0), (5, None)])
def test_an_age_that_a_service_does_not_tell_is_not_made_up(ready, oldest):
    farm = Metered()
    farm.meter.queue("hevc", Depth(ready=ready, in_flight=0, delayed=0, dead=0, oldest_s=None))

    assert farm.text().get('hevcq_queue_oldest_seconds{profile="hevc"}') == oldest


def test_values_from_many_threads_at_once_are_all_counted():
    farm = Metered()

    def work() -> None:
        for _ in range(500):
            farm.event(EventName.JOB_RELEASED)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    name = 'hevcq_jobs_ended_total{profile="hevc",end="released",class="none"}'
    assert farm.text()[name] == 4000


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


def test_names_and_labels_are_valid_for_both():
    names = [metric.name for metric in m.METRICS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+", name) for name in names)
    assert all(re.fullmatch(r"hevcq_[a-z_]+", exposed(metric)) for metric in m.METRICS)
    for metric in m.METRICS:
        assert all(set(shorter) < set(metric.labels) for shorter in metric.rollups)


def test_the_text_of_each_kind_is_what_it_was_and_nothing_more():
    farm = Metered()
    farm.totals.record(m.SOURCE_BYTES, (("Profile", "hevc"),), 1000.0)
    farm.totals.record(m.SLOTS, (), 2.0)
    for seconds in (1.5, 2.0):
        farm.totals.record(m.VERIFY_OVERHEAD, (("Profile", "hevc"),), seconds)

    text = generate_latest(farm.totals.registry()).decode()

    helped = [line for line in text.splitlines() if line.startswith("# HELP")]
    assert [line for line in text.splitlines() if line not in helped] == [
        "# TYPE hevcq_verify_overhead_percent summary",
        'hevcq_verify_overhead_percent_sum{profile="hevc"} 3.5',
        'hevcq_verify_overhead_percent_count{profile="hevc"} 2.0',
        "# TYPE hevcq_source_bytes_total counter",
        'hevcq_source_bytes_total{profile="hevc"} 1000.0',
        "# TYPE hevcq_slots gauge",
        "hevcq_slots 2.0",
    ]
    assert helped[1] == f"# HELP hevcq_source_bytes_total {m.SOURCE_BYTES.meaning}"
