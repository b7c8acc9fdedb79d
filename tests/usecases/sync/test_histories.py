"""Nothing is lost and nothing comes twice: kills at every step, and histories by chance.

A model camera uploads, uploads again, overwrites, renames, deletes and begins its numbers again, also
between any two calls of a running sync; the sync is killed anywhere and started again.
"""

import itertools
import random
import shutil
import threading
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hevcq.errors import HevcqError
from hevcq.library.filesystem import FileSystem
from hevcq.sql.catalog import SyncJournal
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.usecases.sync.move import SyncPorts
from hevcq.usecases.sync.session import SyncSession
from support.camera import Camera, Intruder, Kill, Killed, MemoryRemote
from support.clips import ManualClock
from support.syncing import wanted

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
                Intruder(self.remote, before, after),
                Intruder(SyncJournal(database), before, after),
                self.clock,
                Intruder(FileSystem(stop), before, after),
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
