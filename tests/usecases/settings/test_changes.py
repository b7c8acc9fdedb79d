"""Changes of the settings file: who made them, and how each is undone.

A person's own profiles: copies, keys changed in their text, and what keeps one from being deleted.
"""

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hevcq.errors import ConfigError, Conflict, UsageError
from hevcq.settings.loader import load
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import installed_folder, load_profiles, profile_folder, read_yaml
from hevcq.usecases.settings.changes import HISTORY, SettingsFile
from hevcq.usecases.settings.libraries import (
    KEY,
    find_named,
    library_problems,
    remove_table,
    save_library,
)
from hevcq.usecases.settings.profiles import (
    changed_profile,
    copy_profile,
    delete_profile,
    profile_text,
    save_profile,
    with_key,
)
from support.clips import ManualClock

MINE = "# mine\nworkers = 1   # the other core is mine\n"
PROFILES = {name: load_profiles(installed_folder())[name] for name in ("hevc", "av1", "hls")}


@pytest.fixture
def file(tmp_path: Path) -> SettingsFile:
    path = tmp_path / "hevcq.toml"
    path.write_text(MINE)
    for name in ("tv", "films"):
        (tmp_path / name).mkdir()
    return SettingsFile(path, tmp_path / "data", ManualClock(1_800_000_000.0))


def add(file: SettingsFile, name: str, **more: object) -> None:
    values = {"name": name, "path": str(file.file.parent / name), **more}
    save_library(file, values, "olga", profiles=PROFILES)


def remove(file: SettingsFile, name: str) -> None:
    remove_table(file, KEY, find_named(file, KEY, name) or {}, "olga")


def test_a_library_gets_no_usual_profile_that_is_not_there(file):
    """A service would not start with it, nor its page, where it could be mended."""
    values = {"name": "tv", "path": str(file.file.parent / "tv")}
    others = {"av1": PROFILES["av1"]}

    assert library_problems(file, values, others) == {"profiles": "No profile 'hevc'."}
    assert library_problems(file, {**values, "profiles": ["av1"]}, others) == {}


def test_an_added_library_is_read_and_its_maker_remembered(file):
    add(file, "tv", profiles=["av1"])

    (library,) = load(config=file.file).settings.libraries
    assert (library.name, library.profiles) == ("tv", ("av1",))
    (change,) = file.changes()
    assert (change.who, change.what, change.at) == ("olga", "Add library tv", 1_800_000_000.0)
    assert file.file.read_text().startswith(MINE)
    assert (file.file.parent / "data" / HISTORY).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("values", "key", "said"),
    [
        ({"path": "shows"}, "path", "must be a whole path"),
        ({"path": "/no/such/folder"}, "path", "No such folder"),
        ({"name": "TV"}, "name", "Another library is called"),
        ({"profiles": ["nope"]}, "profiles", "No profile 'nope'"),
        ({"priority": 101}, "priority", "must be at most 100"),
        ({"place": "mirror"}, "", "needs `output`"),
        ({"place": "replace", "profiles": ["hls"]}, "profiles", "cannot take an original's place"),
        ({"rules": [{"codec": ["hevc"]}]}, "rules-0", "must say either"),
        ({"path": "{tv}"}, "path", "is the library tv already"),
    ],
)
def test_a_wrong_value_is_named_by_its_key_and_never_written(file, values, key, said):
    add(file, "tv")
    before = file.file.read_text()
    home = str(file.file.parent / "tv")
    wanted = {"name": "films", "path": str(file.file.parent / "films"), **values}
    wanted["path"] = str(wanted["path"]).replace("{tv}", home)

    problems = library_problems(file, wanted, PROFILES)

    assert said in problems[key]
    with pytest.raises(UsageError, match="Invalid library"):
        save_library(file, wanted, "olga", profiles=PROFILES)
    assert file.file.read_text() == before
    assert len(file.changes()) == 1


def test_a_library_whose_disk_is_away_can_still_be_changed(file):
    add(file, "tv")
    (file.file.parent / "tv").rmdir()

    values = {"name": "tv", "path": str(file.file.parent / "tv"), "priority": 3}
    save_library(file, values, "olga", profiles=PROFILES, former="tv")

    assert load(config=file.file).settings.libraries[0].priority == 3


def test_a_change_by_hand_meanwhile_is_noticed_and_kept(file):
    known = file.digest()
    file.file.write_text(MINE + "# by hand\n")
    values = {"name": "tv", "path": str(file.file.parent / "tv")}

    with pytest.raises(Conflict, match="changed meanwhile"):
        save_library(file, values, "olga", profiles=PROFILES, known=known)

    assert file.file.read_text() == MINE + "# by hand\n"
    assert file.changes() == []


def test_each_change_is_undone_alone(file):
    add(file, "tv")
    add(file, "films")
    remove(file, "tv")
    removed = file.changes()[0]

    file.undo(removed.number, "otto")
    names = [each.name for each in load(config=file.file).settings.libraries]
    assert sorted(names) == ["films", "tv"]
    file.undo(file.changes()[2].number, "otto")  # that films was added

    names = [each.name for each in load(config=file.file).settings.libraries]
    assert names == ["tv"]
    assert [each.undone for each in file.changes()] == ["", "", "otto", "otto", ""]
    with pytest.raises(Conflict, match="no such change"):
        file.undo(removed.number, "otto")


def test_how_people_sign_in_is_not_undone(file):
    """The token that would be asked for then was never shown."""
    file.change(file.new("eva", "Sign in with names", "web", None, {"auth": "users"}))

    with pytest.raises(Conflict, match="might not get in") as refused:
        file.undo(file.changes()[0].number, "eva")

    assert "hevcq serve new-token" in refused.value.remedy
    assert load(config=file.file).settings.web.auth == "users"


def test_of_many_changes_the_latest_are_kept(file, monkeypatch):
    monkeypatch.setattr("hevcq.usecases.settings.changes.MAX_CHANGES", 2)
    add(file, "tv")
    add(file, "films")
    remove(file, "tv")

    assert [each.number for each in file.changes()] == [3, 2]


def test_what_was_changed_again_is_not_undone(file):
    add(file, "tv")
    added = file.changes()[0]
    text = file.file.read_text().replace('name = "tv"', 'name = "shows"')
    file.file.write_text(text)

    with pytest.raises(Conflict, match="changed meanwhile"):
        file.undo(added.number, "olga")

    assert file.file.read_text() == text


def test_a_file_that_cannot_be_written_costs_nothing(file):
    file.file.chmod(0o444)

    with pytest.raises(ConfigError, match="read-only"):
        add(file, "tv")

    assert file.changes() == []
    assert sorted(os.listdir(file.file.parent)) == ["data", "films", "hevcq.toml", "tv"]


def test_a_change_that_cannot_be_recorded_is_not_made(file):
    """The settings may be on another disk than the data folder, which is full; here a size is."""
    add(file, "tv", exclude=["*" * 2000])
    history = file.file.parent / "data" / HISTORY
    before, recorded = file.file.read_text(), history.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (len(recorded) + 100, hard))
    try:
        with pytest.raises(ConfigError, match=r"Cannot write .*settings-changes"):
            add(file, "films")
        with pytest.raises(ConfigError, match=r"Cannot write .*settings-changes"):
            file.undo(1, "olga")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert file.file.read_text() == before
    assert history.read_bytes() == recorded
    assert not list(history.parent.glob(".*.new"))
    file.undo(1, "olga")


def killed(act: Callable[[], object], renames: int) -> None:
    """Do something in a process that dies before one of its renames."""
    if (child := os.fork()) == 0:
        left = [None] * renames

        def watch(event: str, _args: object) -> None:
            if event == "os.rename":
                left.pop() if left else os._exit(0)

        sys.addaudithook(watch)
        act()
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_no_change_is_made_without_its_record_whenever_a_kill_comes(file):
    add(file, "tv")
    before = file.raw()
    for act in (lambda: add(file, "films"), lambda: remove(file, "tv")):
        for renames in (0, 1):
            count = len(file.changes())
            killed(act, renames)
            assert (file.raw(), len(file.changes())) == (before, count + renames)
        with pytest.raises((Conflict, ConfigError), match=r"changed meanwhile|two libraries"):
            file.undo(file.changes()[0].number, "olga")
    assert len(file.changes()) == 3


def test_a_spoilt_history_is_named(file):
    add(file, "tv")
    (file.file.parent / "data" / HISTORY).write_text("[{]")

    with pytest.raises(ConfigError, match="Move that file away"):
        file.changes()
    before = file.file.read_text()
    with pytest.raises(ConfigError, match="Move that file away"):
        add(file, "films")
    assert file.file.read_text() == before


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
def profile_file(tmp_path: Path) -> SettingsFile:
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
def test_one_key_is_changed_and_every_comment_stays(key, value, line):
    made = with_key(TEXT, key, value)

    assert line in made
    assert made.startswith("# mine\n")
    assert "# small" in made


def test_what_is_written_in_another_way_is_left_to_the_person():
    with pytest.raises(ConfigError, match="by hand"):
        with_key(TEXT, "policies.hdr", "drop")


def test_wrong_values_are_named_and_nothing_is_added_for_defaults():
    same, problems = changed_profile(TEXT, {"video.preset": "medium", "video.crop": "none"})
    assert same == TEXT
    assert problems == {"description": "is missing"}

    _, problems = changed_profile(TEXT, {"video.crf": 99, "description": "x"})
    assert problems == {"video-crf": "must be at most 63.0, got 99"}


def test_the_first_copy_brings_all_profiles_along(profile_file):
    settings = Settings()
    copy_profile(profile_file, settings, "hevc", "mine", "olga")

    folder = profile_folder(settings)
    assert folder != installed_folder()
    assert set(load_profiles(folder)) == {*load_profiles(installed_folder()), "mine"}
    assert not load_profiles(folder)["mine"].subscribe


def test_an_hls_profile_of_another_crf_is_named_yet_stops_no_other_profile(profile_file):
    settings = Settings()
    copy_profile(profile_file, settings, "hls", "mine", "olga")
    path, text = profile_text(settings, "mine")
    odd, problems = changed_profile(text, {"video.crf": 20})
    assert "video.crf must be that of the highest" in problems["video-crf"]
    with pytest.raises(UsageError, match="of the highest"):
        save_profile(profile_file, settings, "mine", (text, odd), "olga")

    path.write_text(odd)

    assert "mine" in load_profiles(path.parent)


def test_a_profile_in_use_is_neither_deleted_nor_undone(profile_file, tmp_path):
    settings = Settings()
    copy_profile(profile_file, settings, "hevc", "mine", "olga")
    values = {"name": "tv", "path": str(tmp_path), "profiles": ["mine"]}
    save_library(profile_file, values, "olga", profiles=load_profiles(profile_folder(settings)))

    with pytest.raises(UsageError, match="in use: library tv"):
        delete_profile(profile_file, settings, "mine", "olga")
    with pytest.raises(Conflict, match="in use: library tv"):
        profile_file.undo(1, "olga")

    assert profile_text(settings, "mine")[0].is_file()


def test_a_deleted_profile_comes_back_as_it_was(profile_file):
    settings = Settings()
    copy_profile(profile_file, settings, "hevc", "mine", "olga")
    path, text = profile_text(settings, "mine")
    save_profile(profile_file, settings, "mine", (text, text + "# more\n"), "olga")
    with pytest.raises(Conflict, match="changed meanwhile"):
        save_profile(profile_file, settings, "mine", (text, text), "olga")
    delete_profile(profile_file, settings, "mine", "olga")
    assert not path.exists()

    profile_file.undo(profile_file.changes()[0].number, "otto")

    assert path.read_text() == text + "# more\n"
    assert read_yaml(path.read_text())["name"] == "mine"
    with pytest.raises(Conflict, match="changed meanwhile"):
        profile_file.undo(1, "otto")
