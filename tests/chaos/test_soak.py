"""A worker that works for long does not grow, and a soak would see it if it did (short form)."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.soak.samples import BOUNDS, Sample, verdicts

ROOT = Path(__file__).resolve().parents[2]
STEADY = Sample(
    at_s=0.0,
    descriptors=20,
    rss_kib=60_000,
    children=1,
    threads=8,
    temp_files=2,
    database_kib=500,
    wal_kib=4096,
    log_kib=100,
    jobs=0,
)


def soak(*words: str) -> tuple[int, dict]:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos.soak", *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.stdout, ran.stderr[-3000:]
    return ran.returncode, json.loads(ran.stdout)


def test_a_worker_that_never_rests_does_not_grow():
    code, told = soak("--minutes", "0.15")
    assert told["flat"], told["figures"]
    assert code == 0
    assert told["jobs"] >= 10


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_each_figure_that_grows_a_little_with_every_sample_is_found(name):
    step = max(1.0, BOUNDS[name].most / 20, BOUNDS[name].share * getattr(STEADY, name) / 20)
    growing = [
        replace(STEADY, at_s=n, **{name: getattr(STEADY, name) + n * step}) for n in range(90)
    ]
    flat = {verdict.name: verdict.flat for verdict in verdicts(growing)}
    assert flat == {each: each != name for each in BOUNDS}
