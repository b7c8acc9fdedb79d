"""The root of the command line: global options, lazily loaded commands, error reporting."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from hevcq import __version__
from hevcq.cli.context import Cli, fitting
from hevcq.cli.exit_codes import ExitCode, exit_code
from hevcq.errors import HevcqError
from hevcq.util.text import printable

COMMANDS = {
    "ingest": ("library.ingest:ingest", "Encode, verify and put in place every video below PATH."),
    "shrink": (
        "library.ingest:shrink",
        "Make the videos below FOLDER smaller, undoable for 30 days.",
    ),
    "undo": ("library.originals:undo", "Restore replaced originals, byte for byte."),
    "originals": ("library.originals:app", "List kept originals, and free their space."),
    "check": (
        "library.check:check",
        "Read every video whole, and say which are damaged and where.",
    ),
    "compare": ("library.compare:compare", "Show a rendition beside its original, on one page."),
    "libraries": ("library.libraries:app", "List and add libraries, and show what was saved."),
    "service": ("queue.service:service", "Watch and process the configured libraries."),
    "sync": ("library.sync:sync", "Copy or move files here from Nextcloud or WebDAV."),
    "worker": ("queue.service:worker", "Encode queued jobs until stopped."),
    "workers": ("queue.workers:app", "List the machines that encode; invite, drain or remove one."),
    "status": ("queue.status:status", "Show queues, progress and failed jobs."),
    "failures": ("queue.jobs:app", "List, show, acknowledge and forget failed jobs."),
    "retry": ("queue.jobs:retry", "Queue failed jobs again."),
    "cancel": ("queue.jobs:cancel", "Cancel queued and running jobs."),
    "pause": ("queue.jobs:pause", "Stop new work until `hevcq resume`."),
    "resume": ("queue.jobs:resume", "Resume paused work."),
    "redrive": ("queue.jobs:redrive", "Queue the jobs of dead letters again."),
    "serve": ("web.serve:app", "Serve the web page until stopped."),
    "profiles": ("setup.profiles:app", "List, show, copy, validate and try out encoding profiles."),
    "doctor": ("setup.doctor:doctor", "Check ffmpeg, folders, clock, settings, database."),
    "config": ("setup.config:app", "Show the settings, and who is notified."),
}
"""Every command in the order of the help: `module:attribute` below this room, and a summary. Summaries are
repeated here because importing all commands for `hevcq --help` would take half a second."""
HIDDEN = frozenset({"redrive", "resume"})
"""Commands that the help does not list: `redrive --dlq` is known to who knows SQS, others retry; the
row of `pause` names `resume`."""
INNER = {
    "plan": "profiles plan",
    "stats": "libraries stats",
    "notify": "config notify",
    "migrate": "config migrate",
}
"""Commands of a group that people look for by themselves."""
HEADINGS = {
    "ingest": "Your videos",
    "worker": "Work",
    "profiles": "Settings and the machine",
}
"""The headings of the help, each by the first command below it."""


class LazyGroup(TyperGroup):
    """A group that lists its commands from COMMANDS and imports one when it is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, summary) in COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=summary)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's signature
        sections: dict[str, list[tuple[str, str]]] = {}
        heading, width = "", max(map(len, COMMANDS))
        for name, (_, summary) in COMMANDS.items():
            heading = HEADINGS.get(name, heading)
            if name in HIDDEN:
                continue
            sections.setdefault(heading, []).append((name.ljust(width), summary))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in INNER:
            ctx.fail(f"No such command '{args[0]}'. Did you mean `hevcq {INNER[args[0]]}`?")
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
        """Run the command; a HevcqError becomes one sentence and an exit code."""
        try:
            return super().invoke(ctx)
        except HevcqError as error:
            cli = ctx.obj if isinstance(ctx.obj, Cli) else Cli()
            raise typer.Exit(report_error(error, verbose=cli.verbose)) from error
        except BrokenPipeError as error:
            _drop_stdout()
            raise typer.Exit(ExitCode.PIPE) from error
        except (typer.Abort, KeyboardInterrupt) as error:
            raise typer.Exit(ExitCode.INTERRUPTED) from error


def load_command(name: str) -> Any:
    from hevcq.cli.context import PlainCommand

    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(importlib.import_module(f"hevcq.cli.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name, cls=PlainCommand)(found)
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
    epilog="`hevcq COMMAND --help` describes each command; the README lists the exit codes.",
)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"hevcq {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings file (TOML).")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the database, store and scratch files."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only data and errors.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print more, and tracebacks of errors.")
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
    """Re-encode videos safely: every rendition is verified, no original is lost."""
    ctx.obj = Cli(config=config, data_dir=data_dir, quiet=quiet, verbose=verbose)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def report_error(error: BaseException, *, verbose: bool = False) -> ExitCode:
    """Print `error` on stderr as one sentence (with a traceback if `verbose`); return its code."""
    if verbose:
        traceback.print_exception(error, file=sys.stderr)
    code = exit_code(error)
    sentence = printable(" ".join(str(error).split()))
    if isinstance(error, OSError) and error.strerror:  # e.g. stdout on a full disk
        where = f"{printable(error.filename)}: " if error.filename else ""
        sentence = f"{where}{error.strerror}."
    if code is ExitCode.INTERNAL:
        sentence = (
            f"this is a bug: {type(error).__name__}: {sentence} (--verbose shows the traceback)"
        )
    print(fitting(f"hevcq: {sentence}"), file=sys.stderr)  # noqa: T201 - the one place that prints errors
    return code


def run(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        typer.main.get_command(app).main(args=arguments, prog_name="hevcq")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else ExitCode.OK
    except Exception as error:  # noqa: BLE001 - the last line of defence
        code = report_error(error, verbose=bool({"--verbose", "-v"} & set(arguments)))
    else:
        code = ExitCode.OK
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop_stdout()
        if isinstance(error, BrokenPipeError):
            return int(ExitCode.PIPE)
        # The failed write was reported already; its text is still in the buffer.
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
