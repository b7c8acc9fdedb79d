"""`hevcq workers`: the machines that encode, and which of them take no new work."""

from typing import Annotated

import typer

from hevcq.cli.context import cli_of, current_user
from hevcq.cli.options import AsJson, PlainCommand, group
from hevcq.cli.output import table as render
from hevcq.errors import UsageError
from hevcq.ports.machines import Machines, WorkerProcess
from hevcq.util.text import counted, duration, printable
from hevcq.wiring.app import App

ON_AWS = (
    "On AWS, ECS runs the workers: `aws ecs describe-services` lists them, `hevcq status` shows what "
    "they encode."
)
NONE = "No machine works: start `hevcq worker` or `hevcq service` on one."

app = group(
    "List the machines that encode, drain or remove one.",
    invoke_without_command=True,
    no_args_is_help=False,
)
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A machine, as `hevcq workers` lists it.")
]


@app.callback()
def workers(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the machines that encode, drain or remove one.

    Without a command, list every process that works: its machine, what it encodes now and can encode,
    its versions, and why it takes no work if it does not. `hevcq doctor` tests every encoder.
    """
    if ctx.invoked_subcommand is not None:
        return
    cli = cli_of(ctx)
    with cli.app() as opened:
        found = machines_of(opened).processes()
    if as_json:
        for each in found:
            render.emit_json(_json(each))
        return
    if not found:
        cli.echo(NONE)
        return
    render.emit_table(
        ("machine", "cores", "jobs", "encoders", "hevcq", "ffmpeg", "state"), map(_row, found)
    )
    for each in found:
        for job in each.jobs:
            speed = f", {job.speed:.2f}x" if job.speed is not None else ""
            part = f", chunk {job.chunk + 1}" if job.chunk is not None else ""
            said = f"{job.profile}{part}, {job.phase or 'starting'} {job.percent:.0f}%{speed}"
            render.emit(f"{each.facts.machine}: {said}: {render.place('', job.key)}")
        for reason in each.facts.waits:
            render.emit_sentence(f"{printable(each.facts.machine)}: {printable(reason)}")


@app.command("drain", cls=PlainCommand)
def drain(ctx: typer.Context, name: Name) -> None:
    """Let a machine finish what it encodes, and take no new work until `hevcq workers resume`."""
    _tell(ctx, name, current_user(), f"{name} finishes what it encodes, and takes no new work.")


@app.command("resume", cls=PlainCommand)
def resume(ctx: typer.Context, name: Name) -> None:
    """Let a drained machine work again."""
    _tell(ctx, name, "", f"{name} works again.")


@app.command("remove", cls=PlainCommand)
def remove(ctx: typer.Context, name: Name) -> None:
    """Take a machine that works no more from the list."""
    with cli_of(ctx).app() as opened:
        known = machines_of(opened)
        alive = [each for each in known.processes() if each.alive and each.facts.machine == name]
        if alive:
            raise UsageError(f"{name} still works: stop hevcq there first.")
        if not known.remove(name):
            raise _unknown(known, name)
    render.emit_sentence(f"{name} is removed.")


def machines_of(opened: App) -> Machines:
    found = opened.backend.machines
    if found is None:
        raise UsageError(ON_AWS)
    return found


def _tell(ctx: typer.Context, name: str, by: str, done: str) -> None:
    with cli_of(ctx).app() as opened:
        known = machines_of(opened)
        if not known.drain(name, by):
            raise _unknown(known, name)
    render.emit_sentence(done)


def _unknown(known: Machines, name: str) -> UsageError:
    names = sorted({each.facts.machine for each in known.processes()})
    listed = f"There are: {', '.join(names)}." if names else NONE
    return UsageError(f"No machine {printable(name)}. {listed}")


def _json(each: WorkerProcess) -> dict[str, object]:
    facts = each.facts.model_dump(mode="json")
    return {"type": "worker", **facts, **each.model_dump(mode="json", exclude={"facts"})} | {
        "alive": each.alive
    }


def _row(each: WorkerProcess) -> tuple[str, ...]:
    facts = each.facts
    return (
        facts.machine,
        f"{facts.cores:g}",
        f"{len(each.jobs)}/{facts.slots}",
        " ".join(facts.encoders) or "untested",
        facts.version,
        facts.ffmpeg or "-",
        state_of(each),
    )


def state_of(each: WorkerProcess) -> str:
    if each.ended:
        return "drained, stopped" if each.drained_by else "stopped"
    if not each.alive:
        return f"silent for {duration(each.seen_s)}"
    if each.drained_by:
        return f"draining {counted(len(each.jobs), 'job')}" if each.jobs else "drained"
    return "waits" if each.facts.waits and not each.jobs else "works" if each.jobs else "idle"
