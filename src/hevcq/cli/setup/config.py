"""`hevcq config`: show the settings and where each value came from."""

from __future__ import annotations

import typer

from hevcq.cli.context import cli_of
from hevcq.cli.options import AsJson, PlainCommand
from hevcq.cli.output import table as render

app = typer.Typer(
    help="Show the settings and where they came from.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback()
def config() -> None:
    """Show the settings and where they came from.

    Flags override HEVCQ_* variables, which override hevcq.toml, which overrides the defaults.
    """


@app.command(cls=PlainCommand)
def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show each setting, its value and where it came from."""
    from hevcq.settings.explain import leaves
    from hevcq.settings.model import Settings

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


def _shown(value: object) -> object:
    """Return a value as a cell: of a list of tables, such as `libraries`, only the names."""
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return ", ".join(str(each.get("name", each)) for each in value)
    return "" if value is None else value
