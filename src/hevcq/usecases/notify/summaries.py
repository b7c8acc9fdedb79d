"""Messages about many videos at once: a finished batch, and kept originals whose time ends soon."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hevcq.domain.job import JobState
from hevcq.ports.event_log import Happened
from hevcq.ports.ledger import JobLedger
from hevcq.sqlite.event_log import EventLog
from hevcq.usecases.context import LibraryPorts
from hevcq.usecases.placement.originals import kept_originals
from hevcq.util.clock import Clock
from hevcq.util.text import size

READER = "batch"
BUSY_S = 60.0
PAGE = 1000
SOON_DAYS = 3
OPEN = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.SPLIT})
ENDS = {"job.done": "done", "job.skipped": "skipped", "job.failed": "failed"}


class BatchWatch:
    """Add `batch.finished` once no job is open and some ended since the last time."""

    def __init__(self, log: EventLog, ledger: JobLedger, clock: Clock) -> None:
        self._log, self._ledger, self._clock = log, ledger, clock
        log.reader(READER)

    def step(self) -> bool:
        """Look once; return whether a batch was found finished. Raises StorageError or Unavailable."""
        known = self._log.reader(READER)
        if not self._log.after(known.seq, 1) or self._is_open():
            return False
        reader = self._log.begin(READER, BUSY_S)
        if reader is None:
            return False
        seq, found = reader.seq, list[Happened]()
        while page := self._log.after(seq, PAGE):
            found += [event for event in page if event.name in ENDS]
            seq = page[-1].seq
        is_worth_sending = any(event.name != "job.skipped" for event in found)
        # Told twice after a kill here, which is better than never.
        if is_worth_sending:
            self._log.add(self._summary(found))
        self._log.end(replace(reader, seq=seq))
        return is_worth_sending

    def _is_open(self) -> bool:
        return any(count for (_, state), count in self._ledger.counts().items() if state in OPEN)

    def _summary(self, found: list[Happened]) -> Happened:
        counts = Counter(ENDS[event.name] for event in found)
        made = [event for event in found if event.name == "job.done"]
        before = sum(event.before or 0 for event in made)
        after = sum(event.after or 0 for event in made)
        words = ", ".join(f"{n} {what}" for what, n in counts.items())
        if before:
            change = "less" if after <= before else "more"
            words += f"; {size(before)} became {size(after)}, {size(abs(before - after))} {change}"
        return Happened(
            "batch.finished",
            self._clock.now(),
            reason=f"{words}.",
            before=before,
            after=after,
            cpu_s=sum(event.cpu_s or 0.0 for event in made),
        )


def expiring(ports: LibraryPorts) -> str:
    """Return a sentence about the originals whose time ends within three days, or "".

    Raises StorageError if a record cannot be read.
    """
    until = ports.clock.now() + SOON_DAYS * 86_400.0
    found = [
        kept
        for kept in kept_originals(ports)
        if kept.record.expires_at is not None and kept.record.expires_at <= until
    ]
    if not found:
        return ""
    count = "1 original" if len(found) == 1 else f"{len(found)} originals"
    freed = size(sum(kept.size for kept in found))
    return f"{count} ({freed}) will be deleted within {SOON_DAYS} days; `hevcq originals list` names them."
