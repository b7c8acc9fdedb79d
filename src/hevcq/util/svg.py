"""Draw small charts as SVG on the server: points over a video's time, and bars or a line over days."""

from collections.abc import Callable, Sequence
from html import escape

from hevcq.util.text import timecode

WIDTH, HEIGHT, FOOT = 960, 160, 20
"""Units of a drawing, and of the room below it for its first and last name."""
GAP, MIN_BAR = 2.0, 1.5
"""Units between two bars at most, and of a bar for the smallest value above 0, so that it is seen."""


def points_svg(points: Sequence[tuple[float, float]], label: str = "Score over time") -> str:
    """Return (seconds, score) as points: between them nothing was measured."""
    end = max((at for at, _ in points), default=0.0) or 1.0
    low = min((score for _, score in points), default=0.0)
    high = max((score for _, score in points), default=0.0)
    step = (HEIGHT - 4) / ((high - low) or 1.0)
    dots = "".join(
        f'<circle cx="{at / end * WIDTH:.1f}" cy="{2 + (high - score) * step:.1f}" r="2"/>'
        for at, score in points
    )
    scale = f'<text y="12">{high:.4g}</text><text y="{HEIGHT}">{low:.4g}</text>'
    return _svg(label, dots + scale, ("", timecode(end, 0)))


def bars_svg(
    bars: Sequence[tuple[str, float]], label: str, shown: Callable[[float], str] = str
) -> str:
    """Return a bar for each (name, value); "" if no value is above 0. One below 0 has a title only."""
    most = max((value for _, value in bars), default=0.0)
    if most <= 0:
        return ""
    step = WIDTH / len(bars)
    gap = min(GAP, step / 4)
    drawn = []
    for number, (name, value) in enumerate(bars):
        height = max(MIN_BAR, value / most * HEIGHT) if value > 0 else 0.0
        place = (
            f'x="{number * step + gap / 2:.1f}" y="{HEIGHT - height:.1f}" width="{step - gap:.1f}"'
        )
        title = escape(f"{name}: {shown(value)}")
        drawn.append(f'<rect {place} height="{height:.1f}"><title>{title}</title></rect>')
    line = f'<line x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
    words = f"{label}, from {bars[0][0]} to {bars[-1][0]}; at most {shown(most)}"
    return _svg(words, line + "".join(drawn), (bars[0][0], bars[-1][0]))


def _svg(label: str, inside: str, ends: tuple[str, str]) -> str:
    first, last = map(escape, ends)
    foot = HEIGHT + FOOT - 4
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img" fill="#06c" font-size="14"'
        f' aria-label="{escape(label)}">{inside}<text y="{foot}">{first}</text>'
        f'<text x="{WIDTH}" y="{foot}" text-anchor="end">{last}</text></svg>'
    )
