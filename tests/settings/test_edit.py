"""A change of the settings file keeps what the person wrote, and never leaves a broken file."""

from pathlib import Path

import pytest

from hevcq.errors import ConfigError, Conflict
from hevcq.settings.edit import read_text, replace_table, write
from hevcq.settings.loader import load

MINE = "# mine\nworkers = 1   # the other core is mine\n\n[ingest]\nprofiles = ['hevc']\n"
TV = {"name": "tv", "path": "/m/tv", "keep_originals": 3, "place": "replace"}


def append_table(file: Path, key: str, values: dict[str, object]) -> None:
    write(file, replace_table(file, read_text(file), key, None, values))


def test_comments_and_layout_stay_and_the_tables_follow(tmp_path):
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


def test_a_missing_file_is_made_with_its_folder(tmp_path):
    file = tmp_path / "conf" / "hevcq.toml"

    append_table(file, "libraries", TV)

    assert load(config=file).settings.libraries[0].keep_originals == 3


def test_a_link_stays_a_link(tmp_path):
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
def test_an_invalid_change_leaves_the_file_as_it_was(tmp_path, text, values, said):
    file = tmp_path / "hevcq.toml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=said) as caught:
        append_table(file, "libraries", values)

    assert str(file) in str(caught.value)
    assert file.read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["hevcq.toml"]


HAND = """# mine
workers = 1 # the other core is mine

[[libraries]]   # tv!
# about tv
name = "tv"  # its name
path = "/m/tv"

[[libraries.rules]]
codec = ["hevc"]  # gain
skip = true

# what ingest makes
[ingest]
profiles = ["hevc"]

[[libraries]]
name = "b"
path = "/m/b" # the other disk
profiles = ["hevc"] # keep
note = '''
[[libraries]]
'''
"""
RULE = {"codec": ["hevc"], "skip": True}
HAND_TV = {"name": "tv", "path": "/m/tv", "rules": [RULE]}
HAND_B = {"name": "b", "path": "/m/b", "profiles": ["hevc"], "note": "[[libraries]]\n"}


def test_a_change_of_one_table_leaves_every_other_line_as_it_was(tmp_path):
    file, after = tmp_path / "hevcq.toml", {**HAND_TV, "min_age": "7d", "path": "/m/shows"}

    text = replace_table(file, HAND, "libraries", HAND_TV, after)

    head, tail = HAND.split('path = "/m/tv"\n')
    assert text.startswith(head + 'path = "/m/shows"\n')
    assert text.endswith(tail[tail.index("# what ingest") :])
    assert 'codec = ["hevc"]  # gain' in text


def test_rules_are_written_as_tables_and_removed_again(tmp_path):
    file, text = tmp_path / "hevcq.toml", '[[libraries]]\nname = "b"\npath = "/b"\n'
    bare = {"name": "b", "path": "/b"}
    ruled = {**bare, "rules": [RULE, {"max_height": 480, "profile": "av1"}], "settle": "5m"}

    with_rules = replace_table(file, text, "libraries", bare, ruled)
    again = replace_table(file, with_rules, "libraries", ruled, bare)

    assert with_rules.count("[[libraries.rules]]") == 2
    assert again.strip() == text.strip()


def test_a_table_that_only_looks_like_one_is_left_to_the_person(tmp_path):
    """The last library holds a line that looks like a header, in a text of several lines."""
    with pytest.raises(ConfigError, match="by hand"):
        replace_table(tmp_path / "hevcq.toml", HAND, "libraries", HAND_B, {**HAND_B, "path": "/c"})


def test_a_section_is_added_changed_in_place_and_removed(tmp_path):
    file = tmp_path / "hevcq.toml"
    windows = {"windows": ["22:00-06:00"]}

    text = replace_table(file, MINE, "schedule", {}, windows)
    later = replace_table(file, text, "schedule", windows, {**windows, "timezone": "Europe/Berlin"})

    assert text == MINE + '\n[schedule]\nwindows = ["22:00-06:00"]\n'
    assert later == text + 'timezone = "Europe/Berlin"\n'
    assert replace_table(file, text, "schedule", windows, None).rstrip() == MINE.rstrip()


def test_a_table_that_changed_meanwhile_is_not_overwritten(tmp_path):
    with pytest.raises(Conflict, match="nothing was saved"):
        replace_table(tmp_path / "hevcq.toml", HAND, "libraries", {"name": "tv"}, None)
