"""The home image and its compose file: the entry gives up root, and says what it cannot use."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hevcq.settings.loader import load
from ops.test_docker import DOCKER, settings_names

COMPOSE = yaml.safe_load((DOCKER / "compose.home.yaml").read_text(encoding="utf-8"))
SERVICE: dict[str, Any] = COMPOSE["services"]["home"]
START = """
import sys
sys.path.insert(0, sys.argv[1])
import home_entry
from pathlib import Path
home_entry.PROGRAMS = Path(sys.argv[2])
sys.exit(home_entry.main(["/opt/hevcq-home/hevcq", "service", "--json"]))
"""
SHOWS = """#!/bin/sh
echo "$@"; id -u; id -g; umask; id -G; touch "$HEVCQ_DATA_DIR/made"
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, with a program and a data volume."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for each in ("bin", "data"):
            (folder / each).mkdir()
        program = folder / "bin" / "hevcq"
        program.write_text(SHOWS)
        program.chmod(0o755)
        yield folder


def start(place: Path, **variables: str) -> tuple[int, list[str], str]:
    ran = subprocess.run(
        [sys.executable, "-c", START, DOCKER, place / "bin"],
        env={"PATH": "/usr/bin:/bin", "HEVCQ_DATA_DIR": str(place / "data"), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ran.returncode, ran.stdout.splitlines(), ran.stderr


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up being root")


@as_root
def test_the_program_runs_as_the_user_and_group_and_with_the_mask_that_were_named(place):
    code, said, error = start(place, PUID="12345", PGID="23456", UMASK="027")

    assert (code, error) == (0, "")
    assert said[:4] == ["service --json", "12345", "23456", "0027"]
    assert "0" not in said[4].split(), "root's group is given up too"
    for each in ("", "made", "hevcq.toml"):
        found = (place / "data" / each).stat()
        assert (found.st_uid, found.st_gid) == (12345, 23456)


@as_root
def test_a_data_volume_of_somebody_else_is_not_taken_but_reported(place):
    (place / "data" / "hevcq.db").touch()

    code, said, error = start(place, PUID="12345", PGID="12345")

    assert (code, said) == (2, [])
    assert "data cannot be written by user 12345, group 12345: it belongs to 0:0." in error
    assert (place / "data" / "hevcq.db").stat().st_uid == 0


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PUID": "me"}, "PUID must be a number such as 1000, got 'me'."),
        ({"PGID": "-1"}, "PGID must be a number such as 1000, got '-1'."),
        ({"UMASK": "999"}, "UMASK must be a number such as 022, got '999'."),
        pytest.param({"PUID": "0"}, "PUID must not be 0", marks=as_root),
    ],
)
def test_a_wrong_variable_is_reported_and_nothing_starts(place, variables, said):
    code, out, error = start(place, **variables)

    assert (code, out) == (2, [])
    assert error.startswith(f"hevcq: {said}")
    assert list((place / "data").iterdir()) == []


@as_root
def test_settings_that_are_there_stay_and_the_first_ones_are_valid(place):
    start(place)
    file = place / "data" / "hevcq.toml"
    assert load(config=file).settings.libraries == ()
    uncommented = "\n".join(
        line.removeprefix("# ")
        for line in file.read_text().splitlines()
        if line.startswith(("# [[", "# name", "# path", "# place"))
    )
    file.write_text(uncommented)
    assert [each.name for each in load(config=file).settings.libraries] == ["shows"]

    start(place)

    assert file.read_text() == uncommented


def test_the_compose_file_has_two_volumes_and_few_rights():
    assert set(COMPOSE) == {"name", "x-hevcq", "services", "volumes"}
    assert [volume.rpartition(":")[2] for volume in SERVICE["volumes"]] == ["/media", "/data"]
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert set(SERVICE["cap_add"]) == {"CHOWN", "SETGID", "SETUID"}
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICE["ports"])
    ours = {key for key in SERVICE["environment"] if key.startswith("HEVCQ_")}
    assert ours - settings_names() == set()
    grace = float(SERVICE["environment"]["HEVCQ_STOP_GRACE_S"])
    assert grace + 30 < float(SERVICE["stop_grace_period"].rstrip("s"))
    assert (DOCKER / SERVICE["build"]["context"] / SERVICE["build"]["dockerfile"]).is_file()


def test_a_plain_start_is_one_container_and_the_others_work_on_the_same_volumes():
    services = COMPOSE["services"]
    assert [name for name, each in services.items() if "profiles" not in each] == ["home"]
    worker = services["worker"]
    assert worker["command"] == ["worker"]
    for key in ("image", "environment", "volumes", "cap_drop", "read_only", "security_opt"):
        assert worker[key] == SERVICE[key]
    database = services["database"]
    assert database["ports"] == ["${DB_ADDRESS:-127.0.0.1}:5432:5432"], (
        "closed until it is asked for"
    )
    named = {volume.partition(":")[0] for each in services.values() for volume in each["volumes"]}
    assert named - {"${MEDIA"} == set(COMPOSE["volumes"])


@as_root
def test_the_settings_of_the_compose_file_are_valid_alone_and_for_several_machines(
    place, monkeypatch
):
    start(place)
    for backend, dsn in (("embedded", ""), ("postgres", "postgresql://hevcq:x@nas/hevcq")):
        given = {"${BACKEND:-embedded}": backend, "${DSN:-}": dsn}
        for name, value in SERVICE["environment"].items():
            if name.startswith("HEVCQ_"):
                monkeypatch.setenv(name, given.get(value, value))
        settings = load(config=place / "data" / "hevcq.toml").settings
        assert (settings.backend, settings.postgres.dsn.get_secret_value()) == (backend, dsn)
