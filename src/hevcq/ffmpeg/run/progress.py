"""Parse ffmpeg's `-progress` lines."""

from __future__ import annotations

from hevcq.ports.encoder import EncodeProgress

SPEED_AFTER_S = 2.0
"""Seconds of output before which ffmpeg's speed mostly measures the filling of its buffers."""


def parse_line(line: str) -> tuple[str, str] | None:
    """Return key and value of a progress line, or None for any other line; N/A becomes ""."""
    key, equals, value = line.strip().partition("=")
    if not equals or not key or " " in key:
        return None
    value = value.strip()
    return key, "" if value == "N/A" else value


class ProgressReader:
    """Collects lines into blocks, which end with `progress=continue` or `progress=end`.

    `duration_s` is the expected output time in seconds.
    """

    def __init__(self, duration_s: float | None) -> None:
        self._duration_s = duration_s if duration_s and duration_s > 0 else None
        self._block: dict[str, str] = {}
        self.last = EncodeProgress(fraction=0.0, out_time_s=0.0, frame=0, speed=None, size=0)
        self.ended = False

    def feed(self, line: str) -> EncodeProgress | None:
        """Parse one line; return the progress if it ends a block. Values never decrease."""
        pair = parse_line(line)
        if pair is None:
            return None
        key, value = pair
        if key != "progress":
            self._block[key] = value
            return None
        self.ended = value == "end"
        self.last = self._state()
        self._block = {}
        return self.last

    def _state(self) -> EncodeProgress:
        out_time = max(self.last.out_time_s, _number(self._block.get("out_time_us")) / 1e6)
        speed = _number(self._block.get("speed", "").rstrip("x"))
        share = out_time / self._duration_s if self._duration_s is not None else 0.0
        return EncodeProgress(
            fraction=1.0 if self.ended else min(1.0, max(self.last.fraction, share)),
            out_time_s=out_time,
            frame=max(self.last.frame, int(_number(self._block.get("frame")))),
            speed=(speed or None) if self.ended or out_time >= SPEED_AFTER_S else None,
            size=max(self.last.size, int(_number(self._block.get("total_size")))),
        )


def _number(text: str | None) -> float:
    try:
        number = float(text or "")
    except ValueError:
        return 0.0
    return number if 0 <= number < 1e18 else 0.0
