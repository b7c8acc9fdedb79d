"""Read videos whole to find damage and bit rot: other bytes, though time and size are the same.

Each file is read once for its digest, at a limited rate. ffmpeg reads it too, unless it has read the same
bytes before, at the same depth. So only the first run takes long.
"""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from hevcq.domain.keys import MASTER
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.profile import Profile, VideoCodec
from hevcq.domain.profile_sections import Gates, Policies, Preflight, VideoRecipe
from hevcq.errors import (
    HevcqError,
    Interruption,
    MediaRefused,
    SourceDamaged,
    SourceUnreadable,
    WorkerUnfit,
)
from hevcq.library.filesystem import Pace, fingerprint_of, forget_cached, open_regular, same_bytes
from hevcq.library.scanning.scan import PROBLEMS, Filter, FoundFile, Rejected, RejectionCause, find
from hevcq.ports.catalog import Checked, Depth, Fingerprint, Happened, Health, Spot
from hevcq.ports.encoder import TRIMMED
from hevcq.sql.catalog import HealthRecords
from hevcq.sql.event_log import EventLog
from hevcq.usecases.context import Tools
from hevcq.util.text import counted, printable, reason_of, timecode

READ = 1 << 20
RAGGED = frozenset({"mpeg"})
AS_RECORDED = "Only its ends or joints are ragged, as those of recordings are."
RAGGED_S = 1.5
"""Seconds at the start of an untrimmed recording in which frames may lack their reference frames."""
ROTTEN = (
    "Its bytes changed, though neither time nor size did: bit rot. Put a copy back; "
    "if you changed it on purpose, `touch` it."
)
REPEATABLE = frozenset({Health.SOUND, Health.DAMAGED})
"""Results that ffmpeg would give again for the same bytes."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file to read, or a path that cannot be read (`problem`)."""

    path: Path
    fingerprint: Fingerprint
    problem: str = ""


@dataclass
class VideoCheck:
    """One run over some folders: reads `share` of all bytes, files with the oldest check first.

    `bytes_s` limits the average bytes per second (0: no limit). `total` is set before `run` yields its
    first file.
    """

    tools: Tools
    stop: threading.Event
    roots: tuple[Path, ...]
    decode: bool = False
    share: Fraction = Fraction(1)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    bytes_s: float = 0.0
    on_file: Callable[[int, int, Path], None] = lambda _number, _total, _path: None
    on_checked: Callable[[Checked, Checked | None], None] = lambda _now, _before: None
    """Called with a file's result and its former result, just before the result is recorded."""
    total: int = 0
    earlier: list[Checked] = field(default_factory=list)
    """The results of the interrupted run, for the report."""

    def __post_init__(self) -> None:
        self._pace = Pace(self.tools.clock, self.stop, self.bytes_s)
        self._depth = Depth.DECODE if self.decode else Depth.DEMUX
        self._records = HealthRecords(self.tools.catalog.database)

    def run(self) -> Generator[Checked, None, None]:
        """Read the files that are due; yield each result once it is recorded.

        Raises Stopped, WorkerUnfit or StorageError; the next run of the same request resumes there.
        """
        self.tools.encoder.version()  # a missing ffmpeg must not count as damage
        files = sorted(self._list_files(), key=lambda each: os.fsencode(each.path))
        known = dict(self._records.checked([each.path for each in files]))
        key = self._round_key()
        began = self._records.round_began(key)
        if began is None:
            began = self.tools.clock.now()
            self._records.begin_round(key, began)
        due = list(self._due(files, known, began))
        self.total = len(due)
        for number, each in enumerate(due, 1):
            before = known.get(each.path)
            unchanged = before is not None and same_bytes(before.fingerprint, each.fingerprint)
            if before is not None and before.at >= began and unchanged:
                self.earlier.append(before)
                continue
            self.on_file(number, self.total, each.path)
            checked = self._check(each, before)
            if checked is not None:
                self.on_checked(checked, before)
                self._records.record(checked)
                yield checked
        self._records.end_round(key)

    def _round_key(self) -> str:
        """Return a key of this request, by which the next run of the same request resumes it."""
        facts = sorted(self.roots), self._depth, self.share, self.include, self.exclude
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def _list_files(self) -> Iterator[_File]:
        """Yield every video below the roots, including renditions and unreadable files."""
        for item in find(self.roots, Filter(include=self.include, exclude=self.exclude)):
            if isinstance(item, FoundFile):
                yield _File(item.path, item.fingerprint)
            elif item.cause is RejectionCause.OWN_RENDITION or item.cause in PROBLEMS:
                yield from _rejected(item)

    def _due(
        self, files: Sequence[_File], known: dict[Path, Checked], began: float
    ) -> Iterator[_File]:
        """Yield files with the oldest check until `share` of all bytes is reached; this round's files count."""
        if self.share >= 1:
            yield from files
            return

        def last(each: _File) -> float:
            before = known.get(each.path)
            return 0.0 if before is None else before.at

        this_round = [each for each in files if last(each) >= began]
        rest = sorted((each for each in files if last(each) < began), key=last)
        room = self.share * sum(each.fingerprint.size for each in files)
        for each in (*this_round, *rest):
            if room <= 0:
                return
            room -= each.fingerprint.size
            yield each

    def _check(self, file: _File, before: Checked | None) -> Checked | None:
        """Read one file; None if it was deleted or changed meanwhile, which leaves it to a later run."""
        now, path = self.tools.clock.now(), file.path
        fresh = Checked(
            path, file.fingerprint, "", self._depth, Health.UNREADABLE, file.problem, now
        )
        if file.problem:
            return fresh
        try:
            digest = self._digest(path)
            after = fingerprint_of(path.lstat())
        except FileNotFoundError:
            return None
        except OSError as error:  # the disk cannot return its bytes (EIO)
            return replace(
                fresh, detail=_unreadable(path, error), sha256=before.sha256 if before else ""
            )
        if not same_bytes(after, file.fingerprint):
            return None
        return self._compared(replace(fresh, sha256=digest), before)

    def _compared(self, fresh: Checked, before: Checked | None) -> Checked:
        """Compare the digest with the file's former one; let ffmpeg read bytes that it has not read yet."""
        same_file = before is not None and same_bytes(before.fingerprint, fresh.fingerprint)
        if before is not None and before.sha256 and same_file:
            if fresh.sha256 != before.sha256:
                return replace(fresh, sha256=before.sha256, health=Health.ROTTEN, detail=ROTTEN)
            as_deep = before.depth is Depth.DECODE or fresh.depth is Depth.DEMUX
            if as_deep and before.health in REPEATABLE:
                return replace(before, at=fresh.at)
        return self._decoded(fresh)

    def _digest(self, path: Path) -> str:
        digest = hashlib.sha256()
        with os.fdopen(open_regular(path), "rb", buffering=0) as reading:
            forget_cached(reading.fileno())
            while block := reading.read(READ):
                self._pace.spend(len(block))
                digest.update(block)
        return digest.hexdigest()

    def _decoded(self, fresh: Checked) -> Checked:
        """Let ffmpeg read the file whole; return its result."""
        info: MediaInfo | None = None
        try:
            try:
                info = self.tools.encoder.probe(str(fresh.path), stop=self.stop)
                self._preflight(fresh, str(fresh.path), info)
            except SourceDamaged as error:
                return self._judge_trimmed(fresh, info, error)
        except SourceUnreadable as error:
            return replace(fresh, health=Health.UNREADABLE, detail=error.message)
        except (Interruption, WorkerUnfit):
            raise
        except MediaRefused:
            pass  # refused by a policy for encodes, which is no damage
        except HevcqError as error:
            return replace(fresh, health=Health.UNREADABLE, detail=str(error), sha256="")
        finally:
            self._pace.spend(fresh.fingerprint.size)  # ffmpeg read it at its own speed
        return replace(fresh, health=Health.SOUND, detail="")

    def _preflight(self, fresh: Checked, location: str, info: MediaInfo) -> None:
        profile, stop = _profile(fresh.depth), self.stop
        self.tools.encoder.preflight(location, info, profile, stop=stop)

    def _judge_trimmed(
        self, fresh: Checked, info: MediaInfo | None, error: SourceDamaged
    ) -> Checked:
        """Judge a recording by the trimmed copy that an encode would use, without ragged ends and joints.

        A file that no encode would accept stays damaged. Raises DiskFull without room for the copy.
        """
        if info is None or info.format_name not in TRIMMED:
            return self._damaged(fresh, info, error)
        encoder, stop = self.tools.encoder, self.stop
        location = str(fresh.path)
        with self.tools.scratch(fresh.fingerprint.size) as folder:
            try:
                copy = encoder.trim_recording(location, info, folder, stop=stop)
            except (MediaRefused, SourceDamaged):
                return self._damaged(fresh, info, error)
            except OSError as problem:
                return replace(fresh, detail=_unreadable(fresh.path, problem), sha256="")
            if copy is None:
                return self._damaged(fresh, info, error)
            self._pace.spend(
                2 * fresh.fingerprint.size
            )  # one read to copy it, one to check the copy
            try:
                copy_info = encoder.probe(str(copy.path), stop=stop)
                self._preflight(fresh, str(copy.path), copy_info)
            except (SourceDamaged, SourceUnreadable) as damage:
                what = damage.message.partition(" is damaged: ")[2]
                detail = f"{printable(fresh.path)} is damaged: {what}" if what else error.message
                # Byte offsets in the copy are not those of the file.
                spots = tuple(replace(spot, byte=None) for spot in self._spots(copy.path))
                return replace(fresh, health=Health.DAMAGED, detail=detail, spots=spots)
        return replace(fresh, health=Health.SOUND, detail=" ".join(copy.notices) or AS_RECORDED)

    def _damaged(self, fresh: Checked, info: MediaInfo | None, error: SourceDamaged) -> Checked:
        spots = self._spots(fresh.path)
        start = (info.start_s if info else None) or 0.0
        ragged = info is not None and info.format_name in RAGGED and fresh.depth is Depth.DECODE
        if ragged and spots and all(_at_start(spot, start) for spot in spots):
            detail = "It begins inside a picture, as recordings do."
            return replace(fresh, health=Health.SOUND, detail=detail)
        return replace(fresh, health=Health.DAMAGED, detail=error.message, spots=spots)

    def _spots(self, path: Path) -> tuple[Spot, ...]:
        try:
            return self.tools.encoder.locate_damage(str(path), stop=self.stop)
        except Interruption:
            raise
        except HevcqError:
            return ()  # damaged, at unknown places


def _unreadable(path: Path, error: OSError) -> str:
    return f"{printable(path)} cannot be read: {reason_of(error)}."


def list_unsound(tools: Tools) -> list[Checked]:
    """Return the damaged, rotten or unreadable files that have not changed since, latest check first."""
    return [each for each in HealthRecords(tools.catalog.database).unsound() if _is_same(each)]


def damage_places(spots: Sequence[Spot]) -> str:
    """Return the places of damage, such as `at 0:00:12.4 (byte 123)`; "" if unknown."""
    return ", ".join(_place(spot) for spot in spots if spot.time_s is not None or spot.byte)


def summary(checked: Sequence[Checked]) -> str:
    counts = Counter(each.health for each in checked)
    by_health = [f"{counts[health]:,} {health.value}" for health in Health if counts[health]]
    files = counted(len(checked), "file")
    return f"{files} read: {', '.join(by_health)}." if checked else "No file was due."


def _place(spot: Spot) -> str:
    byte = "" if spot.byte is None else f"byte {spot.byte}"
    if spot.time_s is None:
        return f"at {byte}"
    time = timecode(max(0.0, spot.time_s))
    return f"at {time} ({byte})" if byte else f"at {time}"


def _is_same(checked: Checked) -> bool:
    try:
        return same_bytes(fingerprint_of(checked.path.lstat()), checked.fingerprint)
    except OSError:
        return False


def _at_start(spot: Spot, start: float) -> bool:
    return spot.time_s is not None and spot.time_s - start < RAGGED_S


def _rejected(item: Rejected) -> Iterator[_File]:
    """Yield an own rendition or an unreadable path; for a set, its MP4 files."""
    own = item.cause is RejectionCause.OWN_RENDITION
    is_set = own and item.path.name == MASTER
    for path in item.path.parent.rglob("*.mp4") if is_set else [item.path]:
        with suppress(OSError):
            yield _File(path, fingerprint_of(path.lstat()), "" if own else item.reason)


def _profile(depth: Depth) -> Profile:
    """Return a profile that only checks a source."""
    preflight = Preflight.DECODE if depth is Depth.DECODE else Preflight.DEMUX
    return Profile(
        name="check",
        description="reads a source whole",
        video=VideoRecipe(codec=VideoCodec.HEVC, crf=24.0),
        gates=Gates(preflight=preflight),
        policies=Policies(closed_captions="drop"),
    )


TOLD = "video.damaged"
REPEAT_REPORT_S = 86400.0
"""Seconds within which a file is reported only once."""


def report_damage(log: EventLog, checked: Checked, before: Checked | None) -> None:
    """Add an event for a newly damaged file; a kill before it is recorded repeats the event."""
    known = before is not None and before.health is checked.health
    changed = before is not None and before.fingerprint != checked.fingerprint
    if checked.health is Health.SOUND or (known and not changed):
        return
    why = checked.detail.removeprefix(f"{printable(checked.path)} is damaged: ")
    happened = Happened(
        TOLD,
        checked.at,
        source=str(checked.path),
        reason=f"{why[:1].upper()}{why[1:]} {damage_places(checked.spots)}".strip(),
        failure_class=checked.health.value,
    )
    log.add(happened, unless_within_s=REPEAT_REPORT_S)
