"""A scan finds every video and never leaves the library; the second one probes nothing."""

import os
import tempfile
import threading
from pathlib import Path

import pytest

from hevcq.domain.media.facts import MediaInfo
from hevcq.errors import SourceUnreadable, Stopped, Unavailable, UsageError, WorkerUnfit
from hevcq.library.place import certificate_of
from hevcq.library.scanning.scan import (
    Filter,
    FoundFile,
    FoundVideo,
    Rejected,
    RejectionCause,
    find,
    probe_files,
)
from hevcq.library.scanning.watch_folder import LOCAL, file_system_of
from support.catalog import new_catalog
from support.clips import ManualClock
from support.library import RENDITION, certificate


def put(root: Path, *names: str, content: bytes = b"clip") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def found(root: Path, **options) -> list[str]:
    return [
        f.path.relative_to(f.root).as_posix()
        for f in find([root], Filter(**options))
        if isinstance(f, FoundFile)
    ]


def left(root: Path, **options) -> dict[str, RejectionCause]:
    rejected = [r for r in find([root], Filter(**options)) if isinstance(r, Rejected)]
    assert all(r.reason.endswith(".") for r in rejected)
    return {os.path.relpath(r.path, root): r.cause for r in rejected}


def test_videos_are_found_sorted_whatever_the_case_of_their_suffix(tmp_path):
    put(tmp_path, "b/2.MKV", "b/1.mp4", "a.Mov", "notes.txt", "cover.jpg", "c.ts", "video")

    assert found(tmp_path) == ["a.Mov", "b/1.mp4", "b/2.MKV", "c.ts"]
    assert left(tmp_path) == {}


def test_hevcqs_own_files_and_hidden_ones_are_left_out(tmp_path):
    put(tmp_path, ".hevcq/originals/a.mkv", ".hevcq-12.part", "x/.hevcq-9.mkv", "x/._mac.mp4")
    put(tmp_path, ".hidden/h.mkv", "x/.h.mkv", "#recycle/deleted.mkv", "$RECYCLE.BIN/S-1/d.mkv")
    put(tmp_path, "x/@eaDir/a.mkv/thumbnail.jpg")

    assert found(tmp_path) == []
    assert left(tmp_path) == {"#recycle": "system_folder", "$RECYCLE.BIN": "system_folder"}
    assert left(tmp_path, exclude=["#recycle", "$RECYCLE.BIN"]) == {}


def test_links_are_never_followed_and_are_reported(tmp_path):
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    put(outside, "secret.mp4")
    put(root, "a/video.mp4")
    (root / "a/loop").symlink_to(root)
    (root / "a/out").symlink_to(outside)
    (root / "a/out.mp4").symlink_to(outside / "secret.mp4")
    (root / "a/dangling.mkv").symlink_to(root / "nowhere")

    assert found(root) == ["a/video.mp4"]
    assert left(root) == {
        "a/loop": RejectionCause.LINK,
        "a/out": RejectionCause.LINK,
        "a/out.mp4": RejectionCause.LINK,
        "a/dangling.mkv": RejectionCause.LINK,
    }


def test_empty_files_and_pipes_are_reported(tmp_path):
    put(tmp_path, "empty.mp4", content=b"")
    os.mkfifo(tmp_path / "pipe.mkv")

    assert left(tmp_path) == {
        "empty.mp4": RejectionCause.EMPTY,
        "pipe.mkv": RejectionCause.NOT_A_FILE,
    }


@pytest.fixture
def open_folder():
    """A folder that any user can reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(os.path.realpath(name))


def test_what_this_user_may_not_read_is_reported_and_the_rest_goes_on(open_folder):
    put(open_folder, "closed.mp4", "folder/inside.mp4", "open.mp4")
    (open_folder / "closed.mp4").chmod(0)
    (open_folder / "folder").chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        assert found(open_folder) == ["open.mp4"]
        assert left(open_folder) == {
            "closed.mp4": RejectionCause.UNREADABLE,
            "folder": RejectionCause.UNREADABLE,
        }
    finally:
        if root:
            os.seteuid(0)
        (open_folder / "folder").chmod(0o755)


@pytest.mark.parametrize(
    "order",
    [(".", "tv"), ("tv", "."), ("tv/1.mp4", "."), (".", "tv/1.mp4"), ("tv/1.mp4",) * 2],
)
def test_roots_inside_each_other_yield_each_file_once(tmp_path, order):
    put(tmp_path, "tv/1.mp4")

    assert len(list(find([tmp_path / name for name in order]))) == 1


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ["video.dat", ".video.mp4"])
def test_a_file_that_is_named_is_taken_though_its_folder_would_leave_it(tmp_path, name, first):
    put(tmp_path, name)
    roots = [tmp_path, tmp_path / name]

    (one,) = find([roots[first], roots[1 - first]])

    assert (one.path, type(one)) == (tmp_path / name, FoundFile)


GLOBS = [
    ({"include": ["*.mkv"]}, ["a.mkv", "tv/b.MKV", "tv/extras/c.mkv"]),
    ({"include": ["tv/*.mkv"]}, ["tv/b.MKV"]),
    ({"include": ["tv/**"]}, ["tv/b.MKV", "tv/extras/c.mkv", "tv/extras/d.mp4"]),
    ({"include": ["**/extras/*"]}, ["tv/extras/c.mkv", "tv/extras/d.mp4"]),
    ({"include": ["*.dat"]}, ["e.dat"]),
    ({"include": ["[ab].mkv"]}, ["a.mkv", "tv/b.MKV"]),
    ({"include": ["[!a].mkv"]}, ["tv/b.MKV", "tv/extras/c.mkv"]),
    ({"include": ["?.mp4"]}, ["tv/extras/d.mp4"]),
    ({"exclude": ["extras"]}, ["a.mkv", "tv/b.MKV"]),
    ({"exclude": ["extras/"]}, ["a.mkv", "tv/b.MKV"]),
    ({"exclude": ["TV/**"]}, ["a.mkv"]),
    ({"exclude": ["Extras/**"]}, ["a.mkv", "tv/b.MKV"]),
    ({"exclude": ["*/extras/*"]}, ["a.mkv", "tv/b.MKV"]),
    ({"exclude": ["*/tv/*"]}, ["a.mkv"]),
    ({"exclude": ["/extras/**"]}, ["a.mkv", "tv/b.MKV", "tv/extras/c.mkv", "tv/extras/d.mp4"]),
    ({"exclude": ["/tv/"]}, ["a.mkv"]),
    ({"exclude": ["tv/extras"]}, ["a.mkv", "tv/b.MKV"]),
    ({"exclude": ["*.mkv", "!c.mkv"]}, ["tv/extras/c.mkv", "tv/extras/d.mp4"]),
    ({"include": ["extras/"]}, ["tv/extras/c.mkv", "tv/extras/d.mp4"]),
    ({"exclude": ["*.MP4"]}, ["a.mkv", "tv/b.MKV", "tv/extras/c.mkv"]),
    ({"include": ["*.mkv"], "exclude": ["tv/extras/*"]}, ["a.mkv", "tv/b.MKV"]),
    ({"include": ["a.[m"]}, []),
]


@pytest.mark.parametrize(("globs", "expected"), GLOBS, ids=str)
def test_globs_choose_by_the_path_below_the_root(tmp_path, globs, expected):
    put(tmp_path, "a.mkv", "tv/b.MKV", "tv/extras/c.mkv", "tv/extras/d.mp4", "e.dat")

    assert found(tmp_path, **globs) == expected


def test_a_mirror_inside_the_library_is_skipped(tmp_path):
    put(tmp_path, "a.mkv", "out/a.hevc.mkv")

    assert found(tmp_path, skip=[tmp_path / "out"]) == ["a.mkv"]


def test_a_rendition_made_here_is_no_source_but_a_replaced_video_is(tmp_path):
    put(tmp_path, "a.mkv")
    proof = certificate(tmp_path / "a.mkv", b"clip", RENDITION)
    for name in ("a.hevc.mkv", "b.mkv"):
        put(tmp_path, name, content=RENDITION)
    put(tmp_path, "c.hevc.mkv", content=b"not the certified bytes")
    put(tmp_path, str(certificate_of(Path(), proof)), content=proof.to_json().encode())

    assert found(tmp_path) == ["a.mkv", "b.mkv", "c.hevc.mkv"]
    assert left(tmp_path) == {"a.hevc.mkv": RejectionCause.OWN_RENDITION}


class Inspector:
    def __init__(self, **errors) -> None:
        self.errors = errors
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, path: Path) -> MediaInfo:
        with self.lock:
            self.asked.append(path.name)
        if path.name in self.errors:
            raise self.errors[path.name]
        return MediaInfo(format_name="matroska", size=path.stat().st_size)


def surveyed(root, catalog, inspector, threads=4, **options):
    return list(probe_files(find([root]), catalog, inspector, threads=threads, **options))


def test_a_second_survey_probes_nothing(tmp_path):
    for number in range(2_000):
        put(tmp_path, f"{number % 100}/{number}.mp4", content=b"x")
    catalog, inspector = new_catalog(ManualClock()), Inspector()

    first = surveyed(tmp_path, catalog, inspector)
    assert len(first) == len(inspector.asked) == 2_000
    second = surveyed(tmp_path, catalog, inspector)

    assert len(inspector.asked) == 2_000
    assert second == first


def test_a_kill_during_a_scan_costs_a_few_seconds_of_probing_and_not_500_files(tmp_path):
    put(tmp_path, *(f"{number}.mp4" for number in range(8)))
    clock, inspector = ManualClock(), Inspector()
    catalog = new_catalog(clock)

    def slow(path: Path) -> MediaInfo:
        clock.advance(1.0)
        return inspector(path)

    survey = probe_files(find([tmp_path]), catalog, slow, threads=1, clock=clock)
    for _ in range(5):
        next(survey)
    kept = catalog.cached([tmp_path / f"{number}.mp4" for number in range(8)])

    assert kept


def test_a_file_that_is_no_video_is_remembered_and_a_passing_failure_is_not(tmp_path):
    put(tmp_path, "text.mp4", "busy.mp4", "video.mp4")
    catalog = new_catalog(ManualClock())
    inspector = Inspector(
        **{"text.mp4": SourceUnreadable("It is text."), "busy.mp4": Unavailable("Try again.")}
    )
    first = surveyed(tmp_path, catalog, inspector)
    second = surveyed(tmp_path, catalog, inspector)

    whys = [i.cause if isinstance(i, Rejected) else None for i in first]
    assert whys == [RejectionCause.UNREADABLE, RejectionCause.NOT_VIDEO, None]
    assert [getattr(i, "reason", None) for i in second] == ["Try again.", "It is text.", None]
    assert sorted(inspector.asked) == ["busy.mp4", "busy.mp4", "text.mp4", "video.mp4"]


@pytest.mark.parametrize("end", [WorkerUnfit("No ffprobe."), Stopped()], ids=["unfit", "stopped"])
def test_what_was_learnt_is_remembered_when_the_survey_is_ended(tmp_path, end):
    put(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    catalog = new_catalog(ManualClock())

    with pytest.raises(type(end)):
        surveyed(tmp_path, catalog, Inspector(**{"c.mp4": end}), threads=1)

    again = Inspector()
    assert len(surveyed(tmp_path, catalog, again)) == 3
    assert again.asked == ["c.mp4"]


@pytest.mark.parametrize(
    ("what", "why"), [("grow", RejectionCause.GROWING), ("vanish", RejectionCause.GONE)]
)
def test_a_file_that_changes_while_it_is_probed_is_left_and_not_remembered(tmp_path, what, why):
    put(tmp_path, "a.mp4", "b.mp4")
    catalog = new_catalog(ManualClock())

    def inspect(path: Path) -> MediaInfo:
        if path.name == "a.mp4" and what == "grow":
            path.write_bytes(b"more than there was")
        elif path.name == "a.mp4":
            path.unlink()
        return MediaInfo(format_name="matroska")

    changed, fine = surveyed(tmp_path, catalog, inspect)

    assert changed.cause is why
    assert isinstance(fine, FoundVideo)
    assert list(catalog.cached([tmp_path / "a.mp4"])) == []


def test_a_pattern_that_cannot_be_read_is_refused_with_the_pattern(tmp_path):
    with pytest.raises(UsageError, match=r"pattern: a\\."):
        found(tmp_path, exclude=["a\\"])


def table() -> list[tuple[str, str]]:
    return [
        ("/", "ext4"),
        ("/mnt/nas", "nfs4"),
        ("/mnt/nas/fast", "XFS"),
        ("/mnt/pool", "ext4"),
        ("/mnt/pool", "fuse.mergerfs"),
    ]


@pytest.mark.parametrize(
    ("folder", "kind", "events"),
    [
        ("/srv/tv", "ext4", True),
        ("/mnt/nas", "nfs4", False),
        ("/mnt/nas/tv", "nfs4", False),
        ("/mnt/nas2/tv", "ext4", True),
        ("/mnt/nas/fast/tv", "xfs", True),
        ("/mnt/pool/tv", "fuse.mergerfs", False),
    ],
)
def test_the_innermost_and_last_mount_decides(folder, kind, *, events):
    found = file_system_of(Path(folder), table)

    assert (found, found in LOCAL) == (kind, events)


@pytest.mark.parametrize("kind", ["cifs", "smb3", "9p", "virtiofs", "fuse.sshfs", "new-one", ""])
def test_what_is_not_known_to_report_changes_is_looked_through(kind):
    assert kind not in LOCAL
