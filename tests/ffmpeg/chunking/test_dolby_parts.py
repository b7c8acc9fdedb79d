"""Dolby Vision metadata of every frame, over the joints of a video that is split."""

import pytest

from ffmpeg.chunking.numbered import PROFILE, Clip
from hevcq.domain.certificate import Gate, Outcome
from hevcq.domain.chunking import ChunkPlan, chunks_at
from hevcq.domain.formats import Container
from hevcq.domain.profile_sections import VideoRecipe
from support.dolby import FRAMES, make_film, need_dolby, spoil

pytestmark = pytest.mark.media


@pytest.fixture(scope="module", params=["hevc in mkv", "hevc in mp4", "av1 in mp4"])
def film(request, tmp_path_factory) -> Clip:
    folder, (codec, _, container) = tmp_path_factory.mktemp("film"), request.param.split()
    need_dolby("libx265" if codec == "hevc" else "libsvtav1")
    video = VideoRecipe(codec=codec, preset="12" if codec == "av1" else "ultrafast", crf=24)
    recipe = PROFILE.model_copy(update={"container": Container(container), "video": video})
    return Clip(make_film(folder / "film.mkv"), folder, recipe)


@pytest.fixture(scope="module")
def plan(film: Clip) -> ChunkPlan:
    return chunks_at(film.profile, film.plan, film.index, (0, 2, 4))


def test_a_split_film_keeps_the_metadata_of_every_frame(film, plan):
    report = film.join(plan, film.chunk_files(plan))

    results = film.verify(film.output(), report)

    assert film.plan.video.dolby_vision
    assert report.frames == FRAMES
    assert [r.detail for r in results if r.outcome not in {Outcome.PASSED, Outcome.OFF}] == []


@pytest.mark.parametrize("how", ["one dropped", "two swapped", "shifted"])
def test_a_part_with_other_metadata_is_refused_in_the_joined_film(film, plan, how):
    if film.profile.video.codec != "hevc":
        pytest.skip("of AV1 the source is spoilt, where a whole video is verified")
    first, second, third = film.chunk_files(plan)
    report = film.join(plan, [first, spoil(second, film.folder / "spoilt", how), third], "worse")

    results = film.verify(film.output("worse"), report)

    assert (results[-1].gate, results[-1].outcome) == (Gate.G5, Outcome.FAILED)
    assert "Dolby Vision metadata" in results[-1].detail
