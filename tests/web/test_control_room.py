"""A person does everything in the page from an empty data folder on; each step survives a kill of the server."""

import http.client
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.browser import Watched, browser, make_large_clip, require_chromium
from web.conftest import PASSWORD
from web.test_browser import upload_through_a_crash
from web.test_first_run_in_a_browser import EmptySite, told_that_this_machine_encodes

JOBS = "/api/v1/jobs"
SIGKILLED = -9


class House(EmptySite):
    """A machine with films that stay and shows that are replaced, one of them long.

    Its service is killed and started again, while a person goes on with its page.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.films, self.shows = self.media / "Films", self.media / "Shows"
        self.shows.mkdir()
        source = ["-f", "lavfi", "-i", "testsrc2=size=960x540:rate=25", "-t", "60"]
        long = ["-c:v", "mpeg4", "-q:v", "3", str(self.shows / "Long.mkv")]
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *source, *long], check=True)
        shutil.copy(self.films / "Garden <b>.mkv", self.shows / "Pond.mkv")

    def meet(self, ada: Watched) -> str:
        """Start the page for the first time; return the line that names it."""
        self.ada = ada
        self.server, line = self.say("serve")
        return line

    def serve(self) -> Any:
        self.server, _ = self.say("service")
        self.ada.forgive = False
        return self.server

    def restart(self) -> None:
        """Kill the server now, and start it again."""
        self.ada.forgive = True
        self.server.kill()
        self.server.wait()
        self.serve()

    @contextmanager
    def killed_once(self, begun: Callable[[], bool]) -> Iterator[None]:
        """Kill the server from beside, the moment that a sign of its work is seen, and start it again."""
        self.ada.forgive = True

        def watch() -> None:
            while not begun() and self.server.poll() is None:
                pass
            self.server.kill()

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        yield
        watching.join()
        assert self.server.wait() == SIGKILLED
        self.serve()

    def press(self, name: str) -> None:
        """Press a button whose answer may never come."""
        self.ada.page.get_by_role("button", name=name, exact=True).first.click(no_wait_after=True)

    def files(self) -> list[str]:
        """Return what a person sees in the folders."""
        found = [path.relative_to(self.media) for path in self.media.rglob("*") if path.is_file()]
        return sorted(str(each) for each in found if ".hevcq" not in each.parts)


def changed(*paths: Path) -> Callable[[], bool]:
    """Return a function that says whether one of these came, went or was written since."""

    def marks() -> list[tuple[int, int] | None]:
        return [_mark(each) for each in paths]

    before = marks()
    return lambda: marks() != before


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    require_chromium()
    made = House(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.media
@pytest.mark.timeout(1800)
def test_a_house_is_run_from_the_page_with_the_server_killed_in_each_step(
    house: House, tmp_path: Path
) -> None:
    with browser() as chromium:
        ada = Watched(chromium.new_context(), house.address)
        set_up(house, ada)
        change_the_settings(house, ada)
        work_through_the_queue(house, ada)
        compare_and_undo(house, ada)
        read_figures(house, ada)
        share_an_upload(house, ada, chromium)
        let_a_program_in(house, ada)
        search(house, ada)
        wrong = [each for each in ada.said if "ERR_" not in each and "htmx.min.js" not in each]
        assert not wrong, wrong
    house.server.terminate()
    assert house.server.wait(60) == 0
    assert house.files() == [
        "Films/Garden <b>.mkv",
        "Films/Garden <b>.small.mp4",
        "Films/New.mkv",
        "Films/New.small.mp4",
        "Shows/Long.mkv",
        "Shows/Pond.mkv",
    ]
    for database in house.data.glob("*.db"):
        with closing(sqlite3.connect(database)) as opened:
            assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def set_up(house: House, ada: Watched) -> None:
    """The first run, killed in its test encode, and as it writes the settings."""
    ada.go(house.meet(ada).split(house.address)[1].strip())
    for label in ("Password", "Password again"):
        ada.page.get_by_label(label, exact=True).fill(PASSWORD)
    ada.page.get_by_label("Name").fill("ada")
    ada.page.get_by_role("button", name="Next").click()
    ada.page.get_by_role("link", name=str(house.media)).click()
    ada.page.get_by_role("link", name="Films").click()
    ada.page.get_by_role("button", name="Choose this folder").click()
    ada.page.get_by_role("button", name="Next").click()
    ada.page.get_by_label("small").check()
    ada.page.get_by_role("button", name="Next").click()
    ada.page.get_by_role("button", name="Next").click()
    house.press("Try it")
    ada.page.get_by_text("Encoding Garden").or_(ada.page.get_by_text("passed")).wait_for()
    house.restart()
    assert house.files() == ["Films/Garden <b>.mkv", "Shows/Long.mkv", "Shows/Pond.mkv"]
    ada.until(lambda: told_that_this_machine_encodes(ada), "the worker, after its page")
    house.press("Try it")
    ada.page.get_by_text("Every check passed.").wait_for()
    with house.killed_once(changed(house.settings, house.data / ".settings-changes.json.new")):
        house.press("Start")
    ada.go("/")
    start = ada.page.get_by_role("button", name="Start", exact=True)
    if start.is_visible():  # the screens were not closed
        start.click()
    ada.go("/board/libraries")
    ada.page.get_by_role("heading", name="Films").wait_for()
    made = house.films / "Garden <b>.small.mp4"
    ada.until(made.is_file, "the first rendition")


def change_the_settings(house: House, ada: Watched) -> None:
    """A library whose originals are replaced, added while work is paused; and a change undone."""
    ada.go("/board")
    ada.page.get_by_role("button", name="Pause", exact=True).click()
    ada.page.get_by_role("button", name="Resume", exact=True).wait_for()
    record = house.data / ".settings-changes.json.new"
    with house.killed_once(changed(house.settings, record)):
        fill_in_a_library(house, ada)
    if "Shows" not in house.settings.read_text():
        fill_in_a_library(house, ada)
        ada.page.get_by_text("Saved.").wait_for()
    said = tomllib.loads(house.settings.read_text())
    assert [(each["name"], each.get("place", "beside")) for each in said["libraries"]] == [
        ("Films", "beside"),
        ("Shows", "replace"),
    ]
    ada.go("/settings/hours")
    ada.page.get_by_label("Saturday 00:00").uncheck()
    ada.page.get_by_role("button", name="Save").click()
    ada.page.get_by_text("Saved.").wait_for()
    ada.go("/settings/changes")
    with house.killed_once(changed(house.settings, record)):
        house.press("Undo: Change the hours")
    ada.go("/settings/changes")
    back = ada.page.get_by_role("button", name="Undo: Change the hours", exact=True)
    if back.is_visible():
        back.click()
        ada.page.get_by_text("Undone.").wait_for()
    after = house.settings.read_text()
    assert tomllib.loads(after) == said
    assert after.startswith("# mine\n")


def fill_in_a_library(house: House, ada: Watched) -> None:
    page = ada.page
    ada.go("/settings/library")
    page.get_by_label("Name").fill("Shows")
    page.get_by_label("Folder", exact=True).fill(str(house.shows))
    page.get_by_label("small", exact=True).first.check()
    page.locator("input[name=place][value=replace]").check()
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Replace the originals").check()
    house.press("Save")


def work_through_the_queue(house: House, ada: Watched) -> None:
    """Two jobs wait; they are moved by one press, then resumed, and the one under way is killed."""
    waiting = ada.page.get_by_role("rowheader", name="mkv")

    def both_wait() -> bool:
        ada.go("/board/jobs?state=waiting")
        return waiting.count() == 2

    ada.until(both_wait, "the jobs of the new library")
    ada.page.get_by_role("link", name="Put all higher").click()
    ada.page.get_by_role("button", name="Put 2 higher").click(no_wait_after=True)
    house.restart()
    ada.until(both_wait, "both jobs, which are still paused")
    ada.page.get_by_role("link", name="Long").click()
    ada.page.get_by_role("button", name="Put first").click()
    ada.page.get_by_text("Moved to the front").wait_for()
    job = ada.page.url
    ada.go("/board")
    ada.page.get_by_role("button", name="Resume", exact=True).click()
    ada.page.goto(job)
    ada.page.locator("#now .tag").get_by_text("running").wait_for()
    house.restart()
    ada.page.goto(job)
    ada.page.get_by_role("link", name="Compare with the original").or_(
        ada.page.locator("#now .tag").get_by_text("done")
    ).first.wait_for()
    for name in ("Long.mp4", "Pond.mp4"):
        ada.until((house.shows / name).is_file, f"{name} in its original's place")


def compare_and_undo(house: House, ada: Watched) -> None:
    """Compare the long video, killed on the way, and bring its original back, killed on the way."""
    shows = house.shows
    ada.go("/board/jobs?state=done&q=Long")
    ada.page.get_by_role("link", name="Long").click()
    ada.page.get_by_role("heading", name="Checks").wait_for()
    ada.page.get_by_role("link", name="Compare with the original").click()
    house.press("Compare")
    ada.page.locator("#now").get_by_role("status").wait_for()
    house.restart()
    ada.page.reload()
    ada.page.get_by_role("button", name="Compare", exact=True).click()
    ada.page.get_by_role("heading", name="Worst, median and best frame").wait_for()
    address = ada.page.url.partition("?")[0]
    ada.page.get_by_role("link", name="Bring the original back").click()
    with house.killed_once(changed(shows / "Long.mkv", shows / "Long.mp4")):
        house.press("Bring it back")
    either = {"Shows/Long.mkv", "Shows/Long.mp4"}
    ada.until(lambda: len(either & set(house.files())) == 1, "one of both files")
    if "Shows/Long.mp4" in house.files():
        ada.page.goto(f"{address}/undo")
        again = ada.page.get_by_role("button", name="Bring it back")
        if again.is_visible():
            again.click()
            ada.page.get_by_text("The original is back").wait_for()
    ada.until(lambda: "Shows/Long.mp4" not in house.files(), "the end of the undo")
    probed = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0",
         str(shows / "Long.mkv")], capture_output=True, text=True, check=True)  # fmt: skip
    assert float(probed.stdout) == pytest.approx(60, abs=0.1)


def read_figures(house: House, ada: Watched) -> None:

    def figures() -> str:
        ada.go("/board/figures")
        said: str = ada.page.locator("main table").first.inner_text()
        return said

    before = figures()
    house.restart()
    assert figures() == before


def share_an_upload(house: House, ada: Watched, chromium: Any) -> None:
    """Upload, killed in the middle; share it with a password, killed before it answers; watch it."""
    clip = house.media.parent / "Path.mkv"
    make_large_clip(clip)
    upload_through_a_crash(house, house.server, ada, clip)
    ada.page.get_by_role("link", name="Open small").wait_for()
    video = ada.page.url.partition("?")[0]
    publish(house, ada)
    house.restart()
    ada.page.goto(video)
    if ada.page.get_by_role("button", name="Make it public").is_visible():
        publish(house, ada)
    public = ada.page.locator(".share a").first.get_attribute("href") or ""
    stranger = Watched(chromium.new_context(), house.address)
    stranger.page.goto(public)
    stranger.page.get_by_label("Password").fill(PASSWORD)
    stranger.page.get_by_role("button").first.click()
    stranger.page.get_by_role("heading", name="Our <garden>").wait_for()
    stranger.forgive = True
    house.restart()
    stranger.page.reload()
    stranger.page.get_by_role("heading", name="Our <garden>").wait_for()


def publish(house: House, ada: Watched) -> None:
    agreed = ada.page.get_by_label("I agree to share")
    if agreed.is_visible():
        agreed.check()
    ada.page.get_by_label("Password to watch it").fill(PASSWORD)
    house.press("Make it public")


def let_a_program_in(house: House, ada: Watched) -> None:
    """A program submits a file, the answer is cut off, and it sends the same again."""
    words = ["serve", "token", "create", "nas", "--owner", "ada", "--scope", "operate"]
    made = [sys.executable, "-m", "hevcq", "-q", *words]
    token = subprocess.check_output(made, env=house.environment, text=True).strip()
    shutil.copy(house.films / "Garden <b>.mkv", house.films / "New.mkv")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(method: str, path: str, body: Any = None) -> http.client.HTTPConnection:
        line = http.client.HTTPConnection("127.0.0.1", house.port, timeout=60)
        line.request(method, path, json.dumps(body) if body else None, headers)
        return line

    def told(*asked: Any) -> Any:
        with closing(ask(*asked)) as line:
            answer = line.getresponse()
            assert answer.status == 200
            return json.loads(answer.read())

    for method, path, body in (
        ("POST", JOBS, {"path": str(house.films / "New.mkv")}),
        ("PUT", "/api/v1/libraries/Films", {"path": str(house.films), "profiles": ["small"]}),
    ):
        with closing(ask(method, path, body)):
            house.restart()
        told(method, path, body)
    ada.until((house.films / "New.small.mp4").is_file, "what the program submitted")
    jobs = [each for each in told("GET", JOBS)["jobs"] if "New.mkv" in each["source"]]
    assert [each["profile"] for each in jobs] == ["small"]
    (pond,) = [each for each in told("GET", JOBS)["jobs"] if "Pond.mkv" in each["source"]]
    told("POST", f"{JOBS}/{pond['id']}/undo")


def search(house: House, ada: Watched) -> None:
    for path, label, word, found in (
        ("/", "Search", "garden", "Our <garden>"),
        ("/board/jobs", "Path", "New", "New.mkv"),
    ):
        ada.go(path)
        ada.page.get_by_label(label, exact=True).fill(word)
        ada.page.keyboard.press("Enter")
        house.restart()
        ada.go(path)
        ada.page.get_by_label(label, exact=True).fill(word)
        ada.page.keyboard.press("Enter")
        ada.page.get_by_role("link", name=found).first.wait_for()
