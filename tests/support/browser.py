"""A real page in a real browser: the program's own server and worker as processes, and Chromium."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.clips import ffmpeg
from support.processes import free_port

SHELL = Path("/usr/lib/chromium/chromium-headless-shell")  # it costs a quarter less
CHROMIUM = str(SHELL) if SHELL.is_file() else "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--mute-audio"]
WAIT_MS = 60_000
PHONE, DESK = 320, 1280
MAX_TABS = 90
PARTS_OF_FIELDS = 10
"""Presses of Tab beyond the things of a page: a field for a time is one thing of several parts."""
BEGIN_WALK = """() => {
  const can = "a[href], button, input, select, textarea, summary, [tabindex]";
  const radios = new Set();
  window.stops = [...document.querySelectorAll(can)].filter((each) => {
    if (each.tabIndex < 0 || each.disabled || !each.checkVisibility({ visibilityProperty: true })) return false;
    if (each.type !== "radio") return true;
    const group = [...document.getElementsByName(each.name)];
    return each === (group.find((one) => one.checked) || group[0]);
  });
  window.came = [];
  document.addEventListener("focusin", window.seen = ({ target }) => {
    const { outlineStyle, boxShadow } = getComputedStyle(target);
    window.came.push([target, outlineStyle !== "none" || boxShadow !== "none"]);
  });
  document.body.tabIndex = -1;
  document.body.focus();
  document.body.removeAttribute("tabindex");
  return window.stops.length;
}"""
END_WALK = """() => {
  document.removeEventListener("focusin", window.seen);
  const first = ([each], at) => window.came.findIndex(([one]) => one === each) === at;
  const came = window.came.filter((one, at) => window.stops.includes(one[0]) && first(one, at));
  const order = came.map(([each]) => window.stops.indexOf(each));
  const words = (each) => each.outerHTML.slice(0, 120);
  return [
    ...window.stops.filter((each) => !came.some(([one]) => one === each)).map((each) => `not reached: ${words(each)}`),
    ...came.filter(([, seen]) => !seen).map(([each]) => `no visible focus: ${words(each)}`),
    ...came.filter((_, at) => at && order[at] < order[at - 1]).map(([each]) => `out of order: ${words(each)}`),
  ];
}"""
AXE = Path(__file__).parents[1] / "web" / "axe" / "axe.min.js"
PROFILES = {
    "small": """\
name: small
description: a small MP4, for tests
subscribe: true
container: mp4
video:
  codec: h264
  preset: ultrafast
  crf: 24
  pixel_format: yuv420p
  max_width: 160
  max_height: 90
audio:
  policy: copy
gates:
  minimum_saving: null
""",
    "ladder": """\
name: ladder
description: a set of one rung, for tests
subscribe: true
container: hls
video:
  codec: h264
  preset: ultrafast
  crf: 24
hls:
  h264_rungs: {90: [24, 400]}
  segment_s: 2
gates:
  minimum_saving: null
""",
}


def require_chromium() -> None:
    """Skip where Debian's chromium is not installed (`make setup` installs it where it can)."""
    if not Path(CHROMIUM).is_file():
        pytest.skip("no browser is installed (apt-get install chromium-headless-shell)")
    pytest.importorskip("playwright.sync_api", reason="no browser: playwright is not installed")


class Site:
    """The page of one data folder: started, killed and started again on the same port."""

    quiet: tuple[str, ...] = ("-q",)

    def __init__(self, folder: Path) -> None:
        self.data, self.profiles = folder / "data", folder / "profiles"
        self.profiles.mkdir(parents=True)
        for name, text in PROFILES.items():
            (self.profiles / f"{name}.yaml").write_text(text, encoding="utf-8")
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._running: list[subprocess.Popen[str]] = []

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HEVCQ_DATA_DIR": str(self.data),
            "HEVCQ_PROFILES_DIR": str(self.profiles),
            "HEVCQ_MIN_FREE_MIB": "0",
            "HEVCQ_WEB__AUTH": "users",
            "HEVCQ_WORKERS": "2",
        }

    def run(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of hevcq."""
        command = [sys.executable, "-m", "hevcq", *self.quiet, *arguments]
        running = subprocess.Popen(command, env=self.environment, stderr=subprocess.PIPE, text=True)
        self._running.append(running)
        return running

    def serve(self) -> subprocess.Popen[str]:
        """Start the page, and wait until it says where it is."""
        return self.say("serve", "--port", str(self.port))[0]

    def say(self, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        """Start a command that serves the page; return it with the line that names the page."""
        running = self.run(*arguments)
        lines = [running.stderr.readline()]
        while self.address not in lines[-1] and lines[-1]:
            lines.append(running.stderr.readline())
        line = lines[-1]
        assert line, "".join(lines)
        threading.Thread(target=running.stderr.read, daemon=True).start()
        return running, line

    def close(self) -> None:
        for running in self._running:
            if running.poll() is None:
                running.kill()
            running.communicate()


class Watched:
    """A browser window whose console must stay silent; `forgive` while a server is down."""

    def __init__(self, context: Any, address: str) -> None:
        self.address, self.page = address, context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.said: list[str] = []
        self.forgive = False
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))

    def _note(self, message: Any) -> None:
        if message.type in {"error", "warning"} and not self.forgive:
            where = message.location.get("url", "")
            self.said.append(f"{message.type}: {message.text} {where}")

    def go(self, path: str) -> None:
        self.page.goto(f"{self.address}{path}")

    def sign_in(self, name: str, password: str) -> None:
        self.go("/sign-in")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("button", name="Sign out").wait_for()

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait until something holds; the page's policy forbids Playwright's own wait by script."""
        for _ in range(WAIT_MS // 50):
            if true():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"it never came: {what}")

    def tab_to(self, what: Any) -> None:
        """Press Tab until something has the focus, as a person without a mouse does."""
        found = what.element_handle()  # to look by role and name anew after each Tab is slow
        for _ in range(MAX_TABS):
            if found.evaluate("each => each === document.activeElement"):
                return
            if not found.evaluate("each => each.isConnected"):
                found = what.element_handle()
            self.page.keyboard.press("Tab")
        raise AssertionError(f"{what} is not reached by Tab")

    def press(self, role: str, name: str, key: str = "Enter") -> None:
        """Go to the first thing of this role and name by Tab, and press a key on it."""
        self.tab_to(self.page.get_by_role(role, name=name, exact=True).first)
        self.page.keyboard.press(key)

    def type_into(self, label: str, text: str) -> None:
        """Go to a field by Tab, and type; what was in it is replaced."""
        self.tab_to(self.page.get_by_label(label, exact=True))
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)

    def walk(self) -> list[str]:
        """Press Tab through the page; return what is not reached, not seen or not in its turn."""
        for _ in range(self.page.evaluate(BEGIN_WALK) + PARTS_OF_FIELDS):
            self.page.keyboard.press("Tab")
        found: list[str] = self.page.evaluate(END_WALK)
        return found

    def look_at(self) -> None:
        """Look at the page at a desk in the light and on a phone in the dark: no fault, nothing cut."""
        for width, scheme in ((DESK, "light"), (PHONE, "dark")):
            self.page.set_viewport_size({"width": width, "height": 800})
            self.page.emulate_media(color_scheme=scheme)
            assert self.accessible() == [], self.page.url
            assert self.width() <= width, self.page.url
            for table in self.page.locator(".wide:has(.stack)").all() if width == PHONE else ():
                assert table.evaluate("each => each.scrollWidth <= each.clientWidth"), self.page.url

    def go_through(self) -> None:
        """Look at the page, and go through it by Tab."""
        self.look_at()
        assert self.walk() == [], self.page.url
        self.page.set_viewport_size({"width": DESK, "height": 800})

    def accessible(self) -> list[str]:
        """Return what axe-core finds wrong with the page as it is."""
        if not self.page.evaluate("typeof axe === 'object'"):
            self.page.evaluate(AXE.read_text(encoding="utf-8"))
        # What passes is counted, but not described: that is half of the time.
        found = self.page.evaluate(
            "async () => (await axe.run({ resultTypes: ['violations'] })).violations"
        )
        return [f"{each['id']}: {[node['html'][:120] for node in each['nodes']]}" for each in found]

    def width(self) -> int:
        """Return how wide the page is, in pixels."""
        return int(self.page.evaluate("document.documentElement.scrollWidth"))


@contextmanager
def browser() -> Iterator[Any]:
    """Start Chromium; the driver is inside Playwright's wheel."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield opened
        finally:
            opened.close()


def make_large_clip(path: Path, size: str = "704x576") -> None:
    """Make a clip of two seconds that is large and quickly encoded: uncompressed pictures, 30 MB.

    It has two chapters and a line of subtitles.
    """
    source = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25"]
    source += ["-f", "lavfi", "-i", "sine=frequency=300"]
    words, marks = path.with_suffix(".srt"), path.with_suffix(".ffmeta")
    words.write_text("1\n00:00:00,000 --> 00:00:01,900\nA <i>gate</i>\n", encoding="utf-8")
    chapter = "[CHAPTER]\nTIMEBASE=1/1000\nSTART={}\nEND={}\ntitle={}\n"
    named = chapter.format(0, 1000, "Gate") + chapter.format(1000, 2000, "<Pond>")
    marks.write_text(f";FFMETADATA1\n{named}", encoding="utf-8")
    source += ["-i", str(words), "-i", str(marks), "-map_metadata", "3", "-map_chapters", "3"]
    source += ["-map", "0", "-map", "1", "-map", "2", "-metadata:s:s:0", "language=eng"]
    coded = ["-t", "2", "-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    ffmpeg(*source, *coded, path)
