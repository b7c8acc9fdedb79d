"""Which profiles an ingest makes, and where it puts their renditions."""

from __future__ import annotations

from pathlib import Path

import pytest

from hevcq.errors import ConfigError, UnknownProfile
from hevcq.settings.profile_files import installed_folder, load_profiles
from hevcq.usecases.ingest.request import IngestRequest

KNOWN = load_profiles(installed_folder())


def chosen(usual: tuple[str, ...] = ("hevc",), **request: object) -> list[str]:
    wanted = IngestRequest(roots=(Path("/media"),), **request)  # type: ignore[arg-type]
    return [profile.name for profile in wanted.chosen_profiles(KNOWN, usual)]


def test_without_a_name_the_setting_says_which_profiles_are_made() -> None:
    assert chosen() == ["hevc"]
    assert chosen(("720p", "hevc")) == ["720p", "hevc"]


def test_named_profiles_are_made_instead_each_once() -> None:
    assert chosen(profiles=("1080p", "1080p")) == ["1080p"]


def test_what_was_queued_is_waited_for_whatever_its_profile() -> None:
    assert chosen(skip_upload=True) == list(KNOWN)


def test_a_setting_that_names_no_profile_is_blamed_not_the_command() -> None:
    with pytest.raises(ConfigError, match=r"ingest\.profiles names 'av9'.*Available: 1080p"):
        chosen(("hevc", "av9"))
    with pytest.raises(UnknownProfile):
        chosen(profiles=("av9",))
