"""The command line's root: global options, commands loaded when they are named, errors told once."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hevcq import __version__
from hevcq.cli.context import Cli
from hevcq.cli.exits import ExitCode, exit_code
from hevcq.errors import HevcqError
from hevcq.util.text import printable

COMMANDS: dict[str, str] = {
    "ingest": "hevcq.cli.ingest:ingest",
    "collect": "hevcq.cli.collect:collect",
    "worker": "hevcq.cli.worker:worker",
    "status": "hevcq.cli.status:status",
    "dead-letters": "hevcq.cli.dead_letters:app",
    "redrive": "hevcq.cli.redrive:redrive",
    "cancel": "hevcq.cli.cancel:cancel",
    "reprocess": "hevcq.cli.reprocess:reprocess",
    "undo": "hevcq.cli.undo:undo",
    "profiles": "hevcq.cli.profiles:app",
    "probe": "hevcq.cli.probe:probe",
    "plan": "hevcq.cli.plan:plan",
    "verify": "hevcq.cli.verify:verify",
    "doctor": "hevcq.cli.doctor:doctor",
    "config": "hevcq.cli.config:app",
}
"""Each command's function or sub-app, imported only when it is named: start-up time is a promise."""


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name in COMMANDS:  # the keys alone, so that a misspelt name gets its nearest one
            self.commands.setdefault(name, None)  # type: ignore[arg-type]

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        """Return the command names in the order of the help."""
        return [name for name, target in COMMANDS.items() if _exists(target)]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # noqa: ARG002
        """Import and return one command, or None."""
        target = COMMANDS.get(cmd_name)
        return load_command(cmd_name, target) if target and _exists(target) else None

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command; an error that hevcq names becomes one sentence and an exit code."""
        try:
            return super().invoke(ctx)
        except HevcqError as error:
            cli = ctx.obj if isinstance(ctx.obj, Cli) else Cli()
            raise typer.Exit(tell(error, verbose=cli.verbose)) from error
        except BrokenPipeError as error:
            _drop_stdout()
            raise typer.Exit(ExitCode.PIPE) from error
        except typer.Abort as error:
            raise typer.Exit(ExitCode.INTERRUPTED) from error


def _exists(target: str) -> bool:
    return importlib.util.find_spec(target.partition(":")[0]) is not None


def load_command(name: str, target: str) -> Any:
    """Import `module:attribute` and return it as a command of that name."""
    module, _, attribute = target.partition(":")
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


def tell(error: BaseException, *, verbose: bool = False) -> ExitCode:
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
        code = tell(error, verbose=bool({"--verbose", "-v"} & set(arguments)))
    else:
        code = ExitCode.OK
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop_stdout()
        if isinstance(error, BrokenPipeError):
            return int(ExitCode.PIPE)
        # What failed in a write was told already, and is still in the buffer.
        return int(code if code is exit_code(error) else tell(error))
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
