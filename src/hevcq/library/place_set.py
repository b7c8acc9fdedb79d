"""Place a rendition of several files as a folder: complete, durable, and never over anything.

The files are collected in a temporary folder beside the target, each compared with its certificate
(gate G9); then that folder is renamed as a whole. The certificate is written first, as for one file.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hevcq.domain.certificate import Certificate, Gate
from hevcq.domain.keys import MASTER
from hevcq.errors import VerificationFailed
from hevcq.library.filesystem import FileSystem, make_folders, move_new, temp_of
from hevcq.library.lock import job_lock
from hevcq.library.names import temp_beside
from hevcq.library.place import (
    Check,
    Placed,
    Rendition,
    certificate_of,
    certified,
    holds,
    library_errors,
    occupied,
    remove_temp,
    write_certificate,
)
from hevcq.util.text import printable

FetchFile = Callable[[str, Path], str]
"""Write a file of the set, by its name in it, to the given new path; return the SHA-256 read back."""
FILES_AT_ONCE = 4
"""A set has many small files, each of which costs a way to the store and back."""
PICTURES = ".mp4"
"""The suffix of the files of a set that hold video or sound, as ordinary files do."""


def place_set(rendition: Rendition, fetch: FetchFile, fs: FileSystem, check: Check) -> Placed:
    """Place a set; `rendition.target` is its master playlist in the folder that is to appear.

    `check` is called with the set's video files until it passes one. Raises as `place` does.
    """
    folder, proof = rendition.target.parent, rendition.certificate
    with library_errors(folder):
        make_folders(fs, folder.parent)
        if holds_set(fs, rendition.target, proof):
            fs.fsync_dir(folder.parent)
            return certified(rendition, fs, (), already=True)
        if fs.lstat(folder) is not None:
            raise occupied(folder)
        temp = temp_beside(folder, proof.job_id)
        record = certificate_of(rendition.home, proof)
        temps = (temp, temp_of(record))
        note = json.dumps([os.path.relpath(path, rendition.home) for path in temps]).encode()
        with job_lock(rendition.home, proof.job_id, note) as forget:
            try:
                remove_temp(temp, fs)
                notices = _fill(temp, rendition, fetch, fs)
                _check(temp, proof, check)
                write_certificate(fs, record, proof.to_json().encode())
                try:
                    move_new(fs, temp, folder)
                except FileExistsError as error:
                    fs.unlink(record)
                    raise occupied(folder) from error
            finally:
                if all([remove_temp(path, fs) for path in temps]):  # noqa: C419 - each of them
                    forget()
        return certified(rendition, fs, notices, already=False)


def holds_set(fs: FileSystem, master: Path, proof: Certificate) -> bool:
    """Return whether the certified set is at its place, with every file; reads them all."""
    if not holds(fs, master, proof.rendition_size, proof.rendition_sha256):
        return False
    return all(holds(fs, master.parent / f.name, f.size, f.sha256) for f in proof.files)


def remove_set(fs: FileSystem, master: Path, proof: Certificate) -> None:
    """Remove a placed set, its master playlist first; what is not certified stays, with its folder.

    So does what a link inside the set leads to, whatever the certificate lists: it is elsewhere.
    """
    folder = master.parent
    fs.unlink(master)
    fs.fsync_dir(folder)
    below = {folder}
    for file in proof.files:
        path = folder / file.name
        inside = {parent for parent in path.parents if folder in parent.parents}
        if any(_is_link(fs, parent) for parent in inside):
            continue
        if holds(fs, path, file.size, file.sha256):
            fs.unlink(path)
        below |= inside
    for empty in sorted(below, key=lambda path: len(path.parts), reverse=True):
        if fs.lstat(empty) is not None and not fs.names(empty):
            fs.rmdir(empty)
    fs.fsync_dir(folder.parent)


def _is_link(fs: FileSystem, path: Path) -> bool:
    facts = fs.lstat(path)
    return facts is not None and stat.S_ISLNK(facts.st_mode)


def _fill(temp: Path, rendition: Rendition, fetch: FetchFile, fs: FileSystem) -> tuple[str, ...]:
    """Collect every file of the set in `temp`, durable; return the notices about metadata."""
    proof = rendition.certificate
    files = {each.name: (each.size, each.sha256) for each in proof.files}
    files[MASTER] = (proof.rendition_size, proof.rendition_sha256)
    folders = dict.fromkeys([temp, *((temp / name).parent for name in files)])
    notices: dict[str, None] = {}
    fs.mkdir(temp)
    for folder in folders:
        make_folders(fs, folder)
    for name, digest in _fetched(temp, files, fetch):
        path, wanted = temp / name, files[name]
        facts = fs.lstat(path)
        if facts is None or (facts.st_size, digest) != wanted or not stat.S_ISREG(facts.st_mode):
            raise VerificationFailed(
                f"{name} of the rendition of {printable(rendition.source)} is not what its certificate"
                f" says ({Gate.G9.name}); nothing was written.",
                remedy=f"Make it again: `hevcq retry {proof.job_id}`, then the same command.",
            )
        if fs.lstat(rendition.source) is not None:
            notices |= dict.fromkeys(fs.copy_metadata(rendition.source, path))
        fs.fsync_file(path)
    for folder in folders:
        fs.fsync_dir(folder)
    fs.fsync_dir(temp.parent)
    return tuple(notices)


def _fetched(temp: Path, names: Iterable[str], fetch: FetchFile) -> Iterator[tuple[str, str]]:
    """Fetch a few files at once; yield each name with its SHA-256, in order.

    After an error no other file is begun, and none is still being written when it is raised.
    """
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="set-file") as pool:
        fetching = {name: pool.submit(fetch, name, temp / name) for name in names}
        try:
            for name, one in fetching.items():
                yield name, one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _check(temp: Path, proof: Certificate, check: Check) -> None:
    """Check the set's video files, largest first, until one passes: others hold its sound alone."""
    found = [file for file in proof.files if file.name.endswith(PICTURES)]
    for file in sorted(found, key=lambda file: file.size, reverse=True):
        try:
            return check(temp / file.name)
        except VerificationFailed as error:
            failed = error
    if found:
        raise failed
    raise VerificationFailed(f"The certificate names no video file of the set ({Gate.G9.name}).")
