"""One evening with the page, in a real browser: upload, follow, watch and share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hevcq.web.identity.person import Role
from support.browser import Site, Watched, browser, make_large_clip
from web.conftest import PASSWORD, peopled

UPLOAD_BYTES_S = 8_000_000
LARGE_BYTES = 30_000_000
KILLED_AT_PERCENT = 20.0
PHONE = {"width": 320, "height": 640}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    people = {"ann": Role.USER, "bob": Role.USER}
    with peopled(Site(tmp_path), **people) as made:
        yield made


@pytest.mark.media
@pytest.mark.timeout(300)
def test_an_evening_with_the_page(site, tmp_path):
    server = site.serve()
    clip, path = (tmp_path / name for name in ("Garden.mkv", "Path.mkv"))
    make_large_clip(clip)
    assert clip.stat().st_size >= LARGE_BYTES
    make_large_clip(path, "64x36")
    with browser() as chromium:

        def window(name: str) -> Watched:
            made = Watched(chromium.new_context(), site.address)
            made.sign_in(name, PASSWORD)
            return made

        ann = window("ann")
        server = upload_through_a_crash(site, server, ann, clip)
        bob, eve = window("bob"), window("ann")
        eve.go("/upload")
        eve.page.get_by_label("ladder").uncheck()
        send(eve, path)
        video = ann.page.url.removeprefix(site.address).partition("?")[0]
        worker = site.run("worker", "--drain")
        follow_to_done(ann)
        play(ann)
        use_every_control_by_keyboard(ann)
        use_chapters_and_subtitles(ann)
        open_each_format(ann)
        watch_an_mp4_with_subtitles(eve)
        assert bob.page.request.get(f"{site.address}{video}").status == 404
        watch_signed_out(ann, chromium, site)
        assert worker.wait(60) == 0
        ann.look_at()  # with what was really encoded
        for each in (ann, bob, eve):
            assert not each.said, "; ".join(each.said)
    server.terminate()
    assert server.wait(60) == 0


@pytest.mark.media
@pytest.mark.timeout(120)
def test_several_files_are_sent_two_at_a_time_and_a_failed_one_again_alone(site, tmp_path):
    server = site.serve()
    clips = [tmp_path / f"{name}.mp4" for name in ("ape", "bee", "cat", "dog", "eel")]
    for clip in clips:
        clip.write_bytes(clip.stem.encode() * 1000)
    clips[1].write_bytes(b"")
    begun: list[str] = []
    with browser() as chromium:
        ann = Watched(chromium.new_context(), site.address)
        ann.sign_in("ann", PASSWORD)
        ann.go("/upload")

        def held(route: Any) -> None:
            begun.append(route.request.headers["upload-metadata"])
            if len(begun) == 3:
                assert ann.page.locator('#files [data-state="sending"]').count() == 2
                routes[0].continue_()
            if len(begun) > 2:
                route.continue_()
            elif len(begun) == 2:
                ann.page.wait_for_timeout(300)
                assert ann.page.locator('#files [data-state="queued"]').count() == 2
                route.fulfill(status=422, json={"detail": "No room."})
            else:
                routes.append(route)

        routes: list[Any] = []
        ann.page.route("**/uploads", held)
        ann.forgive = True
        ann.page.get_by_label("Video files").set_input_files(clips)
        assert not ann.page.get_by_role("textbox", name="Title").is_visible()
        ann.page.get_by_role("button", name="Upload", exact=True).click()
        ann.page.get_by_text("3 of 5 uploaded, 2 failed.").wait_for()
        ann.forgive = False
        assert not ann.accessible()
        failed = ann.page.locator('#files [data-state="failed"]')
        assert [each.split("\n")[0] for each in failed.all_inner_texts()] == ["bee.mp4", "cat.mp4"]
        assert "The file is empty." in failed.nth(0).inner_text()
        assert "No room." in failed.nth(1).inner_text()
        ann.page.get_by_role("button", name="Resume: cat.mp4").click()
        ann.page.get_by_text("4 of 5 uploaded, 1 failed.").wait_for()
        ann.page.get_by_role("button", name="Cancel the upload: bee.mp4").click()
        ann.page.get_by_text("4 of 4 uploaded.").wait_for()
        assert not ann.said, "; ".join(ann.said)
    came = [each.read_bytes() for each in (site.data / "videos").iterdir() if each.suffix == ".mp4"]
    assert sorted(came) == sorted(clip.read_bytes() for clip in clips if clip != clips[1])
    assert len(begun) == 5
    server.terminate()


def upload_through_a_crash(site: Site, server: Any, ann: Watched, clip: Path) -> Any:
    """Send a file over a slow line, kill the server midway, start it again, and arrive."""
    line = ann.page.context.new_cdp_session(ann.page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1}
    line.send("Network.enable")
    line.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": UPLOAD_BYTES_S})
    ann.go("/upload")
    ann.page.get_by_label("Video file").set_input_files(clip)
    ann.page.get_by_role("textbox", name="Title").fill("Our <garden>")
    ann.page.get_by_role("button", name="Upload", exact=True).click()
    bar = ann.page.locator("#files progress")
    ann.until(lambda: bar.evaluate("each => each.value") > KILLED_AT_PERCENT, "some of the upload")
    assert "/s" in ann.page.locator("#files .facts").inner_text()
    ann.forgive = True
    server.kill()
    server.wait()
    ann.page.locator('#files [data-state="waiting"]').wait_for()
    line.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    again = site.serve()
    ann.page.wait_for_url("**/v/*")
    ann.forgive = False
    (came,) = [each for each in (site.data / "videos").iterdir() if each.suffix == ".mkv"]
    assert came.read_bytes() == clip.read_bytes()
    return again


def send(person: Watched, path: Path) -> None:
    person.page.get_by_label("Video file").set_input_files(path)
    person.page.get_by_role("button", name="Upload", exact=True).click()
    person.page.wait_for_url("**/v/*")


def follow_to_done(ann: Watched) -> None:
    """Stay on the page: each format gets its link, and the player comes by itself."""
    for profile in ("small", "ladder"):
        ann.page.get_by_role("link", name=f"Open {profile}").wait_for()
    ann.page.locator(".plyr video[data-playlist]").wait_for()
    assert ann.page.get_by_role("heading", level=1).inner_text() == "Our <garden>"


def play(ann: Watched) -> None:
    """Play what the page offers: the set by hls.js, with the pictures of its storyboard."""
    ann.press("button", "Play")
    player = ann.page.locator("video")
    ann.until(lambda: player.evaluate("each => each.currentTime") > 0.2, "time advances")


def use_every_control_by_keyboard(ann: Watched) -> None:
    """Go through the player by Tab, and seek, mute and choose a speed."""
    ann.go_through()
    player = ann.page.locator("video")
    ann.tab_to(ann.page.get_by_label("Seek"))
    ann.page.keyboard.press("Home")
    ann.page.keyboard.press("ArrowRight")
    ann.until(lambda: player.evaluate("each => each.currentTime") > 0, "the next place")
    ann.press("button", "Mute")
    assert player.evaluate("each => each.muted")
    ann.press("button", "Settings")
    choose(ann, "Speed")
    choose(ann, "1.5×")
    ann.until(lambda: player.evaluate("each => each.playbackRate") == 1.5, "the speed")
    ann.page.keyboard.press("Escape")


def choose(ann: Watched, name: str) -> None:
    """Go down the open menu to an item, and press it; wait until the focus is in the next menu."""

    def focused() -> str:
        return str(ann.page.evaluate("document.activeElement.textContent"))

    for _ in range(10):
        if name not in focused():
            ann.page.keyboard.press("ArrowDown")
    assert name in focused()
    ann.page.keyboard.press("Enter")
    ann.until(lambda: name not in focused(), "the next menu")


def use_chapters_and_subtitles(ann: Watched) -> None:
    """Go to a chapter of the set, and switch its subtitles on."""
    player = ann.page.locator("video")
    ann.page.get_by_text("Chapters", exact=True).click()
    pond = ann.page.get_by_role("button", name="<Pond>")
    pond.click()
    ann.until(lambda: player.evaluate("each => each.currentTime") >= 1.0, "the second chapter")
    ann.until(lambda: pond.get_attribute("aria-current") == "true", "the chapter is marked")
    ann.page.get_by_role("button", name="Gate").click()
    player.evaluate("each => each.pause()")
    ann.page.locator("button[data-plyr=captions]").click()
    ann.page.locator(".plyr__captions").get_by_text("A gate").wait_for()


def open_each_format(ann: Watched) -> None:
    kinds = {
        "small": ("video/mp4", b"ftyp"),
        "ladder": ("application/vnd.apple.mpegurl", b"#EXTM3U"),
    }
    for profile, (kind, begins) in kinds.items():
        address = ann.page.get_by_role("link", name=f"Open {profile}").get_attribute("href")
        got = ann.page.request.get(f"{ann.address}{address}", headers={"Range": "bytes=0-15"})
        status = 206 if profile == "small" else 200
        assert (got.status, got.headers["content-type"]) == (status, kind)
        assert begins in got.body()
    with ann.page.expect_download() as download:
        ann.page.get_by_role("link", name="Download small").click()
    assert download.value.suggested_filename == "Our _garden_ (small).mp4"
    with ann.page.expect_download() as proof:
        ann.page.get_by_role("link", name="Certificate of small").click()
    assert "certificate" in proof.value.suggested_filename
    ann.page.get_by_role("link", name="Open small").click()
    alone = ann.page.locator("video")
    ann.until(lambda: alone.evaluate("each => each.currentTime") > 0.2, "the MP4 plays by itself")
    ann.page.go_back()


def watch_an_mp4_with_subtitles(eve: Watched) -> None:
    """A video without a set has the subtitles and chapters of its MP4."""
    eve.page.get_by_role("link", name="Open small").wait_for()
    eve.page.reload()
    player = eve.page.locator(".plyr video:not([data-playlist])")
    eve.page.locator("button[data-plyr=captions]").click()
    eve.page.locator("button[data-plyr=play]").first.click()
    eve.page.locator(".plyr__captions").get_by_text("A gate").wait_for()
    player.evaluate("each => each.pause()")
    eve.page.get_by_text("Chapters", exact=True).click()
    eve.page.get_by_role("button", name="<Pond>").click()
    eve.until(lambda: player.evaluate("each => each.currentTime") >= 1.0, "the second chapter")


def watch_signed_out(ann: Watched, chromium: Any, site: Site) -> None:
    ann.page.get_by_role("button", name="Make it public").click()
    public = ann.page.locator(".share a").get_attribute("href")
    assert public is not None
    stranger = Watched(chromium.new_context(viewport=PHONE), site.address)
    stranger.page.goto(public)
    play(stranger)
    assert not stranger.said, "; ".join(stranger.said)
    assert stranger.width() == PHONE["width"]
    assert stranger.accessible() == []
    ann.page.get_by_role("button", name="Make it private").click()
    ann.page.get_by_role("button", name="Make it public").wait_for()
    assert stranger.page.request.get(public).status == 404
    assert not stranger.said, "; ".join(stranger.said)
