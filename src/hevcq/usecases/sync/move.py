"""Fetch one version of a file, and delete it on its server once the local copy is proven.

1. Write the bytes to a hidden file in the target, and make it durable.
2. Record their digest and final name in the journal.
3. Rename the hidden file to that name without overwriting, and make the name durable.
4. Read the file again from the disk, and record it as landed.
5. Ask the server to delete exactly that version (`Mover.why_stays` says when not).

The bytes stay on the server until after step 4.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from hevcq.errors import LibraryError, SourceChanged, SourceUnreadable, Unavailable
from hevcq.library.filesystem import (
    FileSystem,
    Pace,
    forget_cached,
    make_folders,
    move_new,
    open_regular,
)
from hevcq.library.own_files import MAX_NAME_BYTES, OWN_PREFIX, case_twin, is_own, truncate
from hevcq.ports.catalog import Arrival, RemoteFile, Removal, SyncEntry
from hevcq.settings.libraries import SyncSettings
from hevcq.sql.catalog import SyncJournal
from hevcq.util.clock import Clock
from hevcq.util.file_io import sha256_bytes
from hevcq.util.text import printable

if TYPE_CHECKING:
    from hevcq.remotes.webdav import WebDavRemote

OnBytes = Callable[[str, int, int], None]
"""Called with a path on the server, the bytes fetched so far, and its size."""


@dataclass(frozen=True, slots=True)
class SyncPorts:
    """The tools of a sync.

    `token` names the file that tests deletions on the server; `least_free` bytes stay free on the disk.
    """

    remote: WebDavRemote
    journal: SyncJournal
    clock: Clock
    fs: FileSystem
    stop: threading.Event
    token: str
    least_free: int = 0


@dataclass
class Mover:
    """Moves the files of one sync, one at a time."""

    ports: SyncPorts
    job: SyncSettings
    pace: Pace
    on_bytes: OnBytes = lambda _path, _have, _size: None

    @property
    def account(self) -> str:
        return self.ports.remote.account

    def folder_of(self, path: str) -> str | None:
        """Return the innermost synced folder that holds a path on the server, or None."""
        inside = (f for f in self.job.folders if not f or path.startswith(f"{f}/"))
        return max(inside, key=len, default=None)

    def place(self, path: str) -> tuple[Path, str]:
        """Return the local folder and name of a path on the server.

        Raises ValueError if it is in none of the folders.
        """
        folder = self.folder_of(path)
        if folder is None:
            raise ValueError("in none of the folders")
        *parents, name = local_parts(path, folder)
        return self.job.target.joinpath(*parents), name

    def bring(self, file: RemoteFile, entry: SyncEntry) -> tuple[SyncEntry, bool]:
        """Fetch and land one version; return its entry, and whether the same bytes had landed before.

        Raises what `fetch` raises, OSError, and LibraryError if the disk does not return the written
        bytes. The server's file is untouched.
        """
        fs, journal = self.ports.fs, self.ports.journal
        folder, name = self.place(file.path)
        part = self._part(file)
        sha256 = fetch(
            self.ports.remote,
            file,
            part,
            self.pace,
            lambda have: self.on_bytes(file.path, have, file.size),
        )
        earlier = journal.arrival(self.account, sha256)
        if earlier is not None and (
            earlier.landed or self._holds(earlier.target, file.size, sha256)
        ):
            target = earlier.target
        else:
            if file.modified is not None:
                os.utime(part, (file.modified, file.modified), follow_symlinks=False)
            fs.fsync_file(part)
            make_folders(fs, folder)
            target = self._rename(part, folder / name, Arrival(sha256, file.size, folder))
        if fs.lstat(part) is not None:
            fs.unlink(part)  # first, because nobody searches for the part of a landed file
        landed = replace(entry, sha256=sha256, target=target)
        journal.land(self.account, landed)
        return landed, earlier is not None and earlier.landed

    def _part(self, file: RemoteFile) -> Path:
        return self.job.target / part_name(self.account, self.ports.clock.boot(), file)

    def _rename(self, part: Path, preferred: Path, arrival: Arrival) -> Path:
        """Give a complete, durable hidden file a free name like `preferred`; verify its bytes; return the path."""
        fs, folder = self.ports.fs, preferred.parent
        taken = fs.names(folder)
        for candidate in numbered(preferred.name):
            target = folder / candidate
            if candidate in taken and self._holds(target, arrival.size, arrival.sha256):
                return target
            if candidate in taken or case_twin(candidate, taken) is not None:
                continue
            # After a kill behind the rename, the next run finds the file by this row.
            self.ports.journal.expect(self.account, replace(arrival, target=target))
            try:
                move_new(fs, part, target)
            except FileExistsError:
                continue
            _drop_cache(target)
            if fs.digest(target) != arrival.sha256:
                raise LibraryError(
                    f"{printable(target)} reads back with other bytes than were written.",
                    remedy="The server's file is untouched; check this disk.",
                )
            return target
        raise SourceUnreadable(f"{printable(preferred)} has no free name left.")

    @cached_property
    def distrust(self) -> str:
        """Why the server can't be trusted to delete only one version, or ""; tested once a run."""
        try:
            return self.ports.remote.unsafe_to_remove(
                self.job.folders, self.ports.token, self.job.target
            )
        except Unavailable as error:
            return f"that could not be tried ({error.message.rstrip('.')})"

    def why_stays(self, file: RemoteFile, entry: SyncEntry, *, just_read: bool) -> str:
        """Return why the server's copy must stay, or "" if its local copy is proven.

        `just_read`: the local file was read back a moment ago. Raises Stopped.
        """
        return next(self._doubts(file, entry, just_read=just_read), "")

    def _doubts(self, file: RemoteFile, entry: SyncEntry, *, just_read: bool) -> Iterator[str]:
        if self.folder_of(file.path) is None:
            yield "in none of the folders of this sync"
        if not file.etag:
            yield "the server gives it no ETag"
        if (entry.path, entry.version, entry.size) != (file.path, file.version, file.size):
            yield "another version was fetched"
        if not entry.sha256 or entry.target is None:
            yield "it has not landed"
        elif self.distrust:
            yield self.distrust
        elif not entry.target.is_relative_to(self.job.target):
            yield "its bytes landed outside this sync's target"
        elif not just_read and not self._holds(entry.target, entry.size, entry.sha256):
            yield "its bytes came before and are no longer where they landed"

    def remove(self, file: RemoteFile) -> Removal:
        """Delete this version on the server and its entry in the journal, which still knows its bytes.

        Call it only if `why_stays` returned "". Raises Unavailable.
        """
        removal = self.ports.remote.remove(file)
        if removal in {Removal.REMOVED, Removal.GONE}:
            self.ports.journal.forget(self.account, [file.path])
        return removal

    def _holds(self, path: Path, size: int, sha256: str) -> bool:
        """Return whether `path` is a durable file with exactly these bytes, read from the disk.

        A file that can't be read or made durable does not count. Raises Stopped.
        """
        fs = self.ports.fs
        try:
            facts = fs.lstat(path)
            if facts is None or not stat.S_ISREG(facts.st_mode) or facts.st_size != size:
                return False
            fs.fsync_file(path)  # another program may have written it
            fs.fsync_dir(path.parent)
            _drop_cache(path)
            return fs.digest(path) == sha256
        except OSError:
            return False

    def sweep(self, files: Iterable[RemoteFile]) -> None:
        """Remove this account's hidden files except those of `files`, which will be resumed."""
        keep = {self._part(file).name for file in files}
        prefix = parts_prefix(self.account)
        for name in self.ports.fs.names(self.job.target):
            if name.startswith(prefix) and name not in keep:
                self.ports.fs.unlink(self.job.target / name)


def _drop_cache(path: Path) -> None:
    """Drop a file from the page cache, so that the next read comes from the disk."""
    descriptor = open_regular(path)
    try:
        forget_cached(descriptor)
    finally:
        os.close(descriptor)


READ = 1 << 20
STATED = ("sha256", "sha1", "md5")
"""Checksums that a server may send, best first; one of them is compared."""


def fetch(
    remote: WebDavRemote,
    file: RemoteFile,
    part: Path,
    pace: Pace,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> str:
    """Fetch the rest of this version of `file` into `part`; return its SHA-256.

    `on_bytes` gets the number of bytes in `part`. Raises what `WebDavRemote.read` raises, SourceChanged
    if the file is no longer the listed version, and SourceUnreadable if the bytes differ from the
    server's checksum; both remove the part. Unavailable leaves the part, which the next call resumes.
    """
    stated = next(((n, v) for n in STATED for m, v in file.checksums if m == n), ("sha256", ""))
    sums = [hashlib.new(name, usedforsecurity=False) for name in ("sha256", stated[0])]
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(part, flags, 0o666), "r+b") as out:
            _fill(remote, file, out, sums, pace, on_bytes)
        now = remote.stat(file.path)
        if now is None or (now.version, now.size) != (file.version, file.size):
            # Not every server honours the If-Match of a GET.
            raise SourceChanged(f"{printable(file.path)} was changed while it was fetched.")
        if stated[1] not in {"", sums[1].hexdigest()}:
            raise SourceUnreadable(
                f"{printable(file.path)} does not have the {stated[0].upper()} that the server states.",
                remedy="It stays on the server; upload it again from where it came.",
            )
    except (SourceChanged, SourceUnreadable):
        part.unlink(missing_ok=True)
        raise
    return sums[0].hexdigest()


def _fill(
    remote: WebDavRemote,
    file: RemoteFile,
    out: BinaryIO,
    sums: list[hashlib._Hash],
    pace: Pace,
    on_bytes: Callable[[int], None],
) -> None:
    """Digest the bytes in the part, then append and digest the rest."""
    have = _digest_part(out, file.size, sums, pace)
    if have == file.size:
        return
    with remote.read(file, have) as body:
        if body.start != have:  # the server does not support ranges: start again
            out.seek(0)
            out.truncate()
            have = 0
            sums[:] = [hashlib.new(each.name, usedforsecurity=False) for each in sums]
        for block in body.blocks:
            have += len(block)
            if have > file.size:
                raise SourceChanged(f"{printable(file.path)} is longer than it was listed.")
            pace.spend(len(block))
            out.write(block)
            for each in sums:
                each.update(block)
            on_bytes(have)
    if have < file.size:
        raise Unavailable(
            f"The connection ended after {have} of {file.size} bytes of {printable(file.path)}."
        )


def _digest_part(out: BinaryIO, size: int, sums: list[hashlib._Hash], pace: Pace) -> int:
    """Digest the bytes of an earlier attempt and return their number; a part that is too long is emptied."""
    have = os.fstat(out.fileno()).st_size
    if have > size:
        out.truncate(0)
        return 0
    while block := out.read(READ):
        pace.spend(0)
        for each in sums:
            each.update(block)
    return have


ROOM = 8
"""Bytes of a name kept free for a number: ` (9999)` and one more."""
MAX_SUFFIX = 16
MAX_NUMBER = 9999


def local_parts(path: str, folder: str) -> tuple[str, ...]:
    """Return the parts of a server path below the synced `folder`, each safe as a local name.

    Raises ValueError for a path that is not below it.
    """
    inside = f"{folder}/" if folder else ""
    if not path.startswith(inside):
        raise ValueError("not below the folder")
    parts = path.removeprefix(inside).split("/")
    if not all(parts) or any(part in {".", ".."} for part in parts):
        raise ValueError("not a path of names")
    return tuple(map(safe_name, parts))


def safe_name(name: str) -> str:
    """Return a name of one line that any Linux file system accepts and that is not one of hevcq's own."""
    clean = "".join("_" if _is_harmful(character) else character for character in name)
    if is_own(clean) or clean in {"", ".", ".."}:
        clean = f"_{clean}"
    raw = os.fsencode(clean)
    if len(raw) <= MAX_NAME_BYTES - ROOM:
        return clean
    # The digest is of the whole name, so that two long names never become one.
    suffix = PurePosixPath(clean).suffix.encode("utf-8", "surrogateescape")
    suffix = suffix if len(suffix) <= MAX_SUFFIX else b""
    tail = f"~{sha256_bytes(raw)[:12]}".encode() + suffix
    return os.fsdecode(truncate(raw, MAX_NAME_BYTES - ROOM - len(tail)) + tail)


def _is_harmful(character: str) -> bool:
    """Return whether a character controls a terminal or reverses the text after it."""
    surrogate = "\ud800" <= character <= "\udfff"
    return character in {"/", "\0"} or not (
        character.isprintable() or character == " " or surrogate
    )


def numbered(name: str) -> Iterator[str]:
    """Yield the name, then `name (2).ext`, `name (3).ext` and so on."""
    yield name
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    for number in range(2, MAX_NUMBER + 1):
        yield f"{stem} ({number}){suffix}"


def parts_prefix(account: str) -> str:
    """Return the prefix of an account's temporary files."""
    return f"{OWN_PREFIX}sync-{_digest(account)[:12]}-"


def part_name(account: str, boot: str, file: RemoteFile) -> str:
    """Return the temporary name of one version of a server's file while it is fetched.

    Each version has its own name, so that bytes of two versions never mix. The name also depends on the
    boot id: after a power cut, a file that was not made durable may end in zeros.
    """
    identity = "\0".join((file.path, file.version, str(file.size), boot))
    return f"{parts_prefix(account)}{_digest(identity)[:32]}.part"


def _digest(text: str) -> str:
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))
