"""A check of a library's health: what is read, remembered, taken up again, and found."""

import os
import tempfile
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from hevcq.errors import (
    DiskFull,
    SourceDamaged,
    SourceUnreadable,
    Stopped,
)
from hevcq.ports.catalog import Checked, Health, Spot
from hevcq.sql.event_log import EventLog
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.usecases.check import (
    VideoCheck,
    list_unsound,
    report_damage,
    summary,
)
from support.clips import ManualClock
from support.fakes.encoder import INFO, FakeEncoder


class Reading(FakeEncoder):
    """Says of each file what its bytes say: `damaged` and `ragged` name what is wrong with them."""

    spots: tuple[Spot, ...] = ()

    def preflight(self, location, info, profile, *, stop, looked=None):
        content = Path(location).read_bytes()
        self.calls.append(f"{profile.gates.preflight.value} {Path(location).name}")
        if b"damaged" in content:
            raise SourceDamaged(f"{location} is damaged: it says so.")
        return super().preflight(location, info, profile, stop=stop)

    def locate_damage(self, location, *, stop):
        return self.spots


@dataclass
class Library:
    """A folder of videos, a database, and checks of it."""

    folder: Path
    encoder: Reading = field(default_factory=Reading)
    clock: ManualClock = field(default_factory=lambda: ManualClock(auto=True))
    stop: threading.Event = field(default_factory=threading.Event)
    last: VideoCheck | None = None
    free_bytes: int = 1 << 20

    def put(self, name: str, content: bytes = b"sound") -> Path:
        path = self.folder / "library" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def rot(self, path: Path, content: bytes) -> None:
        """Change bytes as a failing disk does: no time and no size tells."""
        facts = path.stat()
        assert len(content) == facts.st_size
        with path.open("r+b") as file:
            file.write(content)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    @contextmanager
    def scratch(self, needed_bytes: int):
        if needed_bytes > self.free_bytes:
            raise DiskFull("There is no room for a copy.")
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder)

    def check(
        self, on_file=lambda *_: None, on_checked=lambda *_: None, **request
    ) -> dict[str, Checked]:
        self.encoder.calls.clear()
        self.clock.advance(100)
        with closing(SqliteDatabase(self.folder / "hevcq.db")) as database:
            tools = SimpleNamespace(
                encoder=self.encoder,
                catalog=SimpleNamespace(database=database),
                clock=self.clock,
                scratch=self.scratch,
            )
            request |= {"on_file": on_file, "on_checked": on_checked}
            self.last = VideoCheck(tools, self.stop, (self.folder / "library",), **request)
            return {each.path.name: each for each in self.last.run()}

    def read(self) -> list[str]:
        """Return what ffmpeg read in the last check."""
        return [call for call in self.encoder.calls if " " in call]


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path)


def test_what_is_no_video_or_empty_is_unreadable(library):
    library.put("a.mp4", b"")
    library.put("b.mp4")
    library.encoder.errors["probe"] = [SourceUnreadable("b.mp4 is not a video.")]
    assert {c.health for c in library.check().values()} == {Health.UNREADABLE}


def test_the_files_of_our_hls_sets_are_read_instead_of_their_playlists(library):
    for name in ("master.m3u8", "abcdef01-1/v240.m3u8", "abcdef01-1/poster.jpg"):
        library.put(f"a.hls/{name}")
    library.put("a.hls/abcdef01-1/v240.mp4", b"damaged")
    library.put("a.hls/abcdef01-1/sound1.mp4")
    checked = library.check()
    found = {name: each.health for name, each in checked.items()}
    assert found == {"v240.mp4": Health.DAMAGED, "sound1.mp4": Health.SOUND}


def test_ffmpeg_reads_the_same_bytes_once(library):
    library.put("a.mp4")
    library.check()
    assert library.read() == ["demux a.mp4"]
    library.check()
    assert library.read() == []
    library.check(decode=True)
    assert library.read() == ["decode a.mp4"]
    library.check()
    assert library.read() == []


def test_bytes_that_changed_though_time_and_size_did_not_are_rot(library):
    path = library.put("a.mp4", b"sound 1")
    library.check()
    library.rot(path, b"sound 2")
    for _ in range(2):
        assert library.check()["a.mp4"].health is Health.ROTTEN
    library.rot(path, b"sound 1")
    assert library.check()["a.mp4"].health is Health.SOUND


def test_an_edited_file_is_no_rot(library):
    path = library.put("a.mp4", b"sound 1")
    library.check()
    path.write_bytes(b"sound 2")
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000_000))
    assert library.check()["a.mp4"].health is Health.SOUND
    assert library.read() == ["demux a.mp4"]


def test_an_interrupted_check_goes_on_where_it_was(library):
    for number in range(4):
        library.put(f"{number}.mp4")

    def stop(number, _total, _path):
        if number == 3:
            library.stop.set()

    with pytest.raises(Stopped):
        library.check(on_file=stop)
    library.stop.clear()
    assert sorted(library.check()) == ["2.mp4", "3.mp4"]
    assert [each.path.name for each in library.last.earlier] == ["0.mp4", "1.mp4"]
    assert len(library.check()) == 4, "the round ended, so the next one reads all"


def test_a_share_takes_what_was_read_longest_ago_and_twelve_take_all(library):
    for number in range(24):
        library.put(f"{number:02}.mp4", b"sound" * 10)
    seen: list[str] = []
    for _ in range(12):
        found = library.check(share=Fraction(1, 12))
        assert len(found) == 2
        seen += found
    assert sorted(seen) == [f"{number:02}.mp4" for number in range(24)]
    assert sorted(library.check(share=Fraction(1, 12))) == ["00.mp4", "01.mp4"]
    assert len(library.check(share=Fraction(99, 100))) == 24


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"another length")])
def test_a_file_that_changes_while_it_is_read_is_left_to_the_next_check(library, change):
    path, _ = library.put("a.mp4"), library.put("b.mp4")
    (path.parent / "link.mp4").symlink_to(path)

    found = library.check(on_file=lambda number, *_: number == 1 and change(path))

    assert list(found) == ["b.mp4"]
    assert ("a.mp4" in library.check()) is path.exists()


def test_a_recording_that_begins_inside_a_picture_is_sound(library):
    library.put("a.mpg", b"damaged")
    library.encoder.info = INFO.model_copy(update={"format_name": "mpeg", "start_s": 10.0})
    library.encoder.spots = (Spot(10.5, 400, "missing reference"),)
    assert library.check(decode=True)["a.mpg"].health is Health.SOUND
    library.put("b.mpg", b"damaged!")
    library.encoder.spots = (Spot(10.5, 400, "missing reference"), Spot(60.0, 9000, "error"))
    assert library.check(decode=True)["b.mpg"].health is Health.DAMAGED


@pytest.fixture
def recording(library):
    """Return a library of one recording that is damaged unless it is trimmed."""
    library.put("a.ts", b"damaged")
    library.encoder.info = INFO.model_copy(update={"format_name": "mpegts"})
    library.encoder.trimmed = (b"whole", ("The recording was joined from 2 parts.",))
    library.encoder.spots = (Spot(60.0, 9000, "error"),)
    return library


def test_ragged_ends_and_joints_that_an_encode_leaves_out_are_no_damage(recording):
    first = recording.check()["a.ts"]
    assert (first.health, first.detail) == (Health.SOUND, recording.encoder.trimmed[1][0])
    assert recording.read() == ["demux a.ts", "demux recording.ts"]
    assert recording.check()["a.ts"].health is Health.SOUND
    assert recording.read() == [], "remembered"


def test_what_was_found_wrong_is_listed_until_it_is_gone_or_another_file(library):
    library.put("a.mp4")
    gone, mended, bad = (library.put(name, b"damaged") for name in ("b.mp4", "c.mp4", "d.mp4"))
    checked = library.check()
    gone.unlink()
    mended.write_bytes(b"sound again")

    with closing(SqliteDatabase(library.folder / "hevcq.db")) as database:
        listed = list_unsound(SimpleNamespace(catalog=SimpleNamespace(database=database)))

    assert listed == [checked[bad.name]]
    assert summary(list(checked.values())) == "4 files read: 1 sound, 3 damaged."


def test_what_is_newly_damaged_is_an_event_once_and_what_rots_is_another(library, tmp_path):
    library.put("a.mp4", b"damaged")
    sound = library.put("b.mp4")
    with closing(SqliteDatabase(tmp_path / "events.db")) as database:
        log = EventLog(database, library.clock)
        log.reader("me")

        def told() -> list[tuple[str, str]]:
            return [(Path(e.source).name, e.failure_class) for e in log.after(0, 100)]

        library.check(on_checked=partial(report_damage, log))
        assert told() == [("a.mp4", "damaged")]
        library.rot(sound, b"SOUND")
        library.check(on_checked=partial(report_damage, log))
        assert told() == [("a.mp4", "damaged"), ("b.mp4", "rotten")]
        assert log.after(0, 1)[0].reason == "It says so."
