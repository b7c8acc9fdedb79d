"""Machines that share one PostgreSQL and the media; how they are killed is in tests/chaos/kills."""

import json
import os
import shutil
from pathlib import Path

import psycopg
import pytest

from e2e.embedded.farm import Machine, Ran
from support.postgres import Server, own_server

pytestmark = pytest.mark.media


@pytest.fixture
def server():
    with own_server() as server:
        yield server


@pytest.fixture
def machine(tmp_path: Path, server: Server):
    made: list[Machine] = []

    def start(name: str) -> Machine:
        one = Machine(tmp_path / name)
        one.dsn, one.home = server.dsn, made[0] if made else one
        made.append(one)
        return one

    yield start
    for one in made:
        one.close()


def ask(server: Server, sql: str) -> list[tuple]:
    with psycopg.connect(server.dsn, options="-c search_path=hevcq") as connection:
        return connection.execute(sql).fetchall()


def test_a_machine_that_mounts_the_share_elsewhere_works_on_it_and_a_wrong_mount_loses_nothing(
    machine, server, tmp_path
):
    nas, desktop = machine("nas"), machine("desktop")
    videos = [nas.clip(f"video {number}.mp4") for number in range(3)]
    originals = [video.read_bytes() for video in videos]
    mount, wrong = tmp_path / "mnt", tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "other.mp4").write_bytes(originals[0])

    def there(folder: Path, *words: object) -> Ran:
        paths = json.dumps({str(nas.media): str(folder)})
        return desktop.run(*words, env={"HEVCQ_PATHS": paths})

    assert nas.ingest("--replace", "--no-wait").code == 0
    shutil.copytree(nas.media, mount)  # other inodes, as a share may show
    videos = [mount / video.name for video in videos]
    refused = [
        there(wrong, "worker", "--drain"),
        there(wrong, "ingest", wrong),
        there(tmp_path / "none", "worker", "--drain"),
    ]
    doctor = there(wrong, "doctor").out
    drained = there(mount, "worker", "--drain")
    replaced = there(mount, "ingest", mount, "--replace")

    assert [each.code for each in refused] == [5, 5, 5], [each.err for each in refused]
    assert "it is another folder" in refused[0].err
    assert "it is another folder" in refused[1].err
    assert "is not there" in refused[2].err
    assert "it is another folder" in doctor
    assert (drained.code, replaced.code) == (0, 0), drained.err + replaced.err
    assert all(len(new.read_bytes()) < len(old) for new, old in zip(videos, originals, strict=True))
    paths = ask(server, "SELECT DISTINCT root FROM placement")
    assert paths == [(os.fsencode(nas.media),)]
    assert ask(server, "SELECT state, count(*) FROM job GROUP BY 1") == [("done", 3)]
    undone = there(mount, "undo", mount)
    assert undone.code == 0, undone.err
    assert [video.read_bytes() for video in videos] == originals

    assert there(mount, "ingest", videos[0], "--no-wait").code == 0
    assert there(mount, "worker", "--drain").code == 0
    facts = videos[0].stat()
    with videos[0].open("r+b") as changed:
        changed.seek(-1, os.SEEK_END)
        changed.write(bytes([originals[0][-1] ^ 1]))
    os.utime(videos[0], ns=(facts.st_atime_ns, facts.st_mtime_ns))
    late = there(mount, "ingest", videos[0])
    assert "was replaced or written to since it was queued" in late.err
    assert not list(mount.glob("*.hevc.mp4")), "a rendition of other bytes is not put beside it"


def test_what_is_wrong_with_the_server_is_one_sentence_and_a_fitting_exit_code(machine, server):
    nas = machine("nas")
    nas.clip("video.mp4")
    good = nas.run("doctor")
    nas.dsn = server.dsn.replace("dbname=postgres", "dbname=none")
    wrong = nas.run("status")
    nas.dsn = server.dsn
    ask_and_keep = "UPDATE hevcq_schema SET version = version + 1 RETURNING version"
    assert ask(server, ask_and_keep)
    newer = nas.run("status")

    assert "PostgreSQL" in good.out
    assert wrong.code == 3, wrong.err
    assert 'database "none" does not exist' in wrong.err
    assert "Correct postgres.dsn" in wrong.err
    assert newer.code == 5, newer.err
    assert "this hevcq reads schema" in newer.err
    assert "Traceback" not in wrong.err + newer.err
