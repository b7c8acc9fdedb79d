"""Marks that say how pictures are to be shown, wherever a file keeps them: none is overlooked."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import ENCODER, ffmpeg
from hevcq.domain.media import MediaInfo
from hevcq.domain.plan import Refuse
from hevcq.domain.planner import make_plan
from media_facts import profile
from support import make_clip


def look(path: Path) -> MediaInfo:
    return ENCODER.probe(str(path), stop=threading.Event())


def refusal(path: Path) -> str:
    plan = make_plan(profile("hevc"), look(path))
    assert isinstance(plan, Refuse), plan
    return plan.policy


def test_a_stereoscopic_layout_that_only_the_pictures_tell_is_seen(tmp_path: Path) -> None:
    side_by_side = ["-x264-params", "frame-packing=3"]
    clip = make_clip(tmp_path, extra=side_by_side, audio=False)

    assert refusal(clip) == "policies.stereo_3d"


def test_transparency_that_only_a_tag_tells_is_seen(tmp_path: Path) -> None:
    clip = make_clip(
        tmp_path,
        name="title.webm",
        codec="libvpx",
        pixel_format="yuva420p",
        audio=False,
        extra=["-vf", "format=yuva420p,colorchannelmixer=aa=0.5", "-auto-alt-ref", "0"],
    )

    assert refusal(clip) == "video.pixel_format"


@pytest.mark.parametrize("degrees", [90, 180])
def test_a_turn_that_only_some_pictures_tell_is_refused(degrees: int, tmp_path: Path) -> None:
    flat = make_clip(tmp_path, name="flat.mp4", audio=False)
    turned = tmp_path / "turned.mp4"
    orientation = f"h264_metadata=display_orientation=insert:rotate={degrees}"
    ffmpeg("-i", flat, "-c", "copy", "-bsf:v", orientation, turned)

    assert refusal(turned) == "video"
