"""`hevcq config`: show the settings and their origins, move records to PostgreSQL, test receivers."""

from enum import StrEnum
from typing import Annotated

import typer

from hevcq.cli.context import AsJson, DryRun, PlainCommand, Yes, cli_of, confirm, group
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.output import render
from hevcq.settings.loader import leaves
from hevcq.settings.model import Settings
from hevcq.usecases.event_dispatch import try_receivers
from hevcq.util.text import printable
from hevcq.wiring.app import migration
from hevcq.wiring.contexts import event_log, receivers

app = group("Show the settings, and test notifications.")


class Engine(StrEnum):
    """Where hevcq stores its records."""

    POSTGRES = "postgres"
    EMBEDDED = "embedded"


@app.callback()
def config() -> None:
    """Show the settings, and test notifications.

    Flags override HEVCQ_* variables, which override hevcq.toml, which overrides the defaults.
    """


@app.command(cls=PlainCommand)
def migrate(
    ctx: typer.Context,
    to: Annotated[
        Engine,
        typer.Option(
            "--to", help="Where to move the records: postgres, or embedded to move them back."
        ),
    ],
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Move the data folder's records to PostgreSQL, or back.

    Moves queue, jobs, placements, events, pauses and uploads in one transaction to an empty database, and
    compares them afterwards; files of renditions are linked or copied. The old records stay, but hevcq
    refuses to use them. Stop hevcq on every machine first; set `backend` afterwards.
    """
    cli = cli_of(ctx)
    settings = cli.settings()
    with migration(settings, to.value) as found:
        found.require_still()
        render.emit_table(("records", "rows"), sorted(found.counts().items()))
        cli.echo(f"From {printable(found.source.where)} to {printable(found.target.where)}.")
        if dry_run:
            return
        if not yes and not confirm("Move them?"):
            cli.echo("Nothing was moved; confirm with --yes.")
            raise typer.Exit(ExitCode.SOME_FAILED)
        found.run()
    render.emit_sentence(
        f'Moved. Set backend = "{to.value}" on every machine; the old records stay where they are, unused.'
    )


@app.command(cls=PlainCommand)
def show(
    ctx: typer.Context,
    as_json: AsJson = False,
) -> None:
    """Show each setting, its value and where it came from."""
    loaded = cli_of(ctx).loaded()
    plain = loaded.settings.model_dump(mode="json")
    rows = []
    for key, field in leaves(Settings):
        value: object = plain
        for part in key.split("."):
            value = value[part] if isinstance(value, dict) else None
        rows.append((key, value, loaded.origins[key], field.description))
    if as_json:
        for key, value, origin, _ in rows:
            render.emit_json({"type": "setting", "key": key, "value": value, "origin": origin})
        return
    render.emit_table(
        ("setting", "value", "from", "meaning"),
        [[key, _shown(value), *rest] for key, value, *rest in rows],
    )
    if not loaded.settings.notify:
        return
    from hevcq.remotes.message_delivery import people

    for each in loaded.settings.notify:
        people(each)  # a wrong address is an error, after the table names the file


def _shown(value: object) -> object:
    """Return a value as a cell; for a list of tables, such as `libraries`, only the names."""
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return ", ".join(str(each.get("name", each)) for each in value)
    return "" if value is None else value


notifications = group("Send a test message to every receiver.")
app.add_typer(notifications, name="notify")
NOBODY = "Nobody is notified: the settings have no [[notify]], [[webhook]] or [[media_server]]."


@notifications.command("test", cls=PlainCommand)
def send_test(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Only these (default: all).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a test message to every receiver.

    A media server is only asked whether it accepts the key.
    """
    cli = cli_of(ctx)
    with cli.app() as opened:
        targets, now = receivers(opened), opened.clock.now()
        results = try_receivers(event_log(opened), targets, names or [], now)
    for name, problem in results:
        if as_json:
            word = "failed" if problem else "taken"
            render.emit_json({"type": "notify", "name": name, "result": word, "reason": problem})
        else:
            why = f": {problem}" if problem else ""
            render.emit_sentence(f"{'failed' if problem else 'sent'}  {printable(name)}{why}")
    if not results and not as_json:
        render.emit_sentence(NOBODY)
    if any(problem for _, problem in results):
        raise typer.Exit(ExitCode.SOME_FAILED)
