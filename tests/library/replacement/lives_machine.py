"""A library whose life hypothesis makes up: what a person does in it, and how hevcq is run there."""

import errno
import math
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from hevcq.errors import HevcqError
from hevcq.library.own_files import OWN_FOLDER
from hevcq.library.replacement.swap import Swap
from library.replacement.lives import (
    Model,
    content_of,
    own_files,
    real,
    records,
    temporary,
    visible,
)
from support.clips import ManualClock
from support.library import DAY, FailingFileSystem, MortalFileSystem
from support.processes import Killed

VIDEOS = ["x.avi", "x.mkv", "a/x.mkv", "a/b/x.avi", "a/b/x.mkv", "x.mkv/x.mkv"]
OTHERS = ["x.mkv.certificate.json", "a/b/x.mkv.certificate.json", "a/x.hevc.mkv", "c/x.mkv"]
ANY = st.sampled_from(VIDEOS + OTHERS)
ONE = st.integers(0, 3)
"""Which of the files that are there."""
SUFFIX = st.sampled_from([None, None, ".mkv", ".avi", ".mp4"])
PROFILE = st.sampled_from(["hevc", "hevc", "720p"])
KEEP = st.sampled_from([30.0, 30.0, 0.0, 1.0, math.inf])
WAYS: dict[str, dict[str, bool]] = {
    "exchange": {},
    "no exchange": {"no_exchange": True},
    "no one-step rename": {"no_rename2": True},
    "originals on another device": {"device": True},
}
CALL = st.one_of(st.integers(1, 20), st.integers(20, 60))
TROUBLE = st.one_of(
    st.none(),
    st.none(),
    st.tuples(st.sampled_from(["before", "after", "torn"]), CALL),
    st.tuples(st.sampled_from([errno.ENOSPC, errno.EIO, -errno.ENOSPC, -errno.EIO]), CALL),
)
"""None, a kill at a call, an error at a call, or (negative) an error from that call on."""
Trouble = tuple[str | int, int] | None


class Life(RuleBasedStateMachine):
    """One library, or two of which one lies in the other, on a file system of the kind `way`."""

    way = "exchange"

    @initialize(nested=st.booleans())
    def begin(self, nested: bool) -> None:
        self._home = tempfile.TemporaryDirectory()
        folder = Path(os.path.realpath(self._home.name))
        library = folder / "library"
        (library / "a").mkdir(parents=True)
        (folder / "elsewhere").mkdir()
        self.library, self.away = library, folder / "elsewhere" / "b"
        self.model = Model(folder, (library, library / "a") if nested else (library,))
        self.clock, self.past = ManualClock(), [b"P0000"]
        self.made = self.written = 0
        for name in ("x.mkv", "a/x.avi", "a/b/x.mkv"):
            self.a_file_appears(name)

    # What a person does.

    def _path(self, name: str) -> Path | None:
        """A path of the library that a file could have just now."""
        path = self.library / name
        above = [each for each in path.parents if self.library in each.parents]
        if path.is_dir() or any(each.exists() and not each.is_dir() for each in above):
            return None
        new = [each for each in above if not each.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        for each in new:  # where a video was, perhaps
            self.model.touches(each)
        return path

    def _one(self, number: int) -> Path | None:
        """One of the files that are in the library; None if there is none."""
        there = sorted(p for p in visible(self.library) if not p.is_symlink())
        return there[number % len(there)] if there else None

    def _save(self, path: Path, content: bytes) -> None:
        self.model.removes(path)
        path.unlink(missing_ok=True)
        self._write(path, content)
        self.model.puts(path)

    def _write(self, path: Path, content: bytes) -> None:
        """Write at a time of the model's own, so that a life is the same in every run."""
        path.write_bytes(content)
        self.written += 1
        moment = int(self.clock.now() * 1e9) + self.written
        os.utime(path, ns=(moment, moment))

    def _new(self) -> bytes:
        self.made += 1
        self.past.append(b"P%04d" % self.made * 3)
        return self.past[-1]

    @rule(name=ANY)
    def a_file_appears(self, name: str) -> None:
        if (path := self._path(name)) is not None:
            self._save(path, self._new())

    @rule(name=ANY, back=st.integers(0, 5))
    def a_backup_is_restored(self, name: str, back: int) -> None:
        if (path := self._path(name)) is not None:
            self._save(path, self.past[-1 - back % len(self.past)])

    @rule(number=ONE, hidden=st.booleans())
    def a_file_is_edited_in_place(self, number: int, hidden: bool) -> None:
        if (path := self._one(number)) is None:
            return
        before, facts = path.read_bytes(), path.stat()
        names = [p for p in visible(self.model.folder) if os.path.samestat(p.lstat(), facts)]
        for each in names:
            self.model.removes(each)
        content = self._new()
        self._write(path, content.ljust(len(before))[: len(before)] if hidden else content)
        if hidden:
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        for each in names:
            self.model.puts(each)

    @rule(number=ONE, days=st.sampled_from([0, 1, 400]))
    def a_file_is_touched(self, number: int, days: int) -> None:
        if (path := self._one(number)) is not None:
            moment = int((1_500_000_000 + days * DAY) * 1e9)
            os.utime(path, ns=(moment, moment))

    @rule(number=ONE)
    def a_file_is_deleted(self, number: int) -> None:
        if (path := self._one(number)) is not None:
            self.model.removes(path)
            path.unlink()

    @rule(number=ONE, other=ANY)
    def a_file_is_moved(self, number: int, other: str) -> None:
        path, there = self._one(number), self._path(other)
        if path is None or there is None or path == there:
            return
        self.model.removes(there)
        self.model.removes(path)
        if there.exists() and there.samefile(path):
            there.unlink()
        path.rename(there)
        self.model.puts(there)

    @rule(number=ONE, other=ANY, linked=st.booleans())
    def a_file_is_copied_or_linked(self, number: int, other: str, linked: bool) -> None:
        path, there = self._one(number), self._path(other)
        if path is None or there is None or there.exists():
            return
        if linked:
            os.link(path, there)
        else:
            shutil.copy2(path, there)
        self.model.puts(there)

    def _folder_moves(self, old: Path, new: Path) -> None:
        files = [p for p in visible(old) if content_of(p) is not None]
        for path in files:
            self.model.removes(path)
        self.model.touches(old)
        old.rename(new)
        for path in files:
            self.model.puts(new / path.relative_to(old))

    @rule(linked=st.booleans())
    def a_folder_is_moved_away(self, linked: bool) -> None:
        folder = self.library / "a" / "b"
        if folder.is_symlink() or not folder.is_dir() or self.away.exists():
            return
        self._folder_moves(folder, self.away)
        if linked:
            folder.symlink_to(self.away)

    @rule()
    def a_folder_comes_back(self) -> None:
        folder = self.library / "a" / "b"
        if self.away.exists() and (folder.is_symlink() or not folder.exists()):
            folder.unlink(missing_ok=True)
            self._folder_moves(self.away, folder)

    def _acts(self, place: Path, what: str, original: bytes) -> None:
        path = self._path(str(place.relative_to(self.library)))
        if path is None:
            return
        if what != "delete":
            self._save(path, self._new() if what == "save" else original)
        elif path.exists():
            self.model.removes(path)
            path.unlink()

    @rule(days=st.sampled_from([0.0, 0.5, 1.0, 31.0]))
    def time_passes(self, days: float) -> None:
        self.clock.advance(days * DAY)

    # How hevcq is made to work, and to fail.

    def _root_of(self, path: Path, inner: bool) -> Path:
        return next(
            (root for root in self.model.roots[:: -1 if inner else 1] if root in path.parents),
            self.library,
        )

    def _fs(self, root: Path, trouble: Trouble) -> MortalFileSystem:
        options = dict(WAYS[self.way])
        if options.pop("device", False):
            options["other_device"] = root / OWN_FOLDER / "originals"
        if trouble is None:
            return MortalFileSystem(**options)
        what, at = trouble
        if isinstance(what, str):
            return MortalFileSystem(at, what, **options)
        if what < 0:
            return FailingFileSystem(at, -what, **options)
        return MortalFileSystem(at, end=OSError(what, os.strerror(what), "x"), **options)

    def _swap(self, root: Path, trouble: Trouble = None) -> Swap:
        return Swap(root, self.clock, self._fs(root, trouble))

    def _all(self) -> tuple:
        """All that a refusal must leave as it is."""
        return visible(self.model.folder), [own_files(root) for root in self.model.roots]

    def _check(self, root: Path) -> None:
        """Note whether a root was left for the next start to settle."""
        if any(own_files(root).keys() & {f"journal/{n}" for n in records(root, "journal")}):
            self.model.unsettled.add(root)
        if temporary(root):
            self.model.unsettled.add(root)

    def _did(self, root: Path, trouble: Trouble, work):
        """Do hevcq's work; return what it returned, an error, or None where it was killed.

        A refusal without a bad disk must change nothing; with one, nothing that is not recorded.
        """
        self.before = self._all()
        try:
            result = work()
        except Killed:
            self.model.unsettled.add(root)
            return None
        except HevcqError as error:
            result = error
        assert not isinstance(result, HevcqError) or str(result).endswith(".")
        if trouble is not None:
            self._check(root)
        return result

    def _nothing_changed(self) -> None:
        now = self._all()
        assert now[0] == self.before[0]
        assert now[1] == self.before[1]

    def _only_changed(self, *paths: Path) -> None:
        now, before = visible(self.model.folder), self.before[0]
        changed = {p for p in now.keys() | before.keys() if now.get(p) != before.get(p)}
        allowed = {real(path) for path in paths}
        assert changed <= allowed, changed - allowed

    def teardown(self) -> None:
        if hasattr(self, "_home"):
            self._home.cleanup()
