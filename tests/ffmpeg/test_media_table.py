"""Every sample clip: planned as the table says; and every one that can be is encoded and verified."""

import threading
from functools import cache
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import ENCODER, Pair, encoded
from hevcq.domain.certificate import Gate, Outcome
from hevcq.domain.media.facts import MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import EncodePlan, Skip
from hevcq.domain.planning.planner import make_plan
from hevcq.errors import SourceDamaged, SourceUnreadable
from support.clips import MEDIA, media_clip
from support.media_facts import profile

PROFILES = ("hevc", "720p", "1080p")
ENCODED = "encoded"
UNREADABLE = "unreadable"
DAMAGED = "damaged"
PLANNED = "encoded by make fidelity"
"""The suite only plans these: they are encoded as others are, or take long."""

_ALREADY = "skip:already_target"
_SMALL = "skip:smaller_than_box"
"""Streams already."""
_SOUND = "skip:no_video"

EXPECTED: dict[str, tuple[str, str, str]] = {
    "android-720p30-rot180.mp4": (PLANNED, PLANNED, PLANNED),
    "bbb-1080p24-15s.mp4": (PLANNED, PLANNED, PLANNED),
    "bbb-480p24-30s.mp4": (PLANNED, PLANNED, PLANNED),
    "bbb-720p25-5s.mp4": (PLANNED, PLANNED, PLANNED),
    "bbb-sar64_45-bpyramid.mp4": (PLANNED, PLANNED, PLANNED),  # shown at 1138x640
    "chapters-text-track.mp4": (ENCODED, PLANNED, PLANNED),
    "flir-portrait-vfr-bframes.mp4": (PLANNED, PLANNED, PLANNED),  # 1080x1440: as wide as the box
    "gopro-480p30-tmcd-gpmd.mp4": (PLANNED, PLANNED, PLANNED),
    "h264-high10-200x200.mp4": (ENCODED, PLANNED, PLANNED),
    "hevc-hdr10plus-phone-1080p.mp4": (_ALREADY, PLANNED, PLANNED),
    "iphone-320p-rot90-mebx.mov": (ENCODED, PLANNED, PLANNED),
    "iphone-hevc-dovi-editlist-mebx.mp4": (_ALREADY, PLANNED, PLANNED),
    "long-1080p30-6min-lowbitrate.mp4": (PLANNED, PLANNED, PLANNED),
    "made-audio-only.m4a": (_SOUND, _SOUND, _SOUND),
    "made-bitrot-480p24.mp4": (DAMAGED, _SMALL, _SMALL),
    "made-empty.mp4": (UNREADABLE, UNREADABLE, UNREADABLE),
    "made-h264-1080i25-tff.mp4": (PLANNED, PLANNED, PLANNED),
    "made-h264-10bit-hdr10-720p24.mkv": ("refused:policies.hdr", PLANNED, PLANNED),
    "made-h264-opengop-480p24.mkv": (PLANNED, PLANNED, PLANNED),
    "made-kitchen-sink.mkv": (ENCODED, PLANNED, PLANNED),
    "made-kitchen-sink.mp4": (ENCODED, PLANNED, PLANNED),
    "made-not-a-video.mp4": (UNREADABLE, UNREADABLE, UNREADABLE),
    "made-one-frame.mp4": (ENCODED, PLANNED, PLANNED),
    "made-pal-576p25-sar64_45.mkv": (PLANNED, PLANNED, PLANNED),
    "made-truncated60-moov-first.mp4": (DAMAGED, _SMALL, _SMALL),
    "made-truncated60-moov-last.mp4": (UNREADABLE, UNREADABLE, UNREADABLE),
    "made-truncated60.mkv": (DAMAGED, PLANNED, PLANNED),
    "made-vfr-gap-432p.mp4": (PLANNED, PLANNED, PLANNED),
    "nasa-2video-2audio-2sub.mp4": (ENCODED, PLANNED, PLANNED),
    "odd-321x241-yuv444.mp4": (ENCODED, PLANNED, PLANNED),
    "phone-720p-vfr-rot180.mp4": (PLANNED, PLANNED, _SMALL),
    "phone-720p30.mp4": (PLANNED, PLANNED, _SMALL),
    "sony-1080i50-avchd.mts": (ENCODED, PLANNED, PLANNED),
    "sub-ass.mkv": (PLANNED, PLANNED, PLANNED),
    "sub-pgs.mkv": (ENCODED, PLANNED, PLANNED),
    "sub-srt.mkv": (PLANNED, ENCODED, PLANNED),
    "traffic-432p12.mp4": (PLANNED, _SMALL, _SMALL),
}


def rows(*words: str) -> list[tuple[str, str]]:
    """Return (clip, profile) of every row whose expected outcome is one of `words`."""
    return [
        (clip, profile)
        for clip, outcomes in EXPECTED.items()
        for profile, outcome in zip(PROFILES, outcomes, strict=True)
        if outcome in words
    ]


QUICK = {
    "video": {"preset": "ultrafast"},
    "gates": {"minimum_saving": None},
}
"""A quick preset makes larger files, so the gates on size are not asked here."""


def encoded_clip(name: str, recipe_name: str, folder: Path) -> Pair:
    """Take one clip through the whole pipeline: probe, plan, pre-flight, encode."""
    place = folder / recipe_name
    place.mkdir(exist_ok=True)
    return encoded(media_clip(name), place, profile(recipe_name, **QUICK))


def probe(name: str) -> MediaInfo:
    return ENCODER.probe(str(media_clip(name)), stop=threading.Event())


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("renditions")


made_once = cache(encoded_clip)
"""Encodes a clip once a session, for the gates and for a closer look."""


def probed(made: Pair) -> MediaInfo:
    return ENCODER.probe(str(made.good), stop=threading.Event())


def test_the_table_lists_every_clip_and_no_other():
    media_clip("README.md")

    assert sorted(EXPECTED) == sorted(p.name for p in MEDIA.iterdir() if p.suffix != ".md")


@pytest.mark.parametrize("name", EXPECTED)
def test_each_clip_is_planned_as_the_table_says(name):
    expected = EXPECTED[name]
    if UNREADABLE in expected:
        with pytest.raises(SourceUnreadable, match=name.replace(".", r"\.")):
            probe(name)
        return
    info = probe(name)

    assert tuple(_planned(info, recipe) for recipe in PROFILES) == tuple(
        ENCODED if outcome in {DAMAGED, PLANNED} else outcome for outcome in expected
    )


def _planned(info: MediaInfo, recipe_name: str) -> str:
    plan = make_plan(profile(recipe_name), info)
    if isinstance(plan, EncodePlan):
        return ENCODED
    assert plan.detail.endswith(".")
    return f"skip:{plan.reason}" if isinstance(plan, Skip) else f"refused:{plan.policy}"


GATES = frozenset(f"G{number}" for number in range(1, 9))


@pytest.mark.media
@pytest.mark.parametrize(("name", "recipe_name"), rows(ENCODED))
def test_each_clip_is_encoded_and_passes_every_gate(name, recipe_name, folder):
    made = made_once(name, recipe_name, folder)

    results = made.judge()

    assert made.request.measured.errors == ()
    assert made.request.report.stderr == ()
    allowed = {Outcome.PASSED, Outcome.OFF}
    assert [f"{r.gate.value}: {r.detail}" for r in results if r.outcome not in allowed] == []
    assert {r.gate for r in results} == {gate for gate in Gate if gate.value[:2] in GATES} - {
        Gate.G10,
        Gate.G11,
    }


@pytest.mark.media
@pytest.mark.parametrize(("name", "recipe_name"), rows(DAMAGED))
def test_each_damaged_clip_is_found_damaged_and_nothing_is_left(name, recipe_name, tmp_path):
    with pytest.raises(SourceDamaged, match=name.replace(".", r"\.")):
        encoded_clip(name, recipe_name, tmp_path)

    assert list((tmp_path / recipe_name).iterdir()) == []


@pytest.mark.media
@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (
            "made-kitchen-sink.mkv",
            {"title": "hevcq kitchen sink", "creation_time": "2020-02-03T04:05:06.000000Z"},
        ),
        (
            "made-kitchen-sink.mp4",
            {
                "title": "hevcq kitchen sink",
                "artist": "Blender Foundation",
                "creation_time": "2020-02-03T04:05:06.000000Z",
                "location": "+48.8577+002.2950/",
                "timecode": "01:00:00:00",
            },
        ),
        (
            "iphone-320p-rot90-mebx.mov",
            {
                "com.apple.quicktime.make": "Apple",
                "com.apple.quicktime.creationdate": "2019-07-24T11:25:40+0300",
                "com.apple.quicktime.location.ISO6709": "+32.0929+034.8620+028.516/",
                "creation_time": "2019-07-24T08:25:57.000000Z",
            },
        ),
        (
            "gopro-480p30-tmcd-gpmd.mp4",
            {"firmware": "HD5.02.02.00.00", "creation_time": "2017-04-17T19:27:57.000000Z"},
        ),
    ],
)
def test_what_the_file_says_of_itself_survives(name, kept, folder):
    found = probed(made_once(name, "hevc", folder))
    # From ffmpeg 9 on, the time code of a video is not read as the file's too.
    said = found.streams[0].tags | found.tags

    assert {key: said.get(key) for key in kept} == kept


@pytest.mark.media
def test_a_camera_keeps_its_telemetry_and_time_code(folder):
    made = probed(made_once("gopro-480p30-tmcd-gpmd.mp4", "hevc", folder))

    assert {"gpmd", "tmcd"} <= {s.codec_tag for s in made.of_kind(StreamKind.DATA)}
    assert made.of_kind(StreamKind.VIDEO)[0].tags["timecode"] == "19:26:48:04"


@pytest.mark.media
def test_our_own_rendition_is_known_again_in_every_container(folder):
    for name in ("made-kitchen-sink.mkv", "made-kitchen-sink.mp4", "iphone-320p-rot90-mebx.mov"):
        found = probed(made_once(name, "hevc", folder))

        for recipe in PROFILES:
            assert _planned(found, recipe) == "skip:own_rendition"
