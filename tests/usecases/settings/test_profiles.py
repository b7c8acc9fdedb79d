"""A person's own profiles: copies, keys changed in their text, and what keeps one from being deleted."""

from pathlib import Path

import pytest

from hevcq.errors import ConfigError, Conflict, UsageError
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import (
    installed_folder,
    load_profiles,
    profile_folder,
    read_yaml,
)
from hevcq.usecases.settings.changes import SettingsFile
from hevcq.usecases.settings.libraries import save_library
from hevcq.usecases.settings.profiles import (
    changed_profile,
    copy_profile,
    delete_profile,
    profile_text,
    save_profile,
    with_key,
)
from support.clips import ManualClock

TEXT = """# mine
name: mine   # its name
video:
  codec: hevc  # small
  crf: 24
audio:
  languages:
    - en
    - de
policies: {subtitles: drop}
"""


@pytest.fixture
def file(tmp_path: Path) -> SettingsFile:
    return SettingsFile(tmp_path / "hevcq.toml", tmp_path / "data", ManualClock(1_800_000_000.0))


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("name", "other", "name: other   # its name\n"),
        ("video.codec", "av1", "  codec: av1  # small\n"),
        ("video.max_height", 720, "  max_height: 720\n"),
        ("audio.languages", ["fr"], "  languages:\n    [fr]\n"),
        ("subtitles.languages", ["en", "de"], "subtitles:\n  languages: [en, de]\n"),
        ("description", "a: b # c", "description: 'a: b # c'\n"),
        ("video.quality", None, "  quality: null\n"),
    ],
)
def test_one_key_is_changed_and_every_comment_stays(key: str, value: object, line: str) -> None:
    made = with_key(TEXT, key, value)

    assert line in made
    assert made.startswith("# mine\n")
    assert "# small" in made


def test_what_is_written_in_another_way_is_left_to_the_person() -> None:
    with pytest.raises(ConfigError, match="by hand"):
        with_key(TEXT, "policies.hdr", "refuse")


def test_wrong_values_are_named_and_nothing_is_added_for_defaults() -> None:
    same, problems = changed_profile(TEXT, {"video.preset": "medium", "video.crop": "none"})
    assert same == TEXT
    assert problems == {"description": "is missing"}

    _, problems = changed_profile(TEXT, {"video.crf": 99, "description": "x"})
    assert problems == {"video-crf": "must be at most 63.0, got 99"}


def test_the_first_copy_brings_all_profiles_along(file: SettingsFile) -> None:
    settings = Settings()
    copy_profile(file, settings, "hevc", "mine", "olga")

    folder = profile_folder(settings)
    assert folder != installed_folder()
    assert set(load_profiles(folder)) == {*load_profiles(installed_folder()), "mine"}
    assert not load_profiles(folder)["mine"].subscribe


def test_an_hls_profile_of_another_crf_is_named_yet_stops_no_other_profile(
    file: SettingsFile,
) -> None:
    settings = Settings()
    copy_profile(file, settings, "hls", "mine", "olga")
    path, text = profile_text(settings, "mine")
    odd, problems = changed_profile(text, {"video.crf": 20})
    assert "video.crf must be that of the highest" in problems["video-crf"]
    with pytest.raises(UsageError, match="of the highest"):
        save_profile(file, settings, "mine", (text, odd), "olga")

    path.write_text(odd)

    assert "mine" in load_profiles(path.parent)


def test_a_profile_in_use_is_neither_deleted_nor_undone(file: SettingsFile, tmp_path: Path) -> None:
    settings = Settings()
    copy_profile(file, settings, "hevc", "mine", "olga")
    values = {"name": "tv", "path": str(tmp_path), "profiles": ["mine"]}
    save_library(file, values, "olga", profiles=load_profiles(profile_folder(settings)))

    with pytest.raises(UsageError, match="in use: library tv"):
        delete_profile(file, settings, "mine", "olga")
    with pytest.raises(Conflict, match="in use: library tv"):
        file.undo(1, "olga")

    assert profile_text(settings, "mine")[0].is_file()


def test_a_deleted_profile_comes_back_as_it_was(file: SettingsFile) -> None:
    settings = Settings()
    copy_profile(file, settings, "hevc", "mine", "olga")
    path, text = profile_text(settings, "mine")
    save_profile(file, settings, "mine", (text, text + "# more\n"), "olga")
    with pytest.raises(Conflict, match="changed meanwhile"):
        save_profile(file, settings, "mine", (text, text), "olga")
    delete_profile(file, settings, "mine", "olga")
    assert not path.exists()

    file.undo(file.changes()[0].number, "otto")

    assert path.read_text() == text + "# more\n"
    assert read_yaml(path.read_text())["name"] == "mine"
    with pytest.raises(Conflict, match="was changed since"):
        file.undo(1, "otto")
