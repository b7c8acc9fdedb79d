"""Write the screenshots of the web page that the README shows: `make web-screenshots`.

Runs the demo's page and worker, and looks at them with Chromium. Needs Debian's chromium.
"""

import re
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from scripts.demo_web import ROOT, prepare, running

IMAGES = ROOT / "docs" / "images"
SHELL = Path("/usr/lib/chromium/chromium-headless-shell")
CHROMIUM = SHELL if SHELL.is_file() else "/usr/bin/chromium"
PORT = 8797
PAGE = f"http://127.0.0.1:{PORT}"
WIDE = {"width": 1000, "height": 700}
PHONE = {"width": 390, "height": 700}
START_S, ENCODE_MS = 60, 300_000
CLEAR = "boxes => boxes.forEach(box => { box.checked = false; })"
SHOWN = "Mandelbrot, slowly"


def wait_for_page() -> None:
    """Return once the page answers."""
    for _ in range(START_S * 10):
        try:
            with urllib.request.urlopen(f"{PAGE}/healthz"):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("The page did not start.")


def shoot(page: Any, name: str) -> None:
    """Write one picture, once those of the videos are there."""
    page.wait_for_load_state("load")
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / f"web-{name}.png")


def open_video(page: Any, title: str) -> None:
    """Open a video's page from the list."""
    page.goto(PAGE)
    page.get_by_role("link", name=title).last.click()
    page.wait_for_url(re.compile("/v/"))


def look(chromium: Any) -> None:
    """Go through the pages as a person would."""
    page = chromium.new_context(viewport=WIDE).new_page()
    page.set_default_timeout(ENCODE_MS)
    page.goto(f"{PAGE}/board")
    page.get_by_text("real time").first.wait_for()
    shoot(page, "board")
    open_video(page, SHOWN)
    page.get_by_role("link", name="Download hevc").wait_for()
    page.locator("button[data-plyr=play]").first.click()
    page.wait_for_timeout(3000)
    page.locator("button[data-plyr=play]").first.click()
    page.set_viewport_size({"width": 1000, "height": 1100})
    shoot(page, "video")
    page.get_by_role("button", name="Make it public").click()
    public = page.locator(".share a").get_attribute("href")
    page.set_viewport_size(WIDE)
    page.goto(f"{PAGE}/upload")
    page.get_by_role("textbox", name="Title").fill("Crossing the pass")
    shoot(page, "upload")
    page.goto(f"{PAGE}/settings/hours")
    for hour in range(8, 22):
        page.locator(f"tr:nth-child(-n+5) td:nth-child({hour + 2}) input").evaluate_all(CLEAR)
    shoot(page, "hours")
    page.goto(PAGE)
    page.get_by_text("% smaller").nth(1).wait_for()
    page.set_viewport_size({"width": 1000, "height": 830})
    page.goto(PAGE)
    shoot(page, "videos")
    phone = chromium.new_context(viewport=PHONE, color_scheme="dark").new_page()
    phone.goto(public)
    shoot(phone, "public")


def main() -> int:
    """Write the pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    environment = prepare()
    page = ("serve", "--host", "127.0.0.1", "--port", str(PORT))
    with running(environment, *page), running(environment, "worker"), sync_playwright() as play:
        wait_for_page()
        chromium = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--mute-audio"]
        )
        look(chromium)
        chromium.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
