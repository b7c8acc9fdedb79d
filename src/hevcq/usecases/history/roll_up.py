"""Sum what happened up by day, so that years of it take little space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hevcq.domain.job import SETTLED, JobRecord, JobState
from hevcq.domain.keys import path_of_key
from hevcq.domain.media.facts import StreamKind
from hevcq.domain.verdict import FailureClass
from hevcq.ports.event_log import DayKey, DaySum, Happened
from hevcq.ports.ledger import JobFilter, JobLedger
from hevcq.sqlite.catalog import Catalog
from hevcq.sqlite.event_log import EventLog
from hevcq.util.clock import Clock

READER = "statistics"
DAY_S = 86_400
PAGE = 1000
KEPT_S = 7 * DAY_S
"""Seconds that single events are kept for receivers that cannot be reached; ends of ingests for good."""
COUNTED = frozenset(
    {
        "job.done",
        "job.skipped",
        "job.retry",
        "job.failed",
        "video.placed",
        "video.replaced",
        "video.undone",
        "video.expired",
    }
)

LibraryRoot = Callable[[Path], Path | None]


class RollUp:
    """Add new events to the daily sums. `library_root` returns the library folder that holds a file."""

    def __init__(self, log: EventLog, catalog: Catalog, library_root: LibraryRoot) -> None:
        self._log, self._catalog, self._library_root = log, catalog, library_root

    def step(self) -> int:
        """Sum up everything new, then forget old events; return how many were read.

        Two processes at once add nothing twice: the sums move with the reader. Raises StorageError.
        """
        read = 0
        reader = self._log.reader(READER, from_start=True)
        while page := self._log.after(reader.seq, PAGE):
            sums: dict[DayKey, DaySum] = {}
            for event in page:
                if event.name in COUNTED:
                    key = self._key(event)
                    sums[key] = sums.get(key, DaySum()) + _sum(event)
            reader = replace(reader, seq=page[-1].seq)
            self._log.roll_up(reader, sums.items())
            reader = self._log.reader(READER)
            read += len(page)
        if read:
            self._log.forget(KEPT_S)
        return read

    def _key(self, event: Happened) -> DayKey:
        source, root = self._placed(event)
        return DayKey(
            day=int(event.at // DAY_S),
            name=event.name,
            root=root,
            profile=event.profile,
            codec=self._codec(source, event.before),
            failure_class=event.failure_class,
        )

    def _placed(self, event: Happened) -> tuple[Path | None, Path]:
        """Return an event's source in a library, None for an upload, and the library's folder.

        A key does not always give the path, and never a fleet's: the placement of this machine does.
        """
        placement = self._catalog.placement(event.job_id) if event.job_id else None
        source = source_path(event) if placement is None else placement.source
        if source is not None and (found := self._library_root(source)) is not None:
            return source, found
        root = event.root or (placement.root if placement is not None else Path("-"))
        return source, root

    def _codec(self, source: Path | None, size: int | None) -> str:
        """Return the codec of the source of `size` bytes as it was last probed, or "".

        A rendition that replaced it has another size, and may have been probed since.
        """
        known = None if source is None else self._catalog.cached([source]).get(source)
        if known is None or isinstance(known[1], str) or size not in {None, known[0].size}:
            return ""
        info = known[1]
        videos = info.of_kind(StreamKind.VIDEO)
        return videos[0].codec if videos else ""


def source_path(event: Happened) -> Path | None:
    """Return the path of an event's source in a library; None for an upload or a fleet's job."""
    if event.name.startswith("video."):
        return Path(event.source)
    path = path_of_key(event.source)
    return None if path is None else Path(path)


def _sum(event: Happened) -> DaySum:
    return DaySum(1, event.before or 0, event.after or 0, event.cpu_s or 0.0)


LEDGER_READER = "ledger"
BUSY_S = 300.0
OVERLAP_S = 3600.0
"""Seconds read again each time: indexes lag, and clocks of workers differ."""
EVERY_S = 60.0
"""Least seconds between two looks: each costs queries."""


class LedgerGather:
    """Add an event for each job that ended since the last look; the first look takes all that are kept."""

    def __init__(self, log: EventLog, ledger: JobLedger, clock: Clock) -> None:
        self._log, self._ledger, self._clock = log, ledger, clock

    def step(self) -> int:
        """Look once, if it is time; return how many events were added. Raises StorageError, Unavailable."""
        now = self._clock.now()
        if now - self._log.reader(LEDGER_READER).sent_at < EVERY_S:
            return 0
        reader = self._log.begin(LEDGER_READER, BUSY_S)
        if reader is None:
            return 0
        since = reader.sent_at - OVERLAP_S if reader.sent_at else 0.0
        wanted = JobFilter(states=SETTLED, updated_after=since or None)
        found = sorted(map(_happened, self._ledger.jobs(wanted)), key=_at)
        added = 0
        for start in range(0, len(found), PAGE):
            added += self._log.add_missing(found[start : start + PAGE])
        self._log.end(replace(reader, sent_at=now))
        return added


def _at(happened: Happened) -> float:
    return happened.at


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
    )
