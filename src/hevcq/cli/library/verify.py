"""`hevcq verify`: run the gates on an existing source and rendition."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import cli_of, require_existing
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson
from hevcq.cli.output import table as render
from hevcq.domain.certificate import Gate
from hevcq.settings.profile_files import pick

if TYPE_CHECKING:
    from hevcq.usecases.verify_files import VerifyFilesReport

DEFAULT_PROFILE = "hevc"


def verify(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(help="The original.")],
    rendition: Annotated[Path, typer.Argument(help="Its rendition.")],
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            metavar="NAME",
            help="Profile (default: the certificate's, or hevc).",
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificate (default: in the library's .hevcq)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a rendition against its source.

    Runs every gate again; with a certificate, also compares both files' digests to it.
    """
    from hevcq.usecases.verify_files import VerifyFilesRequest, read_certificate, verify_files

    require_existing([source, rendition, *([certificate] if certificate else [])])
    proof = read_certificate(rendition, certificate, source)
    with cli_of(ctx).app() as app:
        name = profile or (proof.profile if proof else DEFAULT_PROFILE)
        (picked,) = pick(app.profiles, [name])
        pair = VerifyFilesRequest(source.absolute(), rendition.absolute(), picked, proof)
        stop = threading.Event()
        report = verify_files(app.encoder, pair, stop=stop)
    _render(report, certified=proof is not None, as_json=as_json)
    if not report.passed:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _render(report: VerifyFilesReport, *, certified: bool, as_json: bool) -> None:
    if as_json:
        for each in report.gates:
            render.emit_json({"type": "gate", **each.model_dump(mode="json")})
        facts = {"passed": report.passed, "certified": certified, "notices": report.notices}
        render.emit_json({"type": "verdict", **facts})
        return
    ordered = sorted(report.gates, key=lambda result: list(Gate).index(result.gate))
    rows = [[g.gate.value, g.outcome.value, f"{g.seconds:.1f}", g.detail] for g in ordered]
    render.emit_table(("gate", "outcome", "seconds", "detail"), rows)
    if not report.passed:
        render.emit("Verification failed.")
    elif certified:
        render.emit("All checks passed; digests match the certificate.")
    else:
        render.emit("All available checks passed; no certificate found.")
