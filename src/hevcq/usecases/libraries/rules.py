"""Decide by a library's rules what becomes of a video that would be encoded. Pure: facts come in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from hevcq.domain.media.facts import MediaInfo, StreamKind
from hevcq.library.scanning.probe_files import FoundVideo
from hevcq.library.scanning.scan import FoundFile, Matcher, Rejected, RejectionCause, matcher
from hevcq.settings.libraries import Library, Rule
from hevcq.usecases.ingest.decide import Disposition, Item
from hevcq.usecases.ingest.forecast import Costs, work_of
from hevcq.util.text import duration, printable, size


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules ask of a video. `rate` (bytes a second) and `height` are None where unknown.

    `relative` is the path below the library.
    """

    relative: str
    size: int
    codec: str = ""
    rate: float | None = None
    height: int | None = None


def facts_of(relative: str, size: int, info: MediaInfo) -> Facts:
    """Return the facts of a probed file; its first video stream is the one that counts."""
    seconds_long = info.duration_s or 0.0
    rate = size / seconds_long if seconds_long > 0 else None
    stream = next(iter(info.of_kind(StreamKind.VIDEO)), None)
    codec = stream.codec if stream is not None else ""
    picture = stream.video if stream is not None else None
    height = picture.display_size[1] if picture is not None else None
    return Facts(relative, size, codec, rate, height)


def first_match(rules: Sequence[Rule], facts: Facts) -> int | None:
    """Return the position of the first rule whose conditions all hold, or None."""
    return next((at for at, rule in enumerate(rules) if holds(rule, facts)), None)


def holds(rule: Rule, facts: Facts) -> bool:
    """Return whether all conditions of a rule hold; one on an unknown fact does not."""
    if rule.codec and facts.codec.lower() not in {name.lower() for name in rule.codec}:
        return False
    if rule.path and not _patterns(rule.path)(facts.relative):
        return False
    return all(
        (not least or (value is not None and value >= least))
        and (not most or (value is not None and value <= most))
        for value, least, most in (
            (facts.rate, rule.min_bitrate, rule.max_bitrate),
            (facts.height, rule.min_height, rule.max_height),
            (facts.size, rule.min_size, rule.max_size),
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
        relative = video.path.relative_to(video.root).as_posix()
        facts = facts_of(relative, video.fingerprint.size, video.info)
        at = first_match(self.library.rules, facts)
        rule = None if at is None else self.library.rules[at]
        wanted = frozenset({rule.profile}) if rule is not None and rule.profile else self.usual
        if profile not in wanted:
            return None
        if rule is not None and rule.skip:
            return _skipped(item, f"Left alone by rule {(at or 0) + 1} of {self._name}.")
        return self._worth(item) if item.disposition is Disposition.QUEUE else item

    @property
    def _name(self) -> str:
        return f"library {printable(self.library.name)}"

    def _worth(self, item: Item) -> Item:
        if not (self.library.min_saving and item.plan and item.profile and item.info):
            return item
        output = self.rates.size([work_of(item.plan, item.profile.video.preset, item.info)])
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
