"""Add up events by day, and report from these sums what was saved when: years take little space."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from hevcq.domain.job import SETTLED, JobRecord, JobState
from hevcq.domain.keys import path_of_key
from hevcq.domain.profile import Profile
from hevcq.domain.verdict import FailureClass
from hevcq.errors import UsageError
from hevcq.ports.catalog import DayKey, DaySum, Happened
from hevcq.ports.ledger import JobFilter, Ledger
from hevcq.settings.libraries import Library
from hevcq.settings.model import Settings
from hevcq.sql.catalog import Catalog
from hevcq.sql.event_log import EventLog
from hevcq.usecases.context import FolderState, LibraryPorts, folder_state, watch_words
from hevcq.usecases.placement.originals import kept_originals
from hevcq.util.clock import Clock
from hevcq.util.text import printable

FIRST = date(2020, 1, 1)
SPANS = {"d": 1, "w": 7, "m": 30, "y": 365}
EPOCH = date(1970, 1, 1)
CSV_COLUMNS: list[object] = [
    "day", "event", "library", "profile", "codec", "failure_class",
    "count", "bytes_before", "bytes_after", "cpu_s", "scored", "vmaf_target", "vmaf",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a report: the renditions made, one for each profile of a video.

    Sizes are in bytes, and a source counts once for each rendition. `saved` is how much smaller the
    renditions are (negative: larger), whether originals were kept or not. `target` and `verified` are the
    mean requested and measured VMAF of the `scored` renditions that have both.
    """

    name: str
    renditions: int = 0
    before: int = 0
    after: int = 0
    saved: int = 0
    cpu_h: float = 0.0
    failed: int = 0
    scored: int = 0
    target: float = 0.0
    verified: float = 0.0


@dataclass(frozen=True, slots=True)
class Originals:
    """The originals kept now: their number, bytes, and when the first and the last expire (Unix seconds)."""

    count: int = 0
    size: int = 0
    first_end: float | None = None
    last_end: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The sums from `since` to `until`, both included, in UTC.

    `freed` is the bytes that replacements saved on disk, less those of restored originals.
    """

    since: date
    until: date
    total: Line
    skipped: int
    retries: int
    replaced: int
    undone: int
    freed: int
    failures: Mapping[str, int]
    days: tuple[Line, ...] = ()
    months: tuple[Line, ...] = ()
    libraries: tuple[Line, ...] = ()
    profiles: tuple[Line, ...] = ()
    codecs: tuple[Line, ...] = ()
    originals: Originals = field(default_factory=Originals)

    def to_dict(self) -> dict[str, object]:
        days = {"since": self.since.isoformat(), "until": self.until.isoformat()}
        return {"type": "stats", **asdict(self), **days}


Rows = Iterable[tuple[DayKey, DaySum]]


def day_of(at: float) -> date:
    """Return the day of Unix seconds in UTC."""
    return datetime.fromtimestamp(at, UTC).date()


def since_of(text: str, now: float) -> date:
    """Return the day that `90d`, `8w`, `6m`, `2y` (before now) or `2026-01-31` means. Raises UsageError."""
    span = re.fullmatch(r"(\d{1,4})([dwmy])", text.strip().lower())
    today = day_of(now)
    try:
        if span is not None:
            return max(FIRST, today - timedelta(days=int(span[1]) * SPANS[span[2]]))
        return date.fromisoformat(text.strip())
    except ValueError as error:
        problem = f"{text!r} is no time to begin at; write 90d, 8w, 6m, 2y or 2026-01-31."
        raise UsageError(problem) from error


def rows(log: EventLog, since: date, until: date) -> list[tuple[DayKey, DaySum]]:
    return list(log.sums((since - EPOCH).days, (until - EPOCH).days))


def report(log: EventLog, since: date, until: date, library: Callable[[DayKey], str]) -> Report:
    """Return the report from one day to another; `library` returns the library's name for a sum.

    Raises StorageError.
    """
    sums = rows(log, since, until)
    named = {
        name: [(key, value) for key, value in sums if key.name == name]
        for name in ("job.skipped", "job.retry", "job.failed", "video.replaced", "video.undone")
    }
    counts = {name: sum(value.count for _, value in those) for name, those in named.items()}
    failures = Counter[str]()
    for key, value in named["job.failed"]:
        failures[key.failure_class] += value.count
    (total,) = _lines(sums, lambda _key: "all") or (Line("all"),)
    return Report(
        since=_day(sums[0][0]) if sums else since,
        until=until,
        total=total,
        skipped=counts["job.skipped"],
        retries=counts["job.retry"],
        replaced=counts["video.replaced"],
        undone=counts["video.undone"],
        freed=_saved(named["video.replaced"]) - _saved(named["video.undone"]),
        failures=dict(sorted(failures.items(), key=lambda item: (-item[1], item[0]))),
        days=_lines(sums, lambda key: _day(key).isoformat()),
        months=_lines(sums, lambda key: _day(key).isoformat()[:7]),
        libraries=_largest_first(_lines(sums, library)),
        profiles=_largest_first(_lines(sums, lambda key: key.profile)),
        codecs=_largest_first(_lines(sums, lambda key: key.codec or "unknown")),
    )


def csv_rows(sums: Rows, library: Callable[[DayKey], str]) -> list[list[object]]:
    return [
        [
            _day(key).isoformat(),
            key.name,
            library(key),
            key.profile,
            key.codec,
            key.failure_class,
            value.count,
            value.before,
            value.after,
            round(value.cpu_s, 1),
            value.scored,
            *_means(value),
        ]
        for key, value in sums
    ]


def _means(value: DaySum) -> tuple[float, float]:
    """Return the mean requested and measured VMAF; 0 without scored renditions."""
    count = max(1, value.scored)
    return round(value.target / count, 2), round(value.verified / count, 2)


def library_names(settings: Settings) -> Callable[[DayKey], str]:
    """Return a function that returns the library's name for a daily sum, or the folder's path."""
    names = {Path("-"): "uploads"} | {each.path: each.name for each in settings.libraries}
    return lambda key: printable(names.get(key.root, key.root))


def originals_now(ports: LibraryPorts) -> Originals:
    """Return the kept originals of all libraries. Raises StorageError and OSError."""
    kept = list(kept_originals(ports))
    ends = [each.record.expires_at for each in kept if each.record.expires_at is not None]
    size = sum(each.size for each in kept)
    return Originals(len(kept), size, min(ends, default=None), max(ends, default=None))


def _day(key: DayKey) -> date:
    return EPOCH + timedelta(days=key.day)


def _saved(those: Rows) -> int:
    return sum(value.before - value.after for _, value in those)


def _lines(sums: Rows, name_of: Callable[[DayKey], str]) -> tuple[Line, ...]:
    """Return a line of done and failed jobs for each name, sorted by name."""
    done, failed = defaultdict[str, DaySum](DaySum), Counter[str]()
    for key, value in sums:
        if key.name == "job.done":
            done[name_of(key)] += value
        elif key.name == "job.failed":
            failed[name_of(key)] += value.count
    lines = []
    for name in sorted({*done, *failed}):
        value = done[name]
        saved, hours = value.before - value.after, value.cpu_s / 3600
        made = (value.count, value.before, value.after, saved, hours)
        lines.append(Line(name, *made, failed[name], value.scored, *_means(value)))
    return tuple(lines)


def _largest_first(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    return tuple(sorted(lines, key=lambda line: (-line.saved, line.name)))


DAYS = 30


@dataclass(frozen=True, slots=True)
class Savings:
    """Bytes of sources and of their renditions, and the bytes saved each day, oldest first.

    `freed` is as in Report.
    """

    jobs: int
    before: int
    after: int
    freed: int
    by_day: tuple[tuple[date, int], ...]

    @property
    def saved(self) -> int:
        return self.before - self.after


def savings(log: EventLog, profiles: Mapping[str, Profile], now: float) -> Savings:
    """Return the savings of the last DAYS days by profiles that must save space.

    A rendition for streaming is made beside its source and saves nothing, so it does not count.
    """
    counted = {
        name for name, profile in profiles.items() if profile.gates.minimum_saving is not None
    }
    last = day_of(now)
    days = {last - timedelta(days=back): 0 for back in reversed(range(DAYS))}
    whole, freed = DaySum(), 0
    for key, value in rows(log, min(days), last):
        saved = value.before - value.after
        if key.name == "job.done" and key.profile in counted:
            whole += value
            days[_day(key)] += saved
        freed += {"video.replaced": saved, "video.undone": -saved}.get(key.name, 0)
    return Savings(whole.count, whole.before, whole.after, freed, tuple(days.items()))


@dataclass(frozen=True, slots=True)
class LibraryShown:
    """A library in a list; `line` has the sums of the requested days."""

    library: Library
    state: FolderState
    watched: str
    profiles: tuple[str, ...]
    line: Line


def libraries_of(
    settings: Settings, log: EventLog, now: float, days: int
) -> Sequence[LibraryShown]:
    """Return every library of the settings, with the sums of the last `days` days.

    It reads each folder, so it hangs if a file server is gone. Raises StorageError.
    """
    names = {library.path: library.name for library in settings.libraries}
    last = day_of(now)
    sums = report(log, last - timedelta(days=days), last, lambda key: names.get(key.root, ""))
    lines = {line.name: line for line in sums.libraries}
    return [
        _shown(settings, library, lines.get(library.name, Line(library.name)))
        for library in settings.libraries
    ]


def _shown(settings: Settings, library: Library, line: Line) -> LibraryShown:
    state = folder_state(library)
    watched = "not watched" if not library.watch else watch_words(state)
    return LibraryShown(
        library, state, watched, library.profiles or tuple(settings.ingest.profiles), line
    )


READER = "statistics"
DAY_S = 86_400
PAGE = 1000
KEPT_S = 7 * DAY_S
"""Seconds for which events are kept for receivers that cannot be reached; ends of ingests stay for ever."""
JOB_ENDS = frozenset({"job.done", "job.skipped", "job.retry", "job.failed"})
COUNTED = JOB_ENDS | {"video.placed", "video.replaced", "video.undone", "video.expired"}

LibraryRoot = Callable[[Path], Path | None]


class RollUp:
    """Adds new events to the daily sums. `library_root` returns the library folder that holds a file."""

    def __init__(self, log: EventLog, catalog: Catalog, library_root: LibraryRoot) -> None:
        self._log, self._catalog, self._library_root = log, catalog, library_root

    def step(self) -> int:
        """Add all new events to the sums, then delete old events; return how many events were read.

        The reader's position and the sums change in one transaction, so two processes add nothing twice.
        Raises StorageError.
        """
        read = 0
        reader = self._log.reader(READER, from_start=True)
        while page := self._log.after(reader.seq, PAGE):
            sums = defaultdict[DayKey, DaySum](DaySum)
            for event in page:
                if event.name in COUNTED:
                    sums[self._key(event)] += _sum(event)
            reader = replace(reader, seq=page[-1].seq)
            self._log.roll_up(reader, sums.items())
            reader = self._log.reader(READER)
            read += len(page)
        if read:
            self._log.forget(KEPT_S)
        return read

    def _key(self, event: Happened) -> DayKey:
        source, root = self._source_and_root(event)
        return DayKey(
            day=int(event.at // DAY_S),
            name=event.name,
            root=root,
            profile=event.profile,
            codec=self._codec(source, event.before),
            failure_class=event.failure_class,
        )

    def _source_and_root(self, event: Happened) -> tuple[Path | None, Path]:
        """Return an event's source in a library (None for an upload), and the library's folder.

        This machine's placement has the path; a key does not always, and a fleet's never.
        """
        placement = self._catalog.placement(event.job_id) if event.job_id else None
        source = source_path(event) if placement is None else placement.source
        if source is not None and (root := self._library_root(source)) is not None:
            return source, root
        root = event.root or (placement.root if placement is not None else Path("-"))
        return source, root

    def _codec(self, source: Path | None, size: int | None) -> str:
        """Return the codec of the source with `size` bytes as last probed, or "".

        A rendition that replaced it has another size, and may have been probed since.
        """
        codecs = {} if source is None else self._catalog.codecs([source])
        return next((codec or "" for (_, n), codec in codecs.items() if size in {None, n}), "")


def source_path(event: Happened) -> Path | None:
    """Return the path of an event's source in a library; None for an upload or a fleet's job."""
    if event.name.startswith("video."):
        return Path(event.source)
    path = path_of_key(event.source)
    return None if path is None else Path(path)


def _sum(event: Happened) -> DaySum:
    quality = (0, 0.0, 0.0)
    if event.target is not None and event.verified is not None:
        quality = (1, event.target, event.verified)
    return DaySum(1, event.before or 0, event.after or 0, event.cpu_s or 0.0, *quality)


LEDGER_READER = "ledger"
BUSY_S = 300.0
OVERLAP_S = 3600.0
"""Seconds before the last poll that are read again, because indexes lag and clocks of workers differ."""
EVERY_S = 60.0
"""Least seconds between two polls, because each costs queries."""


def gather_ends(log: EventLog, ledger: Ledger, clock: Clock) -> int:
    """Add an event for each job that ended since the last poll, if EVERY_S have passed; return how many.

    The first poll reads all ended jobs that the ledger has. Raises StorageError, Unavailable.
    """
    now = clock.now()
    if now - log.reader(LEDGER_READER).sent_at < EVERY_S:
        return 0
    reader = log.begin(LEDGER_READER, BUSY_S)
    if reader is None:
        return 0
    since = reader.sent_at - OVERLAP_S if reader.sent_at else 0.0
    jobs = ledger.jobs(JobFilter(states=SETTLED, updated_after=since or None))
    ends = sorted(map(_happened, jobs), key=lambda end: end.at)
    added = sum(log.add_missing(ends[n : n + PAGE]) for n in range(0, len(ends), PAGE))
    log.end(replace(reader, sent_at=now))
    return added


def _happened(job: JobRecord) -> Happened:
    names = {JobState.DONE: "job.done", JobState.SKIPPED: "job.skipped"}
    cancelled = job.failure_class is FailureClass.CANCELLED
    name = names.get(job.state, "job.cancelled" if cancelled else "job.failed")
    return Happened(
        name,
        job.finished_at or job.updated_at,
        job.job_id,
        job.profile,
        job.source.key,
        reason=job.reason,
        failure_class=job.failure_class.value if job.failure_class else "",
        before=job.source.size,
        after=job.rendition.size if job.rendition else None,
        cpu_s=job.cpu_s,
        target=job.rendition.target if job.rendition else None,
        verified=job.rendition.verified if job.rendition else None,
    )
