"""The search for the CRF of a quality: safe, near the best one, and soon at its end."""

import pytest

from hevcq.domain.formats import VideoCodec
from hevcq.domain.quality import (
    MAX_PROBES,
    NEAR,
    SAMPLE_S,
    SAMPLE_WORK,
    SCALES,
    SIZE_SAMPLES,
    SIZE_WORK,
    TOLERANCE,
    Aim,
    Probe,
    Score,
    better_crf,
    enough_probes,
    sample_count,
    score_of,
    search,
    size_samples,
)


def searched(quality, start, target, codec=VideoCodec.HEVC):
    """Search; return what was tried and what was found."""
    found, tried = search(
        lambda crf: Score(quality(crf), quality(crf)), start, target, SCALES[codec]
    )
    return tried, found


@pytest.mark.parametrize("slope", [0.6, 0.9, 1.5])
@pytest.mark.parametrize("best", [16.0, 19.5, 24.0, 27.0])
@pytest.mark.parametrize("codec", [VideoCodec.HEVC, VideoCodec.AV1])
def test_the_search_ends_at_the_largest_crf_that_is_good_enough(slope, best, codec):
    tried, found = searched(lambda crf: 92.5 - slope * (crf - best), 24.0, 93.0, codec)

    assert found in tried
    assert tried[found].least >= 93.0 - TOLERANCE
    assert best - found < 1.0
    assert len(tried) <= MAX_PROBES


@pytest.mark.parametrize(
    ("best", "probes"), [(24.0, 2), (25.5, 2), (22.0, 2), (26.5, 3), (12.0, 3)]
)
def test_two_probes_are_enough_from_a_learned_crf_that_is_near(best, probes):
    def score(crf):
        return Score(92.5 - 0.9 * (crf - best), 92.5 - 0.9 * (crf - best))

    found, tried = search(score, 24.0, 93.0, SCALES[VideoCodec.HEVC], 2)

    assert len(tried) == probes
    assert 93.0 - TOLERANCE <= tried[found].least <= 93.0 + NEAR


def test_a_second_try_is_better_by_more_than_was_missed():
    aim = Aim(target=93, crf=24, sampled=93, probes=(), metric="", verified=90.3)
    scales = SCALES[VideoCodec.HEVC], SCALES[VideoCodec.AV1]

    assert [better_crf(aim, scale) for scale in scales] == [20.0, 17.0]
    lost = aim.model_copy(update={"verified": 60.0})
    assert better_crf(lost, scales[0]) == scales[0].best


def test_samples_that_differ_are_trusted_less_than_samples_alike():
    alike = score_of([[95.0] * 50] * 8)
    mixed = score_of([[99.0] * 50] * 7 + [[85.0] * 50])

    assert (alike.worst, alike.least) == (95.0, 95.0)
    assert mixed.least <= mixed.worst
    assert score_of([[99.0] * 50] * 7 + [[85.0] * 50]) == mixed


@pytest.mark.parametrize(("verified", "missed"), [(None, False), (91.6, False), (91.4, True)])
def test_a_video_has_missed_its_target_by_a_point_and_a_half(verified, missed):
    aim = Aim(target=93, crf=22.5, sampled=93.2, probes=(), verified=verified, metric="vmaf_v0.6.1")

    assert aim.missed is missed
    assert "93 was asked for" in aim.in_words()
    assert "CRF 22.5." in aim.in_words()
    tried = aim.model_copy(update={"probes": (Probe(crf=24, vmaf=93.2, size=None),)})
    assert "CRF 22.5 at the second try." in tried.in_words()


def test_a_search_that_runs_out_of_probes_takes_the_best_that_is_within_tolerance():
    def quality(crf: float) -> float:
        return 94.0 if crf <= 20 else 92.6 if crf <= 24 else 92.49

    tried, found = searched(quality, 20.0, 93.0)

    assert len(tried) == MAX_PROBES
    assert found == 24.0


@pytest.mark.parametrize(
    ("minutes", "former", "most"), [(5, 2, 5), (5, 3, 2), (10, 3, 3), (14, 0, 4), (45, 0, 5)]
)
def test_a_search_of_a_long_video_costs_eight_percent_of_its_encode(minutes, former, most):
    length_s = 60.0 * minutes
    assert enough_probes(length_s, former) == most
    if length_s >= 600:
        work_s = most * SAMPLE_WORK * SAMPLE_S * sample_count(length_s)
        work_s += SIZE_WORK * SAMPLE_S * size_samples(length_s, most)
        assert work_s <= 0.08 * length_s
    else:
        assert size_samples(length_s, most) == SIZE_SAMPLES
    assert size_samples(20.0, most) == 1
