"""The service in this process: which libraries it opens, and what a reload and a stop do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest

from e2e.embedded.farm import PROFILE
from hevcq.domain.events import EventName, IngestEvent
from hevcq.domain.schedule import DAYS
from hevcq.errors import ConfigError, SourceAway
from hevcq.library.own_files import reserve_libraries
from hevcq.running.folder import FolderIngest
from hevcq.running.service import FOLDER_CHECK_S, Outlets, Service
from hevcq.settings.libraries import Library, SyncSettings
from hevcq.settings.model import ScheduleSettings, Settings
from hevcq.settings.web import WebSettings
from hevcq.usecases.operations.status import library_rows
from hevcq.usecases.settings.libraries import save_library
from hevcq.util.clock import SystemClock
from hevcq.util.signals import Notifier, StopSignals
from hevcq.wiring.app import App
from hevcq.wiring.contexts import event_log
from support import clips
from support.webdav import PASSWORD, USER, serving

Step = Callable[["House"], None]


def small_clip(folder: Path, name: str) -> Path:
    return clips.make_clip(folder, name=name, size="160x90", seconds=1)


class Scripted(SystemClock):
    """A clock whose waits of the service's own loop run the next step of a test."""

    def __init__(self) -> None:
        self.steps: Iterator[Callable[[], None]] = iter(())
        self.ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        if threading.current_thread() is threading.main_thread():
            next(self.steps, lambda: None)()
        return super().wait(event, min(timeout_s, 0.1))


class Told(Notifier):
    """A notifier that keeps what it was told."""

    def __init__(self, clock: SystemClock) -> None:
        super().__init__("", 0.0, clock)
        self.states: list[str] = []

    def _send(self, state: str) -> None:
        if not state.startswith("STATUS"):
            self.states.append(state.partition("\n")[0])


class House:
    """A service over a real data folder, run by a script of steps."""

    def __init__(self, folder: Path, *libraries: Library, page: bool = False) -> None:
        self.clock = Scripted()
        profiles = folder / "profiles"
        profiles.mkdir(exist_ok=True)
        text = PROFILE.format(name="hevc", preset="ultrafast")
        (profiles / "hevc.yaml").write_text(text)
        self.settings = Settings(
            data_dir=folder / "data",
            profiles_dir=profiles,
            workers=1,
            min_free_mib=0,
            libraries=libraries,
        )
        self.next: Settings | ConfigError = self.settings
        self.signals, self.reload = StopSignals(), threading.Event()
        self.said: list[str] = []
        self.events: list[IngestEvent] = []
        self.told = Told(self.clock)
        self.app: App = App(self.settings, self.clock)
        outlets = Outlets(self.events.append, self.said.append, self.told, page)
        self.service = Service(self.app, self.signals, outlets, self.reload, self.load)

    def load(self) -> Settings:
        if isinstance(self.next, ConfigError):
            raise self.next
        return self.next

    def run(self, *steps: Step) -> None:
        """Run the steps one after the other, each until it holds no more AssertionError; then stop."""
        left = list(steps)
        deadline = self.clock.monotonic() + 60

        def turn() -> None:
            if not left:
                self.signals.ask()
                return
            try:
                left[0](self)
            except AssertionError:
                if self.clock.monotonic() - self.clock.ahead < deadline:
                    return
                self.signals.ask()
                raise
            left.pop(0)

        self.clock.steps = iter(lambda: turn, None)
        try:
            self.service.run()
        finally:
            self.app.close()

    def change(self, **changes: object) -> Step:
        def step(_house: House) -> None:
            self.next = self.settings.model_copy(update=changes)
            self.reload.set()

        return step

    def placed(self, *paths: Path) -> Step:
        def step(_house: House) -> None:
            found = {e.path for e in self.events if e.event is EventName.PLACED}
            assert {str(path) for path in paths} <= found

        return step

    def says(self, words: str) -> Step:
        def step(_house: House) -> None:
            assert any(words in line for line in self.said), self.said

        return step

    def time_passes(self, _house: House) -> None:
        self.clock.ahead += FOLDER_CHECK_S + 1


def library(folder: Path, name: str, **keys: object) -> Library:
    return Library.model_validate({"name": name, "path": folder / name, "settle": "0s", **keys})


pytestmark = pytest.mark.media


def test_a_new_file_is_encoded_and_a_removed_library_is_let_go(tmp_path):
    old, new = library(tmp_path, "old", place="replace"), library(tmp_path, "new")
    for each in (old, new):
        each.path.mkdir()
    house = House(tmp_path, old)
    first = small_clip(old.path, name="first.mp4")
    size = first.stat().st_size

    def drop(_house: House) -> None:
        small_clip(new.path, name="second.mp4")

    house.run(
        house.placed(first),
        house.change(libraries=(new,)),
        house.says("Settings read again; libraries: new."),
        drop,
        house.placed(first, new.path / "second.mp4"),
    )

    assert first.stat().st_size < size
    assert (new.path / "second.hevc.mp4").is_file()
    assert house.told.states == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert not (old.path / ".hevcq" / "in-use").exists()


def test_a_change_by_the_page_is_taken_up_without_a_signal(tmp_path):
    tv = library(tmp_path, "tv")
    tv.path.mkdir()
    house = House(tmp_path)

    def save(_house: House) -> None:
        house.next = house.settings.model_copy(update={"libraries": (tv,)})
        values = {"name": "tv", "path": str(tv.path)}
        save_library(house.app.settings_file, values, "olga", profiles=house.app.profiles)

    house.run(save, house.says("Settings read again; libraries: tv."))

    assert house.app.settings.libraries == (tv,)


@pytest.mark.parametrize(
    ("page", "auth", "told"),
    [(True, "users", True), (False, "users", False), (True, "none", False)],
)
def test_a_change_of_the_page_needs_a_start_only_where_it_is_served_and_not_in_use(
    tmp_path, page, auth, told
):
    house = House(tmp_path, page=page)
    old, new = (WebSettings(auth=each) for each in ("token", auth))

    def use(_house: House) -> None:
        """Use it at once, as who sets hevcq up at the page does."""
        in_use = new if auth == "none" else old
        house.app.settings = house.app.settings.model_copy(update={"web": in_use})

    house.run(use, house.change(web=new), house.says("Settings read again"))

    assert any("next start: web." in line for line in house.said) is told


def test_hours_recipes_and_a_new_profile_are_taken_by_a_reload(tmp_path):
    tv = library(tmp_path, "tv")
    tv.path.mkdir()
    house = House(tmp_path, tv)
    days = [f"{datetime.fromtimestamp(time.time() + n * 86_400, UTC):%a}" for n in (3, 4)]
    shut = ScheduleSettings(windows=tuple(f"{day} 00:00-24:00" for day in days), timezone="UTC")
    house.settings = house.app.settings = house.settings.model_copy(update={"schedule": shut})
    clip, recipe = small_clip(tv.path, name="a.mp4"), tmp_path / "profiles" / "hevc.yaml"

    def rewrite(_house: House) -> None:
        assert house.app.backend.queues["hevc"].depth().ready == 1
        recipe.write_text(recipe.read_text().replace("crf: 34", "crf: 40"))
        (recipe.parent / "more.yaml").write_text(recipe.read_text().replace("hevc", "more", 1))

    def still_waits(_house: House) -> None:
        assert house.app.backend.queues["hevc"].depth().ready == 1
        assert house.app.profiles["hevc"].video.crf == 40

    def made_by_the_new_one(_house: House) -> None:
        assert clip.with_name("a.more.mp4").is_file()

    more = tv.model_copy(update={"profiles": ("more",)})
    house.run(
        rewrite,
        house.change(),
        house.says("Profiles read again: hevc, more; running encodes keep theirs."),
        still_waits,
        house.change(schedule=ScheduleSettings(), libraries=(more,)),
        made_by_the_new_one,
    )


def test_a_folder_that_is_missing_is_reported_once_and_taken_when_it_comes(tmp_path):
    tv = library(tmp_path, "tv")
    house = House(tmp_path, tv)

    def mount(_house: House) -> None:
        tv.path.mkdir()
        small_clip(tv.path, name="a.mp4")
        house.time_passes(house)

    house.run(
        house.says(f"Library tv cannot be watched now: {tv.path} is not there"),
        house.time_passes,
        mount,
        house.placed(tv.path / "a.mp4"),
    )

    assert len([line for line in house.said if "cannot be watched" in line]) == 1


def test_a_library_that_could_not_be_opened_is_left_free_for_another_hevcq(tmp_path, monkeypatch):
    tv = library(tmp_path, "tv")
    tv.path.mkdir()
    monkeypatch.setattr(FolderIngest, "plan", Mock(side_effect=SourceAway("It went away.")))

    def free(house: House) -> None:
        house.says("cannot be watched now: It went away.")(house)
        with reserve_libraries([tv.path], "another", "elsewhere"):
            pass

    House(tmp_path, tv).run(free)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("scope", ["--user", "--system"])
def test_systemd_finds_no_fault_in_the_unit(hevcq, tmp_path, scope):
    file = tmp_path / "hevcq.service"
    unit = hevcq("service", "--unit").out
    file.write_text(unit.replace("%h/.local/bin/hevcq", "/bin/true"))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}

    ran = subprocess.run(
        ["systemd-analyze", "verify", scope, "--man=no", "--recursive-errors=no", file],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip

    assert [line for line in (ran.stdout + ran.stderr).splitlines() if file.name in line] == []


def closed_now() -> str:
    """Return a window of an hour that is in some days' time."""
    day = DAYS[(time.localtime().tm_wday + 3) % 7]
    return f"{day} 10:00-11:00"


def test_a_synced_file_is_encoded_and_a_failing_server_reported_once(
    tmp_path,
):
    camera = library(tmp_path, "camera", place="replace")
    camera.path.mkdir()
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    (tmp_path / "server").mkdir()
    with serving(tmp_path / "server") as server:
        for name in ("Phone", "Never"):
            (server.root / name).mkdir()
            small_clip(server.root / name, name="a.mp4")
        facts = {"user": USER, "password_file": password, "target": camera.path, "settle": "0s"}
        house = House(tmp_path, camera)
        syncs = tuple(
            SyncSettings.model_validate(
                {"name": name, "url": server.url, "folders": [name], "mode": "move", **facts}
                | ({"schedule": [closed_now()]} if name == "Never" else {})
            )
            for name in ("Never", "Phone", "Gone")
        )

        house.run(
            house.change(sync=syncs),
            house.says("moved Phone/a.mp4 → "),
            house.placed(camera.path / "a.mp4"),
        )

        assert list((server.root / "Phone").iterdir()) == []
        assert len(list((server.root / "Never").iterdir())) == 1
    assert len([line for line in house.said if line.startswith("Sync Gone: ")]) == 1


def test_a_file_that_cannot_be_encoded_is_reported_once(tmp_path):
    tv = library(tmp_path, "tv")
    tv.path.mkdir()
    torn, late = tv.path / "torn.mp4", tv.path / "late.mkv"
    torn.write_bytes(b"no video at all" * 99)
    house = House(tmp_path, tv)

    def drop(_house: House) -> None:
        late.write_bytes(b"nor is this" * 99)

    def reported(*paths: Path) -> Step:
        def step(_house: House) -> None:
            found = [e.path for e in house.events if e.event is EventName.FILE_UNUSABLE]
            assert found == [str(path) for path in paths]
            log = event_log(house.app)
            assert [
                each.source for each in log.after(0, 9) if each.name == "video.unusable"
            ] == found

        return step

    house.run(reported(torn), drop, reported(torn, late))
    again = House(tmp_path, tv)
    again.run(again.time_passes, again.change(), again.says("Settings read again"))
    assert not [e for e in again.events if e.event is EventName.FILE_UNUSABLE]


def test_status_shows_videos_that_wait_for_their_librarys_hours(tmp_path, hevcq, monkeypatch):
    hour = (int(SystemClock().now() // 3600) + 12) % 24
    shut = f"{hour:02}:00-{hour:02}:01"
    shows = library(tmp_path, "shows", schedule=[shut])
    for name in ("a.mp4", "b.mp4"):
        small_clip(tmp_path / "shows", name)
    house = House(tmp_path, shows)
    hours = house.settings.schedule.model_copy(update={"timezone": "UTC"})
    house.app.settings = house.settings.model_copy(update={"schedule": hours})
    libraries = json.dumps([{"name": "shows", "path": str(shows.path)}])
    monkeypatch.setenv("HEVCQ_LIBRARIES", libraries)

    def waits(_house: House) -> None:
        said = hevcq("status").out
        assert f"Library shows: 2 videos waiting; it may run only {shut} (schedule)" in said
        assert "; it opens " in said
        assert library_rows(house.settings.data_dir)

    house.run(waits)
    assert "waiting;" not in hevcq("status").out, "no service runs"
