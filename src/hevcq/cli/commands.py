"""All commands: their order and headings in the help, those hidden from it, global options, errors."""

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
from hevcq.cli.context import Cli, fit_stderr
from hevcq.cli.exit_codes import ExitCode, exit_code
from hevcq.errors import HevcqError
from hevcq.util.text import printable

COMMANDS = {
    "ingest": ("library.ingest:ingest", "Encode and verify every video below PATH."),
    "shrink": (
        "library.ingest:shrink",
        "Make the videos below FOLDER smaller, undoable for 30 days.",
    ),
    "undo": ("library.originals:undo", "Restore replaced originals, byte for byte."),
    "originals": ("library.originals:app", "List kept originals, and free their space."),
    "check": (
        "library.check:check",
        "Read every video completely, and report damaged ones.",
    ),
    "compare": ("library.compare:compare", "Compare a rendition with its original, on one page."),
    "libraries": ("library.libraries:app", "List and add libraries, and show savings."),
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
    "config": ("setup.config:app", "Show the settings, and test notifications."),
}
"""Every command in the order of the help: `module:attribute` below `cli`, and the summary. Summaries are
repeated here because importing all commands for `hevcq --help` would take half a second."""
HIDDEN_FROM_HELP = frozenset({"redrive", "resume"})
"""Commands that the help does not list. Only users of SQS need `redrive`, others use `retry`; the
summary of `pause` names `resume`."""
SUBCOMMANDS = {
    "plan": "profiles plan",
    "stats": "libraries stats",
    "notify": "config notify",
    "migrate": "config migrate",
}
"""Subcommands that people type as commands; the error names the right one."""
HEADINGS = {
    "ingest": "Your videos",
    "worker": "Work",
    "profiles": "Settings and the machine",
}
"""The headings of the help, by the first command below each."""


class LazyGroup(TyperGroup):
    """A group that lists COMMANDS, and imports a command when it is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, summary) in COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=summary)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's signature
        sections: dict[str, list[tuple[str, str]]] = {}
        heading, width = "", max(map(len, COMMANDS))
        for name, (_, summary) in COMMANDS.items():
            heading = HEADINGS.get(name, heading)
            if name in HIDDEN_FROM_HELP:
                continue
            sections.setdefault(heading, []).append((name.ljust(width), summary))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in SUBCOMMANDS:
            ctx.fail(f"No such command '{args[0]}'. Did you mean `hevcq {SUBCOMMANDS[args[0]]}`?")
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and load_command(name), rest

    def make_context(self, *args: Any, **named: Any) -> Any:
        """Parse the arguments. `--help` and `--version` print here, and the reader may close the pipe."""
        try:
            return super().make_context(*args, **named)
        except BrokenPipeError as error:
            _drop_stdout()
            raise typer.Exit(ExitCode.PIPE) from error

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command; report a HevcqError as one sentence and an exit code."""
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
    group = getattr(importlib.import_module(f"hevcq.cli.{module}"), attribute)
    if not isinstance(group, typer.Typer):
        function, group = group, typer.Typer(add_completion=False, rich_markup_mode=None)
        group.command(name, cls=PlainCommand)(function)
    command = typer.main.get_command(group)
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
    """Print `error` on stderr as one sentence, after its traceback if `verbose`; return its exit code."""
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
    print(fit_stderr(f"hevcq: {sentence}"), file=sys.stderr)  # noqa: T201 - the one place that prints errors
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
        # The failed write was already reported; its text is still in the buffer.
        return int(code if code is exit_code(error) else report_error(error))
    return int(code)


def _drop_stdout() -> None:
    """Redirect stdout to /dev/null, so that Python's own flush at exit does not fail again."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
