"""The model of a library's life: what a person put where, and what hevcq owes for it.

A *debt* is a path and the bytes that a person put there, or that were left there by a settled
replacement. It ends when the person removes or replaces what he sees at that path, when an undo
takes its own rendition away again, or when an original's time was over as `expire` ran.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from hevcq.library.own_files import OWN_FOLDER, OWN_PREFIX
from support.library import Video

Look = tuple[bytes, int, int]
"""Bytes, modification time and mode of a file; a link is its target with two zeros."""


def made_from(content: bytes, profile: str) -> bytes:
    """Return the rendition of a content: equal videos have equal renditions, as encoders do it."""
    return f"<{profile}:{hashlib.sha256(content).hexdigest()[:6]}>".encode()


def real(path: Path) -> Path:
    """Return a path with the links in its folders resolved, its own name kept."""
    return Path(os.path.realpath(path.parent)) / path.name


def content_of(path: Path) -> bytes | None:
    """Return the bytes of a regular file; None if there is none."""
    if path.is_symlink() or not path.is_file():
        return None
    return path.read_bytes()


def visible(folder: Path) -> dict[Path, Look]:
    """Return what a person sees below a folder: all but hevcq's own folders and temporary files."""
    seen: dict[Path, Look] = {}
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != OWN_FOLDER]
        for name in [*names, *folders]:
            path = Path(here, name)
            if path.is_symlink():
                seen[path] = (os.fsencode(os.readlink(path)), 0, 0)
            elif name in names and not name.startswith(OWN_PREFIX):
                facts, content = path.lstat(), path.read_bytes()
                seen[path] = (content, facts.st_mtime_ns, facts.st_mode)
    return seen


def records(root: Path, folder: str = "kept") -> dict[str, dict]:
    """Return a root's records as they are on the disk, by the names of their files."""
    found = sorted((root / OWN_FOLDER / folder).glob("*.json"))
    return {path.name: json.loads(path.read_bytes()) for path in found}


def own_files(root: Path) -> dict[str, bytes]:
    """Return the kept originals and all records of a root, by their paths in its `.hevcq`."""
    home = root / OWN_FOLDER
    paths = [p for name in ("journal", "kept", "originals") for p in (home / name).rglob("*")]
    return {str(path.relative_to(home)): path.read_bytes() for path in paths if path.is_file()}


def temporary(root: Path) -> list[Path]:
    """Return the temporary files that hevcq has anywhere below a root."""
    return [path for path in root.rglob(OWN_PREFIX + "*") if not path.is_dir()]


@dataclass
class Model:
    """What is owed in a folder with one or two roots. `unsettled` are roots that a kill left."""

    folder: Path
    roots: tuple[Path, ...]
    debts: set[tuple[Path, bytes]] = field(default_factory=set)
    videos: dict[tuple[Path, str], Video] = field(default_factory=dict)
    looks: dict[tuple[Path, str], Look] = field(default_factory=dict)
    meddled: set[tuple[Path, str]] = field(default_factory=set)
    unsettled: set[Path] = field(default_factory=set)

    def removes(self, path: Path) -> None:
        """A person is about to remove, or to write over, what he sees at a path."""
        path = real(path)
        content = content_of(path)
        if content is not None:
            self.debts.discard((path, content))
        self.touches(path)

    def puts(self, path: Path) -> None:
        """A person put what is now at a path."""
        path = real(path)
        content = content_of(path)
        if content is not None:
            self.debts.add((path, content))
        self.touches(path)

    def touches(self, path: Path) -> None:
        """Remember the jobs whose place somebody else worked at: their rendition may be gone."""
        for job, made in self.videos.items():
            if path in {made.source, made.target, *made.source.parents}:
                self.meddled.add(job)

    def sees(self) -> None:
        """Owe whatever lies in settled roots: nobody but a person takes it away from now on."""
        if self.unsettled:
            return
        for path, look in visible(self.folder).items():
            if not path.is_symlink():
                self.debts.add((path, look[0]))

    def begins(self, made: Video, before: dict[Path, Look]) -> None:
        """A swap has a record of its own now; from here on whoever touches its places meddles."""
        look = before[made.source]
        root, job = made.root, made.change.certificate.job_id
        for folder in ("kept", "journal"):
            each = records(root, folder).get(f"{job}.json")
            if each is not None and root / each["target"] == made.target:
                self.videos[root, job], self.looks[root, job] = made, look
                self.meddled.discard((root, job))
        for other, video in self.videos.items():
            if other != (root, job) and video.target == made.source:
                self.meddled.add(other)

    def takes_back(self, made: Video) -> None:
        """A job's original is at its path again, so its rendition may go."""
        if content_of(made.source) == made.original and content_of(made.target) != made.rendition:
            self.debts.discard((made.target, made.rendition))

    def kept(self) -> list[tuple[Path, dict]]:
        """Return every root with each of its kept records, whatever hevcq thinks of them."""
        return [(root, each) for root in self.roots for each in records(root).values()]

    def unpaid(self) -> list[tuple[Path, bytes]]:
        """Return the debts whose bytes are neither at their path nor kept for it."""
        kept = {
            (root / each["source"], (root / each["retained"]).read_bytes())
            for root, each in self.kept()
            if (root / each["retained"]).is_file()
        }
        # A folder that is moved takes along what hevcq has in it.
        held = {p.read_bytes() for p in temporary(self.folder) if self.unsettled}
        held |= {text for root in self.unsettled for text in own_files(root).values()}
        return sorted(
            debt
            for debt in self.debts
            if content_of(debt[0]) != debt[1] and debt not in kept and debt[1] not in held
        )

    def bare(self) -> list[str]:
        """Return the jobs whose original is kept while nothing is in its place."""
        found = []
        for root, each in self.kept():
            job, target = each["job_id"], root / each["target"]
            if root in self.unsettled or (root, job) in self.meddled:
                continue
            content = content_of(target)
            if content is None or hashlib.sha256(content).hexdigest() != each["rendition_sha256"]:
                found.append(job)
        return found
