"""The page of `hevcq compare`: one HTML file with its pictures, styles and script inside."""

from base64 import b64encode
from html import escape
from itertools import count

from hevcq.cli.output.curve import curve_svg
from hevcq.domain.quality import Aim, Comparison, Still, worst_twentieth
from hevcq.util.svg import points_svg
from hevcq.util.text import size, timecode

MAX_STILLS = 8
"""Places shown: two pictures each, of up to 2 MB in 4K."""
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
table{border-collapse:collapse}td,th{text-align:left;padding:.2rem 1.5rem .2rem 0}
figure{margin:2rem 0}.pair{position:relative;--cut:50%}.pair img{display:block;width:100%}
.pair .made{position:absolute;inset:0;clip-path:inset(0 0 0 var(--cut))}
.pair::after{content:"";position:absolute;inset:0 auto 0 var(--cut);border-left:2px solid #fff}
input{width:100%;margin:.5rem 0}svg{width:100%;height:auto}
.chart+p{display:flex;justify-content:space-between;margin:0}
"""
SCRIPT = """
for (const slider of document.querySelectorAll("input"))
  slider.oninput = () => slider.previousElementSibling.style.setProperty("--cut", slider.value + "%");
"""


def compare_page(
    names: tuple[str, str], sizes: tuple[int, int], found: Comparison, aim: Aim | None
) -> str:
    """Return the page: `names` and `sizes` in bytes are of the source and of the rendition."""
    scores = sorted(score for _, score in found.frames)
    rows = [
        ("Original", f"{escape(names[0])}, {size(sizes[0])}"),
        ("Rendition", f"{escape(names[1])}, {size(sizes[1])}: {_share(sizes)}"),
        ("Metric", f"{found.metric}, of {len(scores):,} frames all over the video"),
        ("Worst twentieth", f"{worst_twentieth(scores):.1f}"),
        ("Median", f"{scores[len(scores) // 2]:.1f}"),
    ]
    if aim is not None:
        rows.append(("Asked for", escape(aim.in_words())))
    table = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    stills = "".join(map(_figure, count(1), found.stills[:MAX_STILLS]))
    curve = f"<h2>What was tried</h2>{curve_svg(aim)}" if aim and aim.probes else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(names[0])}</title>'
        f"<style>{STYLE}</style><h1>Original and rendition</h1><table>{table}</table>"
        f"<h2>Score over time</h2>{points_svg(found.frames)}{stills}{curve}"
        f"<script>{SCRIPT}</script></html>\n"
    )


def _share(sizes: tuple[int, int]) -> str:
    return f"{100 * sizes[1] / max(1, sizes[0]):.0f} % of the original"


def _figure(number: int, still: Still) -> str:
    name = "Worst frame" if number == 1 else f"Worst frame of another place ({number})"
    first, second = (b64encode(each).decode("ascii") for each in (still.source, still.made))
    where = f"{name}: {still.score:.1f} at {timecode(still.at_s)}"
    return (
        f"<figure><h2>{where}</h2><div class=pair>"
        f'<img alt="original" src="data:image/jpeg;base64,{first}">'
        f'<img class=made alt="rendition" src="data:image/jpeg;base64,{second}"></div>'
        f'<input type=range aria-label="{name}: how much is the original" value=50>'
        "<figcaption>Left of the line the original, right of it the rendition.</figcaption></figure>"
    )
