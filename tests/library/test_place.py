"""A rendition is placed whole, proven and never over another file; two at once place it once."""

import contextlib
import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from hevcq.domain.certificate import Certificate
from hevcq.errors import DiskFull, HevcqError, LibraryError, Unavailable, VerificationFailed
from hevcq.library.filesystem import FileSystem, library_errors
from hevcq.library.place import ToPlace, certificate_of, place, sweep
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import (
    ORIGINAL,
    RENDITION,
    FailingFileSystem,
    Killed,
    MortalFileSystem,
    looks,
    one,
    proof_of,
    sha,
    strays,
    video,
)

pytestmark = pytest.mark.repeats


def beside(made, home=None) -> ToPlace:
    return ToPlace(home or made.root, made.source, made.target, made.change.certificate)


def test_a_placed_rendition_has_its_certificate_and_its_sources_times_and_rights(tmp_path):
    made = video(tmp_path, "tv/video.avi", "video.hevc.mkv")
    before = looks(made.source)

    place(beside(made), one(made.fetch), FileSystem())

    assert looks(made.target) == (RENDITION, *before[1:])
    assert looks(made.source) == before
    proof = made.change.certificate
    assert Certificate.parse(certificate_of(made.root, proof).read_bytes()) == proof
    assert strays(tmp_path) == []


@pytest.mark.parametrize("when", ["before", "in the last moment"])
def test_a_strangers_file_at_the_target_is_never_overwritten(tmp_path, when):
    made = video(tmp_path, "video.avi", "video.hevc.mkv")

    def fetch(new):
        made.target.write_bytes(b"a stranger's")
        return made.fetch(new)

    if when == "before":
        made.target.write_bytes(b"a stranger's")
    with pytest.raises(LibraryError, match="was not overwritten"):
        place(beside(made), one(made.fetch if when == "before" else fetch), FileSystem())
    assert made.target.read_bytes() == b"a stranger's"
    assert not proof_of(made).exists()
    assert strays(tmp_path) == []


@pytest.mark.parametrize("got", [b"", RENDITION[:-1], RENDITION[::-1]], ids=["0", "short", "other"])
def test_other_bytes_than_the_certified_are_never_placed(tmp_path, got):
    made = video(tmp_path, "video.avi", "video.hevc.mkv")

    with pytest.raises(VerificationFailed, match="G9"):
        place(
            beside(made),
            one(lambda new: (new.write_bytes(got) and sha(got)) or sha(got)),
            FileSystem(),
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hevcq", "video.avi"]
    assert strays(tmp_path) == []


BROKEN = {"end": OSError(errno.EIO, os.strerror(errno.EIO), "x")}


@pytest.mark.parametrize("how", [("after",), ("torn",), BROKEN], ids=str)
def test_a_placement_that_ends_at_any_call_shows_all_or_nothing_and_is_swept(tmp_path, how):
    ends = set()
    for number in range(1, 200):
        made = video(tmp_path / str(number), "tv/video.avi", "video.hevc.mkv")
        fs = MortalFileSystem(number, **how) if how is BROKEN else MortalFileSystem(number, *how)
        with contextlib.suppress(Killed, HevcqError):
            place(beside(made), one(made.fetch), fs)
        assert made.source.read_bytes() == ORIGINAL
        if made.target.exists():
            assert made.target.read_bytes() == RENDITION
            assert proof_of(made).exists()
        ends.add(made.target.exists())
        sweep(made.root, FileSystem())
        assert strays(made.root) == []
        place(beside(made), one(made.fetch), FileSystem())
        assert made.target.read_bytes() == RENDITION
        assert strays(made.root) == []
        if fs.count < number:
            break
    assert ends == {True, False}
    assert number > 10


def test_a_full_disk_is_reported_as_such_and_leaves_nothing_wrong(tmp_path):
    for number in range(1, 100):
        made = video(tmp_path / str(number), "video.avi", "new/video.hevc.mkv")
        fs = FailingFileSystem(number, 28)
        try:
            place(beside(made), one(made.fetch), fs)
        except HevcqError as error:
            failure = error
        else:
            break
        assert isinstance(failure, DiskFull)
        assert not made.target.exists() or made.target.read_bytes() == RENDITION
        sweep(made.root, FileSystem())
        assert [p for p in strays(made.root) if p.endswith(".part")] == []
    assert number > 5


def test_a_live_placement_is_not_swept_and_not_done_twice(tmp_path):
    made = video(tmp_path, "video.avi", "video.hevc.mkv")

    def fetch(new):
        made.fetch(new)
        assert sweep(tmp_path, FileSystem()) == []
        with pytest.raises(Unavailable, match="another hevcq"):
            place(beside(made), one(made.fetch), FileSystem())
        return sha(RENDITION)

    place(beside(made), one(fetch), FileSystem())
    assert made.target.read_bytes() == RENDITION


OTHER = """
import sys
from pathlib import Path
from hevcq.errors import LibraryError
from hevcq.library.own_files import root_lock
from hevcq.library.filesystem import FileSystem
with root_lock(Path(sys.argv[1]), FileSystem()):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_swap_in_one_root_one_after_the_other(tmp_path):
    made = video(tmp_path)
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other, ThreadPoolExecutor(1) as pool:
        assert other.stdout.readline() == "held\n"
        swap = pool.submit(Swap(tmp_path, ManualClock()).replace, made.change, made.fetch)
        assert made.source.read_bytes() == ORIGINAL
        other.stdin.close()
        swap.result(timeout=30)
    assert made.target.read_bytes() == RENDITION


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EHOSTDOWN])
def test_a_share_whose_server_is_down_is_waited_for(tmp_path, number):
    with pytest.raises(Unavailable), library_errors(tmp_path / "video.mkv"):
        raise OSError(number, os.strerror(number))
