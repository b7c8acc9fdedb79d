"""What commands share: options, settings, the opened app, messages on stderr, and the help's layout."""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from hevcq.settings.loader import Loaded
    from hevcq.settings.model import Settings
    from hevcq.wiring.app import App

Value = TypeVar("Value")
NO_WORKER = (
    "No worker is running on this data folder: start one with `hevcq worker`, or run your"
    " `hevcq ingest` or `hevcq shrink` again."
)


@dataclass
class Cli:
    config: Path | None = None
    data_dir: Path | None = None
    quiet: bool = False
    verbose: bool = False

    def loaded(self, **flags: tuple[str, object]) -> Loaded:
        """Return the settings and their origins.

        A command passes its own flags as `workers=("--workers", 4)`; None means that it was not given.
        Raises ConfigError.
        """
        from hevcq.settings.loader import load

        given = {key: flag for key, flag in flags.items() if flag[1] is not None}
        of_root: dict[str, tuple[str, object]] = {}
        if self.verbose:
            of_root["log_level"] = "--verbose", "info"
        elif self.quiet:
            of_root["log_level"] = "--quiet", "error"
        if self.data_dir is not None:
            of_root["data_dir"] = "--data-dir", self.data_dir
        return load(of_root | given, config=self.config)

    def log_level(self, why: str, level: str) -> dict[str, tuple[str, object]]:
        """Return a flag that changes the default log level, or none if the settings have a level."""
        is_set = self.loaded().origins["log_level"] != "default"
        return {} if is_set else {"log_level": (why, level)}

    def settings(self, **flags: tuple[str, object]) -> Settings:
        """Return the settings, and configure logging by them; see `loaded` for `flags`."""
        from hevcq.util import log

        settings = self.loaded(**flags).settings
        log.configure(settings.log_level, settings.log_style)
        return settings

    @contextmanager
    def app(self, **flags: tuple[str, object]) -> Iterator[App]:
        """Open the app for one command and close it afterwards; see `loaded` for `flags`."""
        from hevcq.wiring.app import App

        app = App(self.settings(**flags), config=self.config)
        try:
            yield app
        finally:
            app.close()

    def echo(self, words: str) -> None:
        """Print a message on stderr, unless --quiet is given."""
        if not self.quiet:
            self.warn(words)

    @staticmethod
    def warn(words: str) -> None:
        """Print a message on stderr, even with --quiet."""
        print(fit_stderr(words), file=sys.stderr)  # noqa: T201 - the one place that prints messages


def confirm(question: str) -> bool:
    """Ask on the terminal; without one only `--yes` confirms."""
    return sys.stdin.isatty() and typer.confirm(question, err=True)


def fit_stderr(words: str) -> str:
    """Wrap a message to the width of stderr's terminal; unchanged for a file or pipe."""
    if not sys.stderr.isatty():
        return words
    from hevcq.cli.output.render import paragraph, screen_width

    return paragraph(words, screen_width(sys.stderr))


def require_existing(paths: Iterable[Path]) -> None:
    """Raise UsageError for the first path that does not exist."""
    from hevcq.errors import UsageError
    from hevcq.util.text import printable

    for path in paths:
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UsageError(f"No such file or folder: {printable(path)}.") from error
        except OSError:
            continue  # opening it later gives a better error


def require_queued(app: App, paths: Iterable[Path]) -> None:
    """Raise UsageError for the first path that does not exist, and below which nothing was queued.

    Queued files may have been moved or deleted since.
    """
    for path in paths:
        whole = Path(os.path.abspath(path))  # noqa: PTH100 - links stay unresolved
        if next(iter(app.catalog.placements(under=whole)), None) is None:
            require_existing([path])


def parse_option(option: str, text: str, read: Callable[[str], Value]) -> Value:
    """Return the parsed value of an option. Raises UsageError with the option's name."""
    from hevcq.errors import UsageError
    from hevcq.util.text import printable

    try:
        return read(text)
    except ValueError as error:
        raise UsageError(f"{option} {printable(text)} {error}.") from error


def current_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return "unknown"


def cli_of(ctx: typer.Context) -> Cli:
    return ctx.find_object(Cli) or Cli()


def group(sentence: str, **attributes: Any) -> typer.Typer:
    defaults: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": None}
    return typer.Typer(help=sentence, add_completion=False, **{**defaults, **attributes})


AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object per line (see docs/cli.md).")
]
EventsAsJson = Annotated[
    bool, typer.Option("--json", help="Print events on stdout, one JSON object per line.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done, without changes.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print more.")]
IncludeGlobs = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="GLOB", help="Only matching files (repeatable)."),
]
ExcludeGlobs = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="GLOB", help="Skip matching files (repeatable)."),
]
JobNames = typer.Argument(
    metavar="PATH|KEY|JOB", help="Files, folders, keys (a trailing `/` means all below) or job ids."
)
ProfileNames = Annotated[
    list[str] | None,
    typer.Option("--profile", "-p", metavar="NAME", help="Only this profile (repeatable)."),
]
QualityWanted = Annotated[
    str | None,
    typer.Option(
        metavar="VMAF",
        help="Search the CRF for this VMAF of the worst twentieth of frames: high (95), good (93), "
        "small (90), or a number.",
    ),
]
OfJob = Annotated[str | None, typer.Option("--job", metavar="ID", help="Job id or prefix.")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Maximum number.")]

_REWORDED = (
    # typer 0.26 uses click's words, later releases pydantic's.
    (r"^'.*' is not a valid integer(?: range)?\.$", "must be a whole number."),
    (r"^'.*' is not a valid float(?: range)?\.$", "must be a number."),
    (r"^\S+ is not in the range x>=(\S+?)\.$", r"must be at least \1."),
    (r"^\S+ is not in the range x<=(\S+?)\.$", r"must be at most \1."),
    (r"^\S+ is not in the range (\S+?)<=x<=(\S+?)\.$", r"must be between \1 and \2."),
    (r"^Input should be a valid integer.*", "must be a whole number."),
    (r"^Input should be a valid number.*", "must be a number."),
    (r"^Input should be greater than or equal to (\S+)$", r"must be at least \1."),
    (r"^Input should be less than or equal to (\S+)$", r"must be at most \1."),
    (r"^Value error, ", ""),
)
_RANGE = re.compile(r"\s*\[[^]]*[<>]=?[^]]*]$")


class PlainCommand(TyperCommand):
    """A command whose help shows its arguments as people type them, without types and ranges."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        """Return `[OPTIONS]` and the arguments, optional ones in brackets."""
        return [self.options_metavar or "", *(_as_typed(each) for each in _arguments(self))]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; refuse a wrong value in hevcq's words, not the library's."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            for pattern, words in _REWORDED:
                error.message = re.sub(pattern, words, error.message or "")
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments = [(_as_typed(each), each.help or "") for each in _arguments(self)]
        options = [
            (record[0], _RANGE.sub("", record[1]))
            for each in self.get_params(ctx)
            if each.param_type_name == "option" and (record := each.get_help_record(ctx))
        ]
        for title, records in (("Arguments", arguments), ("Options", options)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _arguments(command: TyperCommand) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "argument"]


def _as_typed(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    many = "..." if argument.nargs != 1 else ""
    return f"{name}{many}" if argument.required else f"[{name}{many}]"
