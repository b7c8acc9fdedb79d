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
from hevcq.domain.certificate import Certificate, Gate, GateResult, Standing
from hevcq.settings.profile_files import pick

if TYPE_CHECKING:
    from hevcq.usecases.verify_files import VerifyFilesReport

DEFAULT_PROFILE = "hevc"


def verify(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(help="The original.")],
    rendition: Annotated[
        Path, typer.Argument(help="Its rendition: a file, or the folder of an HLS one.")
    ],
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
    from hevcq.usecases.verify_files import (
        VerifyFilesRequest,
        read_certificate,
        rendition_at,
        verify_files,
    )

    require_existing([source, rendition, *([certificate] if certificate else [])])
    rendition = rendition_at(rendition)
    proof = read_certificate(rendition, certificate, source)
    with cli_of(ctx).app() as app:
        name = profile or (proof.profile if proof else DEFAULT_PROFILE)
        (picked,) = pick(app.profiles, [name])
        pair = VerifyFilesRequest(source.absolute(), rendition.absolute(), picked, proof)
        stop = threading.Event()
        report = verify_files(app.encoder, pair, stop=stop, scratch=app.scratch)
        standing = app.keyring.standing(proof) if proof is not None else None
    passed = report.passed and standing is not Standing.FORGED
    if as_json:
        _print_json(report, standing, passed=passed)
    else:
        _print(report, _about(proof, standing), passed=passed)
    if not passed:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _about(proof: Certificate | None, standing: Standing | None) -> str:
    """Return a sentence about the certificate and its signature."""
    if proof is None:
        return "No certificate found."
    if standing is Standing.FORGED:
        return "The certificate was changed after it was signed."
    if standing is Standing.TRUSTED:
        return "Digests match the certificate, signed by a trusted key."
    if proof.signature is None:
        return "Digests match the certificate, which is not signed."
    key = render.printable(proof.signature.key)
    return f"Digests match the certificate, signed by {key}, which is not among trusted_keys."


def _of_file(result: GateResult) -> str:
    """Return a gate's detail, with the rung of a set that it is about."""
    return ": ".join(words for words in (result.file, result.detail) if words)


def _print_json(report: VerifyFilesReport, standing: Standing | None, *, passed: bool) -> None:
    for each in report.gates:
        render.emit_json({"type": "gate", **each.model_dump(mode="json")})
    facts = {"passed": passed, "certified": standing is not None, "notices": report.notices}
    render.emit_json({"type": "verdict", **facts, "signature": standing})


def _print(report: VerifyFilesReport, about: str, *, passed: bool) -> None:
    ordered = sorted(report.gates, key=lambda result: list(Gate).index(result.gate))
    rows = [[g.gate.value, g.outcome.value, f"{g.seconds:.1f}", _of_file(g)] for g in ordered]
    render.emit_table(("gate", "outcome", "seconds", "detail"), rows)
    if passed:
        render.emit_sentence(f"All {'' if report.complete else 'available '}checks passed. {about}")
    elif report.passed:
        render.emit_sentence(f"Verification failed: {about[0].lower()}{about[1:]}")
    else:
        render.emit("Verification failed.")
