"""Real workers on one data folder are killed and stopped while they work (short form)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KILLS, STOPS = 100, 4


def test_killed_and_stopped_workers_lose_double_and_leave_nothing():
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos.kills", "--kills", str(KILLS), "--stops", str(STOPS)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.stdout, ran.stderr[-3000:]
    counts = json.loads(ran.stdout.splitlines()[-1])
    print(counts)
    for name in ("lost", "wrong", "double_published", "partial_visible"):
        assert counts[name] == 0, (name, counts, ran.stderr[-3000:])
    assert counts["stray_children"] == counts["temp_files"] == 0, (counts, ran.stderr[-3000:])
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert counts["kills"] >= KILLS
    assert counts["stops"] >= STOPS
    assert counts["jobs"] > 30
    assert counts["points"] >= 25, "too few of the numbered crash points were hit"
