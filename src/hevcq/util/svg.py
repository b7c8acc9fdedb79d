"""Draw small charts as SVG on the server: points over a video's time, and bars or a line over days."""

from collections.abc import Callable, Sequence
from html import escape

from hevcq.util.text import timecode

WIDTH, HEIGHT = 960, 160
GAP, MIN_BAR, WIDE_BAR = 2.0, 1.5, 60.0
"""Units between two bars at most, of a bar for the smallest value above 0, and of the widest bar."""


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
