"""HDR10 metadata of a video that is split, beside the same video encoded whole."""

import pytest

from ffmpeg.chunking.numbered import PROFILE, Clip, ffmpeg, times
from hevcq.domain.certificate import Outcome
from hevcq.domain.chunking import ChunkPlan, chunks_at

pytestmark = pytest.mark.media


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
    results = video.verify(video.output(), report)
    assert all(r.outcome in {Outcome.PASSED, Outcome.OFF} for r in results), results


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
