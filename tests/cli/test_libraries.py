"""`hevcq libraries`: list, add and check."""

from pathlib import Path

import pytest

from hevcq.cli.exit_codes import ExitCode
from hevcq.settings.loader import load
from support.clips import make_clip


@pytest.fixture(autouse=True)
def settings_file(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "conf" / "hevcq" / "hevcq.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
    return file


def folder(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(b"not really")
    return path


def test_a_folder_is_added_by_what_can_be_found_out(hevcq, tmp_path, settings_file):
    home = folder(tmp_path / "My Shows!", "a.mp4", "b.mkv", "notes.txt")

    ran = hevcq("libraries", "add", home, "--place", "replace", "--keep-originals", 60)

    assert ran.code == ExitCode.OK, ran.err
    (library,) = load(config=settings_file).settings.libraries
    assert (library.name, library.path) == ("My Shows", home)
    assert (library.place, library.keep_originals) == ("replace", 60)
    assert f"Added library My Shows to {settings_file}." in ran.err
    assert "2 video files, 20 Bytes" in ran.err
    assert "hevcq ingest 'My Shows' --dry-run" in ran.err


def test_a_second_folder_of_that_name_gets_a_number(hevcq, tmp_path, settings_file):
    for each in ("a/tv", "b/TV", "c/..."):
        ran = hevcq("libraries", "add", folder(tmp_path / each))
        assert ran.code == ExitCode.OK, ran.err

    names = [each.name for each in load(config=settings_file).settings.libraries]
    assert names == ["tv", "TV-2", "library"]
    rows = hevcq("libraries", "list", "--json").lines
    assert [(row["type"], row["name"], row["place"]) for row in rows] == [
        ("library", name, "beside") for name in names
    ]
    assert "TV-2" in hevcq("libraries", "list").out


def test_the_same_folder_is_not_added_twice(hevcq, tmp_path, settings_file):
    home = folder(tmp_path / "tv")
    hevcq("libraries", "add", home)
    before = settings_file.read_text()

    ran = hevcq("libraries", "add", home)

    assert ran.code == ExitCode.USAGE
    assert f"{home} is the library tv already." in ran.err
    assert settings_file.read_text() == before
    assert hevcq("libraries", "add", tmp_path / "nowhere").code == ExitCode.USAGE


def test_a_refusal_speaks_of_the_command_and_blames_no_settings_file(
    hevcq, tmp_path, settings_file
):
    home = folder(tmp_path / "media/tv")
    hevcq("libraries", "add", home)
    before = settings_file.read_text()
    for words, more in (
        (f"is the parent of the library tv ({home})", [tmp_path / "media"]),
        (f"is within the library tv ({home})", [folder(home / "inner")]),
        ("needs `output`", [tmp_path, "--place", "mirror"]),
        ("with it only", [tmp_path, "--output", tmp_path / "out"]),
    ):
        ran = hevcq("libraries", "add", *more)
        assert (ran.code, words in ran.err) == (ExitCode.USAGE, True), ran.err
        assert "settings" not in ran.err
    assert settings_file.read_text() == before


@pytest.mark.media
def test_a_library_gets_its_own_profiles_not_those_of_every_ingest(hevcq, tmp_path, settings_file):
    home = folder(tmp_path / "Films")
    make_clip(home)
    hevcq("libraries", "add", home, "--profile", "av1")

    ran = hevcq("ingest", "Films", "--dry-run", "--json")

    assert [row["profile"] for row in ran.lines if row.get("profile")] == ["av1"], ran.out
