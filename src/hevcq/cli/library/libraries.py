"""`hevcq libraries`: the media folders of the settings: list them, add one, check them."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hevcq.cli.context import Cli, cli_of
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson, PlainCommand
from hevcq.cli.output import table as render
from hevcq.cli.output.plan_report import total
from hevcq.errors import HevcqError, UsageError
from hevcq.util.text import printable, size

if TYPE_CHECKING:
    from hevcq.settings.libraries import Library
    from hevcq.usecases.ingest.decide import IngestPlan
    from hevcq.usecases.library_state import FolderState
    from hevcq.wiring.app import App

app = typer.Typer(
    help="List, add and check the libraries of the settings.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)
TEXT_AT = 7
"""Column at which the text of `libraries check` begins."""
Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Only these (default: all).")
]


@app.command("list", cls=PlainCommand)
def list_libraries(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the libraries: folder, place, profiles and priority."""
    cli = cli_of(ctx)
    loaded = cli.loaded()
    usual = ", ".join(loaded.settings.ingest.profiles)
    if as_json:
        for each in loaded.settings.libraries:
            render.emit_json({"type": "library", **each.model_dump(mode="json")})
        return
    rows = [
        [
            each.name,
            str(each.path),
            each.place,
            ", ".join(each.profiles) or usual,
            str(each.priority),
            "yes" if each.watch else "no",
        ]
        for each in loaded.settings.libraries
    ]
    if rows:
        render.emit_table(("library", "folder", "place", "profiles", "priority", "watched"), rows)
    else:
        cli.echo("No library yet; `hevcq libraries add PATH` adds one.")


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
    profile: Annotated[
        list[str] | None,
        typer.Option("--profile", "-p", metavar="NAME", help="What to make (repeatable)."),
    ] = None,
    keep_originals: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="Days to keep replaced originals (default 30)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a library to your settings file.

    Nothing is asked, and comments in the file stay. What else it may have, such as rules, an order
    or a budget, is added in the file.
    """
    from hevcq.settings.edit import append_table
    from hevcq.usecases.library_state import count_videos, folder_state, watching

    cli, folder = cli_of(ctx), path.expanduser().absolute()
    if not folder.is_dir():
        raise UsageError(f"No such folder: {printable(path)}.")
    from hevcq.settings.loader import own_file

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
    library = next(each for each in _reloaded(cli, file) if each.name == values["name"])
    count, total_size = count_videos(folder, settings.data_dir)
    state = folder_state(library)
    if as_json:
        facts = {"file": str(file), "videos": count, "size": total_size, "problem": state.problem}
        render.emit_json({"type": "library", **library.model_dump(mode="json"), **facts})
        return
    videos = "1 video file" if count == 1 else f"{count:,} video files"
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


def _reloaded(cli: Cli, file: Path) -> tuple[Library, ...]:
    from hevcq.settings.loader import load

    return load(config=cli.config or file).settings.libraries


def _free_name(folder: Path, known: Sequence[Library]) -> str:
    """Return a name after the folder that no library has yet."""
    plain = re.sub(r"[^\w .-]+", "-", folder.name).strip(" .-_")[:50] or "library"
    taken = {each.name.casefold() for each in known}
    names = (plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 3)))
    return next(each for each in names if each.casefold() not in taken)


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name


@app.command("check", cls=PlainCommand)
def check(ctx: typer.Context, names: Names = None, as_json: AsJson = False) -> None:
    """Check each library and show what would be done.

    Says whether it can be read, the free space, and how new files are found. Reads the headers of
    new videos, changes nothing. The exit code is 1 if a library has a problem.
    """
    cli, code = cli_of(ctx), ExitCode.OK
    known = {each.name.casefold(): each for each in cli.loaded().settings.libraries}
    for unknown in [each for each in names or () if each.casefold() not in known]:
        raise UsageError(
            f"No library named {printable(unknown)}. Known: {', '.join(sorted(known)) or 'none'}."
        )
    chosen = [known[each.casefold()] for each in names] if names else list(known.values())
    if not chosen:
        cli.echo("No library yet; `hevcq libraries add PATH` adds one.")
    with cli.app(log_level=("(default with a display)", "error")) as opened:
        for library, state, plan in _states(opened, chosen):
            if state.problem or isinstance(plan, str):
                code = ExitCode.SOME_FAILED
            if as_json:
                render.emit_json(_as_json(library, state, plan))
            else:
                _show(library, state, plan)
    raise typer.Exit(code)


def _states(
    app: App, libraries: Sequence[Library]
) -> Iterator[tuple[Library, FolderState, IngestPlan | str]]:
    """Yield each library with its state and its plan, or why there is none."""
    from hevcq.usecases.library_state import folder_state

    for library in libraries:
        state = folder_state(library)
        if state.problem:
            yield library, state, state.problem
            continue
        try:
            yield library, state, _plan(app, library)
        except HevcqError as error:
            yield library, state, str(error)


def _plan(app: App, library: Library) -> IngestPlan | str:
    from hevcq.usecases.ingest.decide import IngestPlan
    from hevcq.usecases.ingest.request import library_request
    from hevcq.usecases.ingest.summary import IngestSummary
    from hevcq.wiring.folder_ingest import FolderIngest

    request = library_request(library)
    folder = FolderIngest(app, request, lambda _event: None, threading.Event(), IngestSummary())
    plan = folder.plan()
    return plan if isinstance(plan, IngestPlan) else ""


def _show(library: Library, state: FolderState, plan: IngestPlan | str) -> None:
    from hevcq.usecases.library_state import REMEDY, words

    width = render.screen_width(sys.stdout)
    if isinstance(plan, str) and not state.problem:
        render.emit(render.paragraph(f"WRONG  {library.name}  {plan}", width, TEXT_AT))
        return
    word = "WRONG" if state.problem else "ok   "
    text = f"{state.problem} {REMEDY}" if state.problem else words(library, state)
    render.emit(render.paragraph(f"{word}  {library.name}  {text}", width, TEXT_AT))
    if not isinstance(plan, str):
        videos = len({item.path for item in plan.items if item.info is not None})
        count = "1 video" if videos == 1 else f"{videos:,} videos"
        text = f"{' ' * TEXT_AT}{count}. {total(plan)}"
        render.emit(render.paragraph(text, width, TEXT_AT))


def _as_json(library: Library, state: FolderState, plan: IngestPlan | str) -> dict[str, object]:
    found: dict[str, object] = {
        "type": "library",
        "name": library.name,
        "path": str(library.path),
        "ok": not isinstance(plan, str),
        "problem": plan if isinstance(plan, str) else "",
        "free": state.free,
        "file_system": state.mount.kind,
        "events": state.mount.gives_events,
    }
    if not isinstance(plan, str):
        found["videos"] = len({item.path for item in plan.items if item.info is not None})
        found["counts"] = {kind.value: count for kind, count in plan.counts().items()}
    return found
