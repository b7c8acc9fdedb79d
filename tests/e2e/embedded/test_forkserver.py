"""A forked hevcq is what an installed one is: its words, codes, place and signals."""

import os
import subprocess
from pathlib import Path

import pytest

from e2e.embedded.farm import Farm, first_event
from support.forkserver import HEVCQ, run

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
