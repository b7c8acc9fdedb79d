"""Keep replaced originals until their retention ends (gate G11), and find their renditions."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from hevcq.library.filesystem import FileSystem, holds
from hevcq.library.own_files import Certificates, aside_beside, is_own, own_folder, temp_beside
from hevcq.library.place import holds_original
from hevcq.library.replacement.journal import Journal, Record
from hevcq.util.text import printable


class Renditions:
    """Find the renditions of kept originals by content. Methods raise OSError.

    The library is listed at most once, when the first rendition is missing.
    """

    def __init__(self, fs: FileSystem, root: Path, kept: Iterable[Record]) -> None:
        self._fs, self._root = fs, root
        placed = [(record.target, record.rendition_sha256) for record in kept]
        self._places, self._targets = set(placed), Counter(target for target, _ in placed)
        self._listed: dict[int, list[Path]] | None = None
        self._unreadable = ""

    def find(self, record: Record) -> tuple[Path | None, str]:
        """Return the rendition's path and "", or None and why it is unknown whether it is gone.

        None with "" means that the rendition is gone. While another file is at its path, that file may
        be a better version or the damaged rendition, so only an empty path proves that it is gone.
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
        """Return the other path in the library that holds the rendition, or None.

        A path that belongs to another record's equal rendition does not count.
        """
        if self._listed is None:
            self._listed = self._list()
        sha256 = record.rendition_sha256
        candidates = [p for p in self._listed.get(record.rendition_size, ()) if p != record.target]
        for path in sorted(candidates, key=lambda path: (path.name != record.target.name, path)):
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
        expected = {record.source_sha256, *(proof.rendition_sha256 for proof in proofs)}
        return self._fs.digest(record.target) not in expected

    def _disk_away(self, record: Record) -> str:
        """Return a sentence that the rendition's disk may not be mounted, or "".

        An original that was moved, not copied, is on the same disk as its rendition.
        """
        kept = self._fs.lstat(record.retained)
        if kept is not None and kept.st_ino == record.fingerprint.inode:
            return ""
        folder = next(each for each in record.target.parents if each.is_dir())
        return (
            "" if self._fs.names(folder) else f"{printable(folder)} is empty: is its disk mounted?"
        )


def is_missing(fs: FileSystem, record: Record) -> bool:
    """Return whether no file of the rendition's size is at its path; no file is read."""
    facts = fs.lstat(record.target)
    return facts is None or facts.st_size != record.rendition_size


def moved_record(record: Record, target: Path) -> Record:
    """Return the record of a swap whose rendition moved to `target`; an undo restores the original there."""
    same_name = record.source == record.target
    source = target if same_name else target.with_suffix(record.source.suffix)
    return replace(
        record,
        source=source,
        target=target,
        new=temp_beside(target, record.job_id),
        aside=None if record.aside is None else aside_beside(source, record.job_id),
    )


DAY_S = 86_400.0
TOO_EARLY = "Its days are over by the clock, but this machine was seen running for {:.1f} of {:g} days only."


class Expiry(StrEnum):
    """Outcome for an original whose retention ended; stable words."""

    REMOVED = "removed"
    ALREADY_GONE = "already_gone"
    STILL_KEPT = "still_kept"
    NOT_LIVED = "not_lived"

    @property
    def is_gone(self) -> bool:
        return self in {Expiry.REMOVED, Expiry.ALREADY_GONE}


@dataclass(frozen=True, slots=True)
class Expired:
    """One original whose retention ended. `freed` is in bytes."""

    record: Record
    outcome: Expiry
    reason: str
    freed: int = 0


def originals_folder(root: Path) -> Path:
    return own_folder(root) / "originals"


def retained_path(fs: FileSystem, journal: Journal, source: Path, job_id: str, now: float) -> Path:
    """Return a free path for an original: `<root>/.hevcq/originals/<date>/<its path below root>`.

    `now` is in wall seconds. An interrupted swap may have reserved the same path, so while any swap is
    under way, the job gets a folder of its own.
    """
    day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    relative = source.relative_to(journal.root)
    path = originals_folder(journal.root) / day / relative
    none_under_way = next(journal.under_way(), None) is None
    if none_under_way and fs.lstat(path) is None:
        return path
    return originals_folder(journal.root) / f"{day}.{job_id}" / relative


def expire(
    fs: FileSystem, journal: Journal, now: float, kept_s: Callable[[Record], float]
) -> Iterator[Expired]:
    """Remove the originals whose `keep_days` are over at `now` (wall seconds); yield each.

    The clock alone deletes nothing: `kept_s` returns for how many seconds this machine was seen running
    while it kept the original. If they are too few, the outcome is NOT_LIVED. An original stays while its
    rendition is damaged or may be on an unmounted disk (see `Renditions.find`).
    A kill between removing an original and its record is finished by the next call.
    """
    records = list(journal.kept())
    renditions = Renditions(fs, journal.root, records)
    for record in records:
        end, lived_s = record.expires_at, kept_s(record)
        if end is None or record.keep_days is None or end > now:
            continue
        if lived_s < record.keep_days * DAY_S:
            yield Expired(
                record, Expiry.NOT_LIVED, TOO_EARLY.format(lived_s / DAY_S, record.keep_days)
            )
        else:
            yield _expire(fs, journal, record, renditions)


def release(fs: FileSystem, journal: Journal, asked: Callable[[Record], bool]) -> Iterator[Expired]:
    """Remove the kept originals that `asked` selects, whatever their retention; yield each."""
    records = list(journal.kept())
    renditions = Renditions(fs, journal.root, records)
    for record in filter(asked, records):
        yield _expire(fs, journal, record, renditions)


def prune(fs: FileSystem, root: Path, retained: Path) -> None:
    """Remove the folders left empty by an original that is no longer kept."""
    top = originals_folder(root)
    folder = retained.parent
    while top in folder.parents:
        try:
            fs.rmdir(folder)
        except OSError:
            # Not empty, or gone already: nothing more to remove.
            return
        folder = folder.parent


def _expire(fs: FileSystem, journal: Journal, record: Record, renditions: Renditions) -> Expired:
    facts = fs.lstat(record.retained)
    if facts is None:
        journal.drop(record)
        prune(fs, journal.root, record.retained)
        return Expired(record, Expiry.ALREADY_GONE, "The original is no longer there.")
    rendition, unknown = renditions.find(record)
    if unknown:
        reason = f"{unknown} The original stays at {printable(record.retained)}."
        return Expired(record, Expiry.STILL_KEPT, reason)
    # A kill after a removal leaves a record whose path another original may have taken since.
    if not holds_original(fs, record.retained, record.fingerprint, record.source_sha256):
        return Expired(
            record,
            Expiry.STILL_KEPT,
            f"{printable(record.retained)} is not the original that was kept there, so it stays.",
        )
    fs.unlink(record.retained)
    fs.fsync_dir(record.retained.parent)
    journal.drop(record)
    prune(fs, journal.root, record.retained)
    reason = "Retention ended." if rendition else "Retention ended; its rendition is gone too."
    return Expired(record, Expiry.REMOVED, reason, facts.st_size)
