"""How a seam is judged: its worst frame against the worst of what surrounds it."""

import math

import pytest

from hevcq.ffmpeg.verify.seams import FRAMES_PER_SIDE, MAX_SSIM_DROP, SEAM_FRAMES, ssim_drop

SOUND = [0.98] * (2 * FRAMES_PER_SIDE)


def with_frame(at: int, value: float) -> list[float]:
    return [*SOUND[:at], value, *SOUND[at + 1 :]]


@pytest.mark.parametrize("offset", range(-SEAM_FRAMES, SEAM_FRAMES))
def test_one_bad_frame_beside_the_seam_shows(offset):
    assert ssim_drop(with_frame(FRAMES_PER_SIDE + offset, 0.90), FRAMES_PER_SIDE) == pytest.approx(
        0.08
    )


def test_a_video_that_is_no_better_elsewhere_is_not_held_against_its_seam():
    assert (
        ssim_drop(with_frame(2, 0.90)[:FRAMES_PER_SIDE] + [0.91] * FRAMES_PER_SIDE, FRAMES_PER_SIDE)
        <= MAX_SSIM_DROP
    )


def test_a_frame_that_cannot_be_compared_is_as_bad_as_can_be():
    assert ssim_drop(with_frame(FRAMES_PER_SIDE, math.nan), FRAMES_PER_SIDE) > MAX_SSIM_DROP
