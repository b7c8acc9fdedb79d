"""Which layer wins, and where each value is said to come from."""

import re
from pathlib import Path

import pytest

from hevcq.errors import ConfigError
from hevcq.settings.loader import leaves, load, variable
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import installed_folder
from hevcq.wiring.app import App


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_beats_a_default_a_variable_beats_a_file_and_a_flag_beats_them_all(
    here, monkeypatch
):
    file = write(here / "my.toml", 'workers = 1\nffmpeg = "a"\nmin_free_mib = 7')
    monkeypatch.setenv("HEVCQ_CONFIG", str(file))
    monkeypatch.setenv("HEVCQ_FFMPEG", "c")
    monkeypatch.setenv("HEVCQ_WORKERS", "2")

    loaded = load({"workers": ("--workers", 3)})

    found = loaded.settings
    assert (found.workers, found.ffmpeg, found.min_free_mib) == (3, "c", 7)
    assert found.stop_grace_s == Settings().stop_grace_s
    origins = loaded.origins
    assert origins["workers"] == "flag --workers"
    assert origins["ffmpeg"] == "environment HEVCQ_FFMPEG"
    assert origins["min_free_mib"] == f"file {file}"
    assert origins["stop_grace_s"] == "default"


def test_ffprobe_comes_from_the_folder_of_ffmpeg_else_from_the_path(here):
    assert Settings().ffprobe == Settings(ffmpeg=str(here / "ffmpeg")).ffprobe == "ffprobe"
    probe = write(here / "ffprobe", "")
    assert Settings(ffmpeg=str(here / "ffmpeg")).ffprobe == str(probe)
    assert Settings(ffmpeg="ffmpeg").ffprobe == "ffprobe"


def test_a_file_in_the_current_folder_is_never_read(here, monkeypatch):
    """It may have come with a download, and chooses programs, folders and services."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "conf"))
    write(here / "hevcq.toml", 'workers = 6\nffmpeg = "./evil.sh"')

    assert load().settings == Settings()
    assert load().file is None

    mine = write(here / "conf" / "hevcq" / "hevcq.toml", "workers = 5")
    assert (load().settings.workers, load().file) == (5, mine)


@pytest.mark.parametrize(
    ("text", "path"), [("bin/ffmpeg", True), ("~/ffmpeg", True), ("ff", False)]
)
def test_a_program_given_as_a_path_is_relative_to_the_file(here, monkeypatch, text, path):
    monkeypatch.setenv("HOME", str(here / "me"))
    named = write(here / "conf" / "my.toml", f'ffmpeg = "{text}"')

    found = load(config=named).settings.ffmpeg

    wanted = here / "me" / "ffmpeg" if text.startswith("~") else here / "conf" / text
    assert found == (str(wanted) if path else text)


def test_a_named_file_hides_the_usual_one_and_must_exist(here, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here))
    write(here / "hevcq" / "hevcq.toml", "workers = 6")
    named = write(here / "other.toml", "workers = 7")

    assert load(config=named).settings.workers == 7
    monkeypatch.setenv("HEVCQ_CONFIG", str(named))
    assert load().settings.workers == 7
    with pytest.raises(ConfigError, match=r"No such settings file: .*gone\.toml"):
        load(config=here / "gone.toml")


def test_a_path_in_a_file_is_relative_to_the_file_and_a_flag_to_where_one_stands(here):
    named = write(here / "conf" / "my.toml", 'data_dir = "data"')

    assert load(config=named).settings.data_dir == here / "conf" / "data"
    flags = {"data_dir": ("--data-dir", Path("data"))}
    assert load(flags, config=named).settings.data_dir == here / "data"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("worker = 2", "worker is unknown; did you mean 'workers'? (file {file})"),
        (
            '[aws]\nregoin = "x"',
            "aws.regoin is unknown; did you mean 'aws.region'? (file {file})",
        ),
        ('region = "x"', "region is unknown; did you mean 'aws.region'? (file {file})"),
        ("zzz = 1", "zzz is unknown; known: backend, data_dir, "),
    ],
)
def test_an_unknown_key_in_a_file_is_refused_with_the_nearest_name(here, text, said):
    file = write(here / "my.toml", text)

    with pytest.raises(ConfigError) as caught:
        load(config=file)

    assert said.format(file=file) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HEVCQ_WORKER", "1", "Unknown setting HEVCQ_WORKER.* Did you mean 'HEVCQ_WORKERS'"),
        ("HEVCQ_AWS_REGION", "1", "Did you mean 'HEVCQ_AWS__REGION'"),
        ("HEVCQ_DATADIR", "1", "Did you mean 'HEVCQ_DATA_DIR'"),
        (
            "HEVCQ_WORKERS",
            "many",
            r"workers must be a whole number, got 'many' \(environment HEVCQ_WORKERS\)",
        ),
        ("HEVCQ_AWS", "x", "Unknown setting HEVCQ_AWS"),
        ("HEVCQ_LIBRARIES", "[not json", "HEVCQ_LIBRARIES is not JSON"),
    ],
)
def test_an_unknown_variable_or_wrong_value_is_refused_by_name(monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=said):
        load()


@pytest.mark.parametrize("name", ["HEVCQ_PROFILES", "HEVCQ_CRASH_AT", "HEVCQ_TEST_SEED"])
def test_variables_that_are_not_settings_are_left_alone(monkeypatch, name):
    monkeypatch.setenv(name, "1")

    assert load().settings == Settings()


def test_every_wrong_value_is_reported_at_once(here, monkeypatch):
    file = write(here / "my.toml", 'backend = "azure"\n[aws]\ntable = 3')
    monkeypatch.setenv("HEVCQ_CONFIG", str(file))
    monkeypatch.setenv("HEVCQ_STOP_GRACE_S", "-1")

    with pytest.raises(ConfigError) as caught:
        load()

    said = str(caught.value)
    assert "backend must be one of 'embedded', 'postgres' or 'aws', got 'azure' (file" in said
    assert "aws.table must be text, got 3 (file" in said
    assert re.search(r"stop_grace_s must be .* \(environment HEVCQ_STOP_GRACE_S\)", said)


@pytest.mark.parametrize("layer", ["file", "environment"])
def test_an_empty_folder_is_the_default_and_never_the_current_one(here, monkeypatch, layer):
    def give(key: str) -> None:
        if layer == "file":
            monkeypatch.setenv("HEVCQ_CONFIG", str(write(here / "my.toml", f'{key} = ""')))
        else:
            monkeypatch.setenv(f"HEVCQ_{key.upper()}", "")

    for key in ("scratch_dir", "profiles_dir"):
        give(key)
        assert getattr(load().settings, key) is None
    give("data_dir")
    with pytest.raises(ConfigError, match=rf"data_dir must name a folder.* \({layer} "):
        load()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"workers = ", r"Cannot read the settings file .*hevcq\.toml"),
        (b"\xff\xfe", r"Cannot read the settings file .*hevcq\.toml"),
        (b"aws = 1", r"aws in .*hevcq\.toml is a table: write \[aws\]"),
    ],
)
def test_a_file_with_wrong_content_is_refused(here, content, said):
    file = here / "hevcq.toml"
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=said):
        load(config=file)


SAMPLES = {int: "3", float: "3", bool: "false"}
"""A value of each kind of setting."""


def test_every_setting_has_a_description_and_a_variable_that_sets_it(monkeypatch):
    for key, field in leaves(Settings):
        assert field.description, key
        assert variable(key).startswith("HEVCQ_")
    samples = {"backend": "aws", "log_level": "info", "log_style": "json", "paths": "{}"}
    samples |= dict.fromkeys(("libraries", "notify", "webhook", "media_server"), "[]")
    samples |= {"web.url": "https://a.example", "web.auth": "none", "web.trusted_proxies": "::1"}
    samples |= {"web.browse": "/media", "metrics_address": "localhost:9464"}
    samples["sync"] = '[{"name": "a", "url": "http://a", "folders": ["b"], "target": "c"}]'
    samples |= {"schedule.windows": "22:00-06:00", "schedule.timezone": "UTC"}
    samples |= {"schedule.at_end": "freeze", "prices.max_per_day": "5"}
    samples |= {"s3.endpoint_url": "http://nas:9000", "s3.bucket": ""}
    for key, field in leaves(Settings):
        value = samples.get(key, SAMPLES.get(field.annotation, "x"))
        monkeypatch.setenv(variable(key), value)

    origins = load().origins

    assert all(origin.startswith("environment HEVCQ_") for origin in origins.values())


def test_paths_are_a_table_of_folders_also_with_dots_in_their_names(here, monkeypatch):
    text = 'backend = "postgres"\n[paths]\n"/srv/my.media" = "/mnt/nas"\n'
    monkeypatch.setenv("HEVCQ_CONFIG", str(write(here / "my.toml", text)))
    assert load().settings.paths == {Path("/srv/my.media"): Path("/mnt/nas")}
    monkeypatch.setenv("HEVCQ_PATHS", '{"/a": "/b"}')
    assert load().settings.paths == {Path("/a"): Path("/b")}


@pytest.mark.parametrize(
    ("paths", "backend", "said"),
    [
        (
            '{"/a": "/m", "/b": "/m/b"}',
            "postgres",
            "leads /a and /b to one place, as /m/b is in /m",
        ),
        ('{"/a": "/m", "/b": "/m"}', "postgres", "to one place"),
        ('{"/a": "m"}', "postgres", "must name whole paths of folders, not 'm'"),
        ('{"/": "/m"}', "postgres", "whole paths"),
        ('{"/a": "/b"}', "embedded", 'only works with backend = "postgres"'),
        ("/a=/b", "postgres", "paths must be a table"),
    ],
)
def test_paths_that_give_a_file_two_names_are_refused(monkeypatch, paths, backend, said):
    monkeypatch.setenv("HEVCQ_BACKEND", backend)
    monkeypatch.setenv("HEVCQ_PATHS", paths)
    with pytest.raises(ConfigError, match=said):
        load()


@pytest.mark.parametrize("text", ["720p,hevc", '["720p", "hevc"]', " 720p, hevc,720p,"])
def test_default_profiles_come_from_a_variable_or_a_list_in_the_file(here, monkeypatch, text):
    assert load().settings.ingest.profiles == ("hevc",)
    file = write(here / "my.toml", '[ingest]\nprofiles = ["1080p", "hevc"]')
    monkeypatch.setenv("HEVCQ_CONFIG", str(file))
    assert load().settings.ingest.profiles == ("1080p", "hevc")

    monkeypatch.setenv("HEVCQ_INGEST__PROFILES", text)

    assert load().settings.ingest.profiles == ("720p", "hevc")


def test_a_list_that_names_no_profile_at_all_is_reported_where_it_is(monkeypatch):
    """It would leave a farm without profiles, and each command to say that there are none."""
    monkeypatch.setenv("HEVCQ_BACKEND", "aws")
    monkeypatch.setenv("HEVCQ_AWS__PROFILES", "()")

    with pytest.raises(ConfigError, match=r"aws\.profiles names none of the profiles here.*hevc"):
        _ = App(load().settings).profiles


def test_subtitles_beside_videos_are_refused_on_aws(here, monkeypatch):
    shipped = (installed_folder() / "hevc.yaml").read_text()
    write(here / "profiles" / "hevc.yaml", f"{shipped}\nsubtitles: {{beside: true}}\n")
    monkeypatch.setenv("HEVCQ_PROFILES_DIR", str(here / "profiles"))
    assert App(load().settings).profiles["hevc"].subtitles.beside
    monkeypatch.setenv("HEVCQ_BACKEND", "aws")

    with pytest.raises(ConfigError, match=r"hevc: subtitles\.beside is for media folders"):
        _ = App(load().settings).profiles
