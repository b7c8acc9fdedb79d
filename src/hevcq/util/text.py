"""Write values for people: file names, errors, counts, sizes, times, durations; small charts as SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from fractions import Fraction

WIDTH, HEIGHT = 960, 160
GAP, MIN_BAR, WIDE_BAR = 2.0, 1.5, 60.0
"""Units between two bars at most, of a bar for the smallest value above 0, and of the widest bar."""


def encodable(text: str) -> str:
    r"""Return `text` as valid Unicode; a byte that is not UTF-8 becomes `\xNN`.

    A file name may hold such bytes as lone surrogates, which JSON and UTF-8 streams reject.
    """
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate from JSON or a web page may stand for no byte
        raw = text.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")


def printable(value: object) -> str:
    """Return `value` as one line of printable text, with control characters and odd bytes escaped.

    File names are untrusted: they must neither break a line nor control the terminal.
    """
    text = str(value)
    if text.isprintable():
        return text
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in encodable(text))
    return "".join(shown)


def reason_of(error: BaseException) -> str:
    """Return an error's reason for use in a sentence: one line, without `[Errno 2]` and the path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()).rstrip(".")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 video`, `1,234 videos`."""
    return f"1 {noun}" if number == 1 else f"{number:,} {noun}s"


def whole(text: str) -> int | None:
    """Return untrusted text as a whole number of at most 18 digits, or None if it is not one."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


def ffmpeg_release(version: str) -> str:
    """Return the release in the first line of `ffmpeg -version`, such as `5.1.6-0+deb12u1`."""
    return version.removeprefix("ffmpeg version ").partition(" ")[0]


def ago(then: float | None, now: float) -> str:
    """Return how long before `now` the wall time `then` was: `5 minutes ago`; empty for None."""
    import humanize  # here: a worker's imports go without it

    if then is None:
        return ""
    return humanize.naturaltime(max(0.0, now - then)).replace("now", "just now")


def duration(seconds: float | None) -> str:
    """Return seconds as `40 s`, `12 min`, `3 h 20 min` or `2 days`; empty for None."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{round(hours / 24)} days"


def duration_range(low: float, high: float) -> str:
    """Return a range of seconds as `12 to 20 min`, `about 3 h` or `up to 2 s`."""
    least, most = duration(low), duration(max(1.0, high))
    if least == most:
        return f"about {most}"
    if least == "0 s":
        return f"up to {most}"
    number, _, unit = least.partition(" ")
    is_same_unit = unit == most.partition(" ")[2] and " " not in unit
    return f"{number if is_same_unit else least} to {most}"


def webvtt_time(seconds: float | Fraction) -> str:
    """Return a time as WebVTT writes it: `01:02:03.400`."""
    return f"{timecode(max(0, seconds), 3):0>12}"


def timecode(seconds: float | Fraction, decimals: int = 1) -> str:
    """Return a time in a video as hours, minutes and seconds: `0:12:34.5`."""
    ticks = round(abs(seconds) * 10**decimals)
    minutes, left = divmod(ticks, 60 * 10**decimals)
    rest = f"{left / 10**decimals:0{3 + decimals if decimals else 2}.{decimals}f}"
    return f"{'-' if seconds < 0 and ticks else ''}{minutes // 60}:{minutes % 60:02d}:{rest}"


def lateness(seconds: float, decimals: int) -> str:
    """Return a time difference in words: `0.250 s too late`, `0.0400 s too early`."""
    return f"{abs(seconds):.{decimals}f} s too {'late' if seconds > 0 else 'early'}"


def size(count: float | None) -> str:
    """Return bytes in binary units, `1.4 GiB`; empty for None."""
    import humanize  # here: a worker's imports go without it

    return "" if count is None else humanize.naturalsize(count, binary=True)


def points_svg(points: Sequence[tuple[float, float]], label: str = "Score over time") -> str:
    """Return (seconds, score) as points: between them nothing was measured."""
    end = max((at for at, _ in points), default=0.0) or 1.0
    low = min((score for _, score in points), default=0.0)
    high = max((score for _, score in points), default=0.0)
    step = (HEIGHT - 4) / ((high - low) or 1.0)
    dots = "".join(
        f"M{at / end * WIDTH:.1f} {2 + (high - score) * step:.1f}h0" for at, score in points
    )
    # A dot is the round end of a line without length, whose width is the same on a phone.
    style = (
        'stroke="#06c" stroke-width="5" stroke-linecap="round" vector-effect="non-scaling-stroke"'
    )
    return _svg(
        label,
        f'<path d="{dots}" {style}/>',
        ("0:00:00", f"score {low:.4g} to {high:.4g}", timecode(end, 0)),
    )


def bars_svg(
    bars: Sequence[tuple[str, float]], label: str, shown: Callable[[float], str] = str
) -> str:
    """Return a bar for each (name, value); "" if no value is above 0. One below 0 has a title only."""
    most = max((value for _, value in bars), default=0.0)
    if most <= 0:
        return ""
    step = WIDTH / len(bars)
    wide = min(step - min(GAP, step / 4), WIDE_BAR)
    drawn = []
    for number, (name, value) in enumerate(bars):
        height = max(MIN_BAR, value / most * HEIGHT) if value > 0 else 0.0
        left = number * step + (step - wide) / 2
        place = f'x="{left:.1f}" y="{HEIGHT - height:.1f}" width="{wide:.1f}"'
        title = escape(f"{name}: {shown(value)}")
        drawn.append(f'<rect {place} height="{height:.1f}"><title>{title}</title></rect>')
    line = f'<line x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
    return _svg(label, line + "".join(drawn), (bars[0][0], f"at most {shown(most)}", bars[-1][0]))


def _svg(label: str, inside: str, foot: Sequence[str]) -> str:
    """Return a drawing and the words below it, which are read on a phone too: a drawing is scaled."""
    words = "".join(f"<span>{escape(each)}</span>" for each in foot)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" fill="#06c"'
        f' aria-label="{escape(label)}">{inside}</svg><p>{words}</p>'
    )
