"""Decide whether bytes that arrived once are still on this machine, before a server deletes its copy.

A file that was moved, edited or lost since is none of what is looked for; then the server's copy
stays. A rendition that took its place counts, by the certificate that names the source's digest.
"""

from __future__ import annotations

import stat
from pathlib import Path

from hevcq.library.certificates import Certificates
from hevcq.library.filesystem import FileSystem

MAX_CANDIDATES = 20
"""Files of a rendition's size that are read at most."""


def is_here(fs: FileSystem, target: Path, size: int, sha256: str) -> bool:
    """Return whether the bytes, or a certified rendition of them, are where they landed.

    Reads the file whole. Raises Stopped.
    """
    return _has(fs, target, size, sha256) or rendition_of(fs, target, size, sha256) is not None


def rendition_of(
    fs: FileSystem,
    target: Path,
    size: int,
    sha256: str,
    certificates: Certificates | None = None,
) -> Path | None:
    """Return a certified rendition of these bytes beside where they landed, or None.

    Reads it whole. Raises Stopped.
    """
    known = certificates if certificates is not None else Certificates()
    proofs = [p for p in known.of_source(target, size) if p.source_sha256 == sha256]
    if not proofs:
        return None
    names = [name for name in fs.names(target.parent) if name.startswith(target.stem)]
    paths = [target.parent / name for name in names[:MAX_CANDIDATES]]
    return next(
        (
            path
            for proof in proofs
            for path in paths
            if _has(fs, path, proof.rendition_size, proof.rendition_sha256)
        ),
        None,
    )


def _has(fs: FileSystem, path: Path, size: int, sha256: str) -> bool:
    try:
        facts = fs.lstat(path)
        if facts is None or not stat.S_ISREG(facts.st_mode) or facts.st_size != size:
            return False
        return fs.digest(path) == sha256
    except OSError:
        return False
