"""Real workers are killed and stopped while they work, on a data folder and on AWS (short form)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def campaign(*words: object, module: str = "kills", most_s: int = 280) -> tuple[dict, int, str]:
    """Run a campaign in a process of its own, which may fork; return counts, code and log."""
    command = [sys.executable, "-m", f"tests.chaos.{module}", *map(str, words)]
    pipes = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    ran = subprocess.run(command, cwd=ROOT, **pipes, timeout=most_s, check=False)
    assert ran.stdout, ran.stderr[-3000:]
    counts = json.loads(ran.stdout.splitlines()[-1])
    print(counts)
    return counts, ran.returncode, ran.stderr[-3000:]


@pytest.mark.parametrize(
    ("backend", "kills", "stops", "points", "more"),
    [
        ("embedded", 24, 2, 9, ()),
        ("postgres", 10, 0, 4, ("--crashes", 2)),
        pytest.param("aws", 5, 1, 1, (), marks=pytest.mark.aws),
    ],
)
def test_killed_and_stopped_workers_lose_double_and_leave_nothing(
    backend, kills, stops, points, more
):
    counts, code, log = campaign("--backend", backend, "--kills", kills, "--stops", stops, *more)

    for name in ("lost", "wrong_end", "double_published", "partial_visible"):
        assert counts[name] == 0, (name, counts, log)
    left = () if backend == "aws" else ("work_objects", "open_uploads")
    for name in ("stray_children", "temp_files", *left):
        assert counts[name] == 0, (name, counts, log)
    assert code == 0, log
    assert counts["kills"] >= kills
    assert counts["stops"] >= stops
    assert counts["jobs"] >= 8
    assert counts["points_hit"] >= points, "too few of the crash points were hit"


@pytest.mark.media
def test_machines_killed_while_they_replace_originals_cost_none():
    counts, code, log = campaign("--replace", "--kills", 3, "--crashes", 1)

    assert code == 0, (counts, log)
    assert counts["crashes"] == 1
    assert counts["replaced"] == counts["videos"] > 0, counts


@pytest.mark.aws
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_killed_at_every_point_of_a_set_on_aws_lose_double_and_leave_nothing():
    counts, code, log = campaign(
        "--backend", "aws", "--sets", "--kills", 100, "--stops", 2, most_s=880
    )

    assert code == 0, (counts, log)
    assert counts["points_missed"] == [], counts
    for name in ("lost", "wrong_end", "double_published", "partial_visible", "set_leftovers"):
        assert counts[name] == 0, (name, counts, log)


@pytest.mark.media
@pytest.mark.parametrize(
    ("backend", "kills"),
    [("embedded", 3), pytest.param("aws", 3, marks=[pytest.mark.aws, pytest.mark.slow])],
)
def test_real_ffmpeg_killed_frozen_or_orphaned_costs_no_video(backend, kills):
    counts, code, log = campaign("--real", "--backend", backend, "--kills", kills)

    assert code == 0, (counts, log)
    assert counts["lost"] == counts["unproven"] == counts["never_noticed"] == 0, (counts, log)
    assert counts["orphans"] == counts["stray_children"] == counts["temp_files"] == 0, (counts, log)
    assert counts["workers_killed"] >= 1
    assert counts["ffmpeg_frozen"] >= 1
    assert sum(counts["retried_as"].values()) >= 1


def test_a_worker_that_never_rests_does_not_grow():
    told, code, _ = campaign("--minutes", 0.15, module="soak", most_s=120)

    assert (code, told["flat"]) == (0, True), told["grew"]
    assert told["jobs"] >= 10
