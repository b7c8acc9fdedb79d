"""Doctor, and a data folder that cannot be used: a sentence, a way out, an exit code."""

import re
from pathlib import Path
from unittest.mock import Mock

import pytest

from hevcq.cli.exit_codes import ExitCode
from hevcq.errors import WorkerUnfit
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.settings.loader import variable


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a script as ffmpeg and ffprobe that claims a version, and passes its self-tests."""

    def install(version: str) -> Path:
        script = tmp_path / "fake" / "ffmpeg"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\necho "ffmpeg version {version} by nobody"\n')
        script.chmod(0o755)
        monkeypatch.setenv("HEVCQ_FFMPEG", str(script))
        script.with_name("ffprobe").unlink(missing_ok=True)
        script.with_name("ffprobe").symlink_to(script)
        monkeypatch.setattr(FfmpegEncoder, "self_test", Mock())
        return script

    return install


def wrong(ran) -> list[str]:
    return [line for line in ran.out.splitlines() if not line.startswith("ok ")]


def test_a_fit_machine_has_nothing_but_ok(hevcq, fake_ffmpeg):
    fake_ffmpeg("7.1")

    ran = hevcq("doctor")

    assert (ran.code, wrong(ran)) == (0, [])
    names = {line.split()[1] for line in ran.out.splitlines()}
    assert names >= {"settings", "profiles", "ffmpeg", "data_dir", "scratch", "clock", "database"}


@pytest.mark.parametrize(
    ("setting", "value", "code", "said", "lines"),
    [
        ("FFMPEG", "no-such-ffmpeg", ExitCode.UNFIT, "no-such-ffmpeg.*Install ffmpeg", 1),
        ("STOP_GRACE_S", "fast", ExitCode.CONFIG, "HEVCQ_STOP_GRACE_S", 1),
        ("PROFILES_DIR", "{here}/mine", ExitCode.CONFIG, r"bad\.yaml.*colour", 2),
        ("DATA_DIR", "{here}/file/data", ExitCode.STORAGE, "is not writable", 3),
    ],
    ids=["no ffmpeg", "a wrong setting", "a wrong profile", "a data folder below a file"],
)
def test_what_is_wrong_is_the_first_finding(
    hevcq, fake_ffmpeg, tmp_path, monkeypatch, setting, value, code, said, lines
):
    fake_ffmpeg("7.1")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "bad.yaml").write_text("name: bad\ncolour: red")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(f"HEVCQ_{setting}", value.format(here=tmp_path))

    ran = hevcq("doctor")

    assert ran.code == code
    assert re.search(said, wrong(ran)[0])
    assert len(wrong(ran)) == lines


def test_each_profile_in_use_that_ffmpeg_cannot_make_is_named(hevcq, fake_ffmpeg, monkeypatch):
    fake_ffmpeg("7.1")
    cannot = WorkerUnfit("ffmpeg cannot make it: G8", remedy="Install another ffmpeg.")
    monkeypatch.setattr(FfmpegEncoder, "self_test", Mock(side_effect=cannot))
    monkeypatch.setenv("HEVCQ_INGEST__PROFILES", '["hevc", "av1"]')

    ran = hevcq("doctor")

    assert ran.code == ExitCode.UNFIT
    assert [line.split()[1:3] for line in wrong(ran) if line.startswith("WRONG")] == [
        ["profile", "av1"],
        ["profile", "hevc"],
    ]
    assert "ffmpeg cannot make it: G8 Install another ffmpeg." in " ".join(ran.out.split())


@pytest.mark.parametrize(
    ("year", "said"),
    [(1_000_000_000.0, "years behind"), (4_000_000_000.0, "differ from this machine's clock")],
)
def test_a_wrong_clock_is_a_finding(hevcq, fake_ffmpeg, data_dir, monkeypatch, year, said):
    fake_ffmpeg("7.1")
    data_dir.mkdir()
    monkeypatch.setattr("hevcq.util.clock.SystemClock.now", lambda _clock: year)

    ran = hevcq("doctor")

    assert ran.code == ExitCode.UNFIT
    assert any(said in line for line in wrong(ran))


@pytest.mark.parametrize("command", [["status", "--json"], ["failures", "list"], ["worker"]])
def test_a_damaged_database_is_one_sentence_with_the_way_out(hevcq, data_dir, command):
    data_dir.mkdir()
    damage = b"this is no database" * 1000
    (data_dir / "hevcq.db").write_bytes(damage)

    ran = hevcq(*command)

    assert (ran.code, ran.out) == (ExitCode.STORAGE, "")
    sentence = [line for line in ran.err.splitlines() if line.startswith("hevcq: ")]
    assert len(sentence) == 1
    assert "hevcq.db" in sentence[0]
    assert "Traceback" not in ran.err
    assert (data_dir / "hevcq.db").read_bytes() == damage


def test_an_ffmpeg_that_needs_more_than_the_sandbox_allows_is_told_apart(hevcq, fake_ffmpeg):
    script = fake_ffmpeg("7.1")
    needed = script.with_name("libraries.txt")
    needed.write_text("needed")
    script.write_text(
        script.read_text().replace(
            "#!/bin/sh\n", f"#!/bin/sh\nread x < {needed} || [ $x ] || exit 1\n"
        )
    )

    lines = wrong(hevcq("doctor"))

    assert lines
    assert "cannot run in the sandbox" in lines[0]
    assert "HEVCQ_SANDBOX=false" in lines[0]


def test_the_page_is_checked_where_it_is_set_up(hevcq, fake_ffmpeg, data_dir, monkeypatch):
    fake_ffmpeg("7.1")
    assert "sign-in" not in hevcq("doctor").out

    monkeypatch.setenv("HEVCQ_WEB__AUTH", "users")
    ran = hevcq("doctor")

    assert ran.code == ExitCode.CONFIG
    (line,) = wrong(ran)
    assert line.split()[1] == "sign-in"
    assert "hevcq serve add-user" in line
    monkeypatch.setenv("HEVCQ_WEB__AUTH", "token")
    assert "sign-in" not in hevcq("doctor").out, "these are the defaults"
    (data_dir / "web").mkdir()
    assert "sign-in" in hevcq("doctor").out, "it was served once"


@pytest.mark.parametrize(
    ("key", "value", "check"),
    [
        ("ingest.profiles", "nope", "profiles"),
        ("libraries", '[{"name": "a", "path": "/", "profiles": ["nope"]}]', "profiles"),
        ("scratch_dir", "/proc/none", "scratch"),
        ("schedule.gate_command", "/no/such/program", "schedule"),
    ],
)
def test_the_doctor_finds_what_cannot_be(hevcq, fake_ffmpeg, monkeypatch, key, value, check):
    fake_ffmpeg("7.1")
    monkeypatch.setenv(variable(key), value)
    ran = hevcq("doctor", "--json")
    assert ran.code != ExitCode.OK
    assert check in [line["name"] for line in ran.lines if not line["ok"]]
