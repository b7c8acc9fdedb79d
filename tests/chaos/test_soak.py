"""A worker that works for long does not grow, and a soak would see it if it did (short form)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.soak import BOUNDS, growth

ROOT = Path(__file__).resolve().parents[2]
STEADY = {
    "jobs": 0,
    "descriptors": 20,
    "rss_kib": 60_000,
    "children": 1,
    "threads": 8,
    "temp_files": 2,
    "database_kib": 500,
    "wal_kib": 4096,
    "log_kib": 100,
}


def test_a_worker_that_never_rests_does_not_grow():
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos.soak", "--minutes", "0.15"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.stdout, ran.stderr[-3000:]
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["flat"]) == (0, True), told["grew"]
    assert told["jobs"] >= 10


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_each_figure_that_grows_a_little_with_every_sample_is_found(name):
    most, share, _ = BOUNDS[name]
    step = max(1.0, most / 20, share * STEADY[name] / 20)
    growing = [{**STEADY, name: STEADY[name] + n * step} for n in range(90)]
    flat = {each: grew <= bound for each, (grew, bound) in growth(growing).items()}
    assert flat == {each: each != name for each in BOUNDS}
