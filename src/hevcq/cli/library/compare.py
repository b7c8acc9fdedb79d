"""`hevcq compare`: one page that shows a rendition beside its original, frame on frame."""

import threading
from pathlib import Path
from typing import Annotated

import typer

from hevcq.cli.context import cli_of, require_existing
from hevcq.cli.library.check import profile_for
from hevcq.cli.options import Quiet
from hevcq.cli.output.compare_page import compare_page
from hevcq.errors import SourceUnreadable, UsageError
from hevcq.usecases.verify_files import (
    VerifyFilesRequest,
    frame_pairs,
    read_certificate,
    rendition_at,
)
from hevcq.util.text import printable


def compare(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The original.")],
    rendition: Annotated[Path, typer.Argument(metavar="RENDITION", help="What was made of it.")],
    *,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="HTML", help="The page to write."),
    ] = Path("compare.html"),
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", "-p", metavar="NAME", help="Default: the certificate's, or hevc."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Show a rendition beside its original, on one page.

    Writes one HTML file that needs no other: the worst measured frame of each place, the very worst
    first, with a slider between both, the score over time, and the sizes. Measures VMAF, or SSIM where no
    program measures VMAF or the video is HDR.
    """
    cli = cli_of(ctx)
    require_existing([source, rendition, output.absolute().parent])
    if output.exists():
        raise UsageError(f"{printable(output)} exists already; name another with --output.")
    made = rendition_at(rendition)
    proof = read_certificate(made, None, source)
    with cli.app() as app:
        picked = profile_for(app, profile, proof)
        pair = VerifyFilesRequest(source.absolute(), made.absolute(), picked, proof)
        stop = threading.Event()
        with (
            frame_pairs(app.encoder, pair, stop=stop, scratch=app.scratch) as pairs,
            app.scratch(0) as folder,
        ):
            found = pairs.compare(folder, on_place=_ignore, stop=stop)
    if found is None:
        raise SourceUnreadable(f"No frame of {printable(rendition)} could be compared.")
    sizes = source.stat().st_size, made.stat().st_size
    aim = proof.quality if proof else None
    page = compare_page((printable(source), printable(made)), sizes, found, aim)
    output.write_text(page, encoding="utf-8")
    if not (quiet or cli.quiet):
        cli.echo(f"Wrote {printable(output)}; open it in a browser.")


def _ignore(_number: int, _count: int) -> None:
    """Show no progress: the command takes about as long as a search for a quality."""
