"""Every page is gone through and operated by keyboard alone, in a browser, over jobs that ended each way."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from hevcq.domain.verdict import FailureClass
from hevcq.library.filesystem import fingerprint_of
from hevcq.ports.backend import WorkerFacts
from hevcq.ports.catalog import Checked, Depth, Health, PlacementState
from hevcq.settings.model import Settings
from hevcq.sql.catalog import HealthRecords
from hevcq.usecases import compare
from hevcq.usecases.compare import Comparisons, Look
from hevcq.web.identity.person import Role
from hevcq.wiring.app import App
from support.browser import Site, Watched, browser
from support.jobs import Farm
from support.videos import VideoBench
from web.conftest import PASSWORD, peopled
from web.test_board import encoded
from web.test_compare import Pairs, placed
from web.test_share import WORD

PAPER = 720
"""The width of a sheet of A4 without its margins, in pixels."""
PRINTED = ("/", "{job}", "{video}", "/board/figures")
IN_PRINT = """() => {
  const shown = (what) => [...document.querySelectorAll(what)].filter((each) => each.checkVisibility());
  const cut = shown("main *").filter((each) => each.getBoundingClientRect().right > innerWidth + 1);
  const closed = [...document.querySelectorAll("details")].filter((each) => !each.lastElementChild.checkVisibility());
  const dark = getComputedStyle(document.body).backgroundColor === "rgb(18, 21, 24)" ? [document.body] : [];
  const useless = shown("header, nav, form, button, .button");
  return [...useless, ...cut, ...closed, ...dark].map((each) => each.outerHTML.slice(0, 99));
}"""
PAGES = ("/", "/upload", "/board", "/board/libraries", "/board/doctor", "/board/figures",
         "/board/jobs", "/board/jobs?state=failed", "/board/jobs/ask?action=retry&state=failed",
         "{job}", "{failed}", "{job}/compare", "{job}/compare?at=1.000", "{job}/compare/undo",
         "{video}", "{video}/edit", "/no/such/page")  # fmt: skip


class Shipped(Site):
    """The page with the profiles that came with hevcq, over jobs that ended each way."""

    @property
    def environment(self) -> dict[str, str]:
        named = super().environment
        return {name: named[name] for name in named if name != "HEVCQ_PROFILES_DIR"}

    def fill(self, folder: Path) -> dict[str, str]:
        """Let jobs end in each way; return the addresses of their pages."""
        bench = VideoBench(folder)
        video = bench.done("olga", profiles=("hevc",), title="The garden")
        bench.close()
        app = App(Settings(data_dir=self.data, min_free_mib=0))
        farm = Farm(app, folder / "library")
        path, job = farm.done("kept.mp4")
        (folder / "library" / "original").write_bytes(b"original")
        placed(farm, path, job, PlacementState.REPLACED, retained=folder / "library" / "original")
        for number in range(3):
            encoded(farm, number + 1, number)
        _, failed = farm.buried("torn.mp4", FailureClass.DAMAGED)
        for name in ("net.mp4", "other.mp4"):
            farm.buried(name, FailureClass.NETWORK)
        for name in ("run.mp4", "soon.mp4"):
            farm.running(name)
        farm.queued("wait.mp4")
        farm.skipped("small.mp4")
        mark = fingerprint_of(path.stat())
        bad = Checked(path, mark, "", Depth.DEMUX, Health.DAMAGED, "It is torn.", 9.0, ())
        HealthRecords(app.catalog.database).record(bad)
        app.backend.machines.tell(
            "a" * 16, WorkerFacts(machine="nas", version="0.1.0", cores=4, slots=2)
        )
        shown = Comparisons(app, app.settings.data_dir / "web" / "compare")
        for at_s in (None, 1.0):
            shown.ask(Look(job, at_s), "olga")
        shown.join()
        app.close()
        return {
            "job": f"/board/jobs/{job.job_id}",
            "failed": f"/board/jobs/{failed.job_id}",
            "video": f"/v/{video.video_id}",
        }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Shipped]:
    with peopled(Shipped(tmp_path), olga=Role.OPERATOR) as made:
        yield made


@pytest.mark.timeout(400)
def test_every_page_is_gone_through_and_operated_by_keyboard_alone(site, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "frame_pairs", lambda *_all, **_how: nullcontext(Pairs()))
    known = site.fill(tmp_path)
    site.serve()
    with browser() as chromium:
        olga = Watched(chromium.new_context(), site.address)
        olga.forgive = True  # pictures and videos are pretended ones
        olga.go("/sign-in")
        olga.go_through()
        olga.sign_in("olga", PASSWORD)
        olga.go("/board")
        pause_and_cancel(olga)  # first: a machine that says no more is listed as silent soon
        for path in PAGES:
            olga.go(path.format(**known))
            olga.go_through()
        for path in PRINTED:
            olga.go(path.format(**known))
            assert cut_in_print(olga) == [], path
        for path, operate in OPERATIONS:
            olga.go(path.format(**known))
            operate(olga)


def cut_in_print(olga: Watched) -> list[str]:
    """Return what a sheet of paper lacks, or has without use: cut tables, closed details, buttons."""
    page = olga.page
    page.set_viewport_size({"width": PAPER, "height": 1000})
    page.emulate_media(media="print", color_scheme="dark")
    found: list[str] = page.evaluate(IN_PRINT)
    page.emulate_media(media="screen")
    return found


def pause_and_cancel(olga: Watched) -> None:
    olga.tab_to(olga.page.get_by_label("How long"))
    olga.page.keyboard.press("ArrowDown")
    olga.press("button", "Pause")
    olga.press("button", "Resume")
    olga.press("button", "Drain nas")
    olga.press("button", "Resume nas")
    olga.press("button", "Cancel run.mp4, hevc")
    olga.page.get_by_role("heading", name="run.mp4").wait_for()


def stay_where_one_is_while_the_board_changes(olga: Watched) -> None:
    """What has the focus keeps it when the part around it is asked for anew."""
    button = olga.page.get_by_role("button", name="Cancel soon.mp4, hevc")
    olga.tab_to(button)
    with olga.page.expect_response("**/board/now"):
        pass
    with olga.page.expect_response("**/board/now"):
        pass
    assert button.evaluate("each => each === document.activeElement")


def retry_in_bulk(olga: Watched) -> None:
    olga.tab_to(olga.page.get_by_role("combobox", name="State"))
    olga.page.keyboard.type("failed")
    olga.type_into("Path", "net")
    olga.page.keyboard.press("Enter")
    olga.press("link", "Changed")
    olga.page.wait_for_url("**sort=oldest**")
    olga.press("link", "Retry all …")
    olga.press("button", "Retry 1")
    olga.page.get_by_text("Queued again: 1.").wait_for()


def keep_what_is_damaged(olga: Watched) -> None:
    olga.press("button", "Keep as it is")
    olga.page.get_by_text("Kept as they are").wait_for()


def move_the_slider_and_leave_the_original(olga: Watched) -> None:
    olga.tab_to(olga.page.get_by_role("slider"))
    olga.page.keyboard.press("End")
    olga.page.keyboard.press("ArrowLeft")
    assert olga.page.locator(".pair").get_attribute("style") == "--cut: 99%;"
    olga.press("link", "Restore the original …")
    olga.press("link", "Back")
    olga.press("button", "Keep it")
    olga.page.get_by_text("Noted.").wait_for()


def step_through_frames(olga: Watched) -> None:
    olga.press("button", "Next frame", "Space")
    olga.page.get_by_role("status").get_by_text("Frame 2 of").wait_for()
    for _ in range(3):
        olga.page.keyboard.press(",")
    olga.page.get_by_role("status").get_by_text("Frame 1 of").wait_for()


def share_a_video(olga: Watched) -> None:
    """Share it with a password and without download; unlock it as a stranger; then change the terms."""
    olga.type_into("Days until the share ends", "7")
    olga.type_into("Password to watch it", WORD)
    olga.press("checkbox", "Allow downloads", "Space")
    assert olga.accessible() == []
    olga.press("button", "Make it public")
    olga.page.get_by_text("with a password, without downloads").wait_for()
    address = olga.page.locator(".share a").get_attribute("href").removeprefix(olga.address)

    stranger = Watched(olga.page.context.browser.new_context(), olga.address)
    stranger.go(address)
    for word in ("not this one", WORD):
        assert stranger.accessible() == []
        stranger.type_into("Password", word)
        stranger.page.keyboard.press("Enter")
        if word != WORD:
            stranger.page.get_by_text("Wrong password.").wait_for()
    stranger.page.get_by_role("heading", name="The garden").wait_for()
    olga.tab_to(olga.page.get_by_text("Change end, password or downloads"))
    olga.page.keyboard.press("Enter")
    olga.press("checkbox", "No password", "Space")
    assert olga.accessible() == []
    olga.press("button", "Save")
    olga.page.get_by_text("The public address is unchanged").wait_for()
    assert olga.page.get_by_text("with a password").count() == 0
    assert stranger.page.get_by_role("link", name="Download").count() == 0
    bar = stranger.page.locator("input[data-plyr=seek]")
    assert bar.evaluate("each => getComputedStyle(each).borderStyle") == "none"
    assert stranger.accessible() == []


def find_a_video(olga: Watched) -> None:
    olga.type_into("Search", "garden")
    olga.page.keyboard.press("Enter")
    olga.press("link", "The garden")
    olga.press("link", "Edit or delete")
    olga.type_into("Title", "The pond")
    olga.press("button", "Save")
    olga.page.get_by_role("heading", name="The pond").wait_for()


def upload_two(olga: Watched) -> None:
    """Choose, send, pause, go on and cancel; the focus is always on something that is there."""
    held: list[Any] = []
    olga.page.route("**/uploads", lambda route: held.append(route))  # noqa: PLW0108 - it is marked
    chosen = olga.page.get_by_label("Video files")
    olga.tab_to(chosen)
    files = [
        {"name": f"{name}.mp4", "mimeType": "video/mp4", "buffer": b"x" * 999} for name in "ab"
    ]
    chosen.set_input_files(files)  # by the browser's own dialog, which no test can press keys in
    olga.press("button", "Upload")
    olga.go_through()
    olga.press("button", "Pause: a.mp4")
    olga.press("button", "Resume: a.mp4")
    olga.press("button", "Cancel the upload: a.mp4")
    olga.page.get_by_role("button", name="Cancel the upload: a.mp4").wait_for(state="detached")
    assert olga.page.evaluate("document.activeElement.textContent") == "Pause"
    held[1].continue_()  # of b.mp4, which was asked for beside the first request of a.mp4
    olga.page.wait_for_url("**/v/*")


OPERATIONS = (
    ("/board", stay_where_one_is_while_the_board_changes),
    ("/board/jobs", retry_in_bulk),
    ("{failed}", keep_what_is_damaged),
    ("{job}/compare", move_the_slider_and_leave_the_original),
    ("{job}/compare?at=1.000", step_through_frames),
    ("{video}", share_a_video),
    ("/", find_a_video),
    ("/upload", upload_two),
)
