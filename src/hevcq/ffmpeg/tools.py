"""Which programs are used, and the clock that times them."""

from __future__ import annotations

from dataclasses import dataclass

from hevcq.clock import Clock


@dataclass(frozen=True, slots=True)
class Tools:
    """The ffmpeg and ffprobe programs (a name on the PATH, or a path), and a clock."""

    ffmpeg: str
    ffprobe: str
    clock: Clock
