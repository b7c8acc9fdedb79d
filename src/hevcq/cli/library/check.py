"""`hevcq check`: read every video completely, or run the gates on a source and its rendition."""

import os
import threading
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from hevcq.cli.context import (
    AsJson,
    Cli,
    ExcludeGlobs,
    IncludeGlobs,
    Quiet,
    cli_of,
    parse_option,
    require_existing,
)
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.output import render
from hevcq.cli.output.render import without_path
from hevcq.domain.certificate import Certificate, Gate, Outcome
from hevcq.domain.profile import Profile
from hevcq.errors import UsageError
from hevcq.settings import quantities
from hevcq.settings.profile_files import pick
from hevcq.usecases.check import VideoCheck, damage_places, report_damage, summary
from hevcq.usecases.verify_files import (
    VerifyFilesReport,
    VerifyFilesRequest,
    read_certificate,
    rendition_at,
    verify_files,
)
from hevcq.util.signals import StopSignals
from hevcq.util.text import printable
from hevcq.wiring.app import App
from hevcq.wiring.contexts import event_log

REMARKS = 5
"""Remarks on sound files that are printed at most; --json has all."""
DEFAULT_PROFILE = "hevc"


def check(
    ctx: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Folders and files to read.")],
    *,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every frame, not only packets and sound.")
    ] = False,
    share: Annotated[
        str,
        typer.Option(
            metavar="1/N", help="Read only this share, least recently read first (default: all)."
        ),
    ] = "",
    limit: Annotated[
        str, typer.Option(metavar="RATE", help="Bytes a second on average, such as 20M.")
    ] = "",
    include: IncludeGlobs = None,
    exclude: ExcludeGlobs = None,
    source: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check PATH, a rendition, against this original."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            metavar="NAME",
            help="With --source: profile (default: the certificate's, or hevc).",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Read every video completely, and report damaged ones.

    Nothing is encoded or changed. The first run records a digest of each file, by which later runs find
    bit rot: bytes that changed although time and size did not. After an interruption, run the same
    command to resume. With --source, PATH is a rendition of that original (a file, or the folder of an
    HLS rendition), and every gate is run on it. The exit code is 1 if damage was found.
    """
    cli = cli_of(ctx)
    cli.quiet = quiet or cli.quiet
    require_existing(paths)
    if source is not None:
        if len(paths) != 1:
            raise UsageError("--source needs exactly one PATH, the rendition.")
        raise typer.Exit(_verify(cli, source, paths[0], profile, as_json=as_json))
    if profile:
        raise UsageError("--profile only works with --source.")
    some = parse_option("--share", share or "1/1", quantities.share)
    bytes_s = parse_option("--limit", limit, quantities.bytes_per_second)
    with StopSignals() as signals, cli.app() as app:
        status = render.StatusLine(live=not cli.quiet and not as_json)

        def show_file(number: int, total: int, path: Path) -> None:
            status.show(path.name, f"{number} of {total}  ")

        run = VideoCheck(
            app,
            signals.asked,
            roots=tuple(path.absolute() for path in paths),
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            decode=decode,
            share=some,
            bytes_s=bytes_s,
            on_file=show_file,
            on_checked=partial(report_damage, event_log(app)),
        )
        damaged = _run(run, cli, status, as_json=as_json)
    raise typer.Exit(ExitCode.SOME_FAILED if damaged else ExitCode.OK)


def _run(run: VideoCheck, cli: Cli, status: render.StatusLine, *, as_json: bool) -> bool:
    """Check the files and print the results; return whether any is damaged."""
    checked = []
    for each in run.run():
        checked.append(each)
        if as_json:
            status.clear()
            _emit(each)
    status.clear()
    if as_json:
        for each in run.earlier:
            _emit(each)
    checked = [*run.earlier, *checked]
    wrong = [each for each in checked if each.health.value != "sound"]
    if not as_json:
        if wrong:
            rows = [(each.path, each.health.value, _why(each)) for each in wrong]
            render.emit_table(("file", "health", "why"), rows)
        remarks = [each for each in checked if each.health.value == "sound" and each.detail]
        for each in remarks[:REMARKS]:
            cli.echo(f"{printable(each.path)} is sound. {printable(each.detail)}")
    cli.echo(summary(checked))
    return bool(wrong)


def _why(each: Any) -> str:
    """Return what is wrong with a file, without its name, which the row already has."""
    name, place = printable(each.path), damage_places(each.spots)
    text = without_path(name, each.detail.removeprefix(f"{name} is damaged: "))
    text = f"{text[:1].upper()}{text[1:]}"
    return f"{text.rstrip('.')}, {place}." if place else text


def _emit(each: Any) -> None:
    row = asdict(each)
    facts = {"path": os.fspath(each.path), "size": row.pop("fingerprint")["size"]}
    render.emit_json({"type": "health", **row, **facts})


def _verify(
    cli: Cli,
    source: Path,
    rendition: Path,
    profile: str | None,
    *,
    as_json: bool,
) -> ExitCode:
    """Run every gate on a source and its rendition; return the exit code.

    With a certificate, also compare the digests of both files with it.
    """
    require_existing([source, rendition])
    rendition = rendition_at(rendition)
    proof = read_certificate(rendition, source)
    with cli.app() as app:
        picked = profile_for(app, profile, proof)
        pair = VerifyFilesRequest(source.absolute(), rendition.absolute(), picked, proof)
        report = verify_files(app.encoder, pair, stop=threading.Event(), scratch=app.scratch)
    if as_json:
        for each in report.gates:
            render.emit_json({"type": "gate", **each.model_dump(mode="json")})
        facts = {"passed": report.passed, "certified": proof is not None}
        render.emit_json({"type": "verdict", **facts, "notices": report.notices})
    else:
        _print(report, certified=proof is not None)
    return ExitCode.OK if report.passed else ExitCode.SOME_FAILED


def profile_for(app: App, name: str | None, proof: Certificate | None) -> Profile:
    """Return the profile that was named, else the certificate's, else DEFAULT_PROFILE."""
    (picked,) = pick(app.profiles, [name or (proof.profile if proof else DEFAULT_PROFILE)])
    return picked


def _print(report: VerifyFilesReport, *, certified: bool) -> None:
    rows = []
    ordered = sorted(report.gates, key=lambda g: (list(Gate).index(g.gate), g.outcome))
    for (gate, outcome), group in groupby(ordered, key=lambda g: (g.gate, g.outcome)):
        results = list(group)
        # A gate that all files of a set passed is one row.
        is_one_row = len(results) > 1 and outcome is Outcome.PASSED
        for some in [results] if is_one_row else [[each] for each in results]:
            detail = ": ".join(filter(None, (some[0].file, some[0].detail)))
            details = f"{len(some)} files" if is_one_row else detail
            rows.append((gate.value, outcome.value, f"{sum(g.seconds for g in some):.1f}", details))
    render.emit_table(("gate", "outcome", "seconds", "detail"), rows)
    if report.passed:
        about = "Digests match the certificate." if certified else "No certificate found."
        render.emit_sentence(f"All {'' if report.complete else 'available '}checks passed. {about}")
    else:
        render.emit("Verification failed.")
