"""What `make coverage` leaves out: nothing that can run, and how little it is, is counted here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["coverage"]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
UNREACHABLE = {
    "domain/planner_streams.py": 1,
    "domain/verdict.py": 1,
    "worker/handler.py": 1,
    "worker/settle.py": 2,
    "worker/tell.py": 1,
}
"""Where a match ends in `assert_never`, so that mypy proves that its last case cannot come."""


def found(pattern: str) -> dict[str, int]:
    counts = {
        path.relative_to(ROOT / "src" / "hevcq").as_posix(): len(
            re.findall(pattern, path.read_text(encoding="utf-8"))
        )
        for path in SOURCES
    }
    return {name: count for name, count in counts.items() if count}


def test_no_line_is_taken_out_of_the_measure_by_hand():
    assert found(r"pragma: no (cover|branch)") == {}
    assert "omit" not in CONFIG["run"] | CONFIG["report"]


def test_what_the_type_checker_proves_unreachable_is_all_that_is_left_out():
    assert found(*CONFIG["report"]["exclude_also"]) == UNREACHABLE


def test_every_part_that_must_not_break_is_measured_to_the_last_branch():
    measured = {path for pattern in CONFIG["report"]["include"] for path in ROOT.glob(pattern)}
    wanted = [
        *(ROOT / "src/hevcq/worker").glob("*.py"),
        *(ROOT / "src/hevcq/domain").glob("*.py"),
        *(ROOT / "src/hevcq/embedded/jobs").glob("[!_]*.py"),
        *(ROOT / f"src/hevcq/library/{name}.py" for name in ("swap", "steps", "restore")),
        *(ROOT / f"src/hevcq/aws/sqs/{name}.py" for name in ("queue", "receipts")),
        *(ROOT / f"src/hevcq/aws/dynamodb/{name}.py" for name in ("ledger", "job_table")),
    ]

    assert set(wanted) <= measured
    assert CONFIG["run"]["branch"] is True
    assert CONFIG["report"]["fail_under"] == 100
    assert all(list(ROOT.glob(pattern)) for pattern in CONFIG["report"]["include"])
