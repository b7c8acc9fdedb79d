"""Which profiles an ingest makes, and where it puts their renditions."""

from pathlib import Path

import pytest

from hevcq.errors import ConfigError, UnknownProfile, UsageError
from hevcq.ports.catalog import Mode
from hevcq.settings.libraries import Library
from hevcq.settings.profile_files import installed_folder, load_profiles
from hevcq.usecases.ingest.request import IngestRequest, library_request

KNOWN = load_profiles(installed_folder())


def chosen(usual: tuple[str, ...] = ("hevc",), **request: object) -> list[str]:
    wanted = IngestRequest(roots=(Path("/media"),), **request)  # type: ignore[arg-type]
    return [profile.name for profile in wanted.chosen_profiles(KNOWN, usual)]


def test_a_setting_that_names_no_profile_is_blamed_not_the_command() -> None:
    with pytest.raises(ConfigError, match=r"ingest\.profiles names 'av9'.*Available: 1080p"):
        chosen(("hevc", "av9"))
    with pytest.raises(UnknownProfile):
        chosen(profiles=("av9",))


def library(folder: Path = Path("/media"), **facts: object) -> Library:
    return Library.model_validate({"name": "shows", "path": folder, **facts})


def test_a_library_that_names_no_profile_is_blamed_by_its_name() -> None:
    with pytest.raises(ConfigError, match="Library shows names the profile 'av9'"):
        chosen(library=library(profiles=("av9",)))


def test_a_library_that_replaces_needs_one_profile() -> None:
    with pytest.raises(ConfigError, match="shows replaces originals, which needs exactly one"):
        chosen(("hevc", "1080p"), library=library(place="replace"))


def place(*names: str, **request: object):
    wanted = IngestRequest(roots=(Path("/media/shows"),), **request)  # type: ignore[arg-type]
    return wanted.destination([KNOWN[name] for name in names])


def test_originals_are_replaced_by_one_file_only() -> None:
    assert place("hevc", replace=True, keep_days=3.0).keep_days == 3.0
    with pytest.raises(UsageError, match=r"exactly one profile, not 2 \(hevc, 1080p\)"):
        place("hevc", "1080p", replace=True)
    with pytest.raises(UsageError, match="makes a folder of files, which cannot replace"):
        place("hls", replace=True)


def test_an_output_folder_is_no_file_and_holds_no_original(tmp_path: Path) -> None:
    assert place("hevc", output=tmp_path / "new").mode is Mode.MIRROR
    assert place("hevc").mode is Mode.BESIDE
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match=r"--output .*file is not a folder"):
        place("hevc", output=file)
    for above in (Path("/media"), Path("/media/shows")):
        with pytest.raises(UsageError, match="contains the ingested folder /media/shows"):
            place("hevc", output=above)


def test_a_library_is_ingested_as_its_section_says(tmp_path: Path) -> None:
    request = library_request(library(tmp_path, place="replace", keep_originals=7))
    assert (request.replace, request.keep_days, request.output) == (True, 7, None)
    mirrored = library_request(library(tmp_path, place="mirror", output=tmp_path / "out"))
    assert (mirrored.replace, mirrored.keep_days) == (False, None)
    assert mirrored.output == tmp_path / "out"
