"""Marks that say how pictures are to be shown, wherever a file keeps them: none is overlooked."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import ENCODER, ffmpeg
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan, Refuse
from hevcq.domain.planning.planner import make_plan
from support.clips import make_clip
from support.media_facts import profile

SPHERE = (
    b"<rdf:SphericalVideo><GSpherical:StitchingSoftware>test</GSpherical:StitchingSoftware>"
    b"<GSpherical:Spherical>true</GSpherical:Spherical><GSpherical:Stitched>true"
    b"</GSpherical:Stitched><GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType>"
    b"</rdf:SphericalVideo>"
)
SPHERE_BOX = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
"""https://github.com/google/spatial-media/blob/master/docs/spherical-video-rfc.md"""


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


def test_a_video_all_around_is_refused_unless_its_mark_may_go(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, audio=False)
    _put_into_track(clip, b"uuid" + SPHERE_BOX + SPHERE)

    assert refusal(clip) == "policies.spherical"
    plan = make_plan(profile("hevc", policies={"spherical": "drop"}), look(clip))
    assert isinstance(plan, EncodePlan)
    assert any("spherical" in notice for notice in plan.notices)


def _put_into_track(clip: Path, box: bytes) -> None:
    """Put a box at the end of the only track of an MP4 whose index comes last."""
    content = bytearray(clip.read_bytes())
    box = struct.pack(">I", 4 + len(box)) + box
    movie = content.rindex(b"moov") - 4
    track = content.index(b"trak", movie) - 4
    end = track + struct.unpack_from(">I", content, track)[0]
    for at in (movie, track):
        struct.pack_into(">I", content, at, struct.unpack_from(">I", content, at)[0] + len(box))
    content[end:end] = box
    clip.write_bytes(bytes(content))
