"""A machine that syncs from a WebDAV server of this process, one run after another."""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from hevcq.library.filesystem import FileSystem
from hevcq.remotes.webdav import WebDavRemote
from hevcq.settings.libraries import SyncSettings
from hevcq.sql.catalog import SyncJournal
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.usecases.sync.move import SyncPorts
from hevcq.usecases.sync.session import Fate, Synced, SyncSession
from support.clips import ManualClock
from support.webdav import PASSWORD, USER, WebDav

VIDEO = bytes(range(256)) * 2000


def wanted(target: Path, *, move: bool = True, settle: float = 0.0, **changes) -> SyncSettings:
    given = {"folders": ("Camera",), "mode": "move" if move else "copy", **changes}
    return SyncSettings(
        name="anna", url="https://cloud.example.org", target=target, settle=settle, **given
    )


@dataclass
class Machine:
    """This machine: a folder, a database, and the sync that runs there."""

    server: WebDav
    folder: Path
    clock: ManualClock
    told: list[Synced] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    on_bytes: object = None
    url: str = ""
    watch: set | None = None
    hours: Iterator[bool] | None = None
    """Whether another file may be begun, each time that is asked."""

    @property
    def target(self) -> Path:
        return self.folder / "target"

    def sync(self, *, move=True, settle_s=0.0, dry_run=False, least_free=0, **job) -> list[Synced]:
        self.told.clear()
        self.notices.clear()
        with (
            closing(SqliteDatabase(self.folder / "hevcq.db")) as database,
            closing(WebDavRemote(self.url or self.server.url, USER, PASSWORD)) as remote,
        ):
            ports = SyncPorts(
                remote,
                SyncJournal(database),
                self.clock,
                FileSystem(self.stop),
                self.stop,
                token="0",
                least_free=least_free,
            )
            given = {"target": self.target, "move": move, "settle": settle_s, **job}
            run = SyncSession(
                ports, wanted(**given), self.told.append, self.notices.append, dry_run=dry_run
            )
            run.reported = set() if self.watch is None else self.watch
            if self.hours is not None:
                run.may_go_on = self.hours.__next__
            if self.on_bytes is not None:
                run._mover.on_bytes = self.on_bytes
            run.run()
        return self.told

    def fates(self, **named) -> dict[str, Fate]:
        return {each.path: each.fate for each in self.sync(**named)}

    def files(self) -> dict[str, bytes]:
        found = (p for p in sorted(self.target.rglob("*")) if p.is_file())
        return {p.relative_to(self.target).as_posix(): p.read_bytes() for p in found}
