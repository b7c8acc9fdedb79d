"""Keep replaced originals: their paths, total size, and expiry (gate G11)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from hevcq.library.filesystem import FileSystem
from hevcq.library.names import own_folder
from hevcq.library.place import holds_original
from hevcq.library.replacement.journal import Journal, Record
from hevcq.library.replacement.moved_renditions import Renditions
from hevcq.util.text import printable

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

    `now` is in wall seconds. An interrupted swap may have reserved the same path, so while there is
    one, the job gets a folder of its own.
    """
    day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    relative = source.relative_to(journal.root)
    path = originals_folder(journal.root) / day / relative
    alone = next(journal.under_way(), None) is None
    if alone and fs.lstat(path) is None:
        return path
    return originals_folder(journal.root) / f"{day}.{job_id}" / relative


def expire(
    fs: FileSystem, journal: Journal, now: float, kept_s: Callable[[Record], float]
) -> Iterator[Expired]:
    """Remove the originals whose `keep_days` are over at `now` (wall seconds); yield each.

    The clock alone deletes nothing: `kept_s` returns for how many seconds an original was kept by what
    the machine has lived through, and one for which these are too few is NOT_LIVED. An original stays
    while its rendition is damaged or may be on a disk that is away (see `moved_renditions`).
    A kill between removing an original and its record is finished by the next call.
    """
    records = list(journal.kept())
    renditions = Renditions(fs, journal.root, records)
    for record in records:
        end, seen_s = record.expires_at, kept_s(record)
        if end is None or record.keep_days is None or end > now:
            continue
        if seen_s < record.keep_days * DAY_S:
            yield Expired(
                record, Expiry.NOT_LIVED, TOO_EARLY.format(seen_s / DAY_S, record.keep_days)
            )
        else:
            yield _expire(fs, journal, record, renditions)


def release(fs: FileSystem, journal: Journal, asked: Callable[[Record], bool]) -> Iterator[Expired]:
    """Remove the kept originals that are asked for, as `expire` does with those that are due."""
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
