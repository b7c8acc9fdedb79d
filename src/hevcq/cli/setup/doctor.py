"""`hevcq doctor`: check this machine and print how to fix what is wrong."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import Cli, cli_of
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson
from hevcq.cli.output import table as render
from hevcq.cli.web.serve import missing
from hevcq.errors import ConfigError, UsageError
from hevcq.usecases.doctor import Area, Finding, run_checks, settings_finding, wrong
from hevcq.usecases.farm_check import FarmCheck, check_farm, tidy_sets

if TYPE_CHECKING:
    from hevcq.wiring.app import App

CODES = {
    Area.CONFIG: ExitCode.CONFIG,
    Area.ENCODER: ExitCode.UNFIT,
    Area.FOLDER: ExitCode.STORAGE,
    Area.CLOCK: ExitCode.UNFIT,
    Area.DATABASE: ExitCode.STORAGE,
    Area.SYNC: ExitCode.SOME_FAILED,
    Area.FARM: ExitCode.SOME_FAILED,
}
"""The exit code is that of the first area with a problem."""
TEXT_AT = 25
"""Column at which the text of a line begins."""


def doctor(
    ctx: typer.Context,
    farm: Annotated[
        bool,
        typer.Option(
            "--farm", help="Also send a one-second clip through every profile and its workers."
        ),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help="With --farm: how long a clip may take (default: 1200 on aws, 120 elsewhere).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check ffmpeg, folders, clock, settings, database.

    Each line says ok, or what is wrong and how to fix it; the exit code is that of the first problem.
    With --farm each profile's line says where its clip stopped: upload, queue, worker or publish. What
    the clips leave is removed; their uploads are marked as finished and expire.
    """
    if timeout is not None and not farm:
        raise UsageError("--timeout only works with --farm.")
    code = ExitCode.OK
    for finding in _examine(cli_of(ctx), farm=farm, timeout_s=timeout):
        _render(finding, as_json=as_json)
        if not finding.check.ok and code is ExitCode.OK:
            code = CODES[finding.area]
    raise typer.Exit(code)


def _examine(cli: Cli, *, farm: bool, timeout_s: float | None) -> Iterator[Finding]:
    try:
        loaded = cli.loaded()
    except ConfigError as error:
        yield settings_finding(error.message, wrong=True, remedy=error.remedy)
        return
    where = str(loaded.file) if loaded.file else "no file, defaults"
    detail = f"{where}; backend {loaded.settings.backend}"
    yield settings_finding(detail)
    from hevcq.wiring.app import doctor_context

    with cli.app() as app:
        sound = True
        for finding in run_checks(doctor_context(app)):
            sound = sound and (finding.check.ok or finding.area in {Area.FOLDER, Area.FARM})
            yield finding
        if app.settings.sync:
            from hevcq.wiring.sync import findings

            yield from findings(app)
        if app.settings.notify or app.settings.webhook or app.settings.media_server:
            from hevcq.wiring.notify import finding as receivers_finding

            yield receivers_finding(app)
        yield from _page(app)
        # A farm that cannot be opened from here is reported already.
        if farm and sound:
            context = _farm(app, timeout_s)
            yield from check_farm(context)
            yield from tidy_sets(context)


def _page(app: App) -> Iterator[Finding]:
    """Yield the findings about the page, if it was set up or served once."""
    settings = app.settings
    if not settings.has_page and not (settings.data_dir / "web").is_dir():
        return
    try:
        from hevcq.web.checks import findings
    except ModuleNotFoundError as error:
        raised = missing(error)
        if not isinstance(raised, UsageError):
            raise
        yield wrong(Area.CONFIG, "page", raised)
        return
    yield from findings(app)


def _farm(app: App, timeout_s: float | None) -> FarmCheck:
    return FarmCheck(
        app.backend, app.profiles, app.encoder, app.clock, uuid.uuid4().hex[:12], timeout_s
    )


def _render(finding: Finding, *, as_json: bool) -> None:
    check = finding.check
    if as_json:
        facts = {"name": check.name, "ok": check.ok, "detail": check.detail}
        render.emit_json({"type": "check", "area": finding.area, **facts, "remedy": check.remedy})
        return
    word = "ok   " if check.ok else "WRONG"
    text = f"{check.detail} {check.remedy}".strip() if not check.ok else check.detail
    line = f"{word}  {check.name:<16}  {render.printable(text)}"
    render.emit(render.paragraph(line, render.screen_width(sys.stdout), TEXT_AT))
