"""The health file and the command that reads it: what is well, what is not, and why."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hevcq import health
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.monitoring.health import Health, HealthFile
from hevcq.worker.pool import Numbers, WorkerPool
from support.clips import ManualClock
from support.fakes.farm import Farm

NODE = "box-1.lan"
WELL = Health(slots=2, alive=2, handled=7, oldest_poll_s=1.0)


def changed(**facts: object) -> Health:
    return Health(**{**{f: getattr(WELL, f) for f in Health.__slots__}, **facts})


def asked(folder: Path, clock: ManualClock, *, alive=lambda _pid: True) -> tuple[bool, str]:
    return health.examine(health.folder_of(str(folder)), NODE, clock.monotonic(), alive)


def written(folder: Path, clock: ManualClock, seen: Health = WELL, pid: int = 41) -> HealthFile:
    file = HealthFile(folder, NODE, pid, clock)
    file.observe(seen)
    return file


LATE = health.MAX_POLL_S + 1
OVER = health.STALE_S + 1


@pytest.mark.parametrize(
    ("facts", "later_s", "said"),
    [
        ({"busy": 1}, 0, "1 well: 1 jobs running, 7 handled."),
        ({}, health.STALE_S, "1 well: 0 jobs running, 7 handled."),
        ({}, OVER, "Worker 41 is not well: it last showed itself 121 s ago."),
        ({"busy": 2}, OVER, "Worker 41 is not well: it last showed itself 121 s ago."),
        ({"alive": 0}, 0, "Worker 41 is not well: none of its 2 slots is alive."),
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
    written(tmp_path, clock, changed(**facts))
    clock.advance(later_s)

    well, sentence = asked(tmp_path, clock)

    assert well == said.startswith("1 well: ")
    assert said in sentence


def test_a_correction_of_the_wall_time_harms_nobody(tmp_path):
    clock = ManualClock()
    written(tmp_path, clock)
    clock.jump_wall(-86_400)

    assert asked(tmp_path, clock)[0]


def test_a_file_from_before_the_machine_started_is_not_well(tmp_path):
    clock = ManualClock()
    clock.advance(1000)
    written(tmp_path, clock)

    well, sentence = asked(tmp_path, ManualClock())

    assert (well, "before the machine started" in sentence) == (False, True)


def test_no_file_at_all_is_not_well(tmp_path):
    well, sentence = asked(tmp_path, ManualClock())

    assert (well, sentence.startswith("No worker of this machine")) == (False, True)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"at": "soon"}', "{}", "\xff"])
def test_a_file_that_cannot_be_read_is_not_well(tmp_path, content):
    file = Path(health.file_of(str(tmp_path), NODE, 41))
    file.parent.mkdir()
    file.write_text(content, encoding="latin-1")

    well, sentence = asked(tmp_path, ManualClock())

    assert (well, sentence.startswith("Worker 41 is not well: its file")) == (False, True)


def test_one_sick_worker_among_several_is_named(tmp_path):
    clock = ManualClock()
    written(tmp_path, clock, pid=41)
    written(tmp_path, clock, changed(alive=0), pid=42)

    well, sentence = asked(tmp_path, clock)

    assert (well, sentence.startswith("Worker 42")) == (False, True)


def test_another_machines_and_a_dead_processs_files_are_not_asked(tmp_path):
    clock = ManualClock()
    mine = os.getpid()
    HealthFile(tmp_path, "other", 42, clock).observe(changed(alive=0))
    written(tmp_path, clock, pid=mine)
    folder = health.folder_of(str(tmp_path))
    health.write(health.file_of(str(tmp_path), NODE, 41), {})

    assert health.examine(folder, NODE, clock.monotonic(), lambda pid: pid == mine)[0]
    assert not health.examine(folder, NODE, clock.monotonic(), lambda _pid: True)[0]


def test_a_new_process_removes_what_dead_ones_left(tmp_path):
    clock = ManualClock()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    written(tmp_path, clock, pid=os.getpid())
    left = Path(health.file_of(str(tmp_path), NODE, gone.pid))
    left.write_text("{}")

    written(tmp_path, clock, pid=os.getpid())

    assert [p.name for p in left.parent.iterdir()] == [f"box_1_lan-{os.getpid()}.json"]


def test_the_file_is_written_every_few_seconds_and_never_half(tmp_path):
    clock = ManualClock()
    file = written(tmp_path, clock)
    path = Path(health.file_of(str(tmp_path), NODE, 41))
    first = path.stat().st_ino
    file.observe(changed(handled=8))
    assert json.loads(path.read_text())["handled"] == 7

    clock.advance(health.EVERY_S)
    file.observe(changed(handled=8))

    assert json.loads(path.read_text())["handled"] == 8
    assert path.stat().st_ino != first, "written in place, so a reader may see half of it"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_is_reported_once_and_harms_nothing(tmp_path, capsys):
    clock = ManualClock()
    (tmp_path / "health").write_text("a file where the folder should be")
    file = HealthFile(tmp_path, NODE, 41, clock)
    for _ in range(3):
        file.observe(WELL)
        clock.advance(health.EVERY_S)
    file.close()

    said = capsys.readouterr()
    assert (said.out + said.err).count("health_not_written") == 1


def test_a_pool_keeps_its_file_fresh_and_removes_it_at_the_end(tmp_path):
    farm = Farm(tmp_path)
    farm.clock.auto = False
    file = HealthFile(tmp_path, NODE, os.getpid(), farm.clock)
    pool = WorkerPool(
        farm.context, [ProfileQueue(farm.profile, farm.queue)], Numbers(slots=2), [file]
    )

    pool.start()
    assert asked(tmp_path, farm.clock)[0]
    farm.clock.advance(health.STALE_S + 1)
    assert not asked(tmp_path, farm.clock)[0]
    pool.step()
    assert asked(tmp_path, farm.clock)[0]

    pool.ask()
    pause = threading.Event()
    while not pool.stopped:
        farm.clock.advance(0.5)
        pool.step()
        pause.wait(0.002)
    pool.finish()
    assert list((tmp_path / "health").iterdir()) == []


def test_a_watcher_that_breaks_does_not_break_the_pool(tmp_path):
    class Broken:
        looks = 0

        def observe(self, _health: Health) -> None:
            self.looks += 1
            raise ZeroDivisionError

        def close(self) -> None:
            raise ZeroDivisionError

    farm, broken = Farm(tmp_path), Broken()
    pool = WorkerPool(farm.context, [ProfileQueue(farm.profile, farm.queue)], Numbers(), [broken])

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
    file = health.file_of(str(tmp_path), health.node(), os.getpid())
    facts = {"slots": 1, "alive": 1, "handled": 0, "oldest_poll_s": 0, "busy": 0, "stopping": False}
    with open("/proc/uptime", encoding="ascii") as uptime:
        now = float(uptime.read().split()[0])
    health.write(file, {**facts, "at": now - 1})

    ran = command(HEVCQ_DATA_DIR=str(tmp_path), HEVCQ_BACKEND="aws", HEVCQ_LOG_STYLE="json")
    named = command(str(tmp_path))
    other = command(str(tmp_path / "elsewhere"))

    assert (ran.returncode, ran.stdout) == (0, "1 well: 0 jobs running, 0 handled.\n")
    assert named.returncode == 0
    assert (other.returncode, other.stdout.count("\n")) == (1, 1)


def test_the_command_finds_the_folder_of_the_settings_file(tmp_path):
    config = tmp_path / "hevcq.toml"
    config.write_text('data_dir = "elsewhere"\nworkers = 3\n')

    ran = command(HEVCQ_CONFIG=str(config))

    assert ran.returncode == 1
    assert str(tmp_path / "elsewhere") in ran.stdout


def test_the_command_takes_no_data_folder_from_a_file_it_finds(tmp_path, monkeypatch, capsys):
    (tmp_path / "hevcq.toml").write_text('data_dir = "elsewhere"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEVCQ_DATA_DIR", raising=False)

    assert health.data_dir([]) != str(tmp_path / "elsewhere")
    assert "Ignored in" in capsys.readouterr().err


def test_settings_that_cannot_be_read_are_not_well():
    ran = command(HEVCQ_CONFIG="/no/such/file.toml")

    assert ran.returncode == 1
    assert "/no/such/file.toml" in ran.stdout


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["a", "b"], 2), (["--nope"], 2)])
def test_the_command_called_wrongly_says_how(words, code):
    ran = command(*words)

    assert (ran.returncode, "usage: hevcq-health" in ran.stdout) == (code, True)


def test_the_check_loads_only_the_standard_library():
    script = (
        "import sys; before = set(sys.modules); import hevcq.health; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before "
        "if m.split('.')[0] not in sys.stdlib_module_names})"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert ran.stdout.split() == ["hevcq"]
    assert health.USAGE.startswith("usage")


def test_an_absolute_folder_is_found_also_where_the_current_one_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert health.data_dir([str(tmp_path)]) == str(tmp_path)
