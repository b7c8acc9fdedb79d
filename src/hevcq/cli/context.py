"""The context of every command: global options, settings and the opened app."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from hevcq.settings.loader import Flag, Loaded
    from hevcq.settings.model import Settings
    from hevcq.wiring.app import App

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

        A command's own flags come as `workers=("--workers", 4)`; a value of None was not given.
        Raises ConfigError.
        """
        from hevcq.settings.loader import Flag, load

        given: dict[str, Flag] = {}
        if self.verbose:
            given["log_level"] = Flag("--verbose", "info")
        elif self.quiet:
            given["log_level"] = Flag("--quiet", "error")
        if self.data_dir is not None:
            given["data_dir"] = Flag("--data-dir", self.data_dir)
        for key, (name, value) in flags.items():
            if value is not None:
                given[key] = Flag(name, value)
        return load(given, config=self.config)

    def log_level(self, why: str, level: str) -> dict[str, tuple[str, object]]:
        """Return the flag of another default log level, unless the settings say one."""
        said = self.loaded().origins["log_level"] != "default"
        return {} if said else {"log_level": (why, level)}

    def settings(self, **flags: tuple[str, object]) -> Settings:
        """Return the settings and set up logging by them; see `loaded`."""
        from hevcq.util import log

        settings = self.loaded(**flags).settings
        log.configure(settings.log_level, settings.log_style)
        return settings

    @contextmanager
    def app(self, **flags: tuple[str, object]) -> Iterator[App]:
        """Open the app for one command and close it afterwards; see `loaded` for `flags`."""
        from hevcq.wiring.app import App

        app = App(self.settings(**flags), notice=complain, config=self.config)
        try:
            yield app
        finally:
            app.close()

    def echo(self, words: str) -> None:
        """Print a message on stderr, unless --quiet."""
        if not self.quiet:
            self.warn(words)

    @staticmethod
    def warn(words: str) -> None:
        """Print a message on stderr, also with --quiet."""
        print(fitting(words), file=sys.stderr)  # noqa: T201 - the one place that prints messages


def confirmed(question: str) -> bool:
    """Ask on the terminal; where nobody can be asked only `--yes` confirms."""
    return sys.stdin.isatty() and typer.confirm(question, err=True)


def fitting(words: str) -> str:
    """Return a message in lines that fit the terminal that stderr is; unchanged for a file or pipe."""
    if not sys.stderr.isatty():
        return words
    from hevcq.cli.output.table import paragraph, screen_width

    return paragraph(words, screen_width(sys.stderr))


def complain(words: str) -> None:
    """Print on stderr why nothing happens, also with --quiet."""
    print(fitting(f"hevcq: {words}"), file=sys.stderr, flush=True)  # noqa: T201 - a wait must be explained


def require_existing(paths: Iterable[Path]) -> None:
    """Raise UsageError for the first path at which there is no file or folder."""
    from hevcq.errors import UsageError
    from hevcq.util.text import printable

    for path in paths:
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UsageError(f"No such file or folder: {printable(path)}.") from error
        except OSError:
            continue  # whoever opens it knows what to say


def require_queued(app: App, paths: Iterable[Path]) -> None:
    """Raise UsageError for the first path at which there is nothing, and below which nothing was queued.

    What was queued may have been moved or deleted since.
    """
    for path in paths:
        whole = Path(os.path.abspath(path))  # noqa: PTH100 - links stay unresolved
        if next(iter(app.catalog.placements(under=whole)), None) is None:
            require_existing([path])


def current_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return "unknown"


def cli_of(ctx: typer.Context) -> Cli:
    found = ctx.find_object(Cli)
    return found if found is not None else Cli()
