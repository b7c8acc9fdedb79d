"""Check that `make coverage` leaves out only code that cannot run."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["coverage"]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
ROOMS = (
    "domain",
    "worker",
    "backends/aws/sqs",
    "backends/aws/dynamodb",
    "backends/embedded/jobs",
    "library/replacement",
)


def test_no_line_is_taken_out_of_the_measure_by_hand():
    by_hand = re.compile(r"pragma: no (cover|branch)")

    assert [path for path in SOURCES if by_hand.search(path.read_text(encoding="utf-8"))] == []
    assert "omit" not in CONFIG["run"] | CONFIG["report"]


def test_only_what_the_type_checker_proves_unreachable_is_left_out():
    (pattern,) = CONFIG["report"]["exclude_also"]
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        arms = [
            arm
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Match)
            for arm in node.cases
            if isinstance(arm.body[0], ast.Expr)
            and ast.unparse(arm.body[0]).startswith("assert_never(")
        ]
        assert len(re.findall(pattern, text)) == len(arms)
        assert all(len(arm.body) == 1 and ast.unparse(arm.pattern) == "_" for arm in arms)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_that_must_not_break_is_measured_whole(room):
    measured = {path for pattern in CONFIG["report"]["include"] for path in ROOT.glob(pattern)}
    files = set((ROOT / "src" / "hevcq" / room).rglob("*.py"))

    assert files
    assert files <= measured


def test_every_branch_is_asked_for_and_no_pattern_is_left_over():
    assert CONFIG["run"]["branch"] is True
    assert CONFIG["report"]["fail_under"] == 100
    assert all(list(ROOT.glob(pattern)) for pattern in CONFIG["report"]["include"])
