"""A forked hevcq is what an installed one is: its words, codes, place and signals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from e2e.embedded.farm import Farm, alive, first_event
from support.forkserver import HEVCQ, _Forked, run, start

NULL = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)


@pytest.mark.parametrize(
    "words", [["--version"], ["status"], ["status", "--nope"], ["config", "--json"]], ids=" ".join
)
def test_it_prints_and_ends_as_the_installed_command_does(farm: Farm, words: list[str]) -> None:
    env = {**os.environ, "HEVCQ_DATA_DIR": str(farm.data), "HEVCQ_WORKERS": "3"}
    command = [str(HEVCQ), *words]

    forked = run(command, env=env, cwd=farm.folder, text=True)
    installed = subprocess.run(
        command, env=env, cwd=farm.folder, text=True, capture_output=True, check=False
    )

    assert vars(forked) == vars(installed)


def test_it_is_a_child_of_ours_that_signals_reach(farm: Farm) -> None:
    for number, code in ((signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)):
        child = farm.start("ingest", farm.media, "--watch", "--json")
        first_event(child, lambda event: True)
        stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()

        assert isinstance(child, _Forked)
        assert int(stat[1]) == os.getpid()
        assert child.poll() is None
        child.send_signal(number)
        assert child.wait(30) == code
        assert not alive(child.pid)


def test_it_keeps_no_stream_of_another_open(farm: Farm) -> None:
    """The reader of one command's words would wait for the end of the other."""
    first, second = (farm.start("ingest", farm.media, "--watch", "--json") for _ in range(2))
    first_event(second, lambda event: True)

    theirs = {
        os.readlink(f"/proc/self/fd/{pipe.fileno()}") for pipe in (first.stdout, first.stderr)
    }
    held = {os.readlink(path) for path in Path(f"/proc/{second.pid}/fd").iterdir()}

    assert all(name.startswith("pipe:") for name in theirs)
    assert not theirs & held


def test_what_a_fork_could_not_reproduce_is_started_anew(farm: Farm) -> None:
    master, terminal = pty.openpty()
    env = {**os.environ, "LC_ALL": "C"}
    for command, options in (
        (["/bin/sh", "-c", "exit 0"], NULL),
        ([str(HEVCQ), "--version"], {**NULL, "env": env}),
        ([str(HEVCQ), "--version"], {**NULL, "stdin": terminal}),
        ([str(HEVCQ), "--version"], {**NULL, "umask": 0o77}),
    ):
        child = start(command, **options)
        assert not isinstance(child, _Forked)
        assert child.wait(30) == 0
    for number in (master, terminal):
        os.close(number)
