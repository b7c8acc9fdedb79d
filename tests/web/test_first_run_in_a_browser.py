"""From an empty data folder to the first rendition, in a real browser, with the server killed on the way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import Site, Watched, browser, make_large_clip, require_chromium
from web.conftest import PASSWORD


class EmptySite(Site):
    """A machine on which hevcq was never started, with one folder of videos."""

    quiet = ()

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings, self.media = folder / "hevcq.toml", folder / "media"
        (self.media / "Films").mkdir(parents=True)
        self.settings.write_text("# mine\n", encoding="utf-8")
        make_large_clip(folder / "clip.mkv", "320x180")
        (folder / "clip.mkv").rename(self.media / "Films" / "Garden <b>.mkv")

    @property
    def environment(self) -> dict[str, str]:
        known = super().environment
        del known["HEVCQ_WEB__AUTH"]
        return {
            **known,
            "HEVCQ_CONFIG": str(self.settings),
            "HEVCQ_WEB__BROWSE": str(self.media),
            "HEVCQ_WEB__PORT": str(self.port),
        }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EmptySite]:
    require_chromium()
    made = EmptySite(tmp_path)
    yield made
    made.close()


@pytest.mark.media
@pytest.mark.timeout(300)
def test_the_first_run(site):
    server, line = site.say("serve")
    with browser() as chromium:
        ada = Watched(chromium.new_context(), site.address)
        ada.go("/")
        ada.page.wait_for_url(
            "**/setup/password"
        )  # whoever comes first cannot go on without the code
        ada.go(line.split(site.address)[1].strip())
        ada.go_through()
        for name, refused in (("Eva Müller", True), ("ada", False)):
            (field := ada.page.get_by_label("User name")).fill(name)
            assert field.evaluate("each => each.validity.patternMismatch") is refused
        ada.page.get_by_label("Password", exact=True).fill(PASSWORD)
        ada.page.get_by_label("Password again").fill(PASSWORD)
        server = killed_before(site, server, ada)
        ada.go(server[1].split(site.address)[1].strip())
        for label in ("Password", "Password again"):
            ada.page.get_by_label(label, exact=True).fill(PASSWORD)
        ada.page.get_by_label("Name").fill("ada")
        ada.page.get_by_role("button", name="Next").click()
        ada.page.get_by_role("link", name=str(site.media)).click()
        ada.page.get_by_role("link", name="Films").click()
        ada.go_through()
        ada.page.get_by_role("button", name="Choose this folder").click()
        ada.page.get_by_role("button", name="Next").click()
        ada.page.get_by_label("small").check()
        ada.go_through()
        server = killed_before(site, server[0], ada)
        assert "#" not in server[1], "the code is used"
        ada.go("/")
        ada.page.get_by_label("small").check()  # at the screen where it was
        ada.page.get_by_role("button", name="Next").click()
        ada.page.get_by_label("Always").check()
        ada.go_through()
        ada.page.get_by_role("button", name="Next").click()
        ada.page.get_by_role("button", name="Try it").click()
        ada.page.get_by_text("Every check passed.").wait_for()
        frames = ada.page.get_by_alt_text("Frame of the original")
        assert frames.first.evaluate("each => each.naturalWidth") > 0
        ada.go_through()
        assert [each.name for each in (site.media / "Films").iterdir()] == ["Garden <b>.mkv"]
        server[0].terminate()
        assert server[0].wait(60) == 0
        site.say("service")  # it serves the page too, and encodes
        ada.until(lambda: told_that_this_machine_encodes(ada), "the worker, after its page")
        ada.page.get_by_role("button", name="Start").click()
        ada.page.wait_for_url("**/board/libraries")
        rendition = site.media / "Films" / "Garden <b>.small.mp4"
        ada.until(rendition.is_file, "the first rendition")
        assert not ada.said, ada.said
        ada.go("/setup/folders")
        ada.page.wait_for_url(f"{site.address}/")
        assert ada.page.request.post(f"{site.address}/setup/folders", form={"do": "next"},
                                     headers={"Sec-Fetch-Site": "same-origin"}).status == 404  # fmt: skip


def told_that_this_machine_encodes(person: Watched) -> bool:
    """Look at the last screen again: the page is served a moment before the worker has its slots."""
    person.go("/")
    start = person.page.get_by_role("button", name="Start")
    nobody = person.page.get_by_text("No worker is running on this machine yet")
    return start.is_visible() and not nobody.is_visible()


def killed_before(site: EmptySite, server: Any, person: Watched) -> tuple[Any, str]:
    """Kill the server before the answer is sent, and start it again."""
    server.kill()
    server.wait()
    person.forgive = True
    with pytest.raises(Exception, match="ERR_CONNECTION_REFUSED"):
        person.page.goto(site.address)
    again = site.say("serve")
    person.forgive = False
    return again
