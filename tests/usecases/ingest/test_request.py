"""Which profiles an ingest makes, and where it puts their renditions.

The forecast: a range from the table, narrowed by this machine's own jobs.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.errors import ConfigError, UnknownProfile, UsageError
from hevcq.ports.catalog import EncodeCost, Mode
from hevcq.ports.encoder import Estimate
from hevcq.settings.libraries import Library
from hevcq.settings.profile_files import installed_folder, load_profiles
from hevcq.usecases.ingest.forecast import (
    GATE_SHARE,
    MIN_OWN_ENCODES,
    TABLE_ONLY,
    Costs,
    Range,
    work_of,
)
from hevcq.usecases.ingest.request import IngestRequest, library_request
from support.ingest.values import encode_plan, media_info

KNOWN = load_profiles(installed_folder())


def chosen(usual: tuple[str, ...] = ("hevc",), **request: object) -> list[str]:
    wanted = IngestRequest(roots=(Path("/media"),), **request)  # type: ignore[arg-type]
    return [profile.name for profile in wanted.chosen_profiles(KNOWN, usual)]


def test_a_setting_that_names_no_profile_is_blamed_not_the_command():
    with pytest.raises(
        ConfigError, match=r"ingest\.profiles names the profile 'av9'.*Available: 1080p"
    ):
        chosen(("hevc", "av9"))
    with pytest.raises(UnknownProfile):
        chosen(profiles=("av9",))


def library(folder: Path = Path("/media"), **facts: object) -> Library:
    return Library.model_validate({"name": "shows", "path": folder, **facts})


def test_a_library_with_a_wrong_profile_or_too_many_to_replace_is_blamed_by_its_name():
    with pytest.raises(ConfigError, match="Library shows names the profile 'av9'"):
        chosen(library=library(profiles=("av9",)))
    with pytest.raises(ConfigError, match="shows replaces originals, which needs exactly one"):
        chosen(("hevc", "1080p"), library=library(place="replace"))


def place(*names: str, **request: object):
    wanted = IngestRequest(roots=(Path("/media/shows"),), **request)  # type: ignore[arg-type]
    return wanted.destination([KNOWN[name] for name in names])


def test_originals_are_replaced_by_one_file_only():
    assert place("hevc", replace=True, keep_days=3.0).keep_days == 3.0
    with pytest.raises(UsageError, match=r"exactly one profile, not 2 \(hevc, 1080p\)"):
        place("hevc", "1080p", replace=True)
    with pytest.raises(UsageError, match="makes a folder of files, which cannot replace"):
        place("hls", replace=True)


def test_an_output_folder_is_no_file_and_holds_no_original(tmp_path):
    assert place("hevc", output=tmp_path / "new").mode is Mode.MIRROR
    assert place("hevc").mode is Mode.BESIDE
    file = tmp_path / "file"
    file.touch()
    for output in (file, file / "below"):
        with pytest.raises(UsageError, match=r"--output .* is not a folder"):
            place("hevc", output=output)
    for above in (Path("/media"), Path("/media/shows")):
        with pytest.raises(UsageError, match="contains the ingested folder /media/shows"):
            place("hevc", output=above)


def test_a_library_is_ingested_as_its_section_says(tmp_path):
    request = library_request(library(tmp_path, place="replace", keep_originals=7))
    assert (request.replace, request.keep_days, request.output) == (True, 7, None)
    mirrored = library_request(library(tmp_path, place="mirror", output=tmp_path / "out"))
    assert (mirrored.replace, mirrored.keep_days) == (False, None)
    assert mirrored.output == tmp_path / "out"


@pytest.mark.parametrize(
    ("rates", "work"),
    [
        (("25/1",), 100.0),
        (("240/1",), 960.0),  # a high-speed camera is believed
        (("0/0", "", "25", "x/y", "-1/2"), 100.0),  # unreadable: taken as usual
        # Matroska without a default duration shows 1000/1: its clock, not its pictures.
        (("1000/1", "90000/1", "301/1"), 100.0),
    ],
)
def test_work_is_width_times_height_times_frames(rates, work):
    for rate in rates:
        info = media_info(width=1000, height=1000, seconds=4.0, rate=rate)
        assert work_of(encode_plan(width=1000, height=1000), "", info).megapixels == pytest.approx(
            work
        )


def cpu(plan: EncodePlan, preset: str, info: MediaInfo, rates: Costs = TABLE_ONLY) -> Range:
    return rates.cpu([work_of(plan, preset, info)])


def bytes_of(plan: EncodePlan, info: MediaInfo, rates: Costs = TABLE_ONLY) -> Range:
    return rates.size([work_of(plan, "", info)])


def test_enough_own_jobs_replace_the_table_and_narrow_the_range():
    plan, info = encode_plan(), media_info()
    work = work_of(plan, "", info).megapixels
    rates = Costs.learned([cost_of(work)] * MIN_OWN_ENCODES)

    cost = cpu(plan, "medium", info, rates)
    table = cpu(plan, "medium", info)

    assert cost.low < 10.0 < cost.high
    assert cost.high / cost.low < table.high / table.low
    size = bytes_of(plan, info, rates)
    assert size.low < 300_000 < size.high


def test_what_is_known_of_encodes_counts_the_search_for_a_quality_beside_them():
    work = work_of(encode_plan(), "medium", media_info())
    own = Costs.learned([cost_of(work.megapixels)] * MIN_OWN_ENCODES)
    sampled = TABLE_ONLY.sampled({replace(work, search=3.0): Estimate(3e5, 0.1, 10.0)})

    for rates in (own, sampled):
        plain, searching = rates.cpu([work]), rates.cpu([replace(work, search=2.0)])
        assert plain.low < 10.0 < plain.high
        assert searching.high / plain.high == pytest.approx(3.0, rel=0.1)
        assert searching.low < 30.0 * (1 + GATE_SHARE) < searching.high


def cost_of(work: float, *, profile: str = "hevc", cpu_s: float = 10.0) -> EncodeCost:
    return EncodeCost(profile, "libx265", "medium", work, 1_000_000, 300_000, cpu_s)


def test_a_rendition_is_never_foretold_larger_than_its_source_which_is_kept_then():
    lean = media_info(seconds=10_000.0)

    assert bytes_of(encode_plan(), lean).high == lean.size
