"""Bytes that are not the certified ones, strangers in the last moment, and the order of it all."""

import os
import threading
from unittest.mock import Mock

import pytest

from hevcq.errors import HevcqError, SourceGone, Stopped, SwapRefused, VerificationFailed
from hevcq.library.filesystem import FileSystem
from hevcq.library.replacement.steps import RecoveryOutcome
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import ORIGINAL, RENDITION, MortalFileSystem, sha, strays, video
from support.processes import Killed


@pytest.fixture
def clock():
    return ManualClock()


def others(new) -> str:
    new.write_bytes(b"55 bytes")
    return sha(b"55 bytes")


def rotting(new) -> str:
    new.write_bytes(RENDITION[::-1])
    return sha(RENDITION)


def gone(new) -> str:
    new.write_bytes(b"half")
    raise SourceGone("The object is gone.")


@pytest.mark.parametrize(
    ("fetch", "check", "error"),
    [
        (others, None, VerificationFailed("G9")),
        (rotting, None, SwapRefused("G9")),
        (gone, None, SourceGone("The object is gone.")),
        (
            None,
            Mock(side_effect=VerificationFailed("It does not play.")),
            VerificationFailed("play"),
        ),
    ],
    ids=["not the certified bytes", "they rot after the transfer", "gone", "they do not play"],
)
def test_bytes_that_are_not_a_proven_rendition_never_reach_the_library(
    tmp_path, clock, fetch, check, error
):
    made = video(tmp_path)
    given = [check] if check else []

    with pytest.raises(type(error), match=str(error)):
        Swap(tmp_path, clock).replace(made.change, fetch or made.fetch, *given)
    assert made.source.read_bytes() == ORIGINAL
    assert strays(tmp_path) == []


def test_an_edit_meanwhile_that_hides_behind_its_size_and_time_is_not_replaced(tmp_path, clock):
    made, before = video(tmp_path), None

    def edited(new):
        nonlocal before
        before = made.source.stat()
        with made.source.open("r+b") as file:
            file.write(b"EDITED")
        os.utime(made.source, ns=(before.st_atime_ns, before.st_mtime_ns))
        return made.fetch(new)

    with pytest.raises(SwapRefused, match="G0"):
        Swap(tmp_path, clock).replace(made.change, edited)
    assert made.source.read_bytes() == b"EDITED" + ORIGINAL[6:]
    assert made.source.stat().st_mtime_ns == before.st_mtime_ns
    assert strays(tmp_path) == []


def test_a_stop_while_bytes_are_read_leaves_everything_as_it_was(tmp_path, clock):
    made = video(tmp_path)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        Swap(tmp_path, clock, FileSystem(stop)).replace(made.change, made.fetch)
    assert made.source.read_bytes() == ORIGINAL
    assert strays(tmp_path) == []


WAYS = pytest.mark.parametrize("way", [{}, {"no_exchange": True}], ids=["exchange", "aside"])


@WAYS
def test_an_original_swapped_away_in_the_last_moment_is_put_back_and_refused(tmp_path, clock, way):
    made = video(tmp_path)

    class Racing(MortalFileSystem):
        raced = False

        def race(self, path):
            if path == made.source and not self.raced:
                self.raced = True
                path.write_bytes(b"a stranger saved this just now")

        def rename_new(self, old, new):
            self.race(old)
            super().rename_new(old, new)

        def exchange(self, one, other):
            if not self.no_exchange:
                self.race(other)
            return super().exchange(one, other)

    with pytest.raises(SwapRefused, match="changed just before"):
        Swap(tmp_path, clock, Racing(**way)).replace(made.change, made.fetch)
    assert made.source.read_bytes() == b"a stranger saved this just now"
    assert strays(tmp_path) == []


def test_the_path_of_an_original_is_never_empty(tmp_path, clock):
    made = video(tmp_path)

    class Watching(MortalFileSystem):
        def _call(self, name, call, args):
            assert made.source.exists()
            return super()._call(name, call, args)

    Swap(tmp_path, clock, Watching()).replace(made.change, made.fetch)
    assert made.source.read_bytes() == RENDITION
    Swap(tmp_path, clock, Watching()).undo(made.change.certificate.job_id)
    assert made.source.read_bytes() == ORIGINAL
    assert strays(tmp_path) == []


def test_a_file_put_at_the_freed_path_in_the_last_moment_survives_and_so_does_the_original(
    tmp_path, clock
):
    made = video(tmp_path)

    class Racing(MortalFileSystem):
        def rename_new(self, old, new):
            if new == made.target and not hasattr(self, "raced"):
                self.raced = True
                new.write_bytes(b"a stranger's")
            super().rename_new(old, new)

    with pytest.raises(HevcqError, match="kept at"):
        Swap(tmp_path, clock, Racing(no_exchange=True)).replace(made.change, made.fetch)
    assert made.source.read_bytes() == b"a stranger's"
    (kept,) = Swap(tmp_path, clock).kept()
    assert kept.retained.read_bytes() == ORIGINAL
    made.source.unlink()
    Swap(tmp_path, clock).undo(kept.job_id)
    assert made.source.read_bytes() == ORIGINAL


@WAYS
def test_a_file_saved_in_the_last_moment_is_put_back_even_after_a_kill(tmp_path, clock, way):
    made = video(tmp_path)

    class RacingThenDead(MortalFileSystem):
        def rename_new(self, old, new):
            if old == made.source:
                old.write_bytes(b"a stranger saved this just now")
            super().rename_new(old, new)
            if old == made.source:
                self.die("rename_new")

        def exchange(self, one, other):
            if self.no_exchange:
                return False
            other.write_bytes(b"a stranger saved this just now")
            super().exchange(one, other)
            return self.die("exchange")

    with pytest.raises(Killed):
        Swap(tmp_path, clock, RacingThenDead(**way)).replace(made.change, made.fetch)
    (settled,) = Swap(tmp_path, clock).recover()

    assert settled.outcome is RecoveryOutcome.ROLLED_BACK
    assert made.source.read_bytes() == b"a stranger saved this just now"
    assert strays(tmp_path) == []
