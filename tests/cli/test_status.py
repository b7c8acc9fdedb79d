"""Status: the door and the program say the same, for every state a folder can be in."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hevcq import front
from hevcq.cli import status_text
from hevcq.cli.data_dir import data_dir as data_dir_at_the_door
from hevcq.cli.exits import ExitCode
from hevcq.domain.job import Phase, Progress
from hevcq.embedded import snapshot
from hevcq.embedded.migrations import SCRIPTS
from hevcq.settings_load import load


@pytest.fixture
def door(data_dir: Path, capfd, monkeypatch):
    """Answer through the fast door alone: it fails the test to load the program."""

    def call(*arguments: str) -> str:
        def nothing(_arguments: object) -> int:
            pytest.fail("the door asked the program")

        monkeypatch.setattr("hevcq.cli.app.run", nothing)
        monkeypatch.setattr(sys, "argv", ["hevcq", *arguments])
        monkeypatch.delenv("HEVCQ_MIN_FREE_MIB", raising=False)
        capfd.readouterr()
        assert front.main() == 0
        return capfd.readouterr().out

    return call


def test_a_new_folder_shows_every_profile_at_zero(hevcq):
    ran = hevcq("status")

    assert ran.code == 0
    heading, *rows = ran.out.splitlines()
    assert heading.split()[:6] == ["profile", *status_text.STATES]
    assert [row.split()[0] for row in rows] == ["1080p", "720p", "hevc"]


def test_the_door_says_what_the_program_says(hevcq, farm, door):
    farm.skipped("a.mp4")
    farm.buried("b.mp4")
    job = farm.running("d.mp4")
    progress = Progress(phase=Phase.ENCODE, percent=41.6, speed=1.234, eta_s=754)
    farm.app.backend.ledger.progress(job.job_id, job.fence, progress)
    farm.queued("c\n\x1b.mp4", "hevc", "720p")

    program = hevcq("status")

    assert program.code == 0
    assert "1 dead letter: see" in program.out
    assert f"{job.job_id[:12]}  hevc     encode  42%   1.23x  12m34s" in program.out
    assert door("status") == program.out
    assert door("--data-dir", str(farm.app.settings.data_dir), "status") == program.out


def test_the_door_leaves_a_folder_that_is_not_there_to_the_program(data_dir: Path, monkeypatch):
    asked = []
    monkeypatch.setattr("hevcq.cli.app.run", lambda arguments: asked.append(arguments) or 0)
    monkeypatch.setattr(sys, "argv", ["hevcq", "status"])
    monkeypatch.delenv("HEVCQ_MIN_FREE_MIB")

    assert front.main() == 0

    assert asked == [["status"]]


def test_the_door_leaves_a_damaged_database_to_the_program(hevcq, data_dir: Path, monkeypatch):
    data_dir.mkdir()
    (data_dir / "hevcq.db").write_bytes(b"not a database at all" * 500)
    monkeypatch.setattr(sys, "argv", ["hevcq", "status"])
    monkeypatch.delenv("HEVCQ_MIN_FREE_MIB")

    assert front.main() == ExitCode.STORAGE


@pytest.mark.parametrize("version", [len(SCRIPTS) + 1, 0])
def test_the_door_leaves_a_database_of_another_version_to_the_program(
    hevcq, data_dir: Path, monkeypatch, version: int
):
    assert hevcq("status").code == 0
    with closing(sqlite3.connect(data_dir / "hevcq.db")) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    monkeypatch.setattr(sys, "argv", ["hevcq", "status"])
    monkeypatch.delenv("HEVCQ_MIN_FREE_MIB")

    assert front.main() == ExitCode.STORAGE
    assert len(SCRIPTS) == snapshot.VERSION


def test_help_and_version_at_the_door_are_the_programs(hevcq, door):
    assert door() == door("--help") == door("-h") == hevcq("--help").out
    assert door("--version") == hevcq("--version").out


DOOR_CASES = {
    "nothing": ({}, None, None),
    "flag": ({}, None, "by-flag"),
    "variable": ({"HEVCQ_DATA_DIR": "by-variable"}, None, None),
    "tilde": ({"HEVCQ_DATA_DIR": "~/x"}, None, None),
    "flag over variable": ({"HEVCQ_DATA_DIR": "by-variable"}, None, "/by/flag"),
    "file": ({}, 'data_dir = "by-file"', None),
    "file with a backend": ({}, 'data_dir = "/by/file"\nbackend = "embedded"', None),
    "file without": ({}, "", None),
    "variable over file": ({"HEVCQ_DATA_DIR": "by-variable"}, 'data_dir = "by-file"', None),
    "no xdg": ({"XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}, None, None),
    "other xdg": ({"XDG_DATA_HOME": "/srv/data"}, None, None),
}


@pytest.mark.parametrize("where", ["here", "config folder"])
@pytest.mark.parametrize("case", DOOR_CASES)
def test_the_door_finds_the_data_folder_where_the_settings_do(
    tmp_path: Path, monkeypatch, case: str, where: str
):
    environment, toml, flag = DOOR_CASES[case]
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if toml is not None:
        if where == "config folder":
            monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
        folder = tmp_path if where == "here" else tmp_path / "conf" / "hevcq"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hevcq.toml").write_text(toml)
    from hevcq.settings_load import Flag

    flags = {"data_dir": Flag("--data-dir", Path(flag))} if flag else {}
    settings = load(flags).settings

    found = data_dir_at_the_door(flag)

    assert found is not None
    assert Path(found) == settings.data_dir


@pytest.mark.parametrize(
    ("environment", "toml"),
    [
        ({"HEVCQ_BACKEND": "aws"}, None),
        ({"HEVCQ_PROFILES_DIR": "elsewhere"}, None),
        ({"HEVCQ_WROKERS": "1"}, None),
        ({"hevcq_data_dir": "x"}, None),
        ({"HEVCQ_CONFIG": "my.toml"}, None),
        ({"HEVCQ_DATA_DIR": ""}, None),
        ({"XDG_DATA_HOME": "relative"}, None),
        ({}, 'backend = "aws"'),
        ({}, "workers = 2"),
        ({}, "data_dir = 3"),
        ({}, 'data_dir = ""'),
        ({}, "data_dir = "),
    ],
)
def test_whatever_else_is_configured_is_left_to_the_settings(
    tmp_path: Path, monkeypatch, environment: dict[str, str], toml: str | None
):
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if toml is not None:
        (tmp_path / "hevcq.toml").write_text(toml)

    assert data_dir_at_the_door() is None


@pytest.mark.parametrize(
    "arguments", [["status", "--json"], ["status", "x"], ["-v", "status"], ["--data-dir", "status"]]
)
def test_the_door_answers_plain_questions_only(data_dir: Path, arguments: list[str]):
    assert front._answer(arguments) is None


def test_json_is_one_object_with_every_count(hevcq, farm):
    farm.buried("b.mp4")
    job = farm.running("d.mp4")

    (found,) = hevcq("status", "--json").lines

    assert found["type"] == "status"
    (hevc,) = [queue for queue in found["queues"] if queue["profile"] == "hevc"]
    assert hevc["dead_letters"] == 1
    assert hevc["jobs"] == {
        "queued": 0,
        "running": 1,
        "split": 0,
        "done": 0,
        "skipped": 0,
        "dead": 1,
    }
    (running,) = found["running"]
    assert (running["job_id"], running["owner"]) == (job.job_id, "test")


def test_a_film_that_is_shared_out_is_one_running_job_with_its_chunks(hevcq, farm):
    job = farm.split("film.mp4", frames=(100, 300))

    table = hevcq("status").out.splitlines()
    (found,) = hevcq("status", "--json").lines

    (running,) = found["running"]
    assert (running["job_id"], running["chunks"], running["chunks_done"]) == (job.job_id, 2, 1)
    assert (running["phase"], running["percent"]) == ("encode", 62.5), "weighted by frames"
    (hevc,) = [queue for queue in found["queues"] if queue["profile"] == "hevc"]
    assert (hevc["jobs"]["split"], hevc["jobs"]["queued"]) == (1, 0), "parts are no jobs"
    (line,) = [line for line in table if "film.mp4" in line]
    assert "encode 1/2 chunks" in line
    assert "62%" in line
    (counts,) = [line.split() for line in table if line.startswith("hevc ")]
    assert counts[:3] == ["hevc", "0", "1"], "it is worked on: counted as running"


def test_a_path_shows_the_jobs_of_that_file_or_folder_with_the_reason(hevcq, farm):
    path, _ = farm.buried("in/b.mp4")
    farm.skipped("out/a.mp4")

    table = hevcq("status", path.parent).out
    (line,) = hevcq("status", path, path, "--json").lines

    assert len(table.splitlines()) == 2
    assert "b.mp4 broke" in table
    assert (line["type"], line["state"], line["failure_class"]) == ("job", "dead", "encoder")


def test_watch_looks_again_until_it_is_stopped(hevcq, monkeypatch):
    looks = []

    def wait(_clock: object, _event: object, timeout_s: float) -> bool:
        looks.append(timeout_s)
        if len(looks) == 3:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr("hevcq.util.clock.SystemClock.wait", wait)

    ran = hevcq("status", "--watch", "--every-s", "7")

    assert (ran.code, looks) == (ExitCode.INTERRUPTED, [7, 7, 7])
    assert ran.out.count("profile  queued") == 3


def test_jobs_of_a_profile_whose_file_is_gone_are_still_shown(hevcq, farm, tmp_path, monkeypatch):
    farm.queued("a.mp4", "720p")
    (tmp_path / "mine").mkdir()
    hevc = Path(__file__).resolve().parents[2] / "workers" / "hevc.yaml"
    (tmp_path / "mine" / "hevc.yaml").write_text(hevc.read_text())
    monkeypatch.setenv("HEVCQ_PROFILES_DIR", str(tmp_path / "mine"))

    rows = hevcq("status").out.splitlines()[1:]

    assert [row.split()[:2] for row in rows] == [["720p", "1"], ["hevc", "0"]]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (-3, "0s"), (59.4, "59s"), (60, "1m00s"), (3725, "1h02m"), (190_000, "2d04h")],
)
def test_durations_read_at_a_glance(seconds: float | None, words: str):
    assert status_text.duration(seconds) == words
