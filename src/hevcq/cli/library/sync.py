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
"""What a person reads only as a number at the end."""


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

    Which folders, where to and how is in the settings (docs/home/sync.md). A file is
    fetched once it has stayed the same for a while, and lands under its name without overwriting
    another. With mode = "move" the server's copy is deleted after the local one was read again, and
    only if it is still the version that was fetched. After an interruption, run the same command.
    `hevcq service` does it again and again.
    """
    cli = cli_of(ctx)
    cli.quiet = quiet or cli.quiet
    with StopSignals() as signals, cli.app() as app:
        wanted = _chosen(app.settings.sync, names or ())
        code = _run(_Shown(cli, app, as_json=as_json), wanted, signals.asked, dry_run=dry_run)
    raise typer.Exit(ExitCode.INTERRUPTED if signals.asked.is_set() else code)


def _chosen(settings: Sequence[SyncSettings], names: Sequence[str]) -> list[SyncSettings]:
    """Return the syncs of these names, or all. Raises UsageError if there are none."""
    if not settings:
        raise UsageError(
            "No [[sync]] is in the settings.",
            remedy="docs/home/sync.md shows one; `hevcq config show` says which file is read.",
        )
    known = {each.name: each for each in settings}
    for name in names:
        if name not in known:
            raise UsageError(
                f"There is no sync {printable(name)!r}.", remedy=f"Available: {', '.join(known)}."
            )
    return [known[name] for name in dict.fromkeys(names)] or list(settings)


def _run(
    shown: _Shown, wanted: Sequence[SyncSettings], stop: threading.Event, *, dry_run: bool
) -> ExitCode:
    """Run each sync once; one that cannot run does not keep the others from it."""
    code = ExitCode.OK
    for each in wanted:
        if stop.is_set():
            break
        shown.begin(each)
        try:
            with open_sync(shown.app, each, stop) as ports:
                session = SyncSession(ports, each, shown.on_file, shown.notice, shown.progress)
                session.dry_run = dry_run
                session.run()
        except HevcqError as error:
            shown.broke = True
            if isinstance(error, Unavailable) or len(wanted) > 1:
                shown.notice(f"{each.name}: {error}")
            elif not stop.is_set():
                raise
            code = code or exit_code(error)
        finally:
            shown.end(dry_run=dry_run)
        code = code or (ExitCode.SOME_FAILED if shown.failed else ExitCode.OK)
    return code


class _Shown:
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
        """Print what a person should know, on stderr; once, also if it is said of every file."""
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
        counted = self._counts
        parts = [f"{counted[word]} {words}" for word, words in WORDS if counted[word]]
        came = f" ({size(self._bytes)})" if self._bytes else ""
        if not self._as_json and (parts or not (dry_run or self.broke)):
            self._cli.echo(f"{self._name}: {', '.join(parts) or 'nothing new'}{came}.")


WORDS = (
    ("moved", "moved"),
    ("copied", "copied"),
    ("would", "would be fetched"),
    ("waiting", "waiting until they stay the same"),
    ("known", "already here"),
    ("left", "left on the server"),
    ("changed", "changed during transfer"),
    ("refused", "refused"),
    ("failed", "failed"),
)
"""What the line at the end calls each result, in its order."""
