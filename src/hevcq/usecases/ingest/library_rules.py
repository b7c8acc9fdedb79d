"""Hand out what libraries have to do: by priority, in each library's order, within its budget.

Only a few jobs are in the queue at a time, so that what is found later in a library of higher priority
does not wait behind thousands, and a library that closes has nothing more queued.
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
    Matcher,
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


def fits(rule: Rule, video: FoundVideo) -> bool:
    """Return whether all conditions of a rule hold of a video; one on an unknown fact does not.

    The first video stream is the one that counts.
    """
    stream = next(iter(video.info.of_kind(StreamKind.VIDEO)), None)
    codec = "" if stream is None else stream.codec.lower()
    if rule.codec and codec not in {name.lower() for name in rule.codec}:
        return False
    if rule.path and not _patterns(rule.path)(video.path.relative_to(video.root).as_posix()):
        return False
    size, seconds_long = video.fingerprint.size, video.info.duration_s or 0.0
    rate = size / seconds_long if seconds_long > 0 else None
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


@lru_cache(maxsize=256)
def _patterns(patterns: tuple[str, ...]) -> Matcher:
    return matcher(patterns)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Decides whether an item of a library's plan is encoded; `usual` are its profiles' names.

    Called with each video and its item for each profile that the library may make. What was queued
    or done before is kept as it is: rules decide only about new work.
    """

    library: Library
    usual: frozenset[str]
    rates: Costs

    def __call__(self, video: FoundVideo, item: Item) -> Item | None:
        """Return the item, as skipped where a rule or `min_saving` says so; None: not this profile."""
        profile = item.profile.name if item.profile is not None else ""
        if item.disposition not in {Disposition.QUEUE, Disposition.SKIP, Disposition.REFUSE}:
            return item
        rules = enumerate(self.library.rules, 1)
        number, rule = next((each for each in rules if fits(each[1], video)), (0, None))
        wanted = frozenset({rule.profile}) if rule is not None and rule.profile else self.usual
        if profile not in wanted:
            return None
        if rule is not None and rule.skip:
            return _skipped(item, f"Left alone by rule {number} of {self._name}.")
        return self._worth(item) if item.disposition is Disposition.QUEUE else item

    @property
    def _name(self) -> str:
        return f"library {printable(self.library.name)}"

    def _worth(self, item: Item) -> Item:
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
        wanted = f"{least:.0%}" if least < 1 else size(least)
        return _skipped(
            item,
            f"Expected to save about {about}, less than min_saving = {wanted} of {self._name}.",
        )


def _skipped(item: Item, reason: str) -> Item:
    return replace(item, disposition=Disposition.SKIP, reason=reason, plan=None, target=None)


def old_enough(
    found: Iterable[FoundFile | Rejected], least_s: float, now: float
) -> Iterator[FoundFile | Rejected]:
    """Yield what a scan found, with files changed less than `least_s` (`min_age`) ago as rejected.

    `now` is wall seconds. A file of the future (a camera's clock) is as young as can be.
    """
    for each in found:
        young = isinstance(each, FoundFile) and now - each.fingerprint.mtime_ns / 1e9 < least_s
        if isinstance(each, FoundFile) and young:
            reason = f"Changed less than {duration(least_s)} ago (min_age); taken later."
            yield Rejected(each.path, RejectionCause.GROWING, reason)
        else:
            yield each


QUEUED_AHEAD = 2
"""Jobs of libraries in the queue beyond two for each slot, so that no slot waits for the next."""
FLEET_QUEUED = 1000
"""Jobs of libraries in a fleet's queue: its depth is what scales the fleet."""
Rows = list[dict[str, object]]
WhyNot = Callable[[], str]
"""Return why a library may not begin anything now, as one sentence; "" if it may."""


def _saving_first(group: Sequence[Item]) -> float:
    return -sum(each.saving for each in group)


def largest_saving_first(items: Sequence[Item]) -> list[Item]:
    """Return the items in the order of their files' expected saving, those of a file together."""
    return [item for group in sorted(by_file(items), key=_saving_first) for item in group]


@dataclass(slots=True)
class Feed:
    """What waits in one library. Items queued earlier never wait: their jobs exist."""

    library: Library
    why_not: WhyNot = lambda: ""
    _waiting: deque[Sequence[Item]] = field(default_factory=deque)
    _known: list[Item] = field(default_factory=list)

    def add(self, items: Iterable[Item]) -> None:
        """Add items of a plan; those that need no work are passed on with the known ones."""
        mine = list(items)
        self._known += [each for each in mine if each.disposition is not Disposition.QUEUE]
        fresh = by_file([each for each in mine if each.disposition is Disposition.QUEUE])
        groups: list[Sequence[Item]] = [*self._waiting, *fresh]
        if self.library.order == "saving":
            groups.sort(key=_saving_first)
        self._waiting = deque(groups)

    def known(self) -> list[Item]:
        """Return, once, the items that need no turn."""
        found, self._known = self._known, []
        return found

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def next_items(self) -> Sequence[Item]:
        return self._waiting.popleft()

    def drop(self) -> list[Item]:
        """Return all that still waits, and forget it."""
        left = [item for group in self._waiting for item in group]
        self._waiting.clear()
        return left


def most_queued(slots: int | None) -> int:
    """Return how many jobs of libraries may be in the queue: for `slots` here, None for a fleet."""
    return FLEET_QUEUED if slots is None else 2 * slots + QUEUED_AHEAD


def hand_out(feeds: Sequence[Feed], room: int) -> list[tuple[Feed, list[Item]]]:
    """Return what each feed may queue now: what is known already, and up to `room` new jobs.

    The highest priority goes first, and takes all the room it can use; among equals the feed that
    stands first.
    """
    given = []
    for feed in sorted(feeds, key=lambda each: -each.library.priority):
        items = feed.known()
        room -= sum(1 for item in items if item.disposition in TO_PROCESS)
        while feed.waiting and room > 0 and not feed.why_not():
            group = feed.next_items()
            items += group
            room -= len(group)
        if items:
            given.append((feed, items))
    return given


def listed(feeds: Iterable[Feed]) -> Rows:
    """Return what waits in these libraries, for the row of this process."""
    return [
        {"library": each.library.name, "waiting": each.waiting, "reason": each.why_not()}
        for each in feeds
        if each.waiting
    ]


MEASURED_EVERY_S = 30.0
"""Seconds for which an answer counts: reading it costs a walk over the library's placements."""
HOUR_S = 3600.0


class Budget:
    """Schedule and budget of one library; call it for why nothing more may begin, or "".

    `timezone` is that of its schedule; empty: this machine's.
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
        """Return the hours that this library's encodes took since midnight, running ones included."""
        now = self._clock.now()
        since = midnight(now, self._schedule.zone)
        under = self._library.place_on_disk
        mine = {placement.job_id for placement in self._catalog.placements(under=under)}
        running = JobFilter(states=frozenset({JobState.RUNNING, JobState.SPLIT}))
        ended = JobFilter(states=SETTLED, updated_after=since)
        jobs = {job.job_id: job for each in (running, ended) for job in self._ledger.jobs(each)}
        return sum(_spent(job, since, now) for name, job in jobs.items() if name in mine) / HOUR_S


def _spent(job: JobRecord, since: float, now: float) -> float:
    """Return the seconds of a job's encode that are after `since`."""
    if job.started_at is None:
        return 0.0
    ended = job.finished_at if job.state in SETTLED and job.finished_at is not None else now
    return max(0.0, ended - max(since, job.started_at))
