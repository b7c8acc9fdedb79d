"""Tiny libraries, certificates and file systems that die: what the library tests share."""

import contextlib
import dataclasses
import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.certificate import REQUIRED, Certificate, GateResult, Outcome
from hevcq.domain.job import Source, job_id
from hevcq.domain.keys import key_for_path
from hevcq.library.filesystem import FileSystem, fingerprint_of
from hevcq.library.place import certificate_of
from hevcq.library.replacement.refusals import Replacement
from support.processes import Killed

ORIGINAL = b"the original clip, every byte of it. " * 40
RENDITION = b"the rendition, smaller. " * 20
DAY = 86_400.0


def one(fetch):
    """Return what fetches the only file of a rendition."""
    return lambda _name, new: fetch(new)


def for_ever(_record: object) -> float:
    """Seconds for which an original was kept, as far as the machine has seen: long enough."""
    return float("inf")


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def certificate(source: Path, original: bytes, rendition: bytes, profile: str = "hevc"):
    facts = os.lstat(source)
    version = f"{facts.st_size}-{facts.st_mtime_ns}-{facts.st_ino}"
    origin = Source(
        bucket="library",
        key=key_for_path(os.fspath(source)),
        version=version,
        size=len(original),
    )
    return Certificate(
        job_id=job_id(origin, profile),
        fence=1,
        source=origin,
        source_sha256=sha(original),
        rendition_key=f"DONE/{profile}/x.mkv",
        rendition_sha256=sha(rendition),
        rendition_size=len(rendition),
        profile=profile,
        revision="0" * 12,
        ffmpeg="ffmpeg version 5.1.9",
        arguments=("-i", "x"),
        gates=tuple(GateResult(gate=gate, outcome=Outcome.PASSED) for gate in REQUIRED),
        hevcq_version="0",
        made_at=1.0,
    )


@dataclass
class Video:
    """One original in a library, and the change that would replace it."""

    root: Path
    change: Replacement
    original: bytes
    rendition: bytes
    facts: os.stat_result

    @property
    def source(self) -> Path:
        return self.change.source

    @property
    def target(self) -> Path:
        return self.change.target

    def fetch(self, new: Path) -> str:
        new.write_bytes(self.rendition)
        return sha(self.rendition)


def video(root: Path, name: str = "tv/video.avi", target: str | None = None, **options) -> Video:
    """Make an original at `name`, with odd metadata. `target` defaults to the same path."""
    original = options.pop("original", ORIGINAL)
    rendition = options.pop("rendition", RENDITION)
    source = root / name
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(original)
    source.chmod(0o640)
    with contextlib.suppress(OSError):
        os.setxattr(source, "user.note", b"mine")
    os.utime(source, ns=(1_600_000_000_000_000_001, 1_500_000_000_123_456_789))
    facts = os.lstat(source)
    change = Replacement(
        source=source,
        target=source if target is None else source.parent / target,
        fingerprint=fingerprint_of(facts),
        certificate=certificate(source, original, rendition, options.pop("profile", "hevc")),
        keep_days=options.pop("keep_days", 30.0),
    )
    assert not options
    return Video(root, change, original, rendition, facts)


def second_of(made: Video) -> Video:
    """Return a replaced video with the change by which a second profile replaces its rendition."""
    change = dataclasses.replace(
        made.change,
        fingerprint=fingerprint_of(os.lstat(made.target)),
        certificate=certificate(made.target, made.rendition, b"720", "720p"),
    )
    return dataclasses.replace(made, change=change, original=made.rendition, rendition=b"720")


def proof_of(made: Video) -> Path:
    """Where the certificate of a video's rendition is, by its content."""
    return certificate_of(made.root, made.change.certificate)


def xattrs(path: Path) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(path, name) for name in os.listxattr(path)}
    except OSError:
        return {}


def looks(path: Path) -> tuple:
    """What an undo must bring back: bytes, times, rights, owner, attributes."""
    facts = os.lstat(path)
    return (
        path.read_bytes(),
        facts.st_mtime_ns,
        facts.st_mode,
        (facts.st_uid, facts.st_gid),
        xattrs(path),
    )


def strays(root: Path) -> list[str]:
    """Temporary files of hevcq's anywhere below root, and records under way."""
    found = [str(p.relative_to(root)) for p in root.rglob(".hevcq-*")]
    return found + [str(p.relative_to(root)) for p in root.glob(".hevcq/journal/*")]


SYNCS = frozenset({"fsync_file", "fsync_dir"})
CHANGING = SYNCS | {"mkdir", "rmdir", "rename", "rename_new", "exchange", "unlink", "write", "copy"}
CHANGING |= {"copy_metadata"}
CALLS = CHANGING | {"digest", "read", "lstat", "names"}


class QuickFileSystem(FileSystem):
    """Does not wait for a disk: what the kernel holds outlives a killed process anyway."""

    def fsync_file(self, path: Path) -> None:
        assert path.is_file()

    def fsync_dir(self, folder: Path) -> None:
        assert folder.is_dir()


class MortalFileSystem(QuickFileSystem):
    """Counts every call, and at call `at` does what `end` says: before it, after it, or half-way.

    `no_rename2` takes the one-step rename away (link, then unlink: each its own call) and the
    exchange of names with it, `no_exchange` that only; `other_device` holds a folder whose renames
    in and out fail as across devices.
    """

    def __init__(
        self,
        at: int = -1,
        when: str = "before",
        end=None,
        *,
        no_rename2=False,
        no_exchange=False,
        other_device=None,
    ) -> None:
        super().__init__()
        self.at, self.when, self.end = at, when, end
        self.no_rename2, self.other_device = no_rename2, other_device
        self.no_exchange = no_exchange or no_rename2
        self.count = 0
        self.dead = False
        self.log: list[str] = []
        self._depth = 0

    def __getattribute__(self, name: str):
        value = super().__getattribute__(name)
        if name not in CALLS and name not in {"_link", "_unlink"}:
            return value
        return lambda *args: self._call(name, value, args)

    def _call(self, name: str, call, args):
        if self.dead:
            raise Killed("a dead process makes no calls, not even to tidy up")
        if self._depth and name not in {"_link", "_unlink"}:
            return call(*args)
        self.count += 1
        mine = self.count
        self.log.append(name)
        if mine == self.at and self.when == "before":
            self.die(name)
        if mine == self.at and self.when == "torn" and name in {"write", "copy"}:
            self._half(name, args)
            self.die(name)
        self._depth += 1
        try:
            result = call(*args)
        finally:
            self._depth -= 1
        if mine == self.at and self.when == "after":
            self.die(name)
        return result

    def die(self, name: str) -> None:
        if self.end is not None:
            raise self.end
        self.dead = True
        raise Killed(name)

    def _half(self, name: str, args) -> None:
        content = args[1] if name == "write" else Path(args[0]).read_bytes()
        Path(args[0] if name == "write" else args[1]).write_bytes(content[: len(content) // 2])

    def _apart(self, one: Path, other: Path) -> bool:
        if self.other_device is None:
            return False
        inside = [self.other_device in (p.parent, *p.parents) for p in (one, other)]
        return inside[0] != inside[1]

    def exchange(self, one: Path, other: Path) -> bool:
        if self.no_exchange or self._apart(one, other):
            return False
        assert super().exchange(one, other), "this file system cannot exchange names"
        return True

    def rename_new(self, old: Path, new: Path) -> None:
        if self._apart(old, new):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(old))
        if self.no_rename2:
            self._link(old, new)
            self._unlink(old)
        else:
            super().rename_new(old, new)

    def _link(self, old: Path, new: Path) -> None:
        os.link(old, new, follow_symlinks=False)

    def _unlink(self, old: Path) -> None:
        os.unlink(old)


class FailingFileSystem(MortalFileSystem):
    """From call `at` on, every call that changes something fails with `number`: a disk gone bad."""

    def __init__(self, at: int, number: int, **options) -> None:
        super().__init__(**options)
        self.first, self.number = at, number

    def _call(self, name: str, call, args):
        if not self._depth and name in CHANGING and self.count + 1 >= self.first:
            self.count += 1
            raise OSError(self.number, os.strerror(self.number), str(args[0]))
        return super()._call(name, call, args)
