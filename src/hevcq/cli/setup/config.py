"""`hevcq config`: show the settings and where each value came from."""

from __future__ import annotations

from typing import Annotated

import typer

from hevcq.cli.context import cli_of
from hevcq.cli.options import AsJson, PlainCommand
from hevcq.cli.output import table as render
from hevcq.cli.queue import notify

app = typer.Typer(
    help="Show the settings, and who is notified.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)
app.add_typer(notify.app, name="notify")
RARE = ("aws.", "web.oidc.")
"""Settings of these sections are shown with --all, or where one of them is set."""


@app.callback()
def config() -> None:
    """Show the settings, and who is notified.

    Flags override HEVCQ_* variables, which override hevcq.toml, which overrides the defaults.
    """


@app.command(cls=PlainCommand)
def show(
    ctx: typer.Context,
    every: Annotated[
        bool, typer.Option("--all", help="Also those of AWS and OpenID, which few need.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show each setting, its value and where it came from."""
    from hevcq.settings.explain import leaves
    from hevcq.settings.loader import DEFAULT
    from hevcq.settings.model import Settings

    loaded = cli_of(ctx).loaded()
    plain = loaded.settings.model_dump(mode="json")
    rows = []
    used = {key.partition(".")[0] for key, origin in loaded.origins.items() if origin != DEFAULT}
    for key, field in leaves(Settings):
        if not (every or as_json or key.partition(".")[0] in used) and key.startswith(RARE):
            continue
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


def _shown(value: object) -> object:
    """Return a value as a cell: of a list of tables, such as `libraries`, only the names."""
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return ", ".join(str(each.get("name", each)) for each in value)
    return "" if value is None else value
