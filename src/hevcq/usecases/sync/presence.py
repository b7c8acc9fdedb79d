"""Decide whether bytes that arrived once are still on this machine, before a server deletes its copy.

A file that was moved, edited or lost since is none of what is looked for; then the server's copy
stays. A rendition that took its place counts, by the certificate that names the source's digest.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from hevcq.library.certificates import Certificates
from hevcq.library.filesystem import FileSystem

MAX_CANDIDATES = 20
"""Files of a rendition's size that are read at most."""


def is_here(fs: FileSystem, target: Path, size: int, sha256: str) -> bool:
    """Return whether the bytes, or a certified rendition of them, are where they landed.

    Reads the file whole. Raises Stopped.
    """
    return _has(fs, target, size, sha256) or any(
        _has(fs, path, proof_size, proof_sha256)
        for path, proof_size, proof_sha256 in _renditions(fs, target, size, sha256)
    )


def _has(fs: FileSystem, path: Path, size: int, sha256: str) -> bool:
    try:
        facts = fs.lstat(path)
        if facts is None or not stat.S_ISREG(facts.st_mode) or facts.st_size != size:
            return False
        return fs.digest(path) == sha256
    except OSError:
        return False


def _renditions(
    fs: FileSystem, target: Path, size: int, sha256: str
) -> Iterator[tuple[Path, int, str]]:
    """Yield the files beside the target that may be its rendition, with what they must be."""
    proofs = [p for p in Certificates().of_source(target, size) if p.source_sha256 == sha256]
    if not proofs:
        return
    stem = target.stem
    names = [name for name in fs.names(target.parent) if name.startswith(stem)]
    for proof in proofs:
        for name in names[:MAX_CANDIDATES]:
            yield target.parent / name, proof.rendition_size, proof.rendition_sha256
