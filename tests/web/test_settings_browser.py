"""A person sets hevcq up in a real browser by keyboard alone, and each page of the settings is accessible."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hevcq.web.identity.person import Role
from support.browser import Site, Watched, browser, make_large_clip
from web.conftest import PASSWORD, peopled

PAGES = (
    "/settings",
    "/settings/library?name=Films",
    "/settings/profiles",
    "/settings/profile?name=small",
    "/settings/hours",
    "/settings/hours?text=1",
    "/settings/messages",
    "/settings/sync",
    "/settings/sync/account",
    "/settings/changes",
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "hevcq.toml"
    file.write_text("# mine\n")
    monkeypatch.setenv("HEVCQ_CONFIG", str(file))
    (tmp_path / "Films").mkdir()
    return file


@pytest.fixture
def site(tmp_path: Path, config: Path) -> Iterator[Site]:
    with peopled(Site(tmp_path), olga=Role.OPERATOR) as made:
        yield made


@pytest.mark.media
@pytest.mark.timeout(300)
def test_a_person_sets_hevcq_up_by_keyboard(site, config):
    site.serve()
    with browser() as chromium:
        olga = Watched(chromium.new_context(), site.address)
        olga.sign_in("olga", PASSWORD)

        olga.press("link", "Settings")
        olga.page.get_by_role("heading", name="Libraries").wait_for()
        olga.press("link", "Add a library")
        olga.page.get_by_role("heading", name="Add a library").wait_for()
        olga.type_into("Name", "Films")
        olga.type_into("Folder", "/no/such/folder")
        olga.press("checkbox", "small", "Space")
        olga.press("button", "Save")
        olga.page.get_by_text("No such folder").wait_for()
        assert olga.page.get_by_role("alert").inner_text() == "Not saved, see: Folder."
        olga.type_into("Folder", str(config.parent / "Films"))
        olga.press("button", "Save")
        olga.page.get_by_text("Saved.").wait_for()

        olga.press("link", "Hours")
        olga.press("button", "Sat")
        olga.tab_to(olga.page.get_by_label("Saturday 00:00"))
        for key in ("Space", "ArrowRight", "ArrowUp", "Space", "ArrowDown", "ArrowDown"):
            olga.page.keyboard.press(key)
        focused = olga.page.get_by_label("Sunday 01:00")
        assert focused.evaluate("each => each === document.activeElement")
        olga.press("button", "Save")
        olga.page.get_by_text("Saved.").wait_for()
        saved = tomllib.loads(config.read_text())
        look_at_every_page(olga)
        try_a_profile_before_it_is_saved(olga, config.parent / "Films", site.profiles)

        olga.go("/settings/changes")
        olga.press("button", "Undo: Add library Films")
        olga.page.get_by_text("Undone.").wait_for()
        olga.go("/board")
        olga.forgive = True  # the browser notes each answer of 401
        olga.page.context.clear_cookies()
        olga.page.get_by_role("link", name="sign in again").click()
        olga.page.wait_for_url("**/sign-in?next=/board")
        assert not olga.said, "; ".join(olga.said)
    assert saved["libraries"] == [
        {"name": "Films", "path": str(config.parent / "Films"), "profiles": ["small"]}
    ]
    assert "libraries" not in tomllib.loads(config.read_text())
    assert saved["schedule"] == tomllib.loads(config.read_text())["schedule"]
    assert config.read_text().startswith("# mine\n")


def try_a_profile_before_it_is_saved(olga: Watched, films: Path, profiles: Path) -> None:
    """Try two qualities on a video of the library; the profile changes only when it is saved."""
    recipe, sizes = profiles / "small.yaml", []
    olga.go("/settings/profiles")
    for name, refused in (("Mein Profil", True), ("mein-profil", False)):
        (field := olga.page.get_by_label("New name")).fill(name)
        assert field.evaluate("each => each.validity.patternMismatch") is refused
    make_large_clip(films / "Garden.mkv", "320x180")
    before = recipe.read_text()
    olga.go("/settings/profile?name=small")
    for crf in ("20", "45"):
        olga.page.get_by_role("textbox", name="CRF").fill(crf)
        olga.press("button", "Try it")
        olga.page.get_by_text("Every check passed.").wait_for()
        assert olga.page.get_by_role("textbox", name="CRF").input_value() == crf
        sizes.append(olga.page.locator(".figure strong").inner_text().split("→")[1])
        frame = olga.page.get_by_alt_text("Frame of the original").first
        assert frame.evaluate("each => each.naturalWidth") > 0
        assert olga.accessible() == []
    assert sizes[0] != sizes[1]
    assert recipe.read_text() == before
    olga.page.get_by_role("textbox", name="CRF").press("Enter")
    olga.page.get_by_text("Saved.").wait_for()
    assert "crf: 45" in recipe.read_text()


def look_at_every_page(olga: Watched) -> None:
    for path in PAGES:
        olga.go(path)
        for each in olga.page.locator("details").all():
            each.evaluate("details => { details.open = true; }")
        olga.go_through()
