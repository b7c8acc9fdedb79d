"""Turn a child's output, which comes in pieces, into lines; bounded in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hevcq.errors import LimitExceeded

TAIL_BYTES = 32_768
"""How much of stderr is kept."""
MAX_LINE = 65_536
"""A longer line is handed on in parts."""
MAX_WHOLE = 64 * 2**20
"""The most of stdout that is kept when it is returned whole."""


class Lines:
    """Hands each whole line to `on_line`, decoded as UTF-8; odd bytes become U+FFFD."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next piece."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in whole:
            self._on_line(line.decode("utf-8", "replace").rstrip("\r"))
        if len(self._rest) > MAX_LINE:
            self.close()

    def close(self) -> None:
        """Hand on what is left after the last line end."""
        rest, self._rest = self._rest, b""
        if rest:
            self._on_line(rest.decode("utf-8", "replace").rstrip("\r"))


class Tail:
    """Keeps the last lines, 32 KiB at most, and counts what it dropped.

    A carriage return overwrites its line, as on a terminal.
    """

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._size = 0
        self._dropped = 0
        self._split = Lines(self._add)

    def feed(self, chunk: bytes) -> None:
        """Take the next piece."""
        self._split.feed(chunk)

    def lines(self) -> tuple[str, ...]:
        """Return the lines kept; the first one says so if others were dropped."""
        self._split.close()
        if self._dropped:
            return (f"[{self._dropped} earlier lines dropped]", *self._lines)
        return tuple(self._lines)

    def _add(self, line: str) -> None:
        line = line.rpartition("\r")[2].rstrip()
        if not line:
            return
        self._lines.append(line)
        self._size += len(line) + 1
        while self._size > TAIL_BYTES and len(self._lines) > 1:
            self._size -= len(self._lines.popleft()) + 1
            self._dropped += 1


class Bytes:
    """Keeps everything, up to a bound."""

    def __init__(self) -> None:
        self.content = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take the next piece; raise LimitExceeded above 64 MiB."""
        self.content += chunk
        if len(self.content) > MAX_WHOLE:
            raise LimitExceeded(f"A program printed more than {MAX_WHOLE >> 20} MiB.")
