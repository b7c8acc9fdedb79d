"""Draw the chart of savings as SVG."""

from __future__ import annotations

from markupsafe import Markup

from hevcq.usecases.operations.savings import Savings
from hevcq.util.text import size
from hevcq.web.rendering import render

WIDTH, HEIGHT = 600, 120
FOOT = 2
"""Units below the bars, for their line."""
GAP = 4
LEAST_BAR = 1.5
"""Units of a bar for the smallest saving, so that it is seen."""


def savings_chart(saved: Savings) -> Markup:
    """Return the bytes saved each day as bars, with a sentence for who cannot see them.

    A day on which the renditions were larger in sum has no bar; its title says the number.
    """
    most = max((count for _, count in saved.by_day), default=0)
    if most <= 0:
        return Markup("")
    step = WIDTH / len(saved.by_day)
    bars = []
    for index, (day, count) in enumerate(saved.by_day):
        height = max(LEAST_BAR, count / most * (HEIGHT - FOOT)) if count > 0 else 0.0
        bars.append(
            {
                "x": round(index * step + GAP / 2, 1),
                "y": round(HEIGHT - FOOT - height, 1),
                "width": round(step - GAP, 1),
                "height": round(height, 1),
                "title": f"{day:%d %B}: {size(count)}".lstrip("0"),
            }
        )
    first, last = saved.by_day[0][0], saved.by_day[-1][0]
    return Markup(  # noqa: S704 - the template escapes every value
        render(
            "chart.svg",
            bars=bars,
            width=WIDTH,
            height=HEIGHT,
            foot=HEIGHT - FOOT,
            first=f"{first:%d %b}".lstrip("0"),
            last=f"{last:%d %b}".lstrip("0"),
            most=size(most),
        )
    )
