"""A model of a phone's camera and of the server that it uploads to, and kills at any port call."""

import itertools
import random
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hevcq.errors import SourceChanged, SourceGone, Unavailable, UsageError
from hevcq.ports.catalog import Body, RemoteFile, RemoteFolder, Removal
from support.fakes.backend import Faulty
from support.processes import Killed

BLOCK = 400


@dataclass
class _Stored:
    content: bytes
    etag: str


@dataclass
class MemoryRemote:
    """A server in memory that honours If-Match, as Nextcloud does.

    `removed` is what a delete took away; `ranges` whether it can send a part of a file; `distrust` why
    it can't be trusted to delete.
    """

    stored: dict[str, _Stored] = field(default_factory=dict)
    removed: list[bytes] = field(default_factory=list)
    ranges: bool = True
    distrust: str = ""
    ids: Any = field(default_factory=itertools.count)

    @property
    def account(self) -> str:
        return "memory|anna"

    def put(self, path: str, content: bytes) -> None:
        """Make or replace a file."""
        self.stored[path] = _Stored(content, f"e{next(self.ids)}")

    def delete(self, path: str) -> None:
        del self.stored[path]

    def rename(self, path: str, new: str) -> None:
        self.stored[new] = self.stored.pop(path)

    def files(self) -> dict[str, bytes]:
        return {path: each.content for path, each in self.stored.items()}

    def _file(self, path: str) -> RemoteFile:
        found = self.stored[path]
        return RemoteFile(path, len(found.content), found.etag)

    def folder(self, path: str) -> RemoteFolder:
        if path != "Camera":
            raise UsageError("no such folder")
        return RemoteFolder(files=tuple(map(self._file, sorted(self.stored))))

    def stat(self, path: str) -> RemoteFile | None:
        return self._file(path) if path in self.stored else None

    @contextmanager
    def read(self, file: RemoteFile, start: int):
        found = self.stored.get(file.path)
        if found is None:
            raise SourceGone(file.path)
        if found.etag != file.etag:
            raise SourceChanged(file.path)
        content, begin = found.content, start if self.ranges else 0
        yield Body(begin, (content[i : i + BLOCK] for i in range(begin, len(content), BLOCK)))

    def remove(self, file: RemoteFile) -> Removal:
        found = self.stored.get(file.path)
        if found is None:
            return Removal.GONE
        if found.etag != file.etag:
            return Removal.CHANGED
        self.removed.append(self.stored.pop(file.path).content)
        return Removal.REMOVED

    def unsafe_to_remove(self, *_given: object) -> str:
        return self.distrust


class Intruder(Faulty):
    """A port whose blocks of a remote file are calls too, and which is not asked about looks."""

    def __getattr__(self, name: str) -> Any:
        if name in {"names", "lstat", "close", "entries", "arrival"}:
            return getattr(self._inner, name)
        if name == "read" and isinstance(self._inner, MemoryRemote):
            return self._read
        return super().__getattr__(name)

    @contextmanager
    def _read(self, file, start):
        self._before("read")
        with self._inner.read(file, start) as body:

            def blocks():
                for block in body.blocks:
                    yield block
                    self._after("block")

            yield Body(body.start, blocks())


@dataclass
class Kill:
    """Ends the process before (or after) the call number `at`, counted from 1."""

    at: int
    late: bool
    calls: int = 0

    def before(self, _name: str) -> None:
        self.calls += 1
        if self.calls == self.at and not self.late:
            raise Killed

    def after(self, _name: str) -> None:
        if self.calls >= self.at and self.late:
            raise Killed


@dataclass
class Camera:
    """What a phone and its person do to a server, by chance; `put`, `delete`, `rename` act on it.

    `kept` are the contents that nobody but hevcq may have deleted or overwritten; `halves` are of
    uploads that were still growing.
    """

    random: random.Random
    put: Callable[[str, bytes], None]
    delete: Callable[[str], None]
    rename: Callable[[str, str], None]
    files: Callable[[], dict[str, bytes]]
    taken: list[bytes] = field(default_factory=list)
    kept: set[bytes] = field(default_factory=set)
    halves: set[bytes] = field(default_factory=set)
    growing: dict[str, bytes] = field(default_factory=dict)

    def act(self) -> None:
        """Do one thing."""
        chosen = self.random.choices(
            (self._take, self._again, self._replace, self._delete, self._rename, self._grow),
            weights=(5, 3, 3, 1, 2, 2),
        )[0]
        chosen()

    def end(self) -> None:
        """Let every upload end."""
        for path, content in list(self.growing.items()):
            self._upload(path, content)
        self.growing.clear()

    def _content(self) -> bytes:
        return self.random.randbytes(self.random.choice((0, 1, 399, 400, 1500)) + 8)

    def _name(self) -> str:
        # Few names, as of a camera that begins its numbers again.
        return f"Camera/{self.random.choice(('DSC_1.mp4', 'dsc_1.mp4', 'DSC_2.mp4', 'a b+%.jpg'))}"

    def _upload(self, path: str, content: bytes) -> None:
        self._overwritten(path)
        self.put(path, content)
        self.kept.add(content)

    def _overwritten(self, path: str) -> None:
        self.growing.pop(path, None)
        before = self.files().get(path)
        others = [c for p, c in self.files().items() if p != path]
        if before is not None and before not in others:
            self.kept.discard(before)

    def _take(self) -> None:
        content = self._content()
        self.taken.append(content)
        self._upload(self._name(), content)

    def _again(self) -> None:
        if self.taken:
            self._upload(self._name(), self.random.choice(self.taken))

    def _replace(self) -> None:
        if there := sorted(self.files()):
            content = self._content()
            self.taken.append(content)
            self._upload(self.random.choice(there), content)

    def _delete(self) -> None:
        if there := sorted(self.files()):
            path = self.random.choice(there)
            self._overwritten(path)
            self.delete(path)

    def _rename(self) -> None:
        if there := sorted(self.files()):
            old, new = self.random.choice(there), self._name()
            if old != new and old not in self.growing:
                self._overwritten(new)
                self.rename(old, new)

    def _grow(self) -> None:
        path, whole = self._name(), self._content()
        half = whole[: len(whole) // 2]
        self._overwritten(path)
        self.put(path, half)
        self.taken.append(whole)
        self.growing[path] = whole
        self.halves.add(half)


def away(_name: str) -> None:
    """The server does not answer."""
    raise Unavailable("away")
