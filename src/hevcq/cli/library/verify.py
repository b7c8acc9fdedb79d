"""`hevcq check --source`: run the gates on an existing source and rendition."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from hevcq.cli.context import Cli, require_existing
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.output import table as render
from hevcq.domain.certificate import Gate, GateResult
from hevcq.settings.profile_files import pick

if TYPE_CHECKING:
    from hevcq.usecases.verify_files import VerifyFilesReport

DEFAULT_PROFILE = "hevc"


def verify(
    cli: Cli,
    source: Path,
    rendition: Path,
    profile: str | None,
    certificate: Path | None,
    *,
    as_json: bool,
) -> ExitCode:
    """Run every gate again on a source and its rendition; return the exit code.

    With a certificate, also compares both files' digests to it.
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
    with cli.app() as app:
        name = profile or (proof.profile if proof else DEFAULT_PROFILE)
        (picked,) = pick(app.profiles, [name])
        pair = VerifyFilesRequest(source.absolute(), rendition.absolute(), picked, proof)
        stop = threading.Event()
        report = verify_files(app.encoder, pair, stop=stop, scratch=app.scratch)
    if as_json:
        _print_json(report, certified=proof is not None)
    else:
        _print(report, certified=proof is not None)
    return ExitCode.OK if report.passed else ExitCode.SOME_FAILED


def _of_file(result: GateResult) -> str:
    """Return a gate's detail, with the rung of a set that it is about."""
    return ": ".join(words for words in (result.file, result.detail) if words)


def _print_json(report: VerifyFilesReport, *, certified: bool) -> None:
    for each in report.gates:
        render.emit_json({"type": "gate", **each.model_dump(mode="json")})
    facts = {"passed": report.passed, "certified": certified, "notices": report.notices}
    render.emit_json({"type": "verdict", **facts})


def _print(report: VerifyFilesReport, *, certified: bool) -> None:
    ordered = sorted(report.gates, key=lambda result: list(Gate).index(result.gate))
    rows = [[g.gate.value, g.outcome.value, f"{g.seconds:.1f}", _of_file(g)] for g in ordered]
    render.emit_table(("gate", "outcome", "seconds", "detail"), rows)
    if report.passed:
        about = "Digests match the certificate." if certified else "No certificate found."
        render.emit_sentence(f"All {'' if report.complete else 'available '}checks passed. {about}")
    else:
        render.emit("Verification failed.")
