"""Read durations, past times, sizes and rates that a person wrote."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator

from hevcq.errors import UsageError

_NUMBER = r"(\d{1,15}(?:\.\d{1,6})?) ?"
_DURATIONS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZES = {
    **{f"{letter}ib": 1024.0**n for n, letter in enumerate("kmgt", 1)},
    **{f"{letter}b": 1000.0**n for n, letter in enumerate("kmgt", 1)},
    "b": 1.0,
}
_BIT_RATES = {"kbps": 1e3, "mbps": 1e6, "kbit/s": 1e3, "mbit/s": 1e6}
_BYTE_RATES = {"k": 1024.0, "m": 1024.0**2, "g": 1024.0**3}


def _amount(text: str, units: Mapping[str, float]) -> float | None:
    found = re.fullmatch(_NUMBER + r"([a-z/]+)", text.strip().lower())
    return float(found[1]) * units[found[2]] if found and found[2] in units else None


def seconds(text: str) -> float:
    """Return a duration such as `90s`, `2h30m`, `7d` or `2w` in seconds; 0 if empty.

    Raises ValueError.
    """
    parts = re.findall(_NUMBER + "([smhdw])", text.lower())
    if re.fullmatch(f"(?:{_NUMBER}[smhdw])*", text.strip().lower()) is None:
        raise ValueError("must be a duration such as '90s', '30m', '2h30m', '7d' or '2w'")
    return sum(float(number) * _DURATIONS[unit] for number, unit in parts)


def past_time(text: str, now: float) -> float:
    """Return the time that `text` means; it and `now` are wall seconds.

    A duration (`90m`, `12h`, `2d`, `1w`) counts back from now; an ISO date or time is local unless it
    names a zone. Raises UsageError.
    """
    with contextlib.suppress(ValueError):
        if text.strip():
            return now - seconds(text)
    try:
        return datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"{text!r} is neither a duration nor a date.",
            remedy="Use 90m, 12h, 2d, 1w, 2026-01-31 or 2026-01-31T18:00.",
        ) from error


def size_bytes(text: str) -> float:
    """Return a size such as `500MiB` or `2GB` in bytes; 0 if empty. Raises ValueError."""
    found = _amount(text, _SIZES) if text else 0.0
    if found is None:
        raise ValueError("must be a size such as '500MiB' or '2GB'")
    return found


def bits_per_second(text: str) -> float:
    """Return a bit rate such as `2500kbps` or `8Mbps` in bit/s; 0 if empty. Raises ValueError."""
    found = _amount(text, _BIT_RATES) if text else 0.0
    if found is None:
        raise ValueError("must be a bit rate such as '2500kbps' or '8Mbps'")
    return found


def bytes_per_second(text: str) -> float:
    """Return a rate such as `4M` or `500K` (binary units, a second) in bytes a second; 0, no limit, if empty.

    Raises ValueError.
    """
    if not text.strip():
        return 0.0
    found = _amount(re.sub(r"(?i)(?:i?b)?(?:/s)?$", "", text.strip()), _BYTE_RATES)
    if not found:
        raise ValueError("must be bytes a second such as 4M or 500K, or empty for no limit")
    return found


def _rate(text: str) -> str:
    bytes_per_second(text)
    return text


ByteRate = Annotated[str, AfterValidator(_rate)]
"""A setting that `bytes_per_second` reads; another text is refused when the settings are."""


def saving(text: str) -> tuple[float, float]:
    """Return a saving such as `500MiB` or `20%` as bytes and as a share (0 to 1); one of them is 0.

    Raises ValueError.
    """
    share = re.fullmatch(_NUMBER + "%", text.strip())
    if share and float(share[1]) < 100:
        return 0.0, float(share[1]) / 100
    try:
        return size_bytes(text), 0.0
    except ValueError as error:
        raise ValueError("must be a size or a share, such as '500MiB' or '20%'") from error
