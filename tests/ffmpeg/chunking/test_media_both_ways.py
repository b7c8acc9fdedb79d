"""Every sample clip that can be encoded, whole and in chunks: the same frames at the same times."""

import pytest

from ffmpeg.chunking.numbered import PROFILE, Clip, ffmpeg, times
from hevcq.domain.certificate import Outcome
from hevcq.domain.chunking.planner import ChunkPlan, WholeFile, chunks_at, plan_chunks
from support.clips import media_clip
from support.media_table import ENCODED, TOO_LONG, rows

pytestmark = pytest.mark.media

ONE_KEY = "too_few_key_frames"
WHOLE = {
    "bbb-720p25-5s.mp4": ONE_KEY,
    "chapters-text-track.mp4": ONE_KEY,
    "h264-high10-200x200.mp4": ONE_KEY,
    "made-kitchen-sink.mkv": ONE_KEY,
    "made-kitchen-sink.mp4": ONE_KEY,
    "made-one-frame.mp4": "too_short",
    "made-pal-576p25-sar64_45.mkv": ONE_KEY,
    "nasa-2video-2audio-2sub.mp4": "more_videos",
    "odd-321x241-yuv444.mp4": ONE_KEY,
    "phone-720p-vfr-rot180.mp4": ONE_KEY,
    "sony-1080i50-avchd.mts": "too_short",
    "sub-ass.mkv": "too_short",
    "sub-pgs.mkv": "too_short",
    "sub-srt.mkv": "too_short",
}
"""Clips that stay whole, and why: most have a single key frame."""
HEAVY = frozenset(
    {
        "bbb-1080p24-15s.mp4", "bbb-480p24-30s.mp4", "traffic-432p12.mp4",
        "gopro-480p30-tmcd-gpmd.mp4", "flir-portrait-vfr-bframes.mp4", "phone-720p30.mp4",
        "android-720p30-rot180.mp4", "made-h264-opengop-480p24.mkv", "bbb-sar64_45-bpyramid.mp4",
    }
)  # fmt: skip
"""Clips that are encoded in the long form only: together as costly as all the others."""
LONG = (pytest.mark.slow, pytest.mark.timeout(7200))
CLIPS = [
    pytest.param(clip, marks=LONG if clip in HEAVY else ())
    for clip in sorted({clip for clip, recipe in rows(ENCODED) if recipe == "hevc"})
]


HDR10 = (
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    ":max-cll=1000,400:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
)


def both_ways(video: Clip, plan: ChunkPlan) -> None:
    """Encode in chunks and whole; all gates pass, and frames and times are the same."""
    report = video.join(plan, video.chunk_files(plan))
    whole, made = video.whole()
    assert report.frames == made.frames == video.index.frames
    assert times(video.output()) == times(whole)
    results = video.verify(video.output(), report, plan)
    assert all(r.outcome in {Outcome.PASSED, Outcome.OFF} for r in results), results


@pytest.mark.parametrize("clip", CLIPS)
def test_a_clip_has_the_same_frames_and_times_both_ways_or_a_reason_to_stay_whole(clip, tmp_path):
    video = Clip(media_clip(clip), tmp_path)
    plan = plan_chunks(video.profile, video.info, video.plan, video.index)

    if isinstance(plan, WholeFile):
        assert plan.reason == WHOLE.get(clip), plan
        return
    assert clip not in WHOLE
    assert sum(chunk.frames for chunk in plan.chunks) == video.index.frames
    if clip not in TOO_LONG:
        both_ways(video, plan)


def test_hdr10_metadata_is_the_same_both_ways(tmp_path):
    source = tmp_path / "hdr10.mkv"
    params = f"log-level=error:keyint=12:scenecut=0:{HDR10}"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=192x112:rate=24:duration=2", "-pix_fmt",
        "yuv420p10le", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", params,
        "-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc", source,
    )  # fmt: skip
    video = Clip(source, tmp_path)
    assert video.plan.video.mastering_display is not None
    assert video.plan.video.light_level is not None

    both_ways(video, chunks_at(PROFILE, video.plan, video.index, (0, 2)))
