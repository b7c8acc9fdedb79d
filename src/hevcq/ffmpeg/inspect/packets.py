"""One demux pass of ffprobe over a file's packets: watched, bounded, and no failure overlooked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from hevcq.errors import Unavailable
from hevcq.ffmpeg.inputs import Tools, input_options, name_of
from hevcq.ffmpeg.probe.probe import refusal
from hevcq.ffmpeg.process.child import ChildLimits, stream_child
from hevcq.ffmpeg.run.known_messages import Pass, suspicious

SILENCE_S = 120.0
"""A pass that reads no packet for so long stands still: a dead network folder, or a dead disk."""
LIMITS = ChildLimits(nice=5, memory_mib=8192, output_bytes=0, cpu_s=7200)


class Reader(Protocol):
    """Takes what ffprobe prints."""

    def feed(self, chunk: bytes) -> None:
        """Take the next piece."""

    def close(self) -> None:
        """Take a last line without an end."""


def read_packets(
    tools: Tools,
    location: str,
    show: Sequence[str],
    reader: Reader,
    stop: threading.Event,
    *,
    came: Callable[[], object],
) -> tuple[str, ...]:
    """Let ffprobe print what `show` asks of every packet; return what the pass complained of.

    That is its error-level lines without the known harmless ones, else its exit code. `came` says
    whether any packet was read: a pass that failed without one raises SourceUnreadable or
    SourceGone. Raises Unavailable if the file gives no more bytes.
    """
    heard = Heard(tools, location)

    def take(chunk: bytes) -> None:
        heard.now()
        reader.feed(chunk)

    argv = [tools.ffprobe, "-v", "error", *show, *input_options(location)]
    ended = stream_child(argv, stop=stop, on_chunk=take, limits=LIMITS, check=heard.check)
    reader.close()
    if ended.returncode != 0 and not came():
        raise refusal(location, ended.stderr)
    errors = suspicious(ended.stderr, Pass.DEMUX)
    if ended.returncode != 0 and not errors:
        errors = (f"ffprobe ended with exit code {ended.returncode}",)
    return errors


class Heard:
    """Notices a pass that stands still."""

    def __init__(self, tools: Tools, location: str) -> None:
        self._clock = tools.clock
        self._location = location
        self.now()

    def now(self) -> None:
        """Say that something came."""
        self._last = self._clock.monotonic()

    def check(self) -> None:
        """Raise Unavailable if nothing came for too long."""
        if self._clock.monotonic() - self._last > SILENCE_S:
            raise Unavailable(
                f"{name_of(self._location)} gave no more bytes for {SILENCE_S:.0f} s."
            )
