"""Apply the rules of libraries, and queue their videos by priority, order and budget.

Only a few jobs are queued at a time. So a video found later in a library of higher priority does not
wait behind thousands, and a library whose hours end has no jobs left in the queue.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from hevcq.domain.job import SETTLED, JobRecord, JobState
from hevcq.domain.media.facts import StreamKind
from hevcq.domain.schedule import Schedule, local_moment, midnight
from hevcq.library.scanning.scan import (
    FoundFile,
    FoundVideo,
    Rejected,
    RejectionCause,
    matcher,
)
from hevcq.ports.ledger import JobFilter, Ledger
from hevcq.settings.libraries import Library, Rule
from hevcq.sql.catalog import Catalog
from hevcq.usecases.ingest.decide import TO_PROCESS, Disposition, Item, by_file
from hevcq.usecases.ingest.forecast import Costs, work_of
from hevcq.util.clock import Clock
from hevcq.util.text import duration, printable, size

_cached_matcher = lru_cache(maxsize=256)(matcher)


def matches_rule(rule: Rule, video: FoundVideo) -> bool:
    """Return whether a video meets all conditions of a rule; a condition on an unknown fact fails.

    The first video stream counts.
    """
    stream = next(iter(video.info.of_kind(StreamKind.VIDEO)), None)
    codec = "" if stream is None else stream.codec.lower()
    if rule.codec and codec not in {name.lower() for name in rule.codec}:
        return False
    if rule.path and not _cached_matcher(rule.path)(video.path.relative_to(video.root).as_posix()):
        return False
    size, duration_s = video.fingerprint.size, video.info.duration_s or 0.0
    rate = size / duration_s if duration_s > 0 else None
    height = stream.video.display_size[1] if stream is not None and stream.video else None
    return all(
        (not least or (value is not None and value >= least))
        and (not most or (value is not None and value <= most))
        for value, least, most in (
            (rate, rule.min_bitrate, rule.max_bitrate),
            (height, rule.min_height, rule.max_height),
            (size, rule.min_size, rule.max_size),
        )
    )


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Applies a library's rules to the items of its plan; `usual` are the names of its own profiles.

    It is called for each video and each profile that the library may use. Rules decide only about new
    work, so items that were queued or done earlier stay as they are.
    """

    library: Library
    usual: frozenset[str]
    rates: Costs

    def __call__(self, video: FoundVideo, item: Item) -> Item | None:
        """Return the item, skipped if a rule or `min_saving` says so; None if rules choose another profile."""
        profile = item.profile.name if item.profile is not None else ""
        if item.disposition not in {Disposition.QUEUE, Disposition.SKIP, Disposition.REFUSE}:
            return item
        rules = enumerate(self.library.rules, 1)
        number, rule = next((each for each in rules if matches_rule(each[1], video)), (0, None))
        chosen = frozenset({rule.profile}) if rule is not None and rule.profile else self.usual
        if profile not in chosen:
            return None
        if rule is not None and rule.skip:
            return _skipped(item, f"Left alone by rule {number} of {self._name}.")
        return self._require_saving(item) if item.disposition is Disposition.QUEUE else item

    @property
    def _name(self) -> str:
        return f"library {printable(self.library.name)}"

    def _require_saving(self, item: Item) -> Item:
        """Return the item, skipped if it is expected to save less than `min_saving`."""
        if not (self.library.min_saving and item.plan and item.profile and item.info):
            return item
        larger, preset = item.profile.gates.minimum_saving is None, item.profile.video.preset
        work = work_of(item.plan, preset, item.info, keeps_larger=larger)
        output = self.rates.size([work])
        expected = item.size - (output.low + output.high) / 2
        least = self.library.min_saving
        if expected >= (least * item.size if least < 1 else least):
            return item
        about = size(max(0.0, expected))
        limit = f"{least:.0%}" if least < 1 else size(least)
        return _skipped(
            item,
            f"Expected to save about {about}, less than min_saving = {limit} of {self._name}.",
        )


def _skipped(item: Item, reason: str) -> Item:
    return replace(item, disposition=Disposition.SKIP, reason=reason, plan=None, target=None)


def old_enough(
    scan: Iterable[FoundFile | Rejected], least_s: float, now: float
) -> Iterator[FoundFile | Rejected]:
    """Yield the files of a scan; reject those changed less than `least_s` seconds (`min_age`) before `now`.

    `now` is in wall seconds. A file from the future (a camera's clock) counts as young.
    """
    for each in scan:
        if isinstance(each, FoundFile) and now - each.fingerprint.mtime_ns / 1e9 < least_s:
            reason = f"Changed less than {duration(least_s)} ago (min_age); taken later."
            yield Rejected(each.path, RejectionCause.GROWING, reason)
        else:
            yield each


QUEUED_AHEAD = 2
"""Queued jobs of libraries beyond two for each slot, so that no slot runs dry."""
FLEET_QUEUED = 1000
"""Queued jobs of libraries in a fleet's queue, whose depth scales the fleet."""
Rows = list[dict[str, object]]
WhyNot = Callable[[], str]
"""Return why a library may not begin anything now, as one sentence; "" if it may."""


def _saving_first(group: Sequence[Item]) -> float:
    return -sum(each.saving for each in group)


def largest_saving_first(items: Sequence[Item]) -> list[Item]:
    """Return the items ordered by their files' expected saving; items of one file stay together."""
    return [item for group in sorted(by_file(items), key=_saving_first) for item in group]


@dataclass(slots=True)
class Feed:
    """The new items of one library that wait to be queued. Items with a job never wait."""

    library: Library
    why_not: WhyNot = lambda: ""
    _waiting: deque[Sequence[Item]] = field(default_factory=deque)
    _known: list[Item] = field(default_factory=list)

    def add(self, items: Iterable[Item]) -> None:
        """Add items of a plan: new ones wait, `take_known` hands out the others."""
        mine = list(items)
        self._known += [each for each in mine if each.disposition is not Disposition.QUEUE]
        fresh = by_file([each for each in mine if each.disposition is Disposition.QUEUE])
        groups: list[Sequence[Item]] = [*self._waiting, *fresh]
        if self.library.order == "saving":
            groups.sort(key=_saving_first)
        self._waiting = deque(groups)

    def take_known(self) -> list[Item]:
        known, self._known = self._known, []
        return known

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take_next(self) -> Sequence[Item]:
        return self._waiting.popleft()

    def drop(self) -> list[Item]:
        left = [item for group in self._waiting for item in group]
        self._waiting.clear()
        return left


def most_queued(slots: int | None) -> int:
    """Return how many jobs of libraries may be queued for `slots` worker slots; None means a fleet."""
    return FLEET_QUEUED if slots is None else 2 * slots + QUEUED_AHEAD


def hand_out(feeds: Sequence[Feed], room: int) -> list[tuple[Feed, list[Item]]]:
    """Return the items that each feed may queue now: its known ones, and up to `room` new jobs in all.

    The feed with the highest priority takes all the room it can use; equal ones go in the given order.
    """
    shares = []
    for feed in sorted(feeds, key=lambda each: -each.library.priority):
        items = feed.take_known()
        room -= sum(1 for item in items if item.disposition in TO_PROCESS)
        while feed.waiting and room > 0 and not feed.why_not():
            group = feed.take_next()
            items += group
            room -= len(group)
        if items:
            shares.append((feed, items))
    return shares


def waiting_rows(feeds: Iterable[Feed]) -> Rows:
    """Return the number of waiting items of each library, as this process's row stores it."""
    return [
        {"library": each.library.name, "waiting": each.waiting, "reason": each.why_not()}
        for each in feeds
        if each.waiting
    ]


MEASURED_EVERY_S = 30.0
"""Seconds for which an answer is kept: computing it reads all placements of the library."""
HOUR_S = 3600.0


class Budget:
    """Schedule and daily hours of one library. Calling it returns why no job may begin now, or "".

    `timezone` is that of the schedule; empty means this machine's.
    """

    def __init__(
        self,
        library: Library,
        ledger: Ledger,
        catalog: Catalog,
        clock: Clock,
        timezone: str = "",
    ) -> None:
        self._library, self._ledger = library, ledger
        self._schedule = Schedule.parse(library.schedule, timezone)
        self._catalog, self._clock = catalog, clock
        self._answer, self._until = "", 0.0

    def __call__(self) -> str:
        library, now = self._library, self._clock.monotonic()
        if not (library.schedule or library.max_hours_per_day):
            return ""
        if now >= self._until:
            self._answer, self._until = self._measured(), now + MEASURED_EVERY_S
        return self._answer

    def _measured(self) -> str:
        library, name = self._library, printable(self._library.name)
        now = self._clock.now()
        if not self._schedule.open_at(now):
            opens = self._schedule.next_change(now)
            when = f"; it opens {local_moment(opens, now, self._schedule.zone)}" if opens else ""
            return f"Library {name} may run only {', '.join(library.schedule)} (schedule){when}."
        most = library.max_hours_per_day
        if most and self.hours_today() >= most:
            return f"Library {name} has used its {most:g} h of today (max_hours_per_day)."
        return ""

    def hours_today(self) -> float:
        """Return the hours that this library's encodes took since midnight, including running ones."""
        now = self._clock.now()
        since = midnight(now, self._schedule.zone)
        under = self._library.place_on_disk
        mine = {placement.job_id for placement in self._catalog.placements(under=under)}
        running = JobFilter(states=frozenset({JobState.RUNNING, JobState.SPLIT}))
        ended = JobFilter(states=SETTLED, updated_after=since)
        jobs = {job.job_id: job for each in (running, ended) for job in self._ledger.jobs(each)}
        return sum(_spent(job, since, now) for name, job in jobs.items() if name in mine) / HOUR_S


def _spent(job: JobRecord, since: float, now: float) -> float:
    if job.started_at is None:
        return 0.0
    end = job.finished_at if job.state in SETTLED and job.finished_at is not None else now
    return max(0.0, end - max(since, job.started_at))
