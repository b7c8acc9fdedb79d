"""`hevcq workers`: list the machines that encode; drain, resume, invite and remove them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hevcq.cli.context import AsJson, PlainCommand, cli_of, current_user, group
from hevcq.cli.output import render
from hevcq.cli.web.serve import missing
from hevcq.domain.keys import LIBRARY_BUCKET
from hevcq.running.machines import page_address
from hevcq.usecases.operations import status
from hevcq.util.text import printable

if TYPE_CHECKING:
    from hevcq.web.identity.accounts import ProgramTokens
    from hevcq.wiring.app import App

COLUMNS = ("machine", "cores", "jobs", "encoders", "hevcq", "ffmpeg", "state")

app = group(
    "List the machines that encode; invite, drain or remove one.",
    invoke_without_command=True,
    no_args_is_help=False,
)
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A machine, as `hevcq workers` lists it.")
]


@app.callback()
def workers(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the machines that encode; invite, drain or remove one.

    Without a command, lists every worker process: its machine, running jobs, encoders and versions, and
    why it takes no work if that is so. `hevcq doctor` tests every encoder.
    """
    if ctx.invoked_subcommand is not None:
        return
    cli = cli_of(ctx)
    with cli.app() as opened:
        machines: list[dict[str, Any]] = status.machines(opened.backend)
    if as_json:
        for each in machines:
            render.emit_json(each)
    elif machines:
        render.emit_table(COLUMNS, map(_row, machines))
        for each in machines:
            _emit_details(each)
        if joined := ", ".join(printable(each["name"]) for each in machines if each["joined"]):
            render.emit_sentence(f"{joined}: no streaming sets (HLS) and no samples of --quality.")
    else:
        cli.echo(status.NONE)


@app.command("drain", cls=PlainCommand)
def drain(ctx: typer.Context, name: Name) -> None:
    """Let a machine finish its encodes, and take no new work until `hevcq workers resume`."""
    with cli_of(ctx).app() as opened:
        status.drain(opened.backend, name, current_user())
    render.emit_sentence(f"{name} finishes its encodes and takes no new work.")


@app.command("resume", cls=PlainCommand)
def resume(ctx: typer.Context, name: Name) -> None:
    """Let a drained machine work again."""
    with cli_of(ctx).app() as opened:
        status.drain(opened.backend, name, "")
    render.emit_sentence(f"{name} works again.")


@app.command("invite", cls=PlainCommand)
def invite(
    ctx: typer.Context,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Address of the page for the other machine (default: web.url)."
        ),
    ] = None,
) -> None:
    """Print a command that lets another machine join, without a share.

    It is valid once, for an hour. The other machine fetches videos from the page and sends renditions
    back, so `hevcq service` or `hevcq serve` must run here. Streaming sets (HLS) and the samples of
    --quality are encoded here, by `hevcq service` or `hevcq worker`.
    """
    with cli_of(ctx).app() as opened:
        status.machines_of(opened.backend)
        page = (address or page_address(opened.settings.web)).rstrip("/")
        try:
            line = f"hevcq worker --join {page}/#{_tokens(opened).invite()}"
        except ModuleNotFoundError as error:
            raise missing(error) from error
    render.emit(line)
    cli_of(ctx).echo("Run this on the other machine within an hour; it is valid once.")


@app.command("remove", cls=PlainCommand)
def remove(ctx: typer.Context, name: Name) -> None:
    """Remove a stopped machine from the list; a joined machine is shut out at once."""
    with cli_of(ctx).app() as opened:
        registry = status.machines_of(opened.backend)
        with suppress(
            ModuleNotFoundError
        ):  # without the page's packages no machine can have joined
            if _tokens(opened).remove_machine(name):
                registry.remove(name)
                render.emit_sentence(f"{name} is removed, and its token revoked.")
                return
        status.remove(opened.backend, name)
    render.emit_sentence(f"{name} is removed.")


def _tokens(opened: App) -> ProgramTokens:
    from hevcq.web.identity.accounts import ProgramTokens

    return ProgramTokens(opened.accounts, opened.clock)


def _row(each: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        each["name"],
        f"{each['cores']:g}",
        f"{len(each['jobs'])}/{each['slots']}",
        " ".join(each["encoders"]) or "untested",
        each["version"],
        each["ffmpeg"] or "-",
        each["state"],
    )


def _emit_details(each: Mapping[str, Any]) -> None:
    """Print the running jobs of a process, and why it takes no work."""
    name = printable(each["name"])
    for job in each["jobs"]:
        speed = f", {job['speed']:.2f}x" if job["speed"] is not None else ""
        part = f", chunk {job['chunk'] + 1}" if job["chunk"] is not None else ""
        progress = f"{job['phase'] or 'starting'} {job['percent']:.0f}%{speed}"
        source = render.place(LIBRARY_BUCKET, job["key"])
        render.emit_sentence(f"{name}: {job['profile']}{part}, {progress}: {source}")
    for reason in each["waits"]:
        render.emit_sentence(f"{name}: {printable(reason)}")
