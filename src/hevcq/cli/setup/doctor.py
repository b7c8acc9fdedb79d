"""`hevcq doctor`: check this machine and print how to fix what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from hevcq.cli.context import Cli, cli_of
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson
from hevcq.cli.output import table as render
from hevcq.errors import ConfigError
from hevcq.usecases.doctor import Area, DoctorContext, Finding, run_checks, settings_finding

if TYPE_CHECKING:
    from hevcq.wiring.app import App

CODES = {
    Area.CONFIG: ExitCode.CONFIG,
    Area.ENCODER: ExitCode.UNFIT,
    Area.FOLDER: ExitCode.STORAGE,
    Area.CLOCK: ExitCode.UNFIT,
    Area.DATABASE: ExitCode.STORAGE,
}
"""The exit code is that of the first area with a problem."""


def doctor(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Check ffmpeg, folders, clock, settings, database.

    Each line says ok, or what is wrong and how to fix it; the exit code is that of the first problem.
    """
    code = ExitCode.OK
    for finding in _examine(cli_of(ctx)):
        _render(finding, as_json=as_json)
        if not finding.check.ok and code is ExitCode.OK:
            code = CODES[finding.area]
    raise typer.Exit(code)


def _examine(cli: Cli) -> Iterator[Finding]:
    try:
        loaded = cli.loaded()
    except ConfigError as error:
        yield settings_finding(error.message, wrong=True, remedy=error.remedy)
        return
    where = str(loaded.file) if loaded.file else "no file, defaults"
    detail = f"{where}; backend {loaded.settings.backend}"
    yield settings_finding(detail)
    with cli.app() as app:
        yield from run_checks(_context(app))


def _context(app: App) -> DoctorContext:
    return DoctorContext(
        app.settings,
        app.clock,
        profiles=lambda: app.profiles,
        encoder=lambda: app.encoder,
        backend=lambda: app.backend,
        keyring=lambda: app.keyring,
    )


def _render(finding: Finding, *, as_json: bool) -> None:
    check = finding.check
    if as_json:
        facts = {"name": check.name, "ok": check.ok, "detail": check.detail}
        render.emit_json({"type": "check", "area": finding.area, **facts, "remedy": check.remedy})
        return
    word = "ok   " if check.ok else "WRONG"
    text = f"{check.detail} {check.remedy}".strip() if not check.ok else check.detail
    render.emit(f"{word}  {check.name:<16}  {render.printable(text)}")
