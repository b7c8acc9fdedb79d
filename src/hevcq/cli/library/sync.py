"""`hevcq sync`: copy or move files here from Nextcloud or WebDAV."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer

from hevcq.cli.context import AsJson, Cli, DryRun, Quiet, cli_of
from hevcq.cli.exit_codes import ExitCode, exit_code
from hevcq.cli.output import render
from hevcq.errors import HevcqError, Unavailable, UsageError
from hevcq.settings.libraries import SyncSettings
from hevcq.usecases.sync.session import Synced, SyncSession
from hevcq.util.signals import StopSignals
from hevcq.util.text import printable, size
from hevcq.wiring.app import App
from hevcq.wiring.contexts import open_sync

SHOWN_EVERY_S = 0.5
SILENT = frozenset({"waiting", "known"})
"""Results that are only counted at the end."""


def sync(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Only these syncs (default: all).")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Copy or move files here from Nextcloud or WebDAV.

    Folders, target and mode are in the settings (docs/home/sync.md). A file is fetched once it has
    stopped changing, and never overwrites another. With mode = "move" the server's copy is deleted after
    the local copy was read back, and only if it is still the fetched version. After an interruption, run
    the same command to resume. `hevcq service` does this continuously.
    """
    cli = cli_of(ctx)
    cli.quiet = quiet or cli.quiet
    with StopSignals() as signals, cli.app() as app:
        chosen = _choose(app.settings.sync, names or ())
        code = _run(_Report(cli, app, as_json=as_json), chosen, signals.asked, dry_run=dry_run)
    raise typer.Exit(ExitCode.INTERRUPTED if signals.asked.is_set() else code)


def _choose(settings: Sequence[SyncSettings], names: Sequence[str]) -> list[SyncSettings]:
    """Return the named syncs, or all. Raises UsageError for an unknown name, or without any sync."""
    if not settings:
        raise UsageError(
            "The settings have no [[sync]].",
            remedy="docs/home/sync.md shows an example; `hevcq config show` names the settings file.",
        )
    by_name = {sync.name: sync for sync in settings}
    for name in names:
        if name not in by_name:
            raise UsageError(
                f"No sync {printable(name)!r}.", remedy=f"Available: {', '.join(by_name)}."
            )
    return [by_name[name] for name in dict.fromkeys(names)] or list(settings)


def _run(
    report: _Report, chosen: Sequence[SyncSettings], stop: threading.Event, *, dry_run: bool
) -> ExitCode:
    """Run each sync once; one that fails does not stop the others."""
    code = ExitCode.OK
    for each in chosen:
        if stop.is_set():
            break
        report.begin(each)
        try:
            with open_sync(report.app, each, stop) as ports:
                session = SyncSession(ports, each, report.on_file, report.notice, report.progress)
                session.dry_run = dry_run
                session.run()
        except HevcqError as error:
            report.broke = True
            if isinstance(error, Unavailable) or len(chosen) > 1:
                report.notice(f"{each.name}: {error}")
            elif not stop.is_set():
                raise
            code = code or exit_code(error)
        finally:
            report.end(dry_run=dry_run)
        code = code or (ExitCode.SOME_FAILED if report.failed else ExitCode.OK)
    return code


class _Report:
    def __init__(self, cli: Cli, app: App, *, as_json: bool) -> None:
        self.app, self._cli, self._as_json = app, cli, as_json
        self._line = render.StatusLine(live=not cli.quiet and not as_json)
        self._shown_at = 0.0
        self._name = ""
        self._noticed: set[str] = set()

    def begin(self, sync: SyncSettings) -> None:
        self._name, self.broke = sync.name, False
        self._counts: Counter[str] = Counter()
        self._bytes = 0

    @property
    def failed(self) -> bool:
        return bool(self._counts["failed"] or self._counts["refused"])

    def on_file(self, each: Synced) -> None:
        self._line.clear()
        word = each.fate.value
        self._counts[word] += 1
        if word in {"moved", "copied"}:
            self._bytes += each.size
        if self._as_json:
            facts = {"sync": self._name, "path": each.path, "size": each.size, "result": word}
            target = None if each.target is None else os.fspath(each.target)
            render.emit_json({"type": "synced", **facts, "target": target, "reason": each.reason})
        elif word not in SILENT:
            where = "" if each.target is None else f" -> {each.target}"
            render.emit_outcome(word, f"{each.path}{where}", each.reason)

    def notice(self, words: str) -> None:
        """Print a message on stderr, but only once, as it may come for every file."""
        if words in self._noticed:
            return
        self._noticed.add(words)
        self._line.clear()
        self._cli.warn(words)

    def progress(self, path: str, have: int, whole: int) -> None:
        now = self.app.clock.monotonic()
        if now - self._shown_at >= SHOWN_EVERY_S:
            self._shown_at = now
            share = f"{100 * have // max(1, whole)} % of {size(whole)}"
            self._line.show(path, after=f"  {share}")

    def end(self, *, dry_run: bool) -> None:
        self._line.clear()
        parts = [f"{self._counts[word]} {words}" for word, words in WORDS if self._counts[word]]
        total = f" ({size(self._bytes)})" if self._bytes else ""
        if not self._as_json and (parts or not (dry_run or self.broke)):
            self._cli.echo(f"{self._name}: {', '.join(parts) or 'nothing new'}{total}.")


WORDS = (
    ("moved", "moved"),
    ("copied", "copied"),
    ("would", "would be fetched"),
    ("waiting", "waiting to settle"),
    ("known", "already here"),
    ("left", "left on the server"),
    ("changed", "changed during transfer"),
    ("refused", "refused"),
    ("failed", "failed"),
)
"""The words and the order of the results in the closing line."""
