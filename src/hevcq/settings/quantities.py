"""Parse durations, past times, sizes, rates and lists as people write them, each with a type for settings."""

import contextlib
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from hevcq.domain.schedule import Schedule
from hevcq.errors import UsageError

_NUMBER = r"(\d{1,15}(?:\.\d{1,6})?) ?"
_DURATIONS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZES = {
    **{f"{letter}ib": 1024**n for n, letter in enumerate("kmgt", 1)},
    **{f"{letter}b": 1000**n for n, letter in enumerate("kmgt", 1)},
    "b": 1,
}
_BIT_RATES = {"kbps": 125, "mbps": 125_000, "kbit/s": 125, "mbit/s": 125_000}
_BYTE_RATES = {
    f"{letter}{end}": 1024**n
    for n, letter in enumerate("kmg", 1)
    for end in ("", "/s", "b", "b/s", "ib", "ib/s")
}


def _parse_amount(text: str, units: Mapping[str, int], expected: str) -> int:
    match = re.fullmatch(_NUMBER + r"([a-z/]+)", text.strip().lower())
    if match is None or match[2] not in units:
        if not text.strip():
            return 0
        raise ValueError(f"must be {expected}")
    return int(float(match[1]) * units[match[2]])


def seconds(text: str) -> float:
    """Return a duration such as `90s`, `2h30m`, `7d` or `2w` in seconds; 0 if empty.

    Raises ValueError.
    """
    parts = re.findall(_NUMBER + "([smhdw])", text.lower())
    if re.fullmatch(f"(?:{_NUMBER}[smhdw])*", text.strip().lower()) is None:
        raise ValueError("must be a duration such as '90s', '30m', '2h30m', '7d' or '2w'")
    return sum(float(number) * _DURATIONS[unit] for number, unit in parts)


def past_time(text: str, now: float) -> float:
    """Return the time that `text` means, as Unix seconds like `now`.

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


def size_bytes(text: str) -> int:
    """Return a size such as `500MiB` or `2GB` in bytes; 0 if empty. Raises ValueError."""
    return _parse_amount(text, _SIZES, "a size such as '500MiB' or '2GB'")


def bytes_per_second(text: str) -> int:
    """Return a rate such as `4M` (MiB a second) or `8Mbps` in bytes a second; 0 if empty.

    Raises ValueError.
    """
    return _parse_amount(
        text, _BYTE_RATES | _BIT_RATES, "a rate such as '4M' (a second) or '8Mbps'"
    )


def saving(text: str) -> float:
    """Return a saving such as `20%` as a share below 1, or one such as `500MiB` in bytes.

    Raises ValueError.
    """
    percent = re.fullmatch(_NUMBER + "%", text.strip())
    if percent and float(percent[1]) < 100:
        return float(percent[1]) / 100
    return _parse_amount(text, _SIZES, "a size or a share, such as '500MiB' or '20%'")


def share(text: str) -> Fraction:
    """Return a share such as `1/12`, more than 0 and at most 1; 0 if empty. Raises ValueError."""
    with contextlib.suppress(ValueError, ZeroDivisionError):
        if not text or 0 < Fraction(text) <= 1:
            return Fraction(text or 0)
    raise ValueError("must be a share such as 1/12")


def address(value: str) -> str:
    """Return an HTTP address without a `/` at its end.

    Raises ValueError if it is not one, or holds a user or password.
    """
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an address such as https://example.org")
    if parts.username or parts.password:
        raise ValueError("must not hold a user or password")
    return value.rstrip("/")


def names(text: str, between: str = ",") -> tuple[str, ...]:
    """Return the words of a text that `between` separates, each once."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(between) if word.strip()))


def first_line(path: Path) -> str:
    """Return the first line of a file, such as a password. Raises OSError, or ValueError if there is none."""
    line = next(iter(path.expanduser().read_text(encoding="utf-8").splitlines()), "").strip()
    if not line:
        raise ValueError("is empty")
    return line


def _parse(parse: Callable[[str], object]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def _check_windows(windows: tuple[str, ...]) -> tuple[str, ...]:
    Schedule.parse(windows)
    return windows


CheckWindows = AfterValidator(_check_windows)
"""Refuses windows that are not hours of a week, such as `Mon-Fri 22:00-06:30`."""
Address = Annotated[str, AfterValidator(address)]
Duration = Annotated[float, _parse(seconds)]
ByteSize = Annotated[int, _parse(size_bytes)]
Rate = Annotated[int, _parse(bytes_per_second)]
Saving = Annotated[float, _parse(saving)]
# A variable may say `hevc,720p`; a file gives a list.
Names = Annotated[tuple[str, ...], _parse(names)]
Windows = Annotated[tuple[str, ...], _parse(lambda text: names(text, ";")), CheckWindows]
