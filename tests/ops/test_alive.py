"""The signs of life of workers and the command that reads them: what is well, what is not, and why."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from hevcq import alive
from hevcq.util.clock import SystemClock
from hevcq.util.processes import FOLDER, Processes, read_row
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.monitoring.watchers import PoolState, SignOfLife
from hevcq.worker.pool import WorkerPool
from support.clips import ManualClock
from support.fakes.farm import Farm

WELL = PoolState(slots=2, alive=2, handled=7, oldest_poll_s=1.0)


def row(folder: Path, clock: ManualClock, **facts: object) -> Processes:
    """Let a worker of this state show itself once."""
    process = Processes(folder / FOLDER, clock)
    SignOfLife(process, clock).observe(PoolState(**{**asdict(WELL), **facts}))
    return process


def asked(folder: Path, clock: ManualClock) -> tuple[bool, str]:
    return alive.check_workers(folder, clock.monotonic())


LATE = alive.MAX_POLL_S + 1
OVER = alive.STALE_S + 1


@pytest.mark.parametrize(
    ("facts", "later_s", "said"),
    [
        ({"busy": 1}, 0, "1 well: 1 jobs running, 7 handled."),
        ({}, alive.STALE_S, "1 well: 0 jobs running, 7 handled."),
        ({}, OVER, "Worker {pid} is not well: it last showed itself 121 s ago."),
        ({"busy": 2}, OVER, "Worker {pid} is not well: it last showed itself 121 s ago."),
        ({"alive": 0}, 0, "Worker {pid} is not well: none of its 2 slots is alive."),
        ({"alive": 0, "stopping": True}, 0, "1 well: "),
        ({"oldest_poll_s": LATE}, 0, "no queue has answered a slot of it for 301 s"),
        ({"oldest_poll_s": LATE, "busy": 1}, 0, "1 well: "),
        ({"oldest_poll_s": LATE - 11}, 0, "1 well: "),
        ({"oldest_poll_s": LATE - 11}, 11, "no queue has answered a slot of it for 301 s"),
    ],
    ids=[
        "it polls and lives",
        "its file is as old as it may be",
        "its file is no longer written",
        "busy, but its own loop hangs",
        "no slot is alive",
        "no slot is alive, for it is ending",
        "its poll is older than the bound",
        "a long job is no poll",
        "its poll is as old as it may be",
        "time since the file was written counts towards the age of the poll",
    ],
)
def test_a_worker_is_well_while_it_shows_itself_and_polls(tmp_path, facts, later_s, said):
    clock = ManualClock()
    row(tmp_path, clock, **facts)
    clock.advance(later_s)

    well, sentence = asked(tmp_path, clock)

    assert well == said.startswith("1 well: ")
    assert said.format(pid=os.getpid()) in sentence


def test_a_worker_whose_profile_waits_for_another_ffmpeg_is_well_and_says_so(tmp_path):
    clock = ManualClock()
    row(tmp_path, clock).tell(unfit={"hls": "ffmpeg cannot make the profile hls."})

    well, sentence = asked(tmp_path, clock)

    assert well
    assert sentence.endswith("7 handled. ffmpeg cannot make the profile hls.")


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "\xff"])
def test_a_row_that_cannot_be_read_is_no_worker(tmp_path, content):
    process = row(tmp_path, ManualClock())
    file = tmp_path / FOLDER / f"{process.owner}.alive"
    file.write_text(content, encoding="latin-1")

    assert read_row(file) == {}
    assert not asked(tmp_path, ManualClock())[0]


def test_a_row_is_written_every_few_seconds_and_may_become_shorter(tmp_path):
    clock = ManualClock()
    process = Processes(tmp_path / FOLDER, clock)
    sign, file = SignOfLife(process, clock), tmp_path / FOLDER / f"{process.owner}.alive"
    sign.observe(WELL)
    sign.observe(PoolState(2, 2, 8, 1.0))
    assert read_row(file)["handled"] == 7

    clock.advance(alive.EVERY_S)
    sign.observe(PoolState(2, 2, 8, 1.0))
    assert read_row(file)["handled"] == 8
    process.tell(waiting=[{"reason": "x" * 200}])
    process.tell(waiting=[])
    assert (read_row(file)["waiting"], read_row(file)["handled"]) == ([], 8)


def test_a_watcher_that_breaks_does_not_break_the_pool(tmp_path):
    class Broken:
        looks = 0

        def observe(self, _state: PoolState) -> None:
            self.looks += 1
            raise ZeroDivisionError

        def close(self) -> None:
            raise ZeroDivisionError

    farm, broken = Farm(tmp_path), Broken()
    pool = WorkerPool(farm.context, [ProfileQueue(farm.profile, farm.queue)], [broken])

    pool.step()
    pool.step()
    pool.finish()

    assert broken.looks == 3


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("hevcq-health")), *words],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_command_asks_the_folder_it_is_given_or_that_of_the_variable(tmp_path):
    worker = row(tmp_path, SystemClock())

    ran = command(HEVCQ_DATA_DIR=str(tmp_path), HEVCQ_BACKEND="aws", HEVCQ_LOG_STYLE="json")
    named = command(str(tmp_path))
    other = command(str(tmp_path / "elsewhere"))
    worker.tell(node="another container")
    elsewhere = command(str(tmp_path))

    assert (ran.returncode, ran.stdout) == (0, "1 well: 0 jobs running, 7 handled.\n")
    assert named.returncode == 0
    assert (other.returncode, other.stdout.count("\n")) == (1, 1)
    assert elsewhere.returncode == 1


def test_the_command_finds_the_folder_of_the_settings_file(tmp_path):
    config = tmp_path / "hevcq.toml"
    config.write_text('data_dir = "elsewhere"\nworkers = 3\n')

    ran = command(HEVCQ_CONFIG=str(config))

    assert ran.returncode == 1
    assert str(tmp_path / "elsewhere") in ran.stdout


def test_the_check_loads_only_the_standard_library():
    script = (
        "import sys; before = set(sys.modules); import hevcq.alive; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before "
        "if m.split('.')[0] not in sys.stdlib_module_names})"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert ran.stdout.split() == ["hevcq"]
    assert alive.USAGE.startswith("usage")
