"""Fetch one version of a file into a hidden file, resuming what an earlier try left."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hevcq.errors import SourceChanged, SourceUnreadable, Unavailable
from hevcq.library.pace import Pace
from hevcq.ports.sync import Remote, RemoteFile
from hevcq.util.text import printable

READ = 1 << 20
STATED = ("sha256", "sha1", "md5")
"""Checksums that a server may state, best first; one of them is compared."""


def fetch(
    remote: Remote,
    file: RemoteFile,
    part: Path,
    pace: Pace,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> str:
    """Bring `part` to the whole of this version of `file`; return its SHA-256.

    `on_bytes` gets how much of the file is there. Raises what `Remote.read` raises, SourceChanged
    if what came is not what was listed, and SourceUnreadable if it is not what the server's checksum
    says; the part is removed then. Unavailable leaves the part, which the next call resumes.
    """
    stated = next(((n, v) for n in STATED for m, v in file.checksums if m == n), ("sha256", ""))
    sums = [hashlib.new(name, usedforsecurity=False) for name in ("sha256", stated[0])]
    try:
        with _opened(part) as out:
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


def _opened(part: Path) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(part, flags, 0o666), "r+b", buffering=0)


def _fill(
    remote: Remote,
    file: RemoteFile,
    out: BinaryIO,
    sums: list[hashlib._Hash],
    pace: Pace,
    on_bytes: Callable[[int], None],
) -> None:
    """Digest what is there, then append the rest."""
    have = _digest_part(out, file.size, sums, pace)
    if have == file.size:
        return
    with remote.read(file, have) as body:
        if body.start != have:  # the server sends no parts: from the beginning again
            out.seek(0)
            out.truncate()
            have = 0
            sums[:] = [hashlib.new(each.name, usedforsecurity=False) for each in sums]
        for block in body.blocks:
            have += len(block)
            if have > file.size:
                raise SourceChanged(f"{printable(file.path)} is longer than it was listed.")
            pace.spend(len(block))
            _write(out, block)
            for each in sums:
                each.update(block)
            on_bytes(have)
    if have < file.size:
        raise Unavailable(
            f"The connection ended after {have} of {file.size} bytes of {printable(file.path)}."
        )


def _digest_part(out: BinaryIO, size: int, sums: list[hashlib._Hash], pace: Pace) -> int:
    """Digest what an earlier try left, and return its length; too much is not kept."""
    have = os.fstat(out.fileno()).st_size
    if have > size:
        out.truncate(0)
        return 0
    while block := out.read(READ):
        pace.spend(0)
        for each in sums:
            each.update(block)
    return have


def _write(out: BinaryIO, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[out.write(view) :]
