"""Fetch one version of a file into a temporary file, resuming what an earlier try left."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hevcq.errors import SourceChanged, SourceUnreadable, Unavailable
from hevcq.library.pace import Pace
from hevcq.ports.sync import Remote, RemoteFile
from hevcq.util.clock import Clock
from hevcq.util.text import printable

READ = 1 << 20
STATED = ("sha256", "sha1", "md5")
"""Checksums that a server may state, best first; one of them is compared."""


SLOW_S = 300.0
LEAST_BYTES = 256 * 1024
"""A server that sends fewer bytes than these in SLOW_S seconds of waiting for it is asked anew, and then
left until the next look: it would keep all others waiting, for days at worst. What came is kept."""


class Patience:
    """Measure how long one server is waited for. Raises Unavailable when it is too slow."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._waited_s, self._came = clock, 0.0, 0

    def each(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the blocks; what is done with them between is no waiting."""
        coming, asked = iter(blocks), self._clock.monotonic()
        for block in coming:
            self._waited_s += self._clock.monotonic() - asked
            self._came += len(block)
            yield block
            if self._came >= LEAST_BYTES:
                self._waited_s, self._came = 0.0, 0
            elif self._waited_s >= SLOW_S:
                raise Unavailable(
                    f"The server sent {self._came} bytes in {self._waited_s:.0f} s;"
                    " the next try goes on from there."
                )
            asked = self._clock.monotonic()


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a complete temporary file holds."""

    sha256: str


def fetch(
    remote: Remote,
    file: RemoteFile,
    part: Path,
    pace: Pace,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> Fetched:
    """Bring `part` to the whole of this version of `file`, and return its digest.

    `on_bytes` gets how much of the file is there. Raises what `Remote.read` raises, SourceChanged
    if what came is not what was listed, and SourceUnreadable if it is not what the server's checksum
    says; the part is removed then. Unavailable leaves the part, which the next call resumes.
    """
    stated = next(((n, v) for n in STATED for m, v in file.checksums if m == n), None)
    sums = [hashlib.sha256(), *([hashlib.new(stated[0], usedforsecurity=False)] if stated else [])]
    try:
        with _opened(part) as out:
            _fill(remote, file, out, sums, pace, on_bytes)
    except SourceChanged:
        part.unlink(missing_ok=True)
        raise
    _compare_listing(remote, file, part)
    if stated is not None and sums[1].hexdigest() != stated[1]:
        part.unlink(missing_ok=True)
        raise SourceUnreadable(
            f"{printable(file.path)} does not have the {stated[0].upper()} that the server states.",
            remedy="It stays on the server; upload it again from where it came.",
        )
    return Fetched(sums[0].hexdigest())


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
        for block in Patience(pace.clock).each(body.blocks):
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


def _compare_listing(remote: Remote, file: RemoteFile, part: Path) -> None:
    """Raise SourceChanged unless the server still has this version: not all honour If-Match."""
    now = remote.stat(file.path)
    if now is None or (now.version, now.size) != (file.version, file.size):
        part.unlink(missing_ok=True)
        raise SourceChanged(f"{printable(file.path)} was changed while it was fetched.")
