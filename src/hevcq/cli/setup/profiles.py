"""`hevcq profiles`: list, show, copy, validate and try out encoding profiles."""

from pathlib import Path
from typing import Annotated

import typer

from hevcq.cli.context import AsJson, PlainCommand, cli_of, group
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.library.plan import plan
from hevcq.cli.output import render
from hevcq.errors import ConfigError
from hevcq.settings.profile_files import (
    copy_profiles,
    installed_folder,
    load_profile,
    pick,
    profile_folder,
    user_folder,
)
from hevcq.usecases.ingest.forecast import minute_cost
from hevcq.util.text import printable, size

app = group("List, show, copy, validate and try out encoding profiles.")
app.command("plan", cls=PlainCommand)(plan)


@app.command("list", cls=PlainCommand)
def list_profiles(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the profiles, their output and approximate cost.

    On aws, `uploads` says whether a profile encodes every upload below TODO/all/. CPU time (including gates)
    and size are rough estimates for one minute of 1080p.
    """
    with cli_of(ctx).app() as opened:
        on_aws = opened.settings.on_aws  # only there files are uploaded to TODO/all/
        profiles = [(name, opened.profiles[name]) for name in sorted(opened.profiles)]
    rows = []
    for name, each in profiles:
        cost = minute_cost(each)
        if as_json:
            facts = each.model_dump(mode="json", include={"name", "description", "subscribe"})
            cpu_s, count = cost or (None, None)
            costs = {"minute_cpu_s": cpu_s and round(cpu_s, 1), "minute_bytes": count}
            render.emit_json({"type": "profile", **facts, "revision": each.revision, **costs})
            continue
        shown = [f"{cost[0]:.0f} s", size(cost[1])] if cost else ["-", "-"]
        uploads = ["yes" if each.subscribe else "no"] if on_aws else []
        rows.append([name, *uploads, *shown, each.revision, each.description])
    if not as_json:
        heading = ["uploads"] if on_aws else []
        columns = ["profile", *heading, "CPU/min", "size/min", "revision", "description"]
        render.emit_table(columns, rows)


@app.command(cls=PlainCommand)
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Profile name.")],
    as_json: AsJson = False,
) -> None:
    """Show one profile with all its defaults.

    docs/profiles.md explains each key.
    """
    with cli_of(ctx).app() as opened:
        (profile,) = pick(opened.profiles, [name])
    plain = profile.model_dump(mode="json")
    if as_json:
        render.emit_json({"type": "profile", **plain, "revision": profile.revision})
        return
    import yaml

    render.emit(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).rstrip())


@app.command(cls=PlainCommand)
def validate(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Profile files (default: the configured ones)."),
    ] = None,
) -> None:
    """Check profile files and report errors.

    Prints ok, or each key with an error.
    """
    cli = cli_of(ctx)
    folder = profile_folder(cli.settings())
    to_check = files or sorted(folder.glob("*.yaml"))
    if not to_check:
        raise ConfigError(f"No profiles (*.yaml) in {folder}.")
    failed = False
    for file in to_check:
        try:
            profile = load_profile(file)
            if profile.contradiction:
                raise ConfigError(f"Invalid profile {file}: {profile.contradiction}.")
            render.emit(f"ok     {printable(file)}  (revision {profile.revision})")
        except ConfigError as error:
            failed = True
            render.emit(f"wrong  {printable(error)}")
    if failed:
        raise typer.Exit(ExitCode.CONFIG)


@app.command(cls=PlainCommand)
def init(
    ctx: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Target folder (default: your configuration folder)."),
    ] = None,
) -> None:
    """Copy the shipped profiles to a folder of your own.

    From then on hevcq uses the copies in your configuration folder; it uses another DIR once
    `profiles_dir` names it. Existing files are kept.
    """
    cli, target = cli_of(ctx), (folder or user_folder()).absolute()
    for copied, new in copy_profiles(installed_folder(), target):
        render.emit(f"{'copied' if new else 'kept  '}  {printable(copied)}")
    used = profile_folder(cli.settings())
    if used != target:
        cli.echo(f"hevcq uses {used}; set profiles_dir = {str(target)!r} to use these.")
