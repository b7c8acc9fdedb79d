"""The command line's root: global options, commands loaded when they are named, errors told once."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from hevcq import __version__
from hevcq.cli.context import Cli
from hevcq.cli.exit_codes import ExitCode, exit_code
from hevcq.errors import HevcqError
from hevcq.util.text import printable


class Command(NamedTuple):
    """Where a command is, as `module:attribute`, and the first sentence of its help."""

    target: str
    summary: str


COMMANDS: dict[str, Command] = {
    "ingest": Command(
        "hevcq.cli.library.ingest:ingest",
        "Find every video below PATH, encode it, verify it, and put it in its place.",
    ),
    "collect": Command(
        "hevcq.cli.library.collect:collect",
        "Put in place what was queued before and is finished by now; wait for nothing.",
    ),
    "worker": Command(
        "hevcq.cli.queue.worker:worker", "Work on what is queued until told to stop."
    ),
    "status": Command("hevcq.cli.queue.status:status", "Show queues, progress and dead letters."),
    "dead-letters": Command(
        "hevcq.cli.queue.dead_letters:app", "List, show and purge what was given up on."
    ),
    "redrive": Command("hevcq.cli.queue.redrive:redrive", "Send dead letters back to their queue."),
    "cancel": Command(
        "hevcq.cli.queue.cancel:cancel", "End jobs that wait or run; a video's chunks end too."
    ),
    "reprocess": Command(
        "hevcq.cli.queue.reprocess:reprocess", "Queue finished or failed sources again."
    ),
    "undo": Command(
        "hevcq.cli.library.undo:undo",
        "Bring originals back that --replace replaced: bytes, name, times, rights and attributes.",
    ),
    "profiles": Command("hevcq.cli.setup.profiles:app", "List, show and validate the recipes."),
    "probe": Command("hevcq.cli.library.probe:probe", "Show what a media file really is."),
    "plan": Command("hevcq.cli.library.plan:plan", "Show what would become of a file."),
    "verify": Command("hevcq.cli.library.verify:verify", "Check a rendition against its source."),
    "doctor": Command(
        "hevcq.cli.setup.doctor:doctor", "Check ffmpeg, folders, clock, settings, database."
    ),
    "config": Command("hevcq.cli.setup.config:app", "Show the settings and where they came from."),
}
"""Every command in the order of the help. The summary is here too because `hevcq --help` imports no
command: that takes half a second."""


class LazyGroup(TyperGroup):
    """A group that lists its commands from COMMANDS and imports one when it is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, summary) in COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that `args` begins with, and import it."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and load_command(name), rest

    def make_context(self, *args: Any, **named: Any) -> Any:
        """Parse the arguments; `--help` and `--version` print here, maybe to a closed pipe."""
        try:
            return super().make_context(*args, **named)
        except BrokenPipeError as error:
            _drop_stdout()
            raise typer.Exit(ExitCode.PIPE) from error

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command; an error that hevcq names becomes one sentence and an exit code."""
        try:
            return super().invoke(ctx)
        except HevcqError as error:
            cli = ctx.obj if isinstance(ctx.obj, Cli) else Cli()
            raise typer.Exit(report_error(error, verbose=cli.verbose)) from error
        except BrokenPipeError as error:
            _drop_stdout()
            raise typer.Exit(ExitCode.PIPE) from error
        except typer.Abort as error:
            raise typer.Exit(ExitCode.INTERRUPTED) from error


def load_command(name: str) -> Any:
    """Import a command of COMMANDS and return it under that name."""
    module, _, attribute = COMMANDS[name].target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name)(found)
        found = single
    command = typer.main.get_command(found)
    command.name = name
    return command


app = typer.Typer(
    cls=LazyGroup,
    name="hevcq",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes are in the README; `hevcq COMMAND --help` tells more of each command.",
)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"hevcq {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read settings from this TOML file.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the database, the store and scratch files."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only data and errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more; errors with their trace.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - acted on in its callback
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=lambda value: _version(wanted=value),
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Re-encode videos into verified renditions, and lose nothing on the way."""
    ctx.obj = Cli(config=config, data_dir=data_dir, quiet=quiet, verbose=verbose)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def report_error(error: BaseException, *, verbose: bool = False) -> ExitCode:
    """Print one sentence for `error` on stderr (and the trace with `verbose`); return its code."""
    if verbose:
        traceback.print_exception(error, file=sys.stderr)
    code = exit_code(error)
    said = printable(" ".join(str(error).split()))
    if code is ExitCode.INTERNAL:
        said = f"this is a bug: {type(error).__name__}: {said} (--verbose shows the trace)"
    print(f"hevcq: {said}", file=sys.stderr)  # noqa: T201 - the one place that tells errors
    return code


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        typer.main.get_command(app).main(args=arguments, prog_name="hevcq")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else ExitCode.OK
    except Exception as error:  # noqa: BLE001 - the last line of defence: tell it and fail
        code = report_error(error, verbose=bool({"--verbose", "-v"} & set(arguments)))
    else:
        code = ExitCode.OK
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop_stdout()
        if isinstance(error, BrokenPipeError):
            return int(ExitCode.PIPE)
        # What failed in a write was told already, and is still in the buffer.
        return int(code if code is exit_code(error) else report_error(error))
    return int(code)


def _drop_stdout() -> None:
    """Point stdout at nothing, so that Python's own flush at exit does not fail again."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)
