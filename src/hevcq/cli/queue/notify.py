"""`hevcq config notify`: show who is notified of what, and test it."""

from __future__ import annotations

from typing import Annotated

import typer

from hevcq.cli.context import cli_of
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson, PlainCommand
from hevcq.cli.output import table as render

app = typer.Typer(
    help="Show who is notified of what, and send a test message.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)
Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Only these (default: all).")
]
NOBODY = "Nobody is notified: the settings have no [[notify]], [[webhook]] or [[media_server]]."


@app.command("list", cls=PlainCommand)
def list_receivers(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List who is notified of what, and what went wrong last."""
    from hevcq.wiring.notify import states

    cli = cli_of(ctx)
    with cli.app() as opened:
        found = states(opened)
    if as_json:
        for each in found:
            render.emit_json({"type": "receiver", **each})
        return
    if not found:
        cli.echo(NOBODY)
        return
    rows = [
        [each["name"], ", ".join(each["events"]), str(each["waiting"]), each["problem"]]
        for each in found
    ]
    render.emit_table(("receiver", "events", "waiting", "last problem"), rows)


@app.command("test", cls=PlainCommand)
def send_test(ctx: typer.Context, names: Names = None, as_json: AsJson = False) -> None:
    """Send a test message to every receiver.

    A media server is only asked whether it answers and takes the key.
    """
    from hevcq.wiring.notify import try_receivers

    cli = cli_of(ctx)
    with cli.app() as opened:
        failed = _tried(try_receivers(opened, names or []), as_json=as_json)
    if failed:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _tried(results: list[tuple[str, str]], *, as_json: bool) -> int:
    for name, problem in results:
        if as_json:
            word = "failed" if problem else "taken"
            render.emit_json({"type": "notify", "name": name, "result": word, "reason": problem})
        else:
            render.emit_sentence(
                f"{'failed' if problem else 'sent'}  {render.printable(name)}{f': {problem}' if problem else ''}"
            )
    if not results and not as_json:
        render.emit_sentence(NOBODY)
    return sum(bool(problem) for _, problem in results)
