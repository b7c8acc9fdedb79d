"""Implement the remote port by the rclone program: it lists and copies, and never deletes.

None of rclone's commands deletes one version only (`rclone move` deletes what is there when its copy
has ended, whatever that is by then), so files of such a remote are copied.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from hevcq.errors import ConfigError, SourceGone, Unavailable, UsageError
from hevcq.ports.sync import Body, Remote, RemoteFile, RemoteFolder, Removal
from hevcq.util.text import printable

NO_FOLDER, NO_FILE = 3, 4
"""Exit codes of rclone (https://rclone.org/docs/#exit-code)."""
EVERY_CALL = ("--ask-password=false", "--retries", "1")
"""Options of every call: it asks nobody, and is tried once, because the sync tries again."""
AHEAD = 16
"""Blocks of at most 64 KiB that wait for whoever reads them."""
LISTING_BYTES = 256 * 1024 * 1024

Run = Callable[[Sequence[str], Callable[[bytes], None]], tuple[int, str]]
"""Runs rclone with these arguments, passes on what it prints, and returns its exit code and last
complaint. Ends it when the receiver of its output raises."""


class _Enough(Exception):
    """The reader of a file wants no more of it."""


class RcloneRemote(Remote):
    """Files of one rclone remote, named as rclone does: `drive:` or `drive:phone`."""

    def __init__(self, place: str, run: Run) -> None:
        self._place, self._run = place, run

    @property
    def account(self) -> str:
        """The remote's name and path."""
        return f"rclone|{self._place}"

    def folder(self, path: str) -> RemoteFolder:
        """List by `rclone lsjson`. Raises as the port says."""
        code, listed, errors = self._json(["lsjson", self._address(path)])
        if code == NO_FOLDER:
            raise UsageError(
                f"{printable(self._place)} has no folder {printable(path) or '/'}.",
                remedy="Check `folders` and `url` of this sync.",
            )
        if code != 0 or not isinstance(listed, list):
            raise self._failed(errors)
        folders, files, refused = [], [], []
        for item in listed:
            name = str(item.get("Name", ""))
            inner = f"{path}/{name}" if path else name
            if not name or "/" in name or "\0" in name or name in {".", ".."}:
                refused.append(name)
            elif item.get("IsDir"):
                folders.append(inner)
            elif (file := _file(inner, item)) is not None:
                files.append(file)
        return RemoteFolder(tuple(folders), tuple(files), tuple(refused))

    def stat(self, path: str) -> RemoteFile | None:
        """Look by `rclone lsjson --stat`. Raises as the port says."""
        code, item, errors = self._json(["lsjson", "--stat", self._address(path)])
        if code in {NO_FOLDER, NO_FILE}:
            return None
        if code != 0:
            raise self._failed(errors)
        return _file(path, item) if isinstance(item, dict) and not item.get("IsDir") else None

    @contextlib.contextmanager
    def read(self, file: RemoteFile, start: int) -> Iterator[Body]:
        """Read by `rclone cat`, from byte `start` on; whether it was this version is for the caller to look at."""
        blocks: queue.Queue[bytes | BaseException | None] = queue.Queue(AHEAD)
        enough = threading.Event()
        arguments = ["cat", "--offset", str(start), self._address(file.path)]
        reader = threading.Thread(
            target=self._pump, args=(arguments, file, blocks, enough), daemon=True
        )
        reader.start()
        try:
            yield Body(start, _blocks_of(blocks))
        finally:
            enough.set()
            with contextlib.suppress(queue.Empty):
                while True:
                    blocks.get_nowait()
            reader.join()

    def _pump(
        self,
        arguments: Sequence[str],
        file: RemoteFile,
        blocks: queue.Queue[bytes | BaseException | None],
        enough: threading.Event,
    ) -> None:
        def give(block: bytes | BaseException | None) -> None:
            while not enough.is_set():
                with contextlib.suppress(queue.Full):
                    blocks.put(block, timeout=0.2)
                    return
            raise _Enough

        try:
            code, errors = self._run(arguments, give)
            gone = SourceGone(f"{printable(file.path)} is no longer on {printable(self._place)}.")
            give(None if code == 0 else gone if code == NO_FILE else self._failed(errors))
        except _Enough:
            return
        except BaseException as error:  # noqa: BLE001 - raised by whoever reads
            with contextlib.suppress(_Enough):
                give(error)

    def remove(self, file: RemoteFile) -> Removal:  # noqa: ARG002 - the port's
        """Refuse: see above."""
        return Removal.REFUSED

    def unsafe_to_remove(self, folder: str, token: str) -> str:  # noqa: ARG002 - the port's
        """Say why nothing is deleted."""
        return "rclone has no command that deletes one version only"

    def _address(self, path: str) -> str:
        between = "" if not path or self._place.endswith((":", "/")) else "/"
        return f"{self._place}{between}{path}"

    def _json(self, arguments: Sequence[str]) -> tuple[int, Any, str]:
        content = bytearray()

        def keep(block: bytes) -> None:
            content.extend(block)
            if len(content) > LISTING_BYTES:
                raise Unavailable(f"{printable(self._place)} has a listing without end.")

        code, errors = self._run(arguments, keep)
        try:
            return code, json.loads(content) if code == 0 else None, errors
        except ValueError as error:
            raise Unavailable(
                f"rclone's listing of {printable(self._place)} is cut off."
            ) from error

    def _failed(self, errors: str) -> Unavailable | ConfigError:
        why = printable(errors) or "it does not say why"
        if "didn't find section in config file" in errors:
            return ConfigError(
                f"rclone has no remote {printable(self._place)}.",
                remedy="Make it: `rclone config`.",
            )
        return Unavailable(f"rclone cannot read {printable(self._place)}: {why}.")


def _blocks_of(blocks: queue.Queue[bytes | BaseException | None]) -> Iterator[bytes]:
    while (block := blocks.get()) is not None:
        if isinstance(block, BaseException):
            raise block
        yield block


def _file(path: str, item: dict[str, Any]) -> RemoteFile | None:
    """Return the file, or None without a size, as of Google's own documents."""
    size, mod_time, identity = (
        item.get("Size"),
        str(item.get("ModTime", "")),
        str(item.get("ID", "")),
    )
    if not isinstance(size, int) or size < 0:
        return None
    try:
        modified = datetime.fromisoformat(mod_time).timestamp()
    except ValueError:
        modified = None
    return RemoteFile(
        path, size, etag=f"{mod_time} {identity}".strip(), modified=modified, file_id=identity
    )
