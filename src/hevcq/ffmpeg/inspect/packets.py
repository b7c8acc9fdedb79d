"""One demux pass of ffprobe over a file's packets: watched, bounded, and no failure overlooked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from hevcq.errors import Unavailable
from hevcq.ffmpeg.inputs import FfmpegTools, display_name, input_options
from hevcq.ffmpeg.probe.probe import probe_error
from hevcq.ffmpeg.process.child import ChildLimits, stream_child
from hevcq.ffmpeg.run.known_messages import Pass, unexpected_lines

SILENCE_S = 120.0
"""A pass that reads no packet for so long stands still: a dead network folder, or a dead disk."""
LIMITS = ChildLimits(nice=5, memory_mib=8192, output_bytes=0, cpu_s=7200)


class PacketReader(Protocol):
    """Takes what ffprobe prints."""

    def feed(self, chunk: bytes) -> None:
        """Take the next piece."""

    def close(self) -> None:
        """Take a last line without an end."""


def read_packets(
    tools: FfmpegTools,
    location: str,
    show: Sequence[str],
    reader: PacketReader,
    stop: threading.Event,
    *,
    packets_seen: Callable[[], object],
) -> tuple[str, ...]:
    """Let ffprobe print what `show` asks of every packet; return what the pass complained of.

    That is its error-level lines without the known harmless ones, else its exit code. `packets_seen` says
    whether any packet was read: a pass that failed without one raises SourceUnreadable or
    SourceGone. Raises Unavailable if the file gives no more bytes.
    """
    watchdog = SilenceWatchdog(tools, location)

    def feed(chunk: bytes) -> None:
        watchdog.reset()
        reader.feed(chunk)

    argv = [tools.ffprobe, "-v", "error", *show, *input_options(location)]
    ended = stream_child(argv, stop=stop, on_chunk=feed, limits=LIMITS, check=watchdog.check)
    reader.close()
    if ended.returncode != 0 and not packets_seen():
        raise probe_error(location, ended.stderr)
    errors = unexpected_lines(ended.stderr, Pass.DEMUX)
    if ended.returncode != 0 and not errors:
        errors = (f"ffprobe ended with exit code {ended.returncode}",)
    return errors


class SilenceWatchdog:
    """Notices a pass that stands still."""

    def __init__(self, tools: FfmpegTools, location: str) -> None:
        self._clock = tools.clock
        self._location = location
        self.reset()

    def reset(self) -> None:
        """Say that something came."""
        self._last = self._clock.monotonic()

    def check(self) -> None:
        """Raise Unavailable if nothing came for too long."""
        if self._clock.monotonic() - self._last > SILENCE_S:
            raise Unavailable(
                f"{display_name(self._location)} gave no more bytes for {SILENCE_S:.0f} s."
            )
