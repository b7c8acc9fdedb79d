"""Choose the CRF by what the renditions of a run may take together, from samples at several CRFs.

Videos are drawn by chance, large ones more often: they decide the sum, and what is true of the drawn ones
is then true of the others. It ends once the sum is known well enough, or after a time.
"""

import math
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.domain.formats import SOFTWARE, VideoCodec
from hevcq.domain.profile import Container, Profile
from hevcq.domain.quality import POINTS_PER_STEP, SAMPLE_S, SCALES, SIZE_WORK, Scale, round_to_scale
from hevcq.errors import Interruption, PermanentError, Stopped, Unavailable, UsageError
from hevcq.library.filesystem import size_of
from hevcq.ports.catalog import EncodeCost, Mode
from hevcq.ports.encoder import Encoder, EncodeRequest, Estimate, SpareFolder
from hevcq.usecases.ingest.decide import TO_PROCESS, Disposition, Item, with_forecast, work_ahead
from hevcq.usecases.ingest.forecast import NOTHING, Costs, Range
from hevcq.util.clock import Clock
from hevcq.util.text import counted, duration, size

TRIED_AGAIN = 3
"""Videos tried again at another CRF: by how much it changes a size differs less than the sizes do."""
MIN_SAMPLES, SAMPLES = 3, 60
"""Samples of one video at least, and of all together: many videos say more than much of one."""
SEVERAL, TRIAL_S = 3, 30.0
"""Videos that share what is left of the time, and seconds that one of them gets at least."""
ENOUGH = "Ctrl-C stops sampling and shows what is known"
Estimates = Mapping[EncodeCost, Estimate]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Samples for `seconds` in all, on `cores`.

    A set `stop` only ends the sampling, unless it is `for_crf`.
    """

    encoder: Encoder
    scratch: SpareFolder
    clock: Clock
    stop: threading.Event
    emit: Listener
    seconds: float
    cores: float = 1.0
    for_crf: float | None = None

    def __call__(self, items: Sequence[Item], rates: Costs) -> tuple[Sequence[Item], Costs]:
        """Return the items, and the rates by what samples of some show. Raises DiskFull or WorkerUnfit."""
        return items, self.sampled(items, rates)

    def sampled(
        self, items: Sequence[Item], rates: Costs, former: Estimates | None = None
    ) -> Costs:
        """Return the rates by what samples of some items show.

        `former` are estimates of them at another CRF: by a few tried again the others are known too.
        """
        works = [(item, work) for item in items if (work := work_ahead(item)) is not None]
        estimates, refined, begun = dict[EncodeCost, Estimate](), rates, 0
        until = self.clock.monotonic() + self.seconds
        most, sharing = max(MIN_SAMPLES, SAMPLES // max(1, len(works))), min(SEVERAL, len(works))
        for item, work in _drawn(works):
            if former is not None and work not in former:
                continue
            left_s = until - self.clock.monotonic()
            known = self._tell(items, refined, len(works), left_s)
            enough = known.is_known if former is None else len(estimates) >= TRIED_AGAIN
            # Of a CRF that no video was tried at nothing is known, and nothing could be chosen.
            needed = self.for_crf is not None and not estimates and begun < SEVERAL
            if (estimates and enough) or (left_s <= 0 and not needed):
                break
            begun += 1
            sample_s = self._sample_s(item, work, rates)
            count = max(1, min(most, int(left_s / sharing / sample_s)))
            try:
                estimate = self._try(item, count, max(TRIAL_S, left_s / sharing))
            except Interruption:
                if self.for_crf is not None:
                    raise Stopped(
                        "Interrupted before the CRF was chosen; nothing was queued."
                    ) from None
                self.stop.clear()  # what is known by now will do
                break
            except (PermanentError, Unavailable):
                estimate = None  # its job will say why
            if estimate is not None and estimate.size > 0:
                estimates[work] = estimate
                refined = rates.sampled(_with_former(estimates, former or {}))
        self._tell(items, refined, len(works), 0.0)
        return refined

    def _sample_s(self, item: Item, work: EncodeCost, rates: Costs) -> float:
        """Return the seconds that a sample takes on these cores; of a short video, at most all of it."""
        assert item.info is not None
        assert item.info.duration_s is not None
        whole_s = rates.expected_cpu(replace(work, search=0.0)) / self.cores
        return whole_s * min(1.0, SIZE_WORK * SAMPLE_S / item.info.duration_s)

    def _try(self, item: Item, count: int, left_s: float) -> Estimate | None:
        assert item.profile is not None
        assert item.plan is not None
        assert item.info is not None
        with self.scratch(0) as folder:
            request = EncodeRequest(
                profile=item.profile,
                plan=item.plan,
                info=item.info,
                location=str(item.path),
                output=folder / "sample.mkv",
                duration_s=item.info.duration_s,
                source_size=item.size,
                max_seconds=left_s,
            )
            return self.encoder.estimate(request, count, stop=self.stop)

    def _tell(self, items: Sequence[Item], rates: Costs, of: int, left_s: float) -> Range:
        """Say what all renditions take, as far as it is known, and how long it samples; return it."""
        known = with_forecast(items, rates, cores=1.0, workers=1).output or NOTHING
        self.emit(
            IngestEvent(
                event=EventName.SAMPLE_PROGRESS,
                at=self.clock.now(),
                counts={"sampled": len(rates.estimates), "files": of},
                forecast_size=(round(known.low), round(known.high)),
                reason=ENOUGH
                if self.for_crf is None
                else f"at CRF {self.for_crf:g}; a few are tried",
                # Other CRFs get as long as this one.
                eta_s=max(0.0, left_s) + (0.0 if self.for_crf is None else self.seconds),
            )
        )
        return known


def _with_former(estimates: Estimates, former: Estimates) -> Estimates:
    """Add the videos that were tried only before, changed as those that were tried again."""
    before = sum(former[work].size for work in estimates if work in former)
    ratio = sum(each.size for each in estimates.values()) / before if before else 1.0
    return {w: replace(e, size=e.size * ratio) for w, e in former.items()} | dict(estimates)


def _drawn(works: Sequence[tuple[Item, EncodeCost]]) -> list[tuple[Item, EncodeCost]]:
    """Return items in an order by chance, the same each time; one of double size is twice as early."""
    drawing = random.Random(0)  # noqa: S311 - a forecast, no secret
    return sorted(works, key=lambda pair: drawing.expovariate(max(1.0, pair[1].megapixels)))


FITTED_S, FITTED_SHARE, FITTED_MIN_S = 180.0, 0.15, 30.0
"""Seconds of sampling unless another time is asked for, and their share of all encodes' time at most; but
where the encodes take no longer than the least, as long as those."""
LIMITS: Mapping[VideoCodec, Scale] = {
    VideoCodec.HEVC: Scale(18, 32, 0.5),
    VideoCodec.H264: Scale(17, 30, 0.5),
    VideoCodec.VP9: Scale(24, 50, 1),
    VideoCodec.AV1: Scale(23, 52, 1),
}
"""The CRFs that a size may choose: better ones look the same, and worse ones look bad (docs/quality.md)."""
MAX_TRIES = 5
PER_STEP = 0.13
"""By how much, in natural logarithms, a step of x265's CRF changes a size (docs/quality.md)."""
SPARE = 0.03
"""What may stay free of the room, in natural logarithms: less is not worth another try."""
SEEN = 6.0
"""Points of VMAF that most people see side by side (docs/quality.md)."""


def profile_to_fit(profiles: Sequence[Profile]) -> Profile:
    """Return the one profile whose CRF a size can choose. Raises UsageError."""
    if len(profiles) != 1:
        names = ", ".join(each.name for each in profiles)
        raise UsageError(
            f"--fit and --half need exactly one profile, not {len(profiles)} ({names}); name one with"
            " --profile."
        )
    (profile,), video = profiles, profiles[0].video
    software = video.encoder == (SOFTWARE,) and video.codec in LIMITS
    if not software or profile.container is Container.HLS:
        raise UsageError(
            f"--fit and --half are for files that software encodes in {', '.join(LIMITS)}; the profile"
            f" {profile.name} makes none."
        )
    return profile


@dataclass(frozen=True, slots=True)
class Fitting:
    """Finds the best CRF of `profile` at which all fits in `most` bytes (0: in half of the sources).

    Counted are the renditions, and with mode REPLACE what stays as it is. `adopt` takes the profile
    with that CRF. If `sampling` is for 0 seconds, the time follows from what all encodes take.
    """

    sampling: Sampling
    profile: Profile
    most: int
    mode: Mode
    adopt: Callable[[Profile], None]

    def __call__(self, items: Sequence[Item], rates: Costs) -> tuple[Sequence[Item], Costs]:
        """Return the items at the CRF that was found, and the rates there.

        Raises UsageError if not even the lowest quality fits, DiskFull, WorkerUnfit or Stopped.
        """
        todo = [item for item in items if work_ahead(item) is not None]
        sources = sum(item.size for item in todo)
        stays = sum(map(self._stays, items)) if self.most else 0
        room = self.most - stays if self.most else sources / 2
        if not todo:
            if items:
                self._say("Nothing is left to encode, so no CRF is chosen by size.")
            return items, rates
        if sources <= room:
            self._say(f"All fits at any quality: CRF {self.profile.video.crf:g} stays.")
            return items, rates
        if not self.sampling.seconds:
            whole_s = sum(with_forecast(todo, rates, 1.0, 1).cpu) / 2 / self.sampling.cores
            spent_s = min(FITTED_S, max(FITTED_SHARE * whole_s, min(FITTED_MIN_S, whole_s)))
            self._say(f"Choosing a CRF by samples takes about {duration(spent_s)}.")
            sampling = replace(self.sampling, seconds=spent_s)
            return replace(self, sampling=sampling)(items, rates)
        tries, found = self._search(todo, rates, room)
        crf = min((each for each in found if found[each].high <= room), default=None)
        fits = "fits"
        if crf is None:
            crf, fits = max(found), "probably fits"
            if found[crf].middle > room:
                raise self._refusal(crf, found[crf], room, stays)
        self._say(self._meaning(crf, room, fits))
        self.adopt(self.profile.with_asked((crf, None)))
        return self._at(crf, items), tries[crf]

    def _search(
        self, todo: Sequence[Item], rates: Costs, room: float
    ) -> tuple[dict[float, Costs], dict[float, Range]]:
        """Return the rates and all sizes at the CRFs that were tried, the worst one if none fits."""
        scale, tries, found = LIMITS[self.profile.video.codec], dict[float, Costs](), {}
        crf, first, clock = round_to_scale(self.profile.video.crf, scale), None, self.sampling.clock
        until = clock.monotonic() + self.sampling.seconds
        while crf not in tries:
            # Each gets half of what is left, or one video: the first one says how the videos differ.
            left_s = max(0.0, until - clock.monotonic())
            sampling = replace(self.sampling, seconds=left_s / 2, for_crf=crf)
            tried = self._at(crf, todo)
            costs = sampling.sampled(tried, rates, first)
            if not costs.estimates:
                break
            tries[crf], first = costs, first or costs.estimates
            found[crf] = with_forecast(tried, costs, 1.0, 1).output or NOTHING
            if len(tries) < MAX_TRIES:
                crf = next_to_fit(found, room, scale)
            elif min(each.high for each in found.values()) > room:
                crf = scale.worst
        if not tries:
            raise UsageError(
                "No video could be sampled in time, so which CRF fits is unknown. Nothing was queued.",
                remedy=f"Give it more time with `--sample {max(1, 2 * self.sampling.seconds / 60):.0f}m`, try when"
                " the machine is less busy, or choose a quality instead: `--quality good`.",
            )
        return tries, found

    def _stays(self, item: Item) -> int:
        """Return what an item takes afterwards that is not to be encoded."""
        if work_ahead(item) is not None:
            return 0
        if item.disposition in TO_PROCESS or self.mode is Mode.REPLACE:
            return item.size if item.output is None else round(item.output.high)
        done = item.disposition is Disposition.DONE and item.target is not None
        return size_of(item.target) if done and item.target is not None else 0

    def _at(self, crf: float, items: Sequence[Item]) -> list[Item]:
        profile = self.profile.with_asked((crf, None))
        return [
            replace(item, profile=profile, plan=item.plan.with_crf(crf))
            if item.plan is not None and work_ahead(item) is not None
            else item
            for item in items
        ]

    def _refusal(self, worst: float, found: Range, room: float, stays: int) -> UsageError:
        kept = f" beside {size(stays)} that stay as they are" if stays else ""
        lowest = worst == LIMITS[self.profile.video.codec].worst
        tried = "chosen by size" if lowest else f"tried in {duration(self.sampling.seconds)}"
        return UsageError(
            f"Even CRF {worst:g}, the lowest quality {tried}, takes up to {size(round(found.high))}"
            f"{kept}; only {size(max(0, round(room)))} may be used. Nothing was queued.",
            remedy="Give more time with --sample, which narrows the range, allow more space, name fewer videos,"
            " or use a profile of smaller pictures, such as 720p.",
        )

    def _meaning(self, crf: float, room: float, fits: str) -> str:
        own, scale = self.profile.video.crf, SCALES[self.profile.video.codec]
        lost = (crf - own) * POINTS_PER_STEP * SCALES[VideoCodec.HEVC].worst / scale.worst
        words = f"the profile's own is {own:g}"
        if round(abs(lost)):
            words += f", about {counted(round(abs(lost)), 'point')} of VMAF {'worse' if lost > 0 else 'better'}"
        if lost >= SEEN:
            words += ", which most people see side by side"
        return f"{self.profile.name}: CRF {crf:g} {fits} in {size(round(room))} ({words})."

    def _say(self, words: str) -> None:
        now = self.sampling.clock.now()
        self.sampling.emit(IngestEvent(event=EventName.CRF_CHOSEN, at=now, reason=words))


def next_to_fit(found: Mapping[float, Range], room: float, scale: Scale) -> float:
    """Return the CRF to try next; one that was tried if no better one can be expected to fit."""
    over = {
        crf: math.log(each.high / room) if room > 0 else math.inf for crf, each in found.items()
    }
    low = max((crf for crf, share in over.items() if share > 0), default=None)
    high = min((crf for crf, share in over.items() if share <= 0), default=None)
    step = PER_STEP * SCALES[VideoCodec.HEVC].worst / scale.worst
    if high is None:
        assert low is not None
        goal = low + max(scale.step, min(scale.worst, over[low] / step))
    elif over[high] >= -SPARE or (low is not None and high - low <= scale.step):
        return high
    elif low is None:
        goal = high + min(-scale.step, (over[high] + SPARE) / step)
    else:
        share = over[low] / (over[low] - over[high])
        goal = min(high - scale.step, max(low + scale.step, low + share * (high - low)))
    # Rounded to what is smaller, so that it fits.
    return round_to_scale(math.ceil(goal / scale.step - 1e-9) * scale.step, scale)
