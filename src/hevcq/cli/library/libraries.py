"""`hevcq libraries`: the media folders of the settings: list them, add one, see what was saved."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from hevcq.cli.context import cli_of
from hevcq.cli.options import AsJson, PlainCommand, ProfileNames, group
from hevcq.cli.output import table as render
from hevcq.cli.queue.stats import stats
from hevcq.errors import UsageError
from hevcq.settings.libraries import Library
from hevcq.settings.loader import append_table, load, own_file
from hevcq.usecases.library_state import count_videos, folder_state, watching
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
    _refuse(folder, place, output, settings.libraries)
    file = own_file(cli.config)
    values: dict[str, object] = {
        "name": name or _free_name(folder, settings.libraries),
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
    append_table(file, "libraries", values)
    known = load(config=cli.config or file).settings.libraries
    library = next(each for each in known if each.name == values["name"])
    count, total_size = count_videos(folder, settings.data_dir)
    state = folder_state(library)
    if as_json:
        facts = {"file": str(file), "videos": count, "size": total_size, "problem": state.problem}
        render.emit_json({"type": "library", **library.model_dump(mode="json"), **facts})
        return
    videos = counted(count, "video file")
    cli.echo(f"Added library {library.name} to {file}.")
    cli.echo(f"{printable(folder)}: {videos}, {size(total_size)}; {watching(state)}.")
    if state.problem:
        cli.warn(state.problem)
    cli.echo(f"See what would be done: hevcq ingest {_quoted(library.name)} --dry-run")


def _refuse(folder: Path, place: str, output: Path | None, known: Sequence[Library]) -> None:
    """Raise UsageError, in the words of the command, for what the settings would refuse."""
    if place == "mirror" and output is None:
        raise UsageError("--place mirror needs --output FOLDER, where the renditions go.")
    if place != "mirror" and output is not None:
        raise UsageError("--output only works with --place mirror.")
    for each in known:
        if each.path == folder:
            raise UsageError(f"{printable(folder)} is the library {each.name} already.")
        if folder.is_relative_to(each.path) or each.path.is_relative_to(folder):
            where = "within" if folder.is_relative_to(each.path) else "the parent of"
            raise UsageError(
                f"{printable(folder)} is {where} the library {each.name} ({printable(each.path)}).",
                remedy="Libraries must be separate folders.",
            )


def _free_name(folder: Path, known: Sequence[Library]) -> str:
    """Return a name after the folder that no library has yet."""
    plain = re.sub(r"[^\w .-]+", "-", folder.name).strip(" .-_")[:50] or "library"
    taken = {each.name.casefold() for each in known}
    names = (plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 3)))
    return next(each for each in names if each.casefold() not in taken)


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name
