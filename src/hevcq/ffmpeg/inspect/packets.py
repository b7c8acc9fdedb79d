"""Run one demux pass of ffprobe over a file's packets, with limits and a silence watchdog."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from hevcq.errors import Unavailable
from hevcq.ffmpeg.inputs import FfmpegTools, display_name, input_options, reading
from hevcq.ffmpeg.probe.probe import probe_error
from hevcq.ffmpeg.process.child import ChildLimits, stream_child
from hevcq.ffmpeg.run.known_messages import Pass, unexpected_lines

SILENCE_S = 120.0
"""Seconds without output after which a pass counts as stalled: a dead network folder or disk."""
LIMITS = ChildLimits(nice=5, memory_mib=8192, output_bytes=0, cpu_s=7200)


class PacketReader(Protocol):
    """Consumes ffprobe's output."""

    def feed(self, chunk: bytes) -> None:
        """Consume the next bytes."""

    def close(self) -> None:
        """Consume a last line without a line break."""


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
    ended = stream_child(
        argv,
        stop=stop,
        on_chunk=feed,
        limits=reading(LIMITS, tools, location),
        check=watchdog.check,
    )
    reader.close()
    if ended.returncode != 0 and not packets_seen():
        raise probe_error(location, ended.stderr)
    errors = unexpected_lines(ended.stderr, Pass.DEMUX)
    if ended.returncode != 0 and not errors:
        errors = (f"ffprobe ended with exit code {ended.returncode}",)
    return errors


class SilenceWatchdog:
    """Detects a pass that prints nothing for SILENCE_S seconds."""

    def __init__(self, tools: FfmpegTools, location: str) -> None:
        self._clock = tools.clock
        self._location = location
        self.reset()

    def reset(self) -> None:
        """Restart the silence timer."""
        self._last = self._clock.monotonic()

    def check(self) -> None:
        """Raise Unavailable if the timer was not reset for SILENCE_S seconds."""
        if self._clock.monotonic() - self._last > SILENCE_S:
            raise Unavailable(f"{display_name(self._location)} sent no data for {SILENCE_S:.0f} s.")
