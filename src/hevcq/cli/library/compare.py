"""`hevcq compare`: write a page that compares frames of a rendition with its original."""

import threading
from base64 import b64encode
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Annotated

import typer

from hevcq.cli.context import Quiet, cli_of, require_existing
from hevcq.cli.library.check import profile_for
from hevcq.domain.quality import Aim, Comparison, Probe, Still, worst_twentieth
from hevcq.errors import SourceUnreadable, UsageError
from hevcq.usecases.compare import curve_svg, unsure
from hevcq.usecases.verify_files import (
    VerifyFilesRequest,
    frame_pairs,
    read_certificate,
    rendition_at,
)
from hevcq.util.text import counted, points_svg, printable, size, timecode


def compare(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The original.")],
    rendition: Annotated[Path, typer.Argument(metavar="RENDITION", help="Its rendition.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="HTML", help="Default: RENDITION's name, .compare.html."
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", "-p", metavar="NAME", help="Default: the certificate's, or hevc."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Compare a rendition with its original, on one page.

    Writes one self-contained HTML file: the worst, median and best measured frames and the worst frames
    elsewhere, with a slider between both, the score over time, and the sizes. Measures VMAF, or SSIM if
    no program measures VMAF or the video is HDR.
    """
    cli = cli_of(ctx)
    require_existing([source, rendition])
    rendition_file = rendition_at(rendition)
    output = output or Path(f"{rendition.stem}.compare.html")
    require_existing([output.absolute().parent])
    if output.exists():
        raise UsageError(f"{printable(output)} already exists; choose another with --output.")
    proof = read_certificate(rendition_file, source)
    with cli.app() as app:
        picked = profile_for(app, profile, proof)
        pair = VerifyFilesRequest(source.absolute(), rendition_file.absolute(), picked, proof)
        stop = threading.Event()
        with (
            frame_pairs(app.encoder, pair, stop=stop, scratch=app.scratch) as pairs,
            app.scratch(0) as folder,
        ):
            comparison = pairs.compare(folder, on_place=lambda _number, _count: None, stop=stop)
    if comparison is None:
        raise SourceUnreadable(f"No frame of {printable(rendition)} could be compared.")
    sizes = source.stat().st_size, rendition_file.stat().st_size
    aim = proof.quality if proof else None
    page = compare_page((printable(source), printable(rendition_file)), sizes, comparison, aim)
    output.write_text(page, encoding="utf-8")
    if not (quiet or cli.quiet):
        cli.echo(f"Wrote {printable(output)}; open it in a browser.")


MAX_STILLS = 10
"""Frames shown: two pictures each, of up to 2 MB in 4K."""
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
table{border-collapse:collapse}th{white-space:nowrap}td,th{text-align:left;padding:.2rem 1.5rem .2rem 0}
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
    names: tuple[str, str], sizes: tuple[int, int], comparison: Comparison, aim: Aim | None
) -> str:
    """Return the page; `names` and `sizes` (bytes) are of the source and the rendition."""
    scores = sorted(score for _, score in comparison.frames)
    percent = 100 * sizes[1] / max(1, sizes[0])
    rows = [
        ("Original", f"{escape(names[0])}, {size(sizes[0])}"),
        ("Rendition", f"{escape(names[1])}, {size(sizes[1])}: {percent:.0f} % of the original"),
        ("Metric", f"{comparison.metric}, of {counted(len(scores), 'frame')} throughout the video"),
        ("Worst twentieth", f"{worst_twentieth(scores):.1f}"),
        ("Median", f"{scores[len(scores) // 2]:.1f}"),
    ]
    if aim is not None:
        rows.append(("Quality", escape(aim.in_words())))
    table = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    stills = "".join(map(_figure, comparison.stills[:MAX_STILLS]))
    curve = f"<h2>What was tried</h2>{curve_svg(aim)}" if aim and aim.probes else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(names[0])}</title>'
        f"<style>{STYLE}</style><h1>Original and rendition</h1><table>{table}</table>"
        f"<h2>Score over time</h2>{points_svg(comparison.frames)}{stills}{curve}"
        f"<script>{SCRIPT}</script></html>\n"
    )


def _figure(still: Still) -> str:
    first, second = (b64encode(each).decode("ascii") for each in (still.source, still.made))
    where = f"{still.name}: {still.score:.1f} at {timecode(still.at_s)}"
    return (
        f"<figure><h2>{where}</h2><div class=pair>"
        f'<img alt="original" src="data:image/jpeg;base64,{first}">'
        f'<img class=made alt="rendition" src="data:image/jpeg;base64,{second}"></div>'
        f'<input type=range aria-label="{still.name}: share of the original" value=50>'
        "<figcaption>Original on the left, rendition on the right of the line.</figcaption></figure>"
    )


BAR = 30
"""Characters of the longest bar."""


def curve_lines(aim: Aim, source_size: int) -> Iterator[str]:
    """Yield a line for each CRF that was tried, best quality first, with a bar of its size."""
    most = max((each.size or 0 for each in aim.probes), default=0) or 1
    for each in sorted(aim.probes, key=lambda probe: probe.crf):
        bar = "█" * max(1, round(BAR * (each.size or 0) / most))
        verb = "nearest to" if aim.out_of_reach else "chosen for"
        mark = f"  {verb} {aim.target:g}" if each.crf == aim.crf else ""
        yield f"  CRF {each.crf:<5g}VMAF {each.vmaf:<7.1f}{_size(each, source_size):<22}{bar}{mark}"
    if aim.within is not None:
        yield (
            f"  The size is exact: the whole video was encoded at CRF {aim.crf:g}."
            if aim.within == 0
            else f"  Four in five of these sizes are within {100 * aim.within:.0f} % of the real size."
        )
    if aim.out_of_reach:
        yield f"  VMAF {aim.target:g} cannot be reached."
    if aim.uncertain_crf:
        yield f"  {unsure(aim)}"


def _size(probe: Probe, source_size: int) -> str:
    if probe.size is None:
        return "size unknown"
    return f"{size(probe.size)} ({100 * probe.size / max(1, source_size):.0f} %)"
