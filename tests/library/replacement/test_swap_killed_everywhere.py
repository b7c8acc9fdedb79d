"""A swap or an undo is ended at every system call, in every way; then hevcq starts again."""

import contextlib
import errno
import os
import signal
from pathlib import Path

import pytest

from hevcq.errors import HevcqError
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import FailingFileSystem, MortalFileSystem, looks, strays, video
from support.processes import Killed

LAYOUTS = {
    "same name": ("tv/video.mkv", None, {}),
    "new suffix": ("tv/video.avi", "video.mkv", {}),
    "same name, no one-step rename": ("tv/video.mkv", None, {"no_rename2": True}),
    "new suffix, no one-step rename": ("video.avi", "video.mkv", {"no_rename2": True}),
    "same name, originals on another device": ("tv/video.mkv", None, {"other_device": True}),
    "same name, originals on another device, no exchange": (
        "tv/video.mkv",
        None,
        {"other_device": True, "no_exchange": True},
    ),
    "new suffix, originals on another device": ("video.avi", "video.mkv", {"other_device": True}),
}
SIGKILLED = ("same name", "new suffix, originals on another device")
"""Layouts that also the short form kills by a real signal; it breaks off at each call of all."""
MAX_CALLS = 400
# Before a call is where the call before it ended: make test takes "after" for both, make long each.
MOMENTS = [pytest.param("before", marks=pytest.mark.slow), "after", "torn"]


@pytest.fixture(params=LAYOUTS, ids=str)
def layout(request):
    return LAYOUTS[request.param]


def prepare(tmp_path: Path, number: object, layout) -> tuple[object, dict]:
    root = tmp_path / f"library-{number}"
    name, target, options = layout
    options = dict(options)
    if options.get("other_device"):
        options["other_device"] = root / ".hevcq" / "originals"
    return video(root, name, target), options


def swap_of(made, fs=None) -> Swap:
    return Swap(made.root, ManualClock(), fs)


def sentence_of(work) -> str:
    try:
        work()
    except HevcqError as error:
        sentence = str(error)
    else:
        return ""
    assert sentence.endswith(".")
    return sentence


def an_intact_copy(made, before: tuple) -> str:
    """Say where the original is; fail if it is nowhere that undo or the journal knows."""
    if made.source.exists() and made.source.read_bytes() == made.original:
        assert looks(made.source) == before
        return "at its path"
    known = [
        path
        for path in [*made.root.rglob("*"), *made.root.rglob(".hevcq/**/*")]
        if path.is_file()
        and path.stat().st_size == len(made.original)
        and path.read_bytes() == made.original
    ]
    places = [p for p in known if ".hevcq" in p.parts or p.name.endswith(".original")]
    assert places, "the original is nowhere"
    return "kept"


def settled(made, before: tuple, options: dict) -> str:
    """Start again, twice, and check that one of the two good ends was reached."""
    fs = MortalFileSystem(**options)
    swap_of(made, fs).recover()
    assert swap_of(made, MortalFileSystem(**options)).recover() == []
    assert strays(made.root) == []
    kept = list(swap_of(made).kept())
    if made.source.exists() and made.source.read_bytes() == made.original:
        assert looks(made.source) == before
        assert kept == []
        assert not (made.target != made.source and made.target.exists())
        return "original"
    assert made.target.read_bytes() == made.rendition
    assert len(kept) == 1
    assert kept[0].retained.read_bytes() == made.original
    if made.target != made.source:
        assert not made.source.exists()
    swap_of(made, MortalFileSystem(**options)).undo(kept[0].job_id)
    assert looks(made.source) == before
    return "rendition"


@pytest.mark.parametrize("when", MOMENTS)
def test_a_swap_killed_at_any_call_leaves_an_original_or_a_rendition(tmp_path, layout, when):
    ends = set()
    for number in range(1, MAX_CALLS):
        made, options = prepare(tmp_path, number, layout)
        before = looks(made.source)
        fs = MortalFileSystem(number, when, **options)
        with contextlib.suppress(Killed):
            swap_of(made, fs).replace(made.change, made.fetch)
        an_intact_copy(made, before)
        done = fs.count < number
        ends.add(settled(made, before, options))
        if done:
            break
    assert done, "the swap never ran to its end"
    assert ends == {"original", "rendition"}
    assert number > 30


@pytest.mark.parametrize("when", MOMENTS)
def test_an_undo_killed_at_any_call_leaves_an_original_or_a_rendition(tmp_path, layout, when):
    ends = set()
    for number in range(1, MAX_CALLS):
        made, options = prepare(tmp_path, number, layout)
        before = looks(made.source)
        swap_of(made, MortalFileSystem(**options)).replace(made.change, made.fetch)
        fs = MortalFileSystem(number, when, **options)
        with contextlib.suppress(Killed):
            swap_of(made, fs).undo(made.change.certificate.job_id)
        an_intact_copy(made, before)
        done = fs.count < number
        ends.add(settled(made, before, options))
        if done:
            break
    assert done
    assert "original" in ends
    assert when == "torn" or "rendition" in ends


@pytest.mark.parametrize("when", MOMENTS)
def test_a_recovery_killed_at_any_call_is_finished_by_the_next(tmp_path, layout, when):
    for victim in (34, 42):
        for number in range(1, MAX_CALLS):
            made, options = prepare(tmp_path, f"{victim}-{number}", layout)
            before = looks(made.source)
            fs = MortalFileSystem(victim, "after", **options)
            with contextlib.suppress(Killed):
                swap_of(made, fs).replace(made.change, made.fetch)
            fs = MortalFileSystem(number, when, **options)
            with contextlib.suppress(Killed):
                swap_of(made, fs).recover()
            an_intact_copy(made, before)
            settled(made, before, options)
            if fs.count < number:
                break
        else:
            pytest.fail("the recovery never ran to its end")


# The fault changes only the sentence, so make test tries one of them everywhere, and make long the others.
FAULTS = [
    pytest.param(errno.ENOSPC, id="ENOSPC"),
    pytest.param(errno.EIO, id="EIO", marks=pytest.mark.slow),
    pytest.param(errno.EROFS, id="EROFS", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("number", FAULTS)
def test_one_failing_call_rolls_the_swap_back_at_once(tmp_path, layout, number):
    for at in range(1, MAX_CALLS):
        made, options = prepare(tmp_path, at, layout)
        before = looks(made.source)
        fs = MortalFileSystem(at, end=OSError(number, os.strerror(number), "x"), **options)
        refused = sentence_of(lambda: swap_of(made, fs).replace(made.change, made.fetch))  # noqa: B023
        if refused:
            assert an_intact_copy(made, before) == "at its path"
        settled(made, before, options)
        if fs.count < at:
            break
    assert at > 30


@pytest.mark.parametrize("number", FAULTS)
def test_a_disk_that_stays_broken_loses_nothing_and_the_next_start_settles_it(
    tmp_path, layout, number
):
    for at in range(1, MAX_CALLS):
        made, options = prepare(tmp_path, at, layout)
        before = looks(made.source)
        fs = FailingFileSystem(at, number, **options)
        sentence_of(lambda: swap_of(made, fs).replace(made.change, made.fetch))  # noqa: B023
        an_intact_copy(made, before)
        settled(made, before, options)
        if fs.count < at:
            break
    assert at > 30


@pytest.mark.parametrize("number", FAULTS)
def test_one_failing_call_calls_an_undo_off_or_finishes_it(tmp_path, layout, number):
    for at in range(1, MAX_CALLS):
        made, options = prepare(tmp_path, at, layout)
        before = looks(made.source)
        swap_of(made, MortalFileSystem(**options)).replace(made.change, made.fetch)
        fs = MortalFileSystem(at, end=OSError(number, os.strerror(number), "x"), **options)
        sentence_of(lambda: swap_of(made, fs).undo(made.change.certificate.job_id))  # noqa: B023
        an_intact_copy(made, before)
        settled(made, before, options)
        if fs.count < at:
            break
    assert at > 15


class SuicidalFileSystem(MortalFileSystem):
    def die(self, name: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(work) -> int:
    """Run `work` in a forked process; return how it ended (-9: killed)."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    "layout",
    [pytest.param(n, marks=() if n in SIGKILLED else pytest.mark.slow) for n in LAYOUTS],
    indirect=True,
)
@pytest.mark.parametrize("when", MOMENTS[:2])
def test_a_real_sigkill_at_any_call_of_a_swap_loses_nothing(tmp_path, layout, when):
    for number in range(1, MAX_CALLS):
        made, options = prepare(tmp_path, number, layout)
        before = looks(made.source)
        fs = SuicidalFileSystem(number, when, **options)
        ended = in_a_child(lambda: swap_of(made, fs).replace(made.change, made.fetch))  # noqa: B023
        an_intact_copy(made, before)
        settled(made, before, options)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    assert number > 30
