"""A change of the settings file keeps what the person wrote, and never leaves a broken file."""

from pathlib import Path

import pytest

from hevcq.errors import ConfigError
from hevcq.settings.loader import append_table, load

MINE = "# mine\nworkers = 1   # the other core is mine\n\n[ingest]\nprofiles = ['hevc']\n"
TV = {"name": "tv", "path": "/m/tv", "keep_originals": 3, "place": "replace"}


def test_comments_and_layout_stay_and_the_tables_follow(tmp_path: Path) -> None:
    file = tmp_path / "hevcq.toml"
    file.write_text(MINE)
    file.chmod(0o600)

    append_table(file, "libraries", TV)
    append_table(file, "libraries", {"name": 'a "b"'.replace('"', "_"), "path": '/m/"films"'})

    text = file.read_text()
    assert text.startswith(MINE + '\n[[libraries]]\nname = "tv"\n')
    assert '\n\n[[libraries]]\nname = "a _b_"\n' in text
    libraries = load(config=file).settings.libraries
    assert [each.path for each in libraries] == [Path("/m/tv"), Path('/m/"films"')]
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["hevcq.toml"]


def test_a_missing_file_is_made_with_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "conf" / "hevcq.toml"

    append_table(file, "libraries", TV)

    assert load(config=file).settings.libraries[0].keep_originals == 3


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "hevcq.toml"
    real.parent.mkdir()
    real.write_text(MINE)
    link = tmp_path / "hevcq.toml"
    link.symlink_to(real)

    append_table(link, "libraries", TV)

    assert link.is_symlink()
    assert "[[libraries]]" in real.read_text()


@pytest.mark.parametrize(
    ("text", "values", "said"),
    [
        (MINE, {"name": "tv", "path": "/m", "place": "nowhere"}, "place must be one of"),
        ("workers = ", TV, "Cannot read the settings file"),
        ("libraries = []\n", TV, r"is not written as \[\[libraries\]\]"),
        ("wrokers = 1\n", TV, "wrokers is unknown; did you mean 'workers'"),
    ],
)
def test_what_would_be_wrong_changes_nothing(
    tmp_path: Path, text: str, values: dict[str, object], said: str
) -> None:
    file = tmp_path / "hevcq.toml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=said) as caught:
        append_table(file, "libraries", values)

    assert str(file) in str(caught.value)
    assert file.read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["hevcq.toml"]
