"""`hevcq libraries`: the media folders of the settings: list them, add one, see what was saved."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from hevcq.cli.context import AsJson, PlainCommand, ProfileNames, cli_of, current_user, group
from hevcq.cli.library.stats import stats
from hevcq.cli.output import render
from hevcq.errors import UsageError
from hevcq.settings.loader import settings_path
from hevcq.settings.profile_files import load_profiles, profile_folder
from hevcq.usecases.context import count_videos, folder_state, watch_words
from hevcq.usecases.settings.changes import SettingsFile
from hevcq.usecases.settings.libraries import free_name, save_library
from hevcq.util.clock import SystemClock
from hevcq.util.text import counted, printable, size

app = group("List and add libraries, and show what was saved.")
app.command("stats", cls=PlainCommand)(stats)


@app.command("list", cls=PlainCommand)
def list_libraries(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the libraries: folder, place, profiles and priority."""
    cli = cli_of(ctx)
    settings, rows = cli.loaded().settings, []
    for each in settings.libraries:
        profiles = ", ".join(each.profiles or settings.ingest.profiles)
        watched = "yes" if each.watch else "no"
        rows.append((each.name, each.path, each.place, profiles, each.priority, watched))
        if as_json:
            render.emit_json({"type": "library", **each.model_dump(mode="json")})
    if not rows:
        cli.echo("No libraries yet; add one with `hevcq libraries add PATH`.")
    elif not as_json:
        render.emit_table(("library", "folder", "place", "profiles", "priority", "watched"), rows)


@app.command("add", cls=PlainCommand)
def add(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder.")],
    *,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name (default: the folder's).")
    ] = None,
    place: Annotated[
        Literal["beside", "mirror", "replace"],
        typer.Option(metavar="PLACE", help="Where renditions go: beside, mirror or replace."),
    ] = "beside",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="The folder that mirror fills."),
    ] = None,
    profile: ProfileNames = None,
    keep_originals: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="Days to keep replaced originals (default 30)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a library to your settings file.

    Nothing is asked, and comments in the file stay. Add rules, an order or a budget by editing the
    file.
    """
    cli, folder = cli_of(ctx), path.expanduser().absolute()
    if not folder.is_dir():
        raise UsageError(f"No such folder: {printable(path)}.")
    settings = cli.loaded().settings
    file = SettingsFile(settings_path(cli.config), settings.data_dir, SystemClock())
    values: dict[str, object] = {
        "name": name or free_name(folder, settings.libraries),
        "path": str(folder),
        "place": place,
    }
    if output is not None:
        values["output"] = str(output.expanduser().absolute())
    if profile:
        values["profiles"] = list(profile)
    if keep_originals is not None:
        days = int(keep_originals) if keep_originals.is_integer() else keep_originals
        values["keep_originals"] = days
    library = save_library(
        file, values, current_user(), profiles=load_profiles(profile_folder(settings))
    )
    count, total_size = count_videos(folder, settings.data_dir)
    state = folder_state(library)
    if as_json:
        facts = {
            "file": str(file.file),
            "videos": count,
            "size": total_size,
            "problem": state.problem,
        }
        render.emit_json({"type": "library", **library.model_dump(mode="json"), **facts})
        return
    videos = counted(count, "video file")
    cli.echo(f"Added library {library.name} to {file.file}.")
    cli.echo(f"{printable(folder)}: {videos}, {size(total_size)}; {watch_words(state)}.")
    if state.problem:
        cli.warn(state.problem)
    cli.echo(f"See what would be done: hevcq ingest {_quoted(library.name)} --dry-run")


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name
