"""A worker that works for long does not grow, and a soak would see it if it did (short form)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.soak.samples import BOUNDS, Sample, temp_files, verdicts

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


def test_a_planted_leak_is_found():
    code, told = soak("--minutes", "0.1", "--leak", "descriptors")
    assert told["jobs"] >= 10
    assert [n for n, figure in told["figures"].items() if not figure["flat"]] == ["descriptors"]
    assert code == 1


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_each_figure_that_grows_a_little_with_every_sample_is_found(name):
    step = max(1.0, BOUNDS[name].most / 20, BOUNDS[name].share * getattr(STEADY, name) / 20)
    growing = [
        replace(STEADY, at_s=n, **{name: getattr(STEADY, name) + n * step}) for n in range(90)
    ]
    flat = {verdict.name: verdict.flat for verdict in verdicts(growing)}
    assert flat == {each: each != name for each in BOUNDS}


@pytest.mark.parametrize("name", ["database_kib", "log_kib"])
def test_what_every_job_leaves_by_design_is_no_leak_and_ten_times_that_is_one(name):
    for times, flat in ((0.5, True), (10, False)):
        a_job = BOUNDS[name].a_thousand_jobs / 1000 * times
        working = [replace(STEADY, jobs=n * 100, **{name: n * 100 * a_job}) for n in range(90)]
        (verdict,) = (v for v in verdicts(working) if v.name == name)
        assert verdict.flat is flat


def test_a_folder_of_a_job_may_go_while_it_is_looked_at(tmp_path, monkeypatch):
    job = tmp_path / "scratch" / "job"
    job.mkdir(parents=True)
    (tmp_path / "scratch" / "note").touch()
    scandir = os.scandir

    def going(folder):
        if Path(folder) == job and job.exists():
            job.rmdir()
        return scandir(folder)

    # Undone before pytest removes the folder, which it does by file descriptors.
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", going)
        assert temp_files(tmp_path) == 1
    assert not job.exists(), "it was looked into"


def test_what_fills_in_the_first_third_is_no_leak():
    filling = [replace(STEADY, rss_kib=30_000 + 1000 * min(n, 30)) for n in range(90)]
    assert all(verdict.flat for verdict in verdicts(filling))
