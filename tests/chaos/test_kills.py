"""Real workers are killed and stopped while they work, on a data folder and on AWS (short form)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.kills import calls
from fakes.farm import Farm
from hevcq.domain.job import JobState

ROOT = Path(__file__).resolve().parents[2]


def campaign(*words: object, most_s: int = 280) -> tuple[dict, int, str]:
    """Run a campaign in a process of its own, which may fork; return counts, code and log."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos.kills", *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=most_s,
        check=False,
    )
    assert ran.stdout, ran.stderr[-3000:]
    counts = json.loads(ran.stdout.splitlines()[-1])
    print(counts)
    return counts, ran.returncode, ran.stderr[-3000:]


@pytest.mark.parametrize(
    ("backend", "kills", "stops", "points", "takeovers"),
    [("embedded", 70, 3, 15, 1), pytest.param("aws", 10, 1, 1, 0, marks=pytest.mark.aws)],
)
def test_killed_and_stopped_workers_lose_double_and_leave_nothing(
    backend, kills, stops, points, takeovers
):
    counts, code, log = campaign(
        "--backend", backend, "--kills", kills, "--stops", stops, "--takeovers", takeovers
    )

    for name in ("lost", "wrong_end", "double_published", "partial_visible"):
        assert counts[name] == 0, (name, counts, log)
    left = ("work_objects", "open_uploads") if backend == "embedded" else ()
    for name in ("stray_children", "temp_files", *left):
        assert counts[name] == 0, (name, counts, log)
    assert code == 0, log
    assert counts["kills"] >= kills
    assert counts["stops"] >= stops
    assert counts["jobs"] >= 8
    assert counts["points_hit"] >= points, "too few of the crash points were hit"
    assert counts["calls_without_point"] == [], "no worker can be killed around these calls"
    assert ("taken_over_s_most" in counts) == bool(takeovers)


@pytest.mark.media
@pytest.mark.parametrize(
    ("backend", "kills"),
    [("embedded", 3), pytest.param("aws", 3, marks=[pytest.mark.aws, pytest.mark.slow])],
)
def test_real_ffmpeg_killed_frozen_or_orphaned_costs_no_film(backend, kills):
    counts, code, log = campaign("--real", "--backend", backend, "--kills", kills)

    assert code == 0, (counts, log)
    assert counts["lost"] == counts["unproven"] == counts["never_noticed"] == 0, (counts, log)
    assert counts["orphans"] == counts["stray_children"] == counts["temp_files"] == 0, (counts, log)
    assert counts["workers_killed"] >= 1
    assert counts["ffmpeg_frozen"] >= 1
    assert sum(counts["retried_as"].values()) >= 1


@pytest.fixture
def come_to(tmp_path) -> tuple[Farm, list[str], list[str]]:
    """A farm whose calls are watched, the points that it came to, and the calls without one."""
    farm, points, unknown = Farm(tmp_path), [], []
    watched = calls.Calls(points.append, unknown.append)
    farm.with_kit(faults=watched)
    watched.watch(farm.backend)
    return farm, points, unknown


def test_every_call_of_a_job_is_at_a_numbered_point_or_at_one_of_the_campaigns_own(come_to):
    farm, points, unknown = come_to
    source = farm.submit()
    points.clear()
    unknown.clear()

    farm.handle()

    assert "before-get" not in points, "a call that a numbered point surrounds has no other"
    assert farm.record(source).state is JobState.DONE
    assert points[0] == "after-receive"
    assert {"before-progress", "after-progress", "before-publish", "after-ack"} <= set(points)
    assert unknown == []


def test_a_poll_that_brings_nothing_is_no_point_and_one_after_work_is(come_to):
    farm, points, _ = come_to
    farm.receive()
    assert points == []

    farm.submit()
    farm.handle()
    points.clear()
    farm.receive()
    assert points == ["before-receive"]


def test_a_call_after_a_step_that_broke_is_not_taken_for_that_steps(come_to):
    farm, points, unknown = come_to
    source = farm.submit()
    unknown.clear()
    farm.kit.faults("before-claim")
    with pytest.raises(TypeError):
        farm.ledger.claim("too few words")
    points.clear()

    farm.ledger.get("b" * 32)
    farm.ledger.counts()
    farm.store.check(source)

    assert points == ["before-get", "after-get"]
    assert unknown == ["counts", "check"]
