"""A profile's numbers are checked together, and its revision follows the recipe alone."""

import pytest
from pydantic import ValidationError

from hevcq.domain.profile import Container, Fleet, Profile, QueueNumbers, VideoCodec
from hevcq.domain.profile_sections import Bounds, Gates, VideoRecipe
from hevcq.settings.profile_files import installed_folder, load_profiles

HEVC = Profile(name="hevc", description="d", video=VideoRecipe(codec=VideoCodec.HEVC, crf=24))


@pytest.mark.parametrize(
    "numbers",
    [
        {"visibility_s": 2},
        {"visibility_s": 43_201},
        {"max_failures": 10, "max_receives": 10},
        {"max_job_s": 43_200},
        {"max_job_s": 59},
        {"max_crashes": 0},
        {"backoff_base_s": 0},
        {"unknown": 1},
    ],
)
def test_numbers_that_cannot_work_together_are_refused(numbers):
    with pytest.raises(ValidationError):
        QueueNumbers(**numbers)


@pytest.mark.parametrize(
    "change",
    [
        {"description": "other words"},
        {"subscribe": False},
        {"queue": QueueNumbers(max_failures=2)},
        {"fleet": HEVC.fleet.model_copy(update={"cpu": 1024})},
    ],
    ids=lambda c: next(iter(c)),
)
def test_what_does_not_change_the_rendition_does_not_change_the_revision(change):
    assert HEVC.model_copy(update=change).revision == HEVC.revision


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"container": Container.MKV},
        {"video": VideoRecipe(codec=VideoCodec.HEVC, crf=25)},
        {"gates": Gates(minimum_saving=0.1)},
        {"bounds": Bounds(threads=2)},
    ],
    ids=lambda c: next(iter(c)),
)
def test_what_the_rendition_depends_on_changes_the_revision(change):
    other = HEVC.model_copy(update=change).revision
    assert other != HEVC.revision
    assert len(other) == 12


VIDEO = {"codec": "hevc", "crf": 24}
FILES = [
    {"csv": "/videos/film.mkv"},
    {"y": "/videos/film.mkv"},
    {"aq-mode": "1:csv=/videos/film.mkv"},
    {"aq-mode=1:recon": "film.mkv"},
    {"zones": "0,9,q=20:csv=/videos/film.mkv"},
]
OPTIONS = {"codec": "vp9", "crf": 30, "encoder_params": {"y": "film.mkv"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"video": VIDEO | {"max_width": 1280}}, "come together"),
        ({"video": VIDEO | {"max_height": 720}}, "come together"),
        *(({"name": name}, "name") for name in ("", "Upper", "a/b", "..", "-a", "a" * 41, "a b")),
        *(({"video": VIDEO | {"encoder_params": names}}, "names a file") for names in FILES),
        ({"container": "webm", "video": OPTIONS}, "vp9 takes none"),
    ],
)
def test_a_profile_with_half_a_box_no_queues_name_or_a_files_name_is_refused(change, said):
    with pytest.raises(ValidationError, match=said):
        Profile.model_validate(HEVC.model_dump(mode="json") | change)


def test_the_installed_profiles_are_valid_and_named_as_their_files():
    found = load_profiles(installed_folder())
    assert {"hevc", "720p", "1080p"} <= set(found)
    assert len({profile.revision for profile in found.values()}) == len(found)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ({"cpu": 3000}, "it offers 256, 512, 1024, 2048, 4096, 8192, 16384"),
        ({"cpu": 4096, "memory_mib": 7168}, "with that CPU it offers 8192, 9216,"),
        ({"cpu": 256, "memory_mib": 8192}, "with that CPU it offers 512, 1024, 2048"),
        ({"min_tasks": 5, "max_tasks": 4}, "min_tasks (5) must not exceed max_tasks (4)"),
    ],
)
def test_a_task_that_fargate_does_not_offer_is_refused_with_what_it_offers(size, said):
    with pytest.raises(ValidationError) as refused:
        Fleet(**size)

    assert said in str(refused.value)
