"""The CRF that a size chooses: it fits, it is the best one that does, or nothing is queued.

A forecast that samples narrow: what cannot be sampled, Ctrl-C, the time, and when it is enough.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from hevcq.cli.output.ingest_report import sample_sentence
from hevcq.domain.events import EventName
from hevcq.domain.profile import Profile
from hevcq.errors import DiskFull, SourceDamaged, Stopped, UsageError, WorkerUnfit
from hevcq.library.scanning.scan import FoundVideo
from hevcq.ports.catalog import Mode
from hevcq.ports.encoder import EncodeRequest, Estimate
from hevcq.usecases.ingest.crf_by_size import (
    LIMITS,
    Fitting,
    Sampling,
    next_to_fit,
    profile_to_fit,
)
from hevcq.usecases.ingest.decide import IngestPlan
from hevcq.usecases.ingest.forecast import NARROW, Range
from hevcq.usecases.ingest.request import Destination
from support.fakes.backend import HLS
from support.fakes.encoder import FakeEncoder
from support.ingest.run import NEVER, Bench, session, videos
from support.ingest.values import media_info
from support.media_facts import profile

HEVC = profile(video={"crf": 24.0})
MB = 1_000_000
SCALE = LIMITS[HEVC.video.codec]


class Shrinking(FakeEncoder):
    """Says that a video halves at CRF 24, and by 0.14 in natural logarithms a step."""

    tried: list[float]
    counts: list[int]

    def estimate(self, request: EncodeRequest, count: int, *, stop) -> Estimate | None:
        self.counts.append(count)
        self._step("estimate", stop)
        crf = request.plan.video.crf
        assert crf == request.profile.video.crf
        assert crf is not None
        self.tried.append(crf)
        return Estimate(request.source_size / 2 * math.exp(-0.14 * (crf - 24)), 0.02, 9)


@dataclass
class Fits:
    """Six videos of 1 MB; each sample takes `took_s`."""

    bench: Bench
    mode: Mode = Mode.BESIDE
    took_s: float = 1.0
    length_s: float = 10.0
    sample_s: float = 180.0
    profile: Profile = HEVC
    adopted: list[Profile] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.encoder = Shrinking(info=media_info())
        self.encoder.tried, self.encoder.counts = [], []
        self.encoder.during["estimate"] = lambda: self.bench.clock.advance(self.took_s)

    def refine(self, most: int) -> Fitting:
        bench, spare = self.bench, lambda _: nullcontext(self.bench.folder)
        tell = bench.events.append
        sampling = Sampling(self.encoder, spare, bench.clock, NEVER, tell, self.sample_s)
        return Fitting(sampling, self.profile, most, self.mode, self.adopted.append)

    def plan(self, most: int, more: Sequence[FoundVideo] = ()) -> IngestPlan:
        bench = self.bench
        found = [
            replace(
                each,
                info=media_info(seconds=self.length_s + number),
                fingerprint=replace(each.fingerprint, size=MB),
            )
            for number, each in enumerate(videos(bench, *(f"{n}.mp4" for n in range(6))))
        ]
        bench.where = Destination(self.mode)
        return session(bench, refine=self.refine(most)).plan([*found, *more])

    @property
    def said(self) -> list[str]:
        events = [e for e in self.bench.events if e.event is EventName.CRF_CHOSEN]
        return [each.reason or "" for each in events]


@pytest.fixture
def fits(bench: Bench) -> Fits:
    return Fits(bench)


@pytest.mark.parametrize("most", [4 * MB, 2 * MB, MB + MB // 2])
def test_all_renditions_fit_at_the_best_crf_that_can(fits, most):
    plan = fits.plan(most)

    (adopted,) = fits.adopted
    crf = adopted.video.crf
    assert most * 0.85 <= plan.output.high <= most
    assert SCALE.best <= crf <= SCALE.worst
    for item in plan.items:
        assert (item.profile, item.plan and item.plan.video.crf) == (adopted, crf)
    assert len(fits.said) == 1
    assert f"CRF {crf:g} fits in " in fits.said[0]
    assert f" of VMAF {'worse' if crf > 24 else 'better'}" in fits.said[0]


def test_half_is_half_of_the_sources(fits):
    plan = fits.plan(0)

    assert 2.5 * MB <= plan.output.high <= 3 * MB
    said = "CRF 25 fits in 2.9 MiB (the profile's own is 24, about 1 point of VMAF worse)"
    assert said in fits.said[0]


def test_where_not_even_the_lowest_quality_fits_nothing_is_adopted(fits):
    with pytest.raises(UsageError, match=r"Even CRF 32, the lowest .* Nothing was queued\."):
        fits.plan(MB // 2)

    assert fits.adopted == []
    assert max(fits.encoder.tried) == SCALE.worst


def test_what_fits_as_it_is_keeps_its_own_crf(fits):
    fits.plan(6 * MB)

    assert fits.adopted == fits.encoder.tried == []
    assert fits.said == ["All fits at any quality: CRF 24 stays."]


def test_what_a_replacement_leaves_as_it_is_counts(fits):
    fits.mode = Mode.REPLACE
    (large,) = videos(fits.bench, "unknown.mp4")
    mark = replace(large.fingerprint, size=2 * MB)
    large = replace(large, info=media_info(seconds=None), fingerprint=mark)

    plan = fits.plan(4 * MB, [large])

    assert plan.output.high <= 2 * MB
    with pytest.raises(
        UsageError, match=r"1\.9 MiB that stay as they are; only 0 Bytes may be used"
    ):
        fits.plan(2 * MB, [large])


def test_ctrl_c_ends_the_run_and_does_not_choose_by_too_little(fits):
    fits.encoder.during["estimate"] = NEVER.set

    with pytest.raises(Stopped, match="nothing was queued"):
        fits.plan(2 * MB)

    NEVER.clear()
    assert fits.adopted == []


@pytest.mark.parametrize("fault", ["slow", "damaged"])
def test_where_nothing_can_be_sampled_no_crf_is_guessed(fits, fault):
    fits.encoder.errors["estimate"] = [SourceDamaged("It is damaged.")] * 99
    fits.took_s = 200.0 if fault == "slow" else 1.0

    with pytest.raises(UsageError, match="No video could be sampled in time") as told:
        fits.plan(2 * MB)

    assert "--sample 6m" in told.value.remedy


def test_a_profile_that_asks_for_a_quality_gets_a_crf_instead(fits):
    asks = HEVC.model_dump(mode="json")
    fits.profile = Profile.model_validate(asks | {"video": asks["video"] | {"quality": 93}})

    fits.plan(2 * MB)

    assert fits.adopted[0].video.quality is None


@pytest.mark.parametrize(("length_s", "share"), [(15.0, 0.8), (150.0, 0.15), (3000.0, 0.05)])
def test_choosing_takes_a_small_share_of_what_the_encodes_take_and_says_how_long(
    fits, length_s, share
):
    fits.length_s, fits.sample_s = length_s, 0.0
    counts, clock = fits.encoder.counts, fits.bench.clock
    fits.encoder.during["estimate"] = lambda: clock.advance(counts[-1] * 0.8)

    fits.plan(2 * MB)

    assert sum(counts) * 3.0 <= share * 6 * length_s
    assert fits.said[0].startswith("Choosing a CRF by samples takes about ")
    assert "fits in" in fits.said[1]


@pytest.mark.parametrize("slope", [0.02, 0.06, 0.13, 0.3])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9, 3.0])
def test_the_search_ends_at_the_best_crf_or_at_the_worst(slope, share):
    size: Callable[[float], float] = lambda crf: math.exp(-slope * (crf - 24))  # noqa: E731
    found, crf = dict[float, Range](), 24.0
    while crf not in found:
        found[crf] = Range(0, size(crf))
        crf = next_to_fit(found, share, SCALE)
        assert len(found) < 12

    assert SCALE.best <= crf <= SCALE.worst
    assert size(crf) <= share or crf == SCALE.worst
    better = size(crf - SCALE.step)
    assert better > share * 0.96 or crf == SCALE.best
    assert all(a != b for a, b in pairwise(found))


def test_one_profile_of_files_that_software_encodes_is_needed():
    with pytest.raises(UsageError, match=r"exactly one profile, not 2 \(hevc, hls\)"):
        profile_to_fit([HEVC, HLS])
    with pytest.raises(UsageError, match="the profile hls makes none"):
        profile_to_fit([HLS])
    assert profile_to_fit([HEVC]) == HEVC


class Dry:
    """A dry run of some videos of 1 MB that samples for a minute; each sample takes 10 s."""

    def __init__(self, bench: Bench, videos: int = 4) -> None:
        self.bench, self.count = bench, videos
        bench.encoder.during["estimate"] = lambda: bench.clock.advance(10.0)

    def plan(self, seconds: float = 60.0, length_s: float | None = 10.0) -> IngestPlan:
        bench, spare = self.bench, lambda _: nullcontext(self.bench.folder)
        refine = Sampling(bench.encoder, spare, bench.clock, NEVER, bench.events.append, seconds)
        found = [
            replace(each, info=media_info(seconds=length_s and length_s + number))
            for number, each in enumerate(videos(bench, *(f"{n}.mp4" for n in range(self.count))))
        ]
        return session(bench, refine=refine).plan(found)

    @property
    def tries(self) -> int:
        return self.bench.encoder.calls.count("estimate")


@pytest.fixture
def dry(bench: Bench) -> Dry:
    return Dry(bench)


def width(plan: IngestPlan) -> float:
    return (plan.output.high - plan.output.low) / (plan.output.high + plan.output.low)


def test_it_ends_as_soon_as_the_sum_is_known(dry):
    dry.count = 40
    plain = width(dry.plan(seconds=0.0))

    plan = dry.plan(seconds=1e6)

    assert dry.tries == plan.sampled < 40
    assert width(plan) <= NARROW < plain
    assert plan.output is not None
    half = sum(item.size for item in plan.items) / 2
    assert sum(plan.output) / 2 == pytest.approx(half, rel=NARROW)
    assert (
        sample_sentence(plan)
        == f"Based on samples of {plan.sampled} of 40; {40 - plan.sampled} not needed."
    )


def test_after_its_time_it_begins_no_further_video(dry):
    dry.bench.encoder.estimates = [None, Estimate(1e5, 0.5, 9)]

    plan = dry.plan(seconds=15.0)

    assert (dry.tries, plan.sampled) == (2, 1)
    said = "Based on samples of 1 of 4; 3 not in time: a longer --sample narrows"
    assert sample_sentence(plan).startswith(said)
    left = [each.eta_s for each in dry.bench.events if each.event is EventName.SAMPLE_PROGRESS]
    assert left == [15.0, 5.0, 0.0, 0.0]


@pytest.mark.parametrize("error", [DiskFull("Full."), WorkerUnfit("No ffmpeg.")])
def test_a_machine_that_cannot_sample_is_an_error(dry, error):
    dry.bench.encoder.errors["estimate"] = [error]

    with pytest.raises(type(error)):
        dry.plan()
