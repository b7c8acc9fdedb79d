"""What must be proven before a server deletes its copy: a row for each condition, each enough alone.

Nothing is lost and nothing comes twice: kills at every step, and histories by chance.

A model camera uploads, uploads again, overwrites, renames, deletes and begins its numbers again, also
between any two calls of a running sync; the sync is killed anywhere and started again.
"""

import itertools
import random
import shutil
import threading
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hevcq.errors import HevcqError, Unavailable
from hevcq.library.filesystem import FileSystem, Pace
from hevcq.library.own_files import certificate_path
from hevcq.ports.catalog import RemoteFile, SyncEntry
from hevcq.sql.catalog import SyncJournal
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.usecases.sync.move import Mover, SyncPorts
from hevcq.usecases.sync.session import Fate, SyncSession
from hevcq.util.file_io import sha256_bytes
from support.camera import Camera, Intruder, Kill, MemoryRemote
from support.clips import ManualClock
from support.library import certificate
from support.processes import Killed
from support.syncing import VIDEO, wanted
from support.webdav import without

FILE = RemoteFile("Camera/a.mp4", len(VIDEO), "e0")


class Proven:
    """A file that landed and may be deleted on the server; each row takes one thing from that."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.remote, self.file = folder, MemoryRemote(), FILE
        self.target, self.into = folder / "a.mp4", folder
        self.target.write_bytes(VIDEO)
        self.entry = SyncEntry(
            FILE.path, FILE.version, FILE.size, 0.0, sha256_bytes(VIDEO), self.target
        )

    def change(self, **facts: Any) -> None:
        self.entry = replace(self.entry, **facts)

    def lists(self, **facts: Any) -> None:
        self.file = replace(self.file, **facts)

    def why_stays(self) -> str:
        stop = threading.Event()
        clock, files = ManualClock(auto=True), FileSystem(stop)
        with closing(SqliteDatabase(self.folder / "hevcq.db")) as database:
            journal = SyncJournal(database)
            ports = SyncPorts(self.remote, journal, clock, files, stop, token="0")
            mover = Mover(ports, wanted(self.into), Pace(clock, stop))
            return mover.why_stays(self.file, self.entry, just_read=False)


def elsewhere(at: Proven) -> None:
    """Another folder's name begins like that of the sync's."""
    at.lists(path="Camera2/a.mp4")
    at.change(path="Camera2/a.mp4")


def linked(at: Proven) -> None:
    at.target.rename(at.folder / "b.mp4")
    at.target.symlink_to(at.folder / "b.mp4")


def further(at: Proven) -> None:
    """Where an earlier target was, nobody tried whether the server's own files are."""
    (at.folder / "new").mkdir()
    at.into = at.folder / "new"


def certified(at: Proven) -> None:
    """A certificate says that a smaller file is the same video; no replacement is known here."""
    small = b"720p"
    proof = certificate(at.target, VIDEO, small, profile="720p")
    place = certificate_path(
        at.folder, proof.rendition_sha256, (len(small), len(VIDEO)), proof.job_id
    )
    place.parent.mkdir(parents=True)
    place.write_text(proof.to_json())
    at.target.unlink()
    (at.folder / "a.720p.mp4").write_bytes(small)


ROWS = [
    (elsewhere, "in none of the folders"),
    (lambda at: at.target.write_bytes(VIDEO[:-1] + b"!"), "no longer where they landed"),
    (lambda at: at.target.unlink(), "no longer where they landed"),
    (linked, "no longer where they landed"),
    (further, "landed outside this sync's target"),
    (certified, "no longer where they landed"),
    (lambda at: at.lists(etag=""), "no ETag"),
    (lambda at: at.lists(etag="e1"), "another version"),
    (lambda at: at.lists(size=1), "another version"),
    (lambda at: at.change(path="Camera/b.mp4"), "another version"),
    (lambda at: at.change(sha256=""), "has not landed"),
    (lambda at: at.change(target=None), "has not landed"),
    (lambda at: setattr(at.remote, "distrust", "it ignores If-Match"), "ignores If-Match"),
    (lambda at: setattr(at.remote, "unsafe_to_remove", unanswered), "could not be tried"),
]


def unanswered(*_given: object) -> str:
    raise Unavailable("away")


def test_what_is_proven_may_go(tmp_path):
    assert Proven(tmp_path).why_stays() == ""


@pytest.mark.parametrize(("take", "why"), ROWS)
def test_what_is_not_proven_stays(tmp_path, take, why):
    at = Proven(tmp_path)
    take(at)

    assert why in at.why_stays()


def test_landing_of_another_account_proves_nothing(machine):
    machine.server.put("Camera/Camera/a.mp4", VIDEO)
    machine.sync(move=False, folders=("Camera/Camera",))
    (machine.target / "a.mp4").unlink()
    machine.url = f"{machine.server.url}/Camera"

    assert machine.fates() == {"Camera/a.mp4": Fate.MOVED}
    assert machine.files() == {"a.mp4": VIDEO}, "fetched, because this account never did"


def test_version_that_replaces_the_fetched_one_before_the_delete_stays(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    other = bytes(reversed(VIDEO))

    def change(environ, _start, _application):
        if environ["REQUEST_METHOD"] == "DELETE" and "probe" not in environ["PATH_INFO"]:
            machine.server.faults.clear()
            machine.server.put("Camera/a.mp4", other)

    machine.server.faults.append(change)
    assert machine.fates() == {"Camera/a.mp4": Fate.CHANGED}
    assert machine.server.files() == {"Camera/a.mp4": other}
    machine.sync()
    assert machine.files() == {"a.mp4": VIDEO, "a (2).mp4": other}
    assert machine.server.files() == {}


def test_what_an_earlier_run_found_out_about_the_server_is_not_believed(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    assert machine.fates() == {"Camera/a.mp4": Fate.MOVED}
    machine.server.put("Camera/b.mp4", VIDEO[1:])
    machine.server.faults.append(without("If-Match"))

    assert machine.fates() == {"Camera/b.mp4": Fate.COPIED}
    assert "ignores If-Match" in machine.notices[0]
    assert machine.server.files() == {"Camera/b.mp4": VIDEO[1:]}


@pytest.mark.parametrize(
    ("target", "folders", "file"),
    [
        ("Camera", ("Camera",), "Camera/a.mp4"),
        ("link", ("Camera",), "Camera/a.mp4"),
        ("Camera", ("Other", "Camera"), "Camera/a.mp4"),
        ("Camera/in", ("Camera",), "Camera/a.mp4"),
        ("", ("Camera",), "Camera/Camera/a.mp4"),
    ],
)
def test_servers_own_storage_as_the_target_loses_nothing(machine, target, folders, file):
    machine.server.put(file, VIDEO)
    (machine.server.root / "Other").mkdir()
    (machine.server.root / "Camera/in").mkdir()
    (machine.server.root / "link").symlink_to(machine.server.root / "Camera")
    for _ in range(3):
        machine.sync(target=machine.server.root / target, folders=folders)
        assert "is in the server's own storage" in machine.notices[0]

    machine.sync(folders=folders)
    assert machine.told[0].fate is Fate.LEFT, "the target of before is not tried any more"
    assert machine.server.files()[file] == VIDEO
    assert not [name for name in machine.server.files() if "probe" in name]


@pytest.mark.parametrize("came_before", [False, True])
def test_what_was_here_already_is_durable_before_the_server_deletes(
    machine, monkeypatch, came_before
):
    twin, done = machine.target / "a.mp4", []
    if came_before:
        machine.server.put("Camera/a.mp4", VIDEO)
        machine.sync()
    twin.write_bytes(VIDEO)
    machine.server.put("Camera/a.mp4", VIDEO)
    for name in ("fsync_file", "fsync_dir", "digest"):
        real = getattr(FileSystem, name)
        monkeypatch.setattr(
            FileSystem,
            name,
            lambda fs, path, name=name, real=real: (done.append((name, path)), real(fs, path))[1],
        )
    monkeypatch.setattr(
        "hevcq.usecases.sync.move._drop_cache", lambda p: done.append(("forget", p))
    )

    def deleting(environ, _start, _application):
        if environ["REQUEST_METHOD"] == "DELETE" and "probe" not in environ["PATH_INFO"]:
            done.append(("delete", twin))

    machine.server.faults.append(deleting)
    assert machine.fates() == {"Camera/a.mp4": Fate.KNOWN if came_before else Fate.MOVED}
    proof = [("fsync_file", twin), ("fsync_dir", twin.parent), ("forget", twin), ("digest", twin)]
    assert done[-5:] == [*proof, ("delete", twin)]


SETTLE_S = 600.0
SHORT = 12


def quiet(_name: str) -> None:
    """Let everything happen."""


@dataclass
class Home:
    """One machine with a folder, a database and a sync; `restart` is a new process."""

    folder: Path
    remote: object
    clock: ManualClock = field(default_factory=lambda: ManualClock(auto=True))

    def __post_init__(self) -> None:
        self.target.mkdir(parents=True)

    @property
    def target(self) -> Path:
        return self.folder / "target"

    def sync(self, *, before=quiet, after=quiet, settle_s=SETTLE_S) -> list:
        told: list = []
        stop = threading.Event()
        with closing(SqliteDatabase(self.folder / "hevcq.db")) as database:
            ports = SyncPorts(
                Intruder(self.remote, before=before, after=after),
                Intruder(SyncJournal(database), before=before, after=after),
                self.clock,
                Intruder(FileSystem(stop), before=before, after=after),
                stop,
                token="0",
            )
            SyncSession(
                ports, wanted(self.target, settle=settle_s), told.append, lambda _words: None
            ).run()
        return told

    def settled(self) -> list:
        """Run until nothing is left to do."""
        told = []
        for _ in range(3):
            self.clock.advance(SETTLE_S)
            told = self.sync()
        return told

    def contents(self) -> list[bytes]:
        return [p.read_bytes() for p in sorted(self.target.rglob("*")) if p.is_file()]


def scenario(home: Home) -> list[bytes]:
    """Some history, and on the server a new file, a known one, and one of a name that is taken."""
    one, two, three, four = (random.Random(n).randbytes(900) for n in range(4))
    home.remote.put("Camera/a.mp4", one)
    home.sync(settle_s=0)
    home.remote.put("Camera/a.mp4", two)
    home.remote.put("Camera/again.mp4", one)
    home.remote.put("Camera/c.mp4", three)
    (home.target / "d.mp4").write_bytes(four)
    home.remote.put("Camera/d.mp4", four)
    return sorted([one, two, three, four])


def test_killed_at_every_step_nothing_is_lost_and_nothing_comes_twice(tmp_path):
    """After each call, and so before the next one."""
    base = tmp_path / "base"
    template = Home(base, MemoryRemote())
    wanted = scenario(template)
    for step in itertools.count(1):
        home = Home(tmp_path / f"{step}-home", MemoryRemote())
        shutil.rmtree(home.folder)
        shutil.copytree(base, home.folder, symlinks=True)
        home.remote.stored = dict(template.remote.stored)
        kill = Kill(step, late=True)
        # The journal names the target, so each copy of the folder stands where the first one did.
        moved = base.rename(tmp_path / "aside")
        home.folder.rename(base)
        home.folder = base
        try:
            home.sync(before=kill.before, after=kill.after, settle_s=0)
            done = True
        except Killed:
            done = False
            assert set(home.remote.removed) <= set(home.contents()), step
            home.sync(settle_s=0)
        assert sorted(home.contents()) == wanted, step
        assert home.remote.files() == {}, step
        shutil.rmtree(base)
        moved.rename(base)
        if done:
            break
    assert step > 40, "the scenario has become short"


def history(seed: int, home: Home, camera: Camera, removed: list[bytes]) -> None:
    """Live through one history, and compare what is there with what must be."""
    chance = camera.random

    def meddle(_name: str) -> None:
        if chance.random() < 0.03:
            camera.act()

    for _ in range(chance.randint(2, 5)):
        for _ in range(chance.randint(1, 4)):
            camera.act()
        kill = Kill(chance.randint(1, 120), chance.random() < 0.5)
        if chance.random() < 0.5:
            kill.at = 10**9
        home.clock.advance(chance.choice((1.0, SETTLE_S / 2, SETTLE_S, 2 * SETTLE_S)))
        if chance.random() < 0.1:
            home.clock.restart()
        for path in list(camera.growing):  # an upload ends before a file can have settled
            camera._upload(path, camera.growing[path])
        with suppress(Killed, HevcqError):
            home.sync(
                before=lambda name, kill=kill: (meddle(name), kill.before(name)),
                after=kill.after,
            )
        assert set(removed) <= set(home.contents()), f"seed {seed}: deleted, and not here"
    camera.end()
    told = home.settled()
    here = home.contents()
    assert len(here) == len(set(here)), f"seed {seed}: twice"
    assert camera.kept <= set(here), f"seed {seed}: lost {told}"
    assert not camera.halves & set(here), f"seed {seed}: a half file"
    assert camera.files() == {}, f"seed {seed}: left {told}"
    assert not list(home.target.rglob(".hevcq-*")), f"seed {seed}: a part stays"


def in_memory(seed: int, folder: Path) -> None:
    remote = MemoryRemote(ranges=bool(seed % 3))
    home = Home(folder, remote)
    chance = random.Random(seed)
    camera = Camera(chance, remote.put, remote.delete, remote.rename, remote.files)
    history(seed, home, camera, remote.removed)


def test_histories_by_chance(tmp_path):
    for seed in range(SHORT):
        in_memory(seed, tmp_path / str(seed))
        shutil.rmtree(tmp_path / str(seed))
