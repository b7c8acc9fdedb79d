"""The planted bugs still apply to this tree, and the tests still see a short sample of them."""

from __future__ import annotations

import pytest

from chaos.planted.bugs import BUGS
from chaos.planted.plant import ROOT, Bug, Fate, copy_of, pytest_in, try_bug

SAMPLE = ("poison tried again", "a key with .. accepted", "unknown counted as passed")


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_still_applies_and_names_tests_that_are_there(bug):
    assert bug.planted(ROOT) != (ROOT / bug.file).read_text(encoding="utf-8")
    assert all((ROOT / name).exists() for name in bug.tests if name.startswith("tests/"))


def test_there_are_enough_of_them_and_no_two_have_one_name():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 25


def test_words_that_are_not_there_once_are_refused(tmp_path):
    (tmp_path / "a.py").write_text("one = 1\nother = 1\n")
    with pytest.raises(ValueError, match="2 times"):
        Bug("x", "a.py", "= 1", "= 2", ()).planted(tmp_path)
    with pytest.raises(ValueError, match="0 times"):
        Bug("x", "a.py", "= 3", "= 2", ()).planted(tmp_path)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    with copy_of(ROOT, tmp_path_factory.mktemp("planted")) as tree:
        yield tree


def test_without_a_bug_the_copy_is_green(copy):
    tests = sorted({test for bug in BUGS if bug.name in SAMPLE for test in bug.tests})
    ran = pytest_in(copy, tests)
    assert ran.code == 0, ran.words


@pytest.mark.parametrize("name", SAMPLE)
def test_a_bug_of_the_sample_is_caught(copy, name):
    (bug,) = (bug for bug in BUGS if bug.name == name)
    trial = try_bug(bug, copy, SAMPLE.index(name))
    assert trial.fate is Fate.CAUGHT, trial
    assert trial.by.startswith("test_")


def test_a_change_that_is_no_bug_survives(copy):
    file, tests = "src/hevcq/domain/verdict.py", ("tests/unit/domain/test_verdict.py",)
    harmless = Bug("none", file, "What becomes of a delivery: one", "What comes of it: one", tests)
    assert try_bug(harmless, copy, len(SAMPLE)).fate is Fate.SURVIVED
