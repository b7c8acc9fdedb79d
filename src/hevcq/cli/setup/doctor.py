"""`hevcq doctor`: check this machine, and print how to fix what is wrong."""

import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from hevcq.cli.context import AsJson, Cli, cli_of
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.output import render
from hevcq.cli.web.serve import missing
from hevcq.errors import ConfigError
from hevcq.running.doctor import machine_checks
from hevcq.usecases.farm_check import (
    Area,
    Finding,
    check_farm,
    examined,
    wrong,
)
from hevcq.util.text import printable
from hevcq.wiring.app import App

CODES = {
    Area.CONFIG: ExitCode.CONFIG,
    Area.ENCODER: ExitCode.UNFIT,
    Area.FOLDER: ExitCode.STORAGE,
    Area.CLOCK: ExitCode.UNFIT,
    Area.DATABASE: ExitCode.STORAGE,
    Area.SYNC: ExitCode.SOME_FAILED,
    Area.MESSAGES: ExitCode.SOME_FAILED,
    Area.FARM: ExitCode.SOME_FAILED,
}
"""The exit code by the area of the first problem."""
NEEDED = frozenset({Area.CONFIG, Area.ENCODER, Area.CLOCK, Area.DATABASE})
"""Areas that must be right before a farm is checked."""
TEXT_AT = 25
"""Column at which a line's text starts."""


def doctor(
    ctx: typer.Context,
    farm: Annotated[
        bool,
        typer.Option(
            "--farm", help="Also send a one-second clip through every profile and its workers."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check ffmpeg, folders, clock, settings, database.

    Each line says ok, or what is wrong and how to fix it; the exit code is that of the first problem.
    With --farm each profile's line says where its clip stopped: upload, queue, worker or publish. Files
    of the clips are removed; their uploads are tagged as finished, and expire.
    """
    code = ExitCode.OK
    for finding in _examine(cli_of(ctx), farm=farm):
        _render(finding, as_json=as_json)
        if not finding.ok and code is ExitCode.OK:
            code = CODES[finding.area]
    raise typer.Exit(code)


def _examine(cli: Cli, *, farm: bool) -> Iterator[Finding]:
    try:
        loaded = cli.loaded()
    except ConfigError as error:
        yield wrong(Area.CONFIG, "settings", error)
        return
    where = str(loaded.file) if loaded.file else "no file, defaults"
    detail = f"{where}; backend {loaded.settings.backend}"
    yield Finding(Area.CONFIG, "settings", ok=True, detail=detail)
    with cli.app() as app:
        is_sound = True
        for finding in examined(machine_checks(app)):
            is_sound = is_sound and (finding.ok or finding.area not in NEEDED)
            yield finding
        yield from _page_findings(app)
        # A farm that cannot be reached is already reported.
        if farm and is_sound:
            yield from check_farm(app, token=uuid.uuid4().hex[:12])


def _page_findings(app: App) -> Iterator[Finding]:
    """Check the page, if it was ever set up or served."""
    settings = app.settings
    if not settings.has_page and not (settings.data_dir / "web").is_dir():
        return
    try:
        from hevcq.web.checks import page_checks
    except ModuleNotFoundError as error:
        yield wrong(Area.CONFIG, "page", missing(error))
        return
    yield from examined(page_checks(app))


def _render(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        render.emit_json({"type": "check", **asdict(finding)})
        return
    word = "ok   " if finding.ok else "WRONG"
    text = finding.detail if finding.ok else f"{finding.detail} {finding.remedy}".strip()
    line = f"{word}  {finding.name:<16}  {printable(text)}"
    render.emit(render.paragraph(line, render.screen_width(sys.stdout), TEXT_AT))
