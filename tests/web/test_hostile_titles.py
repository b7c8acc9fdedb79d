"""What a file says of itself is shown as text: no title, language or tag acts on whoever looks."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hevcq.web.identity.person import Role
from support.browser import Site, Watched, browser
from web.conftest import PASSWORD, peopled

ACTS = (
    "<img src='/bad' hx-get='/bad' hx-trigger='load'>"
    "<meta http-equiv='refresh' content='0;url=/bad'>"
)
SHOWN = ACTS.replace("<", "‹")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with peopled(Site(tmp_path), ann=Role.OPERATOR) as made:
        yield made


@pytest.mark.media
@pytest.mark.timeout(180)
def test_titles_of_an_uploaded_file_are_text(site: Site, tmp_path: Path) -> None:
    server, clip = site.serve(), tmp_path / f"{ACTS.replace('/', '')}.mkv"
    make_hostile_clip(clip)
    with browser() as chromium:
        ann = Watched(chromium.new_context(), site.address)
        ann.page.set_default_timeout(15_000)
        asked: list[str] = []
        ann.page.context.on("request", lambda request: asked.append(request.url))
        ann.sign_in("ann", PASSWORD)
        addresses = [send(ann, clip, profile) for profile in ("ladder", "small")]
        assert site.run("worker", "--drain").wait(90) == 0
        for address in addresses:
            ann.go(address)
            look(ann)
            if address == addresses[1]:  # a set has no tags
                assert not ann.page.get_by_label("the uploaded file").is_checked()
                ann.page.get_by_label("artist, comment, copyright").check()
            ann.page.get_by_role("button", name="Make it public").click()
            public = ann.page.locator(".share a").get_attribute("href")
            stranger = Watched(chromium.new_context(), site.address)
            stranger.page.context.on("request", lambda request: asked.append(request.url))
            stranger.page.goto(public)
            look(stranger)
            assert not stranger.said, "; ".join(stranger.said)
        for path in ("/", "/board", f"{addresses[0]}/edit"):
            ann.go(path)
            ann.page.get_by_role("heading", level=1).wait_for()
            assert acting(ann.page) == 0, path
        assert not [each for each in asked if each.endswith("/bad")]
        assert not ann.said, "; ".join(ann.said)
    server.terminate()


def send(ann: Watched, clip: Path, profile: str) -> str:
    """Upload a clip for one profile; return the path of its page."""
    ann.go("/upload")
    for name in {"ladder", "small"} - {profile}:
        ann.page.get_by_label(name).uncheck()
    ann.page.get_by_label("Video file").set_input_files(clip)
    ann.page.get_by_role("textbox", name="Title").fill(ACTS)
    ann.page.get_by_role("button", name="Upload", exact=True).click()
    ann.page.wait_for_url("**/v/*")
    return str(ann.page.url).removeprefix(ann.address).partition("?")[0]


def look(person: Watched) -> None:
    """Switch the subtitles on and open every menu that names them."""
    page, address = person.page, person.page.url
    player = page.locator(".plyr video")
    page.locator("button[data-plyr=play]").first.click()
    person.until(lambda: player.evaluate("each => each.currentTime") > 0.2, "time advances")
    player.evaluate("each => each.pause()")
    page.locator("button[data-plyr=captions]").click()
    page.locator(".plyr__captions").get_by_text("A gate").wait_for()
    page.locator("button[data-plyr=settings]").first.click()
    page.locator("[role=menuitem]", has_text="Captions").click()
    page.locator("[role=menuitemradio]", has_text=SHOWN).wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("Chapters", exact=True).click()
    page.get_by_role("button", name=ACTS).wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == ACTS
    assert acting(page) == 0
    page.wait_for_timeout(300)  # what acts does so at once
    assert page.url == address


def acting(page: Any) -> int:
    """Return how many elements of the page a title made."""
    return int(page.locator("[hx-get='/bad'], [src='/bad'], meta[http-equiv]").count())


def make_hostile_clip(path: Path) -> None:
    """Make a clip whose every field of text holds elements that act."""
    ffmpeg, folder = shutil.which("ffmpeg") or "ffmpeg", path.parent
    words, marks = folder / "words.srt", folder / "marks.txt"
    words.write_text(f"1\n00:00:00,000 --> 00:00:03,900\nA gate {ACTS}\n", encoding="utf-8")
    title = ACTS.replace("=", "\\=").replace(";", "\\;")
    marks.write_text(
        f";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=4000\ntitle={title}\n"
    )
    command = [ffmpeg, "-nostdin", "-v", "error", "-f", "lavfi", "-i"]
    command += ["testsrc2=size=160x90:rate=25", "-f", "lavfi", "-i", "sine=frequency=300"]
    command += ["-i", str(words), "-i", str(marks), "-map_chapters", "3"]
    command += ["-map", "0", "-map", "1", "-map", "2", "-t", "4", "-c:v", "mpeg2video"]
    for name in ("title", "artist", "comment", "description", "copyright", "show", ACTS):
        command += ["-metadata", f"{name}={ACTS}"]
    for stream in ("v", "a", "s"):
        command += [f"-metadata:s:{stream}:0", f"title={ACTS}"]
        command += [f"-metadata:s:{stream}:0", f"language={ACTS}"]
    subprocess.run([*command, str(path)], check=True)
