"""Encode samples to narrow the forecast, or to choose the CRF at which all renditions fit a size.

Videos are drawn at random, large ones more often, because they decide the sum. Sampling ends once the
sum is known well enough, or after a time.
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
"""Videos sampled again at another CRF: the size ratio between two CRFs varies less than the sizes."""
MIN_SAMPLES, SAMPLES = 3, 60
"""Least samples of one video, and samples of all videos: many videos tell more than one whole video."""
SEVERAL, TRIAL_S = 3, 30.0
"""Videos that share the time left, and the least seconds for one of them."""
ENOUGH = "Ctrl-C stops sampling and shows what is known"
Estimates = Mapping[EncodeCost, Estimate]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Encodes samples for `seconds` in all, on `cores`.

    Setting `stop` ends the sampling only; if it is `for_crf`, it stops the ingest.
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
        """Return the items and the rates after sampling. Raises DiskFull or WorkerUnfit."""
        return items, self.sampled(items, rates)

    def sampled(
        self, items: Sequence[Item], rates: Costs, former: Estimates | None = None
    ) -> Costs:
        """Encode samples of some items; return the rates corrected by them.

        `former` are estimates at another CRF. A few of these videos are sampled again, and the change of
        their sizes is applied to the others.
        """
        works = [(item, work) for item in items if (work := work_ahead(item)) is not None]
        estimates, refined, begun = dict[EncodeCost, Estimate](), rates, 0
        until = self.clock.monotonic() + self.seconds
        most, sharing = max(MIN_SAMPLES, SAMPLES // max(1, len(works))), min(SEVERAL, len(works))
        for item, work in _drawn(works):
            if former is not None and work not in former:
                continue
            left_s = until - self.clock.monotonic()
            sizes = self._tell(items, refined, len(works), left_s)
            enough = sizes.is_narrow if former is None else len(estimates) >= TRIED_AGAIN
            # Without any sample at this CRF nothing could be chosen.
            needed = self.for_crf is not None and not estimates and begun < SEVERAL
            if (estimates and enough) or (left_s <= 0 and not needed):
                break
            begun += 1
            sample_s = self._sample_s(item, work, rates)
            count = max(1, min(most, int(left_s / sharing / sample_s)))
            try:
                estimate = self._estimate(item, count, max(TRIAL_S, left_s / sharing))
            except Interruption:
                if self.for_crf is not None:
                    raise Stopped(
                        "Interrupted before the CRF was chosen; nothing was queued."
                    ) from None
                self.stop.clear()  # go on with the samples so far
                break
            except (PermanentError, Unavailable):
                estimate = None  # the video's job will report the error
            if estimate is not None and estimate.size > 0:
                estimates[work] = estimate
                refined = rates.sampled(_with_former(estimates, former or {}))
        self._tell(items, refined, len(works), 0.0)
        return refined

    def _sample_s(self, item: Item, work: EncodeCost, rates: Costs) -> float:
        """Return the wall seconds of encoding one sample, at most those of the whole video."""
        assert item.info is not None
        assert item.info.duration_s is not None
        whole_s = rates.expected_cpu(replace(work, search=0.0)) / self.cores
        return whole_s * min(1.0, SIZE_WORK * SAMPLE_S / item.info.duration_s)

    def _estimate(self, item: Item, count: int, left_s: float) -> Estimate | None:
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
        """Emit the forecast size of all renditions and the seconds left; return the size."""
        sizes = with_forecast(items, rates, cores=1.0, workers=1).output or NOTHING
        self.emit(
            IngestEvent(
                event=EventName.SAMPLE_PROGRESS,
                at=self.clock.now(),
                counts={"sampled": len(rates.estimates), "files": of},
                forecast_size=(round(sizes.low), round(sizes.high)),
                reason=ENOUGH
                if self.for_crf is None
                else f"at CRF {self.for_crf:g}; a few are tried",
                # Later CRFs together get as long as this one.
                eta_s=max(0.0, left_s) + (0.0 if self.for_crf is None else self.seconds),
            )
        )
        return sizes


def _with_former(estimates: Estimates, former: Estimates) -> Estimates:
    """Add the former estimates of other videos, scaled by the mean change of the videos sampled again."""
    before = sum(former[work].size for work in estimates if work in former)
    ratio = sum(each.size for each in estimates.values()) / before if before else 1.0
    return {w: replace(e, size=e.size * ratio) for w, e in former.items()} | dict(estimates)


def _drawn(works: Sequence[tuple[Item, EncodeCost]]) -> list[tuple[Item, EncodeCost]]:
    """Return the items in random order, the same each time; an item of double size is drawn twice as soon."""
    drawing = random.Random(0)  # noqa: S311 - a forecast, no secret
    return sorted(works, key=lambda pair: drawing.expovariate(max(1.0, pair[1].megapixels)))


FITTED_S, FITTED_SHARE, FITTED_MIN_S = 180.0, 0.15, 30.0
"""Default seconds of sampling, their largest share of the time of all encodes, and the least seconds,
which the encodes' own time still limits."""
LIMITS: Mapping[VideoCodec, Scale] = {
    VideoCodec.HEVC: Scale(18, 32, 0.5),
    VideoCodec.H264: Scale(17, 30, 0.5),
    VideoCodec.VP9: Scale(24, 50, 1),
    VideoCodec.AV1: Scale(23, 52, 1),
}
"""The CRFs to choose from: lower ones look the same, and higher ones look bad (docs/quality.md)."""
MAX_TRIES = 5
PER_STEP = 0.13
"""Change of a size by one step of x265's CRF, in natural logarithms (docs/quality.md)."""
SPARE = 0.03
"""Part of the room, in natural logarithms, that may stay unused: less is not worth another try."""
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
    """Finds the best CRF of `profile` at which everything fits in `most` bytes (0: half of the sources).

    The renditions count, and in mode REPLACE also the originals that stay. `adopt` gets the profile
    with that CRF. If `sampling` is for 0 seconds, the time follows from the forecast of all encodes.
    """

    sampling: Sampling
    profile: Profile
    most: int
    mode: Mode
    adopt: Callable[[Profile], None]

    def __call__(self, items: Sequence[Item], rates: Costs) -> tuple[Sequence[Item], Costs]:
        """Return the items at the best CRF that fits, and the rates there.

        Raises UsageError if not even the lowest quality fits, DiskFull, WorkerUnfit or Stopped.
        """
        todo = [item for item in items if work_ahead(item) is not None]
        sources = sum(item.size for item in todo)
        stays = sum(map(self._final_bytes, items)) if self.most else 0
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
        tries, sizes = self._search(todo, rates, room)
        crf = min((each for each in sizes if sizes[each].high <= room), default=None)
        fits = "fits"
        if crf is None:
            crf, fits = max(sizes), "probably fits"
            if sizes[crf].middle > room:
                raise self._refusal(crf, sizes[crf], room, stays)
        self._say(self._explain(crf, room, fits))
        self.adopt(self.profile.with_asked((crf, None)))
        return self._at_crf(crf, items), tries[crf]

    def _search(
        self, todo: Sequence[Item], rates: Costs, room: float
    ) -> tuple[dict[float, Costs], dict[float, Range]]:
        """Return the rates and the total sizes at each CRF tried; if none fits, the worst CRF is tried too."""
        scale, tries, sizes = LIMITS[self.profile.video.codec], dict[float, Costs](), {}
        crf, first, clock = round_to_scale(self.profile.video.crf, scale), None, self.sampling.clock
        until = clock.monotonic() + self.sampling.seconds
        while crf not in tries:
            # Each CRF gets half of the time left, or one video: the first one shows how the videos differ.
            left_s = max(0.0, until - clock.monotonic())
            sampling = replace(self.sampling, seconds=left_s / 2, for_crf=crf)
            items = self._at_crf(crf, todo)
            costs = sampling.sampled(items, rates, first)
            if not costs.estimates:
                break
            tries[crf], first = costs, first or costs.estimates
            sizes[crf] = with_forecast(items, costs, 1.0, 1).output or NOTHING
            if len(tries) < MAX_TRIES:
                crf = next_to_fit(sizes, room, scale)
            elif min(each.high for each in sizes.values()) > room:
                crf = scale.worst
        if not tries:
            raise UsageError(
                "No video could be sampled in time, so which CRF fits is unknown. Nothing was queued.",
                remedy=f"Give it more time with `--sample {max(1, 2 * self.sampling.seconds / 60):.0f}m`, try when"
                " the machine is less busy, or choose a quality instead: `--quality good`.",
            )
        return tries, sizes

    def _final_bytes(self, item: Item) -> int:
        """Return the bytes that an item keeps after the ingest; 0 for one that is to be encoded."""
        if work_ahead(item) is not None:
            return 0
        if item.disposition in TO_PROCESS or self.mode is Mode.REPLACE:
            return item.size if item.output is None else round(item.output.high)
        done = item.disposition is Disposition.DONE and item.target is not None
        return size_of(item.target) if done and item.target is not None else 0

    def _at_crf(self, crf: float, items: Sequence[Item]) -> list[Item]:
        profile = self.profile.with_asked((crf, None))
        return [
            replace(item, profile=profile, plan=item.plan.with_crf(crf))
            if item.plan is not None and work_ahead(item) is not None
            else item
            for item in items
        ]

    def _refusal(self, worst: float, sizes: Range, room: float, stays: int) -> UsageError:
        kept = f" beside {size(stays)} that stay as they are" if stays else ""
        lowest = worst == LIMITS[self.profile.video.codec].worst
        tried = "chosen by size" if lowest else f"tried in {duration(self.sampling.seconds)}"
        return UsageError(
            f"Even CRF {worst:g}, the lowest quality {tried}, takes up to {size(round(sizes.high))}"
            f"{kept}; only {size(max(0, round(room)))} may be used. Nothing was queued.",
            remedy="Give more time with --sample, which narrows the range, allow more space, name fewer videos,"
            " or use a profile of smaller pictures, such as 720p.",
        )

    def _explain(self, crf: float, room: float, fits: str) -> str:
        """Return the chosen CRF in a sentence, compared with the profile's own."""
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


def next_to_fit(sizes: Mapping[float, Range], room: float, scale: Scale) -> float:
    """Return the CRF to try next; a CRF of `sizes` means that no better one can be expected to fit."""
    over = {
        crf: math.log(each.high / room) if room > 0 else math.inf for crf, each in sizes.items()
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
    # Rounded up, to the smaller size, so that it fits.
    return round_to_scale(math.ceil(goal / scale.step - 1e-9) * scale.step, scale)
