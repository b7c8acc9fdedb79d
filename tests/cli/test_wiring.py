"""The app opens what is used, once, and closes what it opened."""

import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from hevcq.domain.profile import Fleet
from hevcq.ports.backend import WorkerFacts, WorkerProcess
from hevcq.settings.model import AwsSettings, PriceSettings, Settings
from hevcq.usecases.operations.pausing import SPENT_EVERY_S
from hevcq.usecases.placement.originals import FIRST_S
from hevcq.util.signals import StopSignals
from hevcq.wiring.app import App
from hevcq.wiring.worker import build_pool, process_watchers
from hevcq.worker.monitoring.watchers import Background
from support.clips import ManualClock
from support.fakes.backend import HEVC
from support.jobs import Farm


def test_on_aws_the_catalog_stays_on_this_machine(tmp_path):
    app = App(Settings(data_dir=tmp_path / "data", backend="aws"))

    assert list(app.catalog.placements()) == []
    app.close()

    assert (tmp_path / "data" / "catalog.db").exists()
    assert not (tmp_path / "data" / "hevcq.db").exists()


def test_on_aws_only_profiles_that_have_a_queue_there_are_known(tmp_path):
    shipped = App(Settings(data_dir=tmp_path, backend="aws")).profiles
    named = App(
        Settings(data_dir=tmp_path, backend="aws", aws=AwsSettings(profiles=("hevc", "webm")))
    ).profiles

    assert {"hevc", "720p", "1080p"} <= set(shipped)
    assert "webm" not in shipped
    assert set(named) == {"hevc", "webm"}


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--version"], {"pydantic", "rich", "boto3", "structlog", "yaml", "sqlite3"}),
        (["--help"], {"pydantic", "rich", "boto3", "structlog", "yaml", "sqlite3"}),
        (["status"], {"rich", "boto3", "botocore", "structlog", "watchfiles"}),
        (["profiles", "list"], {"boto3", "botocore", "watchfiles"}),
        (["failures", "list"], {"boto3", "botocore", "watchfiles"}),
    ],
)
def test_a_command_imports_no_more_than_it_needs(tmp_path, monkeypatch, arguments, unwanted):
    monkeypatch.setenv("HEVCQ_DATA_DIR", str(tmp_path / "data"))
    app = App(Settings(data_dir=tmp_path / "data"))
    assert app.backend
    app.close()
    script = (
        "import sys; from hevcq.cli.main import main; code = main();"
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )

    assert unwanted & set(done.stderr.split()) == set()


@pytest.mark.parametrize(
    ("backend", "tasks", "shared"),
    [("embedded", 5, 3), ("aws", 5, 5), ("aws", 1, 1), ("aws", 0, 0)],
)
def test_a_video_is_shared_by_a_process_s_slots_and_on_aws_by_the_fleet_s(backend, tasks, shared):
    profile = HEVC.model_copy(update={"fleet": Fleet(max_tasks=tasks)})

    assert App(Settings(backend=backend, workers=3)).slots_per_job(profile) == shared


def test_a_video_is_shared_by_all_machines_of_a_server_that_work_with_the_same_ffmpeg():
    app = App(Settings(backend="postgres", workers=1))
    app.encoder = SimpleNamespace(version=lambda: "ffmpeg version 7.1 Copyright")
    rows = [
        ("7.1", 0.0, ""),
        ("7.1", 0.0, ""),
        ("5.1", 0.0, ""),
        ("7.1", 1e6, ""),
        ("7.1", 0.0, "me"),
    ]
    listed = [
        WorkerProcess(
            owner=str(number),
            facts=WorkerFacts(machine="m", version="1", ffmpeg=ffmpeg, cores=2, slots=2),
            seen_s=seen_s,
            drained_by=drained_by,
        )
        for number, (ffmpeg, seen_s, drained_by) in enumerate(rows)
    ]
    app.backend = SimpleNamespace(machines=SimpleNamespace(processes=lambda: listed))

    assert app.slots_per_job(HEVC) == 4


def test_a_worker_looks_after_kept_originals_without_an_ingest(tmp_path, monkeypatch):
    freed, clock = threading.Event(), ManualClock()
    monkeypatch.setattr("hevcq.wiring.worker.free_due", lambda _ports: freed.set())
    app = App(Settings(data_dir=tmp_path / "data"), clock)
    (upkeep,) = (each for each in process_watchers(app) if isinstance(each, Background))

    upkeep.observe(None)  # type: ignore[arg-type]
    clock.until_waiting()
    assert not freed.is_set()
    clock.advance(FIRST_S)

    assert freed.wait(5)
    upkeep.close()
    app.close()


def test_a_worker_that_starts_on_a_day_that_is_spent_begins_nothing(tmp_path):
    prices = PriceSettings(vcpu_hour=3600, max_per_day=1)
    app = App(Settings(data_dir=tmp_path / "data", prices=prices), ManualClock())
    assert build_pool(app, ["hevc"]).why_paused("hevc") == ""
    Farm(app, tmp_path).done("a.mp4")
    app.clock.advance(SPENT_EVERY_S)  # type: ignore[attr-defined]

    waits = build_pool(app, ["hevc"]).why_paused("hevc")

    assert waits.startswith("Paused by prices.max_per_day (1.00 of 1 dollars spent today) until ")
    app.close()


def test_a_worker_sweeps_what_unfinished_sets_left(tmp_path, monkeypatch):
    swept, signals = list[str](), StopSignals()

    def sweep(_backend, _clock, names):
        swept.extend(names)
        signals.ask()

    monkeypatch.setattr("hevcq.wiring.worker.sweep_sets", sweep)
    app = App(Settings(data_dir=tmp_path / "data", min_free_mib=0))
    build_pool(app, ["hevc"]).run(signals)
    app.close()
    assert swept == ["hls"]
