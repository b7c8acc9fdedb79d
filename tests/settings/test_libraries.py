"""Libraries in the settings: what is read, and each wrong one refused with one sentence."""

from pathlib import Path

import pytest

from hevcq.errors import ConfigError, UsageError
from hevcq.settings.libraries import Library, Rule, library_of
from hevcq.settings.loader import load
from hevcq.settings.model import Settings
from hevcq.settings.quantities import bytes_per_second, past_time, saving, seconds, size_bytes

TV = '[[libraries]]\nname = "tv"\npath = "tv"\n'


def read(folder: Path, text: str) -> tuple[Library, ...]:
    file = folder / "my.toml"
    file.write_text(text)
    return load(config=file).settings.libraries


def test_a_library_needs_a_name_and_a_path_which_is_relative_to_the_file(tmp_path):
    mirror = '[[libraries]]\nname = "B 2"\npath = "~/b"\nplace = "mirror"\noutput = "out"\n'

    tv, other = read(tmp_path, TV + mirror)

    assert (tv.path, tv.place, tv.keep_originals) == (tmp_path / "tv", "beside", 30)
    assert (other.path, other.output) == (Path.home() / "b", tmp_path / "out")


def test_quantities_are_read_as_numbers_and_rules_name_their_profiles(tmp_path):
    rules = '[[libraries.rules]]\nmin_bitrate = "8 Mbps"\nprofile = "1080p"\n'

    (tv,) = read(tmp_path, TV + 'profiles = ["hevc"]\nmin_age = "7d"\n' + rules)

    assert (tv.min_age, tv.rules[0].min_bitrate) == (7 * 86400, 1_000_000)
    assert tv.chosen == ("hevc", "1080p")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TV + 'plase = "beside"', r"libraries no\. 1: plase is unknown; did you mean 'place'\?"),
        (TV + 'place = "besid"', r"libraries no\. 1: place must be one of .*, got 'besid'"),
        (TV + TV.replace("tv", "TV"), "two libraries named 'TV'"),
        (TV + TV.replace('"tv"', '"x"', 1).replace('"tv"', '"tv/a"'), "is within the library tv"),
        ('[[libraries]]\npath = "tv"', r"libraries no\. 1: name is missing"),
        (TV.replace('"tv"', '"../tv"', 1), "name must be letters, digits"),
        (TV + 'place = "mirror"', "needs `output`"),
        (TV + 'place = "mirror"\noutput = "."', "holds the library itself"),
        (TV + 'place = "replace"\nprofiles = ["hevc", "720p"]', "must name one profile"),
        (TV + "keep_originals = 3", "works only with `place = 'replace'`"),
        (TV + 'min_age = "soon"', r"min_age must be a duration .*, got 'soon'"),
        (TV + 'min_saving = "much"', "min_saving must be a size or a share"),
        (TV + 'min_saving = "100%"', "min_saving must be a size or a share"),
        (TV + '[[libraries.rules]]\ncodec = ["hevc"]', "either `skip = true` or `profile = "),
        (TV + "[[libraries.rules]]\nskip = true", r"rules no\. 1 has no condition"),
        (TV + '[[libraries.rules]]\ncodek = ["a"]\nskip = true', "did you mean 'codec'"),
        ('[libraries]\nname = "tv"', r"is a list: write \[\[libraries\]\]"),
        ("libraries = [3]", r"libraries no\. 1 must be a table, got 3"),
    ],
)
def test_a_wrong_library_is_refused_with_one_sentence(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said) as caught:
        read(tmp_path, text)

    assert "\n" not in str(caught.value)
    assert "my.toml" in str(caught.value)


def test_units_are_the_usual_ones():
    assert [seconds(text) for text in ("", "90s", "1.5h", "2h30m", "2w")] == [
        0,
        90,
        5400,
        9000,
        1_209_600,
    ]
    rates = ["2500kbps", "8 Mbit/s", "", "4M", "500 KiB/s"]
    assert [bytes_per_second(text) for text in rates] == [312_500, 1_000_000, 0, 4 << 20, 500 << 10]
    assert [size_bytes(text) for text in ("", "500MiB", "2GB")] == [0, 500 << 20, 2 * 10**9]
    assert [saving(text) for text in ("", "500MiB", "20%")] == [0, 500 << 20, 0.2]


def test_a_file_belongs_to_the_library_whose_folder_holds_it():
    tv = Library(name="tv", path=Path("/media/tv"))

    assert library_of((tv,), Path("/media/tv/a/b.mkv")) is tv
    assert library_of((tv,), Path("/media/tv2/b.mkv")) is None
    assert library_of(Settings(libraries=(tv,)).libraries, Path("/media/tv")) is tv


def test_the_documentation_names_every_key(request):
    text = (request.config.rootpath / "docs" / "home" / "service.md").read_text()
    rows = "".join(line for line in text.splitlines() if line.startswith("| `"))

    missing = [k for k in (*Library.model_fields, *Rule.model_fields) if f"`{k}`" not in rows]
    assert [key for key in missing if key not in {"skip", "profile"}] == []


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOW - 5400),
        ("12H", NOW - 43_200),
        (" 2d ", NOW - 172_800),
        ("1.5w", NOW - 907_200),
        ("2h30m", NOW - 9000),
        ("2023-11-14T22:13:20+00:00", NOW),
        ("2023-11-14T22:13:20Z", NOW),
    ],
)
def test_a_past_time_is_a_duration_or_an_iso_time(text, expected):
    assert past_time(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2x", "-2d", "2023-13-01", "1e99d"])
def test_any_other_past_time_is_refused(text):
    with pytest.raises(UsageError, match="neither"):
        past_time(text, NOW)
