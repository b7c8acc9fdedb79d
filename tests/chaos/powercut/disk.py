"""A disk that loses power: what was written is recorded, and replayed as it may be found again.

Observed are the names and bytes of a folder after each step, and every fsync. A power cut after
step n may leave

- `least`: only what an fsync made durable;
- `empty`: all names, but files whose bytes were not fsynced are empty (ext4 and XFS do this);
- `torn`: all names, such files cut in half;
- `some`: a seeded choice of the names that were not yet durable, each with those it builds on;
- `most`: everything, as a killed process leaves it.

An fsync of a folder makes the changes of names in it durable, with those they build on; a rename
is one change. That is what POSIX promises at least and what journalling file systems keep.
"""

import os
import random
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

FOLDER = -1
"""Stands in place of a file's number for a name that is a folder."""


class Loss(StrEnum):
    """How much a power cut takes."""

    LEAST = "least"
    EMPTY = "empty"
    TORN = "torn"
    SOME = "some"
    MOST = "most"


@dataclass(frozen=True, slots=True)
class Bytes:
    """A file's content and looks."""

    content: bytes
    mtime_ns: int
    mode: int


@dataclass(frozen=True, slots=True)
class Names:
    """One change of names: files (by number) or folders that appear and go."""

    adds: tuple[tuple[str, int], ...]
    removes: tuple[str, ...]

    def touches(self) -> set[str]:
        return {name for name, _ in self.adds} | set(self.removes)

    def folders(self) -> set[str]:
        return {os.path.dirname(name) for name in self.touches()}


@dataclass(frozen=True, slots=True)
class Wrote:
    """A file got other bytes."""

    number: int
    what: Bytes


@dataclass(frozen=True, slots=True)
class SyncedFile:
    """A file's bytes are durable."""

    number: int


@dataclass(frozen=True, slots=True)
class SyncedFolder:
    """The names in a folder are durable."""

    name: str


Tree = tuple[tuple[str, int, Bytes | None], ...]
"""Names in order, each with its file's number and content; None for a folder."""
Event = Names | Wrote | SyncedFile | SyncedFolder


@dataclass
class Disk:
    """Records a folder. Files whose name begins with one of `blind` are not looked at."""

    root: Path
    blind: tuple[str, ...] = ()
    events: list[Event] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)
    _inodes: dict[int, int] = field(default_factory=dict)
    _bytes: dict[int, Bytes] = field(default_factory=dict)
    _next: int = 0

    def __post_init__(self) -> None:
        self.look()
        self.first_names, self.first_bytes = dict(self._names), dict(self._bytes)
        self.events.clear()

    def look(self) -> None:
        """Note what changed since the last look."""
        names: dict[str, int] = {}
        inodes: dict[int, int] = {}
        for name, facts in sorted(self._walk()):
            if facts is None:
                names[name] = FOLDER
                continue
            number = inodes.get(facts.st_ino, self._inodes.get(facts.st_ino))
            if number is None:
                number = self._next
                self._next += 1
            inodes[facts.st_ino] = names[name] = number
            self._note_bytes(number, self.root / name, facts)
        adds = tuple((n, i) for n, i in names.items() if self._names.get(n) != i)
        removes = tuple(n for n in self._names if n not in names)
        if adds or removes:
            self.events.append(Names(adds, removes))
        self._names, self._inodes = names, inodes

    def _note_bytes(self, number: int, path: Path, facts: os.stat_result) -> None:
        found = Bytes(path.read_bytes(), facts.st_mtime_ns, facts.st_mode & 0o7777)
        if self._bytes.get(number) != found:
            self._bytes[number] = found
            self.events.append(Wrote(number, found))

    def _walk(self):
        for folder, folders, files in os.walk(self.root):
            inside = os.path.relpath(folder, self.root)
            prefix = "" if inside == "." else f"{inside}/"
            folders[:] = [n for n in folders if not n.startswith(self.blind or ("\0",))]
            yield from ((prefix + n, None) for n in folders)
            for name in files:
                if not name.startswith(self.blind or ("\0",)):
                    yield prefix + name, os.lstat(os.path.join(folder, name))

    def synced(self, path: Path) -> None:
        """Note an fsync of a file or folder, which has just returned."""
        self.look()
        name = os.path.relpath(path, self.root)
        if path.is_dir():
            self.events.append(SyncedFolder("" if name == "." else name))
        elif name in self._names:
            self.events.append(SyncedFile(self._names[name]))

    def after_cut(self, count: int, loss: Loss, seed: int) -> Tree:
        """Return what is there after a cut behind `count` events."""
        replay = _Replay(self.first_names, self.first_bytes)
        for event in self.events[:count]:
            replay.take(event)
        return replay.left(loss, random.Random(f"{seed}-{count}"))


class _Replay:
    def __init__(self, names: dict[str, int], content: dict[int, Bytes]) -> None:
        self._names = dict(names)
        self._changes: list[Names] = []
        self._kept: set[int] = set()
        self._latest, self._safe = dict(content), dict(content)

    def take(self, event: Event) -> None:
        match event:
            case Names():
                self._changes.append(event)
            case Wrote():
                self._latest[event.number] = event.what
            case SyncedFile():
                self._safe[event.number] = self._latest[event.number]
            case SyncedFolder():
                for place, change in enumerate(self._changes):
                    if event.name in change.folders():
                        self._keep(place, self._kept)

    def _keep(self, place: int, kept: set[int]) -> None:
        """Keep a change and those it builds on: the same names, or the folders around them."""
        if place in kept:
            return
        kept.add(place)
        needs = self._changes[place].touches()
        around = {str(parent) for name in needs for parent in Path(name).parents}
        for earlier in range(place):
            change = self._changes[earlier]
            made = {name for name, number in change.adds if number == FOLDER}
            if change.touches() & needs or made & around:
                self._keep(earlier, kept)

    def _surviving(self, loss: Loss, chance: random.Random) -> set[int]:
        if loss is Loss.LEAST:
            return self._kept
        if loss is not Loss.SOME:
            return set(range(len(self._changes)))
        kept = set(self._kept)
        for place in range(len(self._changes)):
            if chance.random() < 0.5:
                self._keep(place, kept)
        return kept

    def left(self, loss: Loss, chance: random.Random) -> Tree:
        names = dict(self._names)
        surviving = self._surviving(loss, chance)
        for place, change in enumerate(self._changes):
            if place in surviving:
                for name in change.removes:
                    names.pop(name, None)
                names.update(change.adds)
        folders = {name for name, number in names.items() if number == FOLDER}
        content: dict[int, Bytes] = {}
        tree: list[tuple[str, int, Bytes | None]] = []
        for name, number in sorted(names.items()):
            above = {str(parent) for parent in Path(name).parents} - {"."}
            if not above <= folders:
                continue  # its folder is lost, and everything in it
            if number != FOLDER and number not in content:
                content[number] = self._file(number, loss, chance)
            tree.append((name, number, content.get(number)))
        return tuple(tree)

    def _file(self, number: int, loss: Loss, chance: random.Random) -> Bytes:
        latest, safe = self._latest[number], self._safe.get(number)
        if latest == safe or loss is Loss.MOST:
            return latest
        old = b"" if safe is None else safe.content
        half = latest.content[: len(latest.content) // 2]
        choice = {Loss.EMPTY: old, Loss.LEAST: old, Loss.TORN: half}
        content = choice.get(loss)
        if content is None:
            content = chance.choice([old, half, latest.content])
        return Bytes(content, latest.mtime_ns, latest.mode)


def write(tree: Tree, target: Path) -> None:
    """Write what a power cut left to the new folder `target`."""
    target.mkdir()
    done: dict[int, Path] = {}
    for name, number, what in tree:
        path = target / name
        if what is None:
            path.mkdir()
        elif number in done:
            os.link(done[number], path)
        else:
            done[number] = path
            path.write_bytes(what.content)
            path.chmod(what.mode)
            os.utime(path, ns=(what.mtime_ns, what.mtime_ns))
