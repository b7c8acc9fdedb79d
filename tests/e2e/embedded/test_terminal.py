"""On a terminal the ingest draws itself live, and leaves the terminal as it was."""

import os
import pty
import signal
import threading

import pytest

from e2e.embedded.farm import Farm, until

pytestmark = pytest.mark.media


class Terminal:
    """A pseudo terminal as the command's stderr; `text` is all that was drawn on it."""

    def __init__(self, farm: Farm) -> None:
        reading, writing = pty.openpty()
        drawn = {"TERM": "xterm-256color", "COLUMNS": "150"}
        self.child = farm.start("ingest", farm.media, env=drawn, stderr=writing)
        os.close(writing)
        self._reading, self._drawn = reading, bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                block = os.read(self._reading, 4096)
            except OSError:
                return
            if not block:
                return
            self._drawn += block

    @property
    def text(self) -> str:
        return self._drawn.decode(errors="replace")

    def end(self) -> tuple[int, str]:
        out, _ = self.child.communicate(timeout=60)
        self._thread.join(timeout=10)
        os.close(self._reading)
        return self.child.returncode, out


def test_it_draws_each_running_file_and_the_whole_and_ends_with_a_table(farm):
    farm.add_profile("hevc", "medium")
    farm.slow_clip("video.mp4")
    terminal = Terminal(farm)
    code, out = terminal.end()

    assert code == 0, terminal.text
    for word in ("video.mp4", "encode", "verify", " %", "0 of 1 done", "left", " % smaller"):
        assert word in terminal.text, word
    assert "video.mp4  done" in out
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


def test_ctrl_c_says_what_happens_and_gives_the_cursor_back(farm):
    farm.add_profile("hevc", "medium")
    farm.slow_clip("video.mp4")
    terminal = Terminal(farm)
    until(lambda: "encode" in terminal.text.partition("to encode")[2])
    terminal.child.send_signal(signal.SIGINT)
    code, _ = terminal.end()

    assert code == 130
    assert "Stopping" in terminal.text
    assert "run the same command to resume" in terminal.text
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
