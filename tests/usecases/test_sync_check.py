"""`hevcq sync check`: what would stop a sync, and what is unwise about it."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

from hevcq.settings.libraries import SyncSettings
from hevcq.usecases.doctor import Area, Check, Finding, examined, sync_words


class Server:
    """Lists two files; `unsafe` is why it cannot be trusted to delete."""

    def __init__(self, unsafe: str = "", error: Exception | None = None) -> None:
        self.unsafe, self.error, self.closed = unsafe, error, False

    def folder(self, _path: str) -> SimpleNamespace:
        if self.error is not None:
            raise self.error
        return SimpleNamespace(files=(1, 2))

    def unsafe_to_remove(self, *_given: object) -> str:
        return self.unsafe

    def close(self) -> None:
        self.closed = True


def checked(folder: Path, server: Server, **changes: object) -> Finding:
    usual = {
        "name": "phone",
        "url": "https://cloud.example",
        "folders": ("Camera",),
        "mode": "move",
    }
    sync = SyncSettings(**{**usual, "target": folder, **changes})
    look = partial(sync_words, sync, lambda _sync: server)
    return next(examined([Check(Area.SYNC, "sync phone", look)]))


def test_a_sync_that_would_run_says_what_it_does(tmp_path: Path) -> None:
    server = Server()
    found = checked(tmp_path, server)
    assert (found.ok, found.detail) == (True, "moves, 2 files at the top of its folders")
    assert checked(tmp_path, server, mode="copy").detail.startswith("copies, 2 files")
    assert server.closed


def test_a_server_that_deletes_unsafely_only_gets_copies(tmp_path: Path) -> None:
    found = checked(tmp_path, Server("it ignores If-Match"))
    assert not found.ok
    assert found.detail.endswith("can't be trusted to delete, it ignores If-Match.")
    assert checked(tmp_path, Server("it ignores If-Match"), mode="copy").ok
