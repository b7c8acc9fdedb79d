"""Find the rendition of a kept original after somebody renamed, moved, changed or deleted it."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from hevcq.library.certificates import Certificates
from hevcq.library.filesystem import FileSystem, holds
from hevcq.library.names import aside_beside, is_own, temp_beside
from hevcq.library.replacement.journal import Record
from hevcq.util.text import printable


class Renditions:
    """Find the renditions of kept originals by content; the library is listed once, if one is missing.

    Methods raise OSError.
    """

    def __init__(self, fs: FileSystem, root: Path, kept: Iterable[Record]) -> None:
        self._fs, self._root = fs, root
        placed = [(record.target, record.rendition_sha256) for record in kept]
        self._places, self._targets = set(placed), Counter(target for target, _ in placed)
        self._listed: dict[int, list[Path]] | None = None
        self._unreadable = ""

    def find(self, record: Record) -> tuple[Path | None, str]:
        """Return where the rendition is. Without a path it is gone, or the words say why nobody can tell.

        While another file is in its place nobody can tell whether that is an upgrade or what is left
        of the rendition: only one that is not there at all is gone.
        """
        if holds(self._fs, record.target, record.rendition_size, record.rendition_sha256):
            return record.target, ""
        if self._is_damaged(record):
            return None, f"{printable(record.target)} is damaged."
        moved = self.moved_to(record)
        replaced_again = self._targets[record.target] > 1
        if not moved and not replaced_again and self._fs.lstat(record.target) is not None:
            return None, f"{printable(record.target)} is not what hevcq put there."
        return moved, "" if moved else self._unreadable or self._disk_away(record)

    def moved_to(self, record: Record) -> Path | None:
        """Return the other place in the library that holds the rendition, or None.

        The place of another record's equal rendition is that one's.
        """
        if self._listed is None:
            self._listed = self._list()
        sha256 = record.rendition_sha256
        found = [p for p in self._listed.get(record.rendition_size, ()) if p != record.target]
        for path in sorted(found, key=lambda path: (path.name != record.target.name, path)):
            if (path, sha256) not in self._places and self._fs.digest(path) == sha256:
                self._places.add((path, sha256))
                return path
        return None

    def _list(self) -> dict[int, list[Path]]:
        listed: dict[int, list[Path]] = {}
        errors: list[OSError] = []
        for folder, names, files in os.walk(self._root, onerror=errors.append):
            names[:] = [name for name in names if not is_own(name)]
            for path in (Path(folder, name) for name in files if not is_own(name)):
                facts = self._fs.lstat(path)
                if facts is not None and stat.S_ISREG(facts.st_mode):
                    listed.setdefault(facts.st_size, []).append(path)
        if errors:
            where = printable(errors[0].filename or self._root)
            self._unreadable = f"{where} cannot be read: {(errors[0].strerror or '').lower()}."
        return listed

    def _is_damaged(self, record: Record) -> bool:
        facts = self._fs.lstat(record.target)
        if facts is None or facts.st_mtime_ns != record.fingerprint.mtime_ns:
            return False
        proofs = Certificates().of_rendition(record.target, facts.st_size)  # of a second swap
        known = {record.source_sha256, *(proof.rendition_sha256 for proof in proofs)}
        return self._fs.digest(record.target) not in known

    def _disk_away(self, record: Record) -> str:
        """Return that the rendition's disk may not be mounted, or "".

        An original that was moved, not copied, is on the disk where its rendition was.
        """
        kept = self._fs.lstat(record.retained)
        if kept is not None and kept.st_ino == record.fingerprint.inode:
            return ""
        folder = next(each for each in record.target.parents if each.is_dir())
        return (
            "" if self._fs.names(folder) else f"{printable(folder)} is empty: is its disk mounted?"
        )


def is_missing(fs: FileSystem, record: Record) -> bool:
    """Return whether no file of the rendition's size is in its place; nothing is read."""
    facts = fs.lstat(record.target)
    return facts is None or facts.st_size != record.rendition_size


def moved_record(record: Record, target: Path) -> Record:
    """Return the record of a rendition that is at `target` now; its original belongs there too."""
    alone = record.source == record.target
    source = target if alone else target.with_suffix(record.source.suffix)
    return replace(
        record,
        source=source,
        target=target,
        new=temp_beside(target, record.job_id),
        aside=None if record.aside is None else aside_beside(source, record.job_id),
    )
