"""`hevcq pause` and `hevcq resume`: hold work back, and let it go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import cli_of
from hevcq.cli.options import AsJson
from hevcq.cli.output import table as render
from hevcq.cli.queue.failures import current_user
from hevcq.domain.pause import RunningWork
from hevcq.errors import UsageError

if TYPE_CHECKING:
    from hevcq.wiring.app import App

ProfileName = Annotated[
    str | None, typer.Option("--profile", "-p", metavar="NAME", help="Only this profile's work.")
]


def pause(
    ctx: typer.Context,
    length: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="TIME", help="Resume automatically after this time, e.g. 2h."
        ),
    ] = None,
    after_current: Annotated[
        bool,
        typer.Option("--after-current", help="Finish videos that have begun, split ones too."),
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Stop running encodes; they start again later.")
    ] = False,
    freeze: Annotated[
        bool,
        typer.Option("--freeze", help="Let running encodes stand still in memory (one machine)."),
    ] = False,
    profile: ProfileName = None,
    as_json: AsJson = False,
) -> None:
    """Stop new work until `hevcq resume`.

    Encodes that run end, but no further chunk of a split video begins. Every process on the data
    folder, or the whole farm, obeys within seconds. On AWS a chunk looks like any other task until it is
    received, so --after-current changes nothing there.
    """
    from hevcq.usecases.operations import pausing

    if sum((after_current, now, freeze)) > 1:
        raise UsageError("Only one of --after-current, --now and --freeze can be given.")
    chosen = {after_current: "finish", freeze: "freeze", now: "stop"}.get(True, "border")
    with cli_of(ctx).app() as app:
        request = pausing.PauseRequest(
            by=current_user(),
            profile=_known(app, profile) or "",
            for_s=None if length is None else pausing.seconds_of(length),
            running=RunningWork(chosen),
        )
        embedded = app.settings.backend == "embedded"
        made = pausing.pause(app.backend.pauses, app.clock, request, can_freeze=embedded)
        if as_json:
            render.emit_json({"type": "pause", **made.model_dump(mode="json")})
            return
        sentence = pausing.sentence(made, app.clock, app.hours)
        render.emit_sentence(f"{sentence} {pausing.effect(made.running)}")


def resume(ctx: typer.Context, profile: ProfileName = None, as_json: AsJson = False) -> None:
    """Resume paused work.

    Without --profile every pause ends. Frozen encodes go on where they were. Hours in the
    settings (schedule.windows) still hold.
    """
    from hevcq.usecases.operations import pausing

    with cli_of(ctx).app() as app:
        ended = pausing.resume(app.backend.pauses, _known(app, profile))
        names = list(app.profiles) if profile is None else [profile]
        now, hours = app.clock.now(), app.hours
        left = pausing.why_closed(app.backend.pauses, names, hours, now)
    if as_json:
        for each in ended:
            render.emit_json({"type": "resume", **each.model_dump(mode="json")})
        return
    render.emit_sentence("Resumed." if ended else "Nothing was paused.")
    for shut in left:
        render.emit_sentence(f"{', '.join(shut.profiles)}: {shut.reason}")


def _known(app: App, profile: str | None) -> str | None:
    """Return the name of an installed profile; raise UnknownProfile for another."""
    from hevcq.settings.profile_files import pick

    return None if profile is None else pick(app.profiles, [profile])[0].name
