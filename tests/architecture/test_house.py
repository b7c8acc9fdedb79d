"""Check the house: what is committed, and who reads time and environment."""

import inspect
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hevcq
from hevcq.backends.sql.factory import open_sql
from hevcq.domain.keys import key_for_path
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.verdict import Done
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import installed_folder, load_profiles
from hevcq.util.clock import SystemClock
from hevcq.worker.admission import Scratch
from hevcq.worker.delivery.claim import WorkerContext
from hevcq.worker.handler import Handler, ProfileQueue
from support.clips import make_clip

ROOT = Path(__file__).resolve().parents[2]
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.splitlines()


def test_every_benchmark_and_script_can_be_imported():
    names = [
        name.removesuffix(".py").replace("/", ".")
        for name in TRACKED
        if name.startswith(("benchmarks/", "scripts/")) and name.endswith(".py")
    ]
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert names
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "pattern",
    [
        r"/work/(main|shared)",
        r"/root/",
        r"AKIA[0-9A-Z]{16}",
        r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}:\d+/simple",
    ],
)
def test_no_machine_path_key_or_registry_is_committed(pattern):
    found = []
    for name in TRACKED:
        path = ROOT / name
        if not path.is_file() or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{name}: {line}" for line in text.splitlines() if re.search(pattern, line)]

    assert found == []


def test_only_the_clock_reads_time():
    reads = re.compile(
        r"\btime\.(time|monotonic|sleep|perf_counter)\(|datetime\.(now|utcnow|today)\("
    )
    allowed = {"util/clock.py"}
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        if path.relative_to(ROOT / "src" / "hevcq").as_posix() not in allowed
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if reads.search(line)
    ]

    assert found == []


def test_nothing_below_settings_reads_the_environment():
    above = ("cli", "alive", "settings", "wiring")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        if not path.relative_to(ROOT / "src" / "hevcq").as_posix().startswith(above)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"os\.(environ|getenv)", line)
    ]

    assert found == []


def test_every_guard_has_the_test_that_fails_without_it():
    """Each condition was taken away once, and its test failed; a test that is merged takes its row."""
    text = (ROOT / "tests/architecture/guards.txt").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if not line.startswith("#")]
    defined = {
        f"{name}::{test}"
        for name in TRACKED
        if name.startswith("tests/") and name.endswith(".py") and (ROOT / name).is_file()
        for test in re.findall(r"^def (test_\w+)\(", (ROOT / name).read_text("utf-8"), re.M)
    }

    assert len(rows) >= 100
    assert [row for row in rows if len(row) != 3 or row[2] not in defined] == []


SRC = Path(hevcq.__file__).parent
MAX_WORKER_FILES, MAX_FILES = 12, 62


def files_entered(action: Callable[[], Any]) -> set[str]:
    """Return the files of src whose functions `action` calls in any thread."""
    seen: set[str] = set()

    def note(frame: Any, event: str, _arg: Any) -> None:
        # A class body that runs because a module is imported is no function that is called.
        body = not frame.f_code.co_flags & inspect.CO_OPTIMIZED
        if event == "call" and not body and not frame.f_code.co_name.startswith("<"):
            seen.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    inside = (Path(name) for name in seen if Path(name).is_relative_to(SRC))
    return {path.relative_to(SRC).as_posix() for path in inside}


@pytest.mark.media
def test_one_plain_encode_is_read_in_few_files(tmp_path):
    clock, profiles = SystemClock(), load_profiles(installed_folder())
    profile = profiles["hevc"]
    opened = open_sql(Settings(data_dir=tmp_path / "data"), profiles, clock)
    backend = opened.backend
    scratch = Scratch(tmp_path / "scratch", clock)
    encoder = FfmpegEncoder("ffmpeg", "ffprobe", clock)
    encoder.version()  # asked once, before a worker receives anything
    context = WorkerContext(backend, encoder, make_plan, scratch, clock)
    video = make_clip(tmp_path)
    key = key_for_path(str(video))
    source = backend.store.accept(video, key, moved=lambda _n: None, stop=threading.Event())
    backend.task_publisher.publish(source, ["hevc"], announced=False)
    queue, results = backend.queues["hevc"], []

    def life() -> None:
        (delivery,) = queue.receive(1, wait_s=0.0, stop=threading.Event())
        results.append(Handler(context, "here:0").process(ProfileQueue(profile, queue), delivery))

    entered = files_entered(life)
    opened.close()

    assert isinstance(results[0].verdict, Done), results
    worker = sorted(name for name in entered if name.startswith("worker/"))
    assert len(worker) <= MAX_WORKER_FILES, worker
    assert len(entered) <= MAX_FILES, sorted(entered)
