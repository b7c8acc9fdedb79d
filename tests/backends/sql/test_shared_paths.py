"""One database, two mounts of one share: records hold common names, and sources are known by their bytes."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from hevcq.backends.sql import source_files
from hevcq.backends.sql.factory import open_postgres
from hevcq.errors import ConfigError, SourceAway, SourceChanged, SourceGone, StorageError
from hevcq.library.filesystem import fingerprint_of, same_bytes
from hevcq.ports.catalog import Happened, Mode, Placement, PlacementState
from hevcq.settings.model import PostgresSettings, Settings
from hevcq.sql.catalog import Catalog
from hevcq.sql.database import Database, PathMap
from hevcq.sql.event_log import EventLog
from hevcq.sql.postgres import PostgresDatabase
from hevcq.usecases.context import require_one_name, share_words
from hevcq.util.clock import SystemClock
from support.postgres import database, shared_dsn

CLOCK = SystemClock()
KEY = "TODO/all/srv/media/video.mp4"
CONTENT = os.urandom(700_000)


class Machine:
    """A machine that mounts the share at `media`."""

    def __init__(self, database: Database, media: Path) -> None:
        self.database, self.media = database, media
        self.catalog = Catalog(database, CLOCK)

    def link(self, name: str = "video.mp4") -> object:
        return source_files.link_source(self.database, self.media / name, KEY)

    def note(self, name: str, state: PlacementState = PlacementState.WAITING) -> Placement:
        path = self.media / name
        mark = fingerprint_of(path.lstat())
        target = path.with_suffix(".hevc.mp4")
        made = Placement(name, self.media, path, mark, "hevc", Mode.BESIDE, target, 30, state)
        self.catalog.record_placements([made])
        return made


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """The NAS, whose names are the common ones, and a desktop that mounts the same folder elsewhere."""
    nas = database(CLOCK)
    desktop = PostgresDatabase(shared_dsn(), CLOCK, schema=f"tester_{os.getpid()}")
    share, mount = tmp_path / "srv" / "media", tmp_path / "mnt" / "nas"
    share.mkdir(parents=True)
    mount.parent.mkdir()
    mount.symlink_to(share)
    desktop.paths = PathMap({share: mount})
    (share / "video.mp4").write_bytes(CONTENT)
    yield Machine(nas, share), Machine(desktop, mount)
    nas.close()
    desktop.close()


def copied(machine: Machine, mount: Path) -> None:
    """Mount a copy of the share, whose files have other inodes and times in steps of two seconds."""
    mount.mkdir()
    for path in machine.media.iterdir():
        (mount / path.name).write_bytes(path.read_bytes())
        rounded = path.stat().st_mtime_ns // 2_000_000_000 * 2_000_000_000
        os.utime(mount / path.name, ns=(rounded, rounded))
    machine.database.paths = PathMap({next(iter(machine.database.paths.folders)): mount})
    machine.media = mount


def test_each_machine_finds_a_record_under_its_own_mount(house):
    nas, desktop = house
    noted = nas.note("video.mp4")
    (seen,) = desktop.catalog.placements(under=desktop.media)
    assert (seen.root, seen.source) == (desktop.media, desktop.media / "video.mp4")
    assert seen.target == desktop.media / "video.hevc.mp4"

    assert list(desktop.catalog.placements(under=desktop.media.parent)) == [seen]
    assert not list(desktop.catalog.placements(under=desktop.media / "video"))
    desktop.catalog.record_placements([replace(seen, state=PlacementState.PLACED)])
    back = nas.catalog.placement("video.mp4")
    assert (back.source, back.target, back.root) == (noted.source, noted.target, noted.root)
    happened = Happened("x", 1.0, path=desktop.media / "a", root=desktop.media)
    EventLog(desktop.database, CLOCK).add(happened)
    (told, *_) = [e for e in EventLog(nas.database, CLOCK).after(0, 9) if e.name == "x"]
    assert (told.path, told.root) == (nas.media / "a", nas.media)


def test_a_video_queued_on_two_machines_is_one_source_though_inodes_and_times_differ(
    house, tmp_path
):
    nas, desktop = house
    copied(desktop, tmp_path / "smb")
    one, other = nas.link(), desktop.link()
    assert one == other
    assert source_files.source_path(nas.database, one) == nas.media / "video.mp4"
    assert source_files.source_path(desktop.database, one) == desktop.media / "video.mp4"
    noted = nas.note("video.mp4")
    recorded = desktop.catalog.placement("video.mp4").fingerprint
    here = fingerprint_of((desktop.media / "video.mp4").lstat())
    assert noted.fingerprint.inode != here.inode
    assert same_bytes(recorded, here)
    assert not same_bytes(recorded, replace(here, mtime_ns=here.mtime_ns + 5_000_000_000))


@pytest.mark.parametrize("where", [0, len(CONTENT) - 1])
def test_other_bytes_of_the_same_size_and_time_are_not_the_queued_video(house, where):
    nas, _ = house
    source, video = nas.link(), nas.media / "video.mp4"
    facts = video.stat()
    with video.open("r+b") as changing:
        changing.seek(where)
        changing.write(bytes([CONTENT[where] ^ 1]))
    os.utime(video, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(SourceChanged, match="written to since it was queued"):
        source_files.source_path(nas.database, source)


def test_a_change_in_the_middle_is_seen_by_its_time(house):
    nas, _ = house
    source, video = nas.link(), nas.media / "video.mp4"
    late = video.stat().st_mtime_ns + 10_000_000_000
    os.utime(video, ns=(late, late))
    with pytest.raises(SourceChanged):
        source_files.source_path(nas.database, source)
    assert nas.link() != source


@pytest.mark.parametrize("other", [b"other bytes", None])
def test_a_mapping_to_other_bytes_ends_no_job(house, tmp_path, other):
    nas, desktop = house
    source = nas.link()
    nas.note("video.mp4")
    wrong = tmp_path / "backup"
    wrong.mkdir()
    (wrong / ("video.mp4" if other else "else.mp4")).write_bytes(other or b"")
    desktop.database.paths = PathMap({nas.media: wrong})
    with pytest.raises(SourceAway, match="nothing shows that") as away:
        source_files.source_path(desktop.database, source)
    assert "Correct the setting `paths`" in away.value.remedy

    # Another video proves that the folder is the right one: then this one is another, or gone.
    (nas.media / "second.mp4").write_bytes(b"12345")
    nas.note("second.mp4")
    (wrong / "second.mp4").write_bytes(b"12345")
    with pytest.raises(SourceChanged if other else SourceGone):
        source_files.source_path(desktop.database, source)


def test_a_folder_that_is_not_there_or_another_is_one_sentence(house, tmp_path):
    nas, desktop = house
    name = nas.media
    assert share_words(desktop.catalog, name) == f"{name} is {desktop.media}"
    for number in range(3):
        (nas.media / f"{number}.mp4").write_bytes(b"video")
        nas.note(f"{number}.mp4")
    assert "with its videos" in share_words(desktop.catalog, name)
    desktop.database.paths = PathMap({name: tmp_path / "none"})
    with pytest.raises(StorageError, match="is not there"):
        share_words(desktop.catalog, name)
    empty = tmp_path / "empty"
    empty.mkdir()
    desktop.database.paths = PathMap({name: empty})
    with pytest.raises(StorageError, match="it is another folder"):
        share_words(desktop.catalog, name)


def test_the_longest_name_fits_first_and_a_name_of_another_file_is_refused():
    srv, tv = Path("/srv/media"), Path("/srv/media/tv")
    paths = PathMap({srv: Path("/mnt/nas"), tv: Path("/mnt/tv")})
    assert paths.local_path(b"/srv/media/tv/a") == Path("/mnt/tv/a")
    assert paths.local_path(b"/srv/media/tva") == Path("/mnt/nas/tva")
    assert paths.unambiguous_path(Path("/mnt/tv/a")) == b"/srv/media/tv/a"
    assert paths.unambiguous_path(Path("/home/a")) == b"/home/a"
    for shadowed in ("/mnt/nas/tv/a", "/srv/media/a"):
        with pytest.raises(ConfigError, match="the other machines mean"):
            paths.unambiguous_path(Path(shadowed))


def test_machine_that_has_the_others_name_as_a_link_is_told_to_map_it(house, tmp_path):
    nas, desktop = house
    volume, srv = tmp_path / "volume", tmp_path / "srv"
    srv.rename(volume)
    srv.symlink_to(volume)
    desktop.database.paths = PathMap({srv / "media": desktop.media})
    desktop.note("video.mp4")

    with pytest.raises(ConfigError, match="encoded twice") as refused:
        require_one_name(nas.catalog)
    assert f'"{srv}" = "{volume}"' in refused.value.remedy

    nas.database.paths = PathMap({srv: volume})
    require_one_name(nas.catalog)


def test_two_names_of_one_folder_are_refused(tmp_path):
    share, link = tmp_path / "share", tmp_path / "link"
    (share / "films").mkdir(parents=True)
    link.symlink_to(share)
    for names in ({"/srv/a": share, "/srv/b": link}, {"/srv/a": share, "/srv/b": link / "films"}):
        settings = Settings(
            data_dir=tmp_path,
            backend="postgres",
            postgres=PostgresSettings(dsn=SecretStr(shared_dsn())),
            paths={Path(name): here for name, here in names.items()},
        )
        with pytest.raises(ConfigError, match="two names"):
            open_postgres(settings, CLOCK)
