"""Place a verified rendition (a file or a set): complete, durable, and never over another file.

A rendition is fetched to a temporary name beside its target, and each file is compared with its
certificate (gate G9). Then it is renamed atomically without overwriting. The certificate is written
first, so a visible rendition always has one.
"""

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.certificate import Certificate, Gate
from hevcq.domain.keys import MASTER, is_set_version, tail_of_key
from hevcq.errors import (
    LibraryError,
    VerificationFailed,
)
from hevcq.library.filesystem import (
    FileSystem,
    fingerprint_of,
    holds,
    library_errors,
    make_folders,
    move_new,
    remove_tree,
    same_bytes,
    temp_of,
    write_durably,
)
from hevcq.library.own_files import (
    OWN_PREFIX,
    Certificates,
    certificate_path,
    job_lock,
    noted_jobs,
    shown_path,
    stale_job_lock,
    temp_beside,
)
from hevcq.ports.catalog import Fingerprint
from hevcq.util.file_io import sha256_bytes
from hevcq.util.log import get_logger
from hevcq.util.text import printable, reason_of

Fetch = Callable[[Path], str]
"""Writes the rendition to the given new path; returns the SHA-256 of the bytes read back."""
FetchFile = Callable[[str, Path], str]
"""The same for one file of a set, by its name; "" is the only file of other renditions."""
Check = Callable[[Path], None]
"""Checks the certified file before it gets its final name. Raises VerificationFailed."""
FILES_AT_ONCE = 4
"""Files of a set to fetch at once: they are many and small, and each costs a round trip to the store."""


@dataclass(frozen=True, slots=True)
class ToPlace:
    """One rendition to place.

    `home` is the folder whose `.hevcq` records the leftovers of a kill: the library root, or the
    output folder of a mirror. Times, mode, owner and attributes are copied from `source`. The target
    of a set is its master playlist.
    """

    home: Path
    source: Path
    target: Path
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the rendition is. `notices`: metadata not preserved; `already`: by an earlier call."""

    target: Path
    notices: tuple[str, ...] = ()
    already: bool = False


def place(rendition: ToPlace, fetch: FetchFile, fs: FileSystem) -> Placed:
    """Place a rendition beside its source or in a mirror; the source is never changed.

    A set replaces the earlier set of the same video and profile. Raises VerificationFailed if the bytes
    are not the certified ones, LibraryError if another file is at the target or the folder is not
    writable, DiskFull, and Unavailable if another process is placing the same job or the file system
    fails.
    """
    shown, proof = shown_path(rendition.target), rendition.certificate
    with library_errors(shown):
        make_folders(fs, shown.parent)
        earlier = find_earlier_sets(fs, rendition.home, rendition.target, proof)
        if holds_rendition(fs, rendition.target, proof):
            # An earlier call may have failed between the rename and its fsync.
            fs.fsync_dir(shown.parent)
            remove_earlier_sets(fs, shown, earlier)
            return as_placed(rendition, fs, (), already=True)
        replaces_set = is_playlist_of_any(fs, rendition.target, earlier.values())
        if not replaces_set and fs.lstat(shown) is not None:
            raise target_taken(shown)
        with staged(rendition, fetch, fs) as (temp, notices):
            record = certificate_of(rendition.home, proof)
            write_certificate(fs, record, proof.to_json().encode())
            try:
                if replaces_set:
                    # A playlist that a person saved during the fetch stays.
                    if not is_playlist_of_any(fs, rendition.target, earlier.values()):
                        raise FileExistsError
                    move_set_over(fs, temp, shown, proof)
                else:
                    move_new(fs, temp, shown)
            except FileExistsError as error:
                fs.unlink(record)
                raise target_taken(shown) from error
        remove_earlier_sets(fs, shown, earlier)
        return as_placed(rendition, fs, notices, already=False)


@contextmanager
def staged(
    rendition: ToPlace, fetch: FetchFile, fs: FileSystem, check: Check | None = None
) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield the temporary path of a rendition, certified and durable, and the notices.

    It is removed when the context ends, unless it was renamed; after a kill, `sweep` removes it.
    Raises as `place` does, and what `check` raises.
    """
    proof = rendition.certificate
    temp = temp_beside(shown_path(rendition.target), proof.job_id)
    temps = (temp, temp_of(certificate_of(rendition.home, proof)))
    note = json.dumps([os.path.relpath(path, rendition.home) for path in temps]).encode()
    with job_lock(rendition.home, proof.job_id, note, fs) as forget:
        try:
            remove_temp(temp, fs)
            files = _collect(temp, proof, fetch, fs)
            if check is not None:
                check(temp)
            notices = _copy_metadata(rendition.source, files, fs)
            for folder in {*(path.parent for path in files), temp.parent}:
                fs.fsync_dir(folder)
            yield temp, notices
        finally:
            gone = [remove_temp(path, fs) for path in temps]
            if all(gone):
                forget()


def _collect(temp: Path, proof: Certificate, fetch: FetchFile, fs: FileSystem) -> list[Path]:
    """Fetch and check every file of a rendition; return their paths. `temp` is a folder for a set."""
    master = MASTER if proof.files else ""
    certified = {each.name: (each.size, each.sha256) for each in proof.files}
    certified[master] = (proof.rendition_size, proof.rendition_sha256)
    if proof.files:
        fs.mkdir(temp)
        for name in certified:
            make_folders(fs, (temp / name).parent)
    for name, digest in _fetch_files(temp, certified, fetch):
        _require_certified(temp / name, digest, certified[name], proof, fs)
    return [temp / name for name in certified]


def _fetch_files(temp: Path, names: Iterable[str], fetch: FetchFile) -> Iterator[tuple[str, str]]:
    """Fetch FILES_AT_ONCE files in parallel; yield each name with its SHA-256, in order.

    After an error no further file is started, and the error is raised once none is being written.
    """
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="set-file") as pool:
        fetching = {name: pool.submit(fetch, name, temp / name) for name in names}
        try:
            for name, one in fetching.items():
                yield name, one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def sweep(home: Path, fs: FileSystem) -> list[Path]:
    """Remove the temporary files of dead processes below `home`; return their paths."""
    removed = []
    for job_id in noted_jobs(home):
        with stale_job_lock(home, job_id, fs) as note:
            for temp in _temps_of_note(home, note):
                if fs.lstat(temp) is not None:
                    remove_tree(fs, temp)
                    fs.fsync_dir(temp.parent)
                    removed.append(temp)
    return removed


def holds_rendition(fs: FileSystem, path: Path, proof: Certificate) -> bool:
    """Return whether the certified bytes are at `path`, with every file of a set; reads them all."""
    if not holds(fs, path, proof.rendition_size, proof.rendition_sha256):
        return False
    return all(holds(fs, path.parent / f.name, f.size, f.sha256) for f in proof.files)


def holds_original(fs: FileSystem, path: Path, fingerprint: Fingerprint, sha256: str) -> bool:
    """Return whether the original is at `path`: by its fingerprint, else by its SHA-256."""
    facts = fs.lstat(path)
    if facts is None or not stat.S_ISREG(facts.st_mode):
        return False
    if same_bytes(fingerprint_of(facts), fingerprint):
        return True
    return holds(fs, path, fingerprint.size, sha256)


def certificate_of(home: Path, proof: Certificate) -> Path:
    """Return the path of a rendition's certificate in the library `home`."""
    sizes = proof.rendition_size, proof.source.size
    return certificate_path(home, proof.rendition_sha256, sizes, proof.job_id)


def write_certificate(fs: FileSystem, path: Path, content: bytes) -> None:
    """Write a certificate to the library's folder of certificates, durably."""
    make_folders(fs, path.parent)
    write_durably(fs, path, content)


def place_sidecars(
    fs: FileSystem, home: Path, target: Path, source: Path, proof: Certificate
) -> tuple[str, ...]:
    """Put the subtitles of a placed rendition beside it; return a sentence for each that failed.

    An existing file stays. Times, mode and owner are those of `source`.
    """
    problems, temp = list[str](), temp_beside(target, proof.job_id)
    note = json.dumps([os.path.relpath(temp, home)]).encode()
    with job_lock(home, proof.job_id, note, fs) if proof.sidecars else nullcontext() as forget:
        for path, content in _sidecars(target, proof):
            try:
                if fs.lstat(path) is not None:
                    if not _holds_bytes(fs, path, content):
                        problems.append(f"{printable(path)} is another file and was left as it is.")
                    continue
                fs.write(temp, content)
                _copy_metadata(source, [temp], fs)
                move_new(fs, temp, path)
            except OSError as error:
                problems.append(f"{printable(path)} could not be written: {reason_of(error)}.")
        if forget is not None and remove_temp(temp, fs):
            forget()
    return tuple(problems)


def remove_sidecars(fs: FileSystem, target: Path, proof: Certificate, mtime_ns: int) -> None:
    """Remove the subtitles that `place_sidecars` put beside a rendition, if unchanged.

    They have the source's modification time, `mtime_ns`.
    """
    for path, content in _sidecars(target, proof):
        facts = fs.lstat(path)
        if facts and facts.st_mtime_ns == mtime_ns and _holds_bytes(fs, path, content):
            fs.unlink(path)
            fs.fsync_dir(path.parent)


def _sidecars(target: Path, proof: Certificate) -> list[tuple[Path, bytes]]:
    return [(each.path(target), each.text.encode()) for each in proof.sidecars]


def _holds_bytes(fs: FileSystem, path: Path, content: bytes) -> bool:
    return holds(fs, path, len(content), sha256_bytes(content))


def as_placed(
    rendition: ToPlace, fs: FileSystem, notices: tuple[str, ...], *, already: bool
) -> Placed:
    """Return the result for a rendition at its target; write its certificate if that is missing."""
    path = certificate_of(rendition.home, rendition.certificate)
    if fs.lstat(path) is None:
        write_certificate(fs, path, rendition.certificate.to_json().encode())
    return Placed(rendition.target, notices, already)


def _require_certified(
    path: Path, digest: str, wanted: tuple[int, str], proof: Certificate, fs: FileSystem
) -> None:
    facts = fs.lstat(path)
    size = None if facts is None else facts.st_size
    if facts is None or not stat.S_ISREG(facts.st_mode) or (size, digest) != wanted:
        raise VerificationFailed(
            f"{printable(path)} is not the rendition that was checked ({Gate.G9.name}): it has {size} bytes"
            f" and SHA-256 {digest[:16]}…, its certificate says {wanted[0]} and {wanted[1][:16]}….",
            remedy="Nothing was written; run the same command again, or make it again with"
            f" `hevcq retry {proof.job_id}`.",
        )


def _copy_metadata(source: Path, files: list[Path], fs: FileSystem) -> tuple[str, ...]:
    """Copy the source's metadata to the files and make them durable; return what was lost."""
    gone = f"{printable(source)} is gone, so its times and permissions were not preserved."
    notices: dict[str, None] = {}
    for path in files:
        lost = (gone,) if fs.lstat(source) is None else fs.copy_metadata(source, path)
        notices |= dict.fromkeys(lost)
        fs.fsync_file(path)
    return tuple(notices)


def target_taken(target: Path) -> LibraryError:
    """Return the error for a target path at which another file is."""
    return LibraryError(
        f"{printable(target)} already exists and is another file; it was not overwritten.",
        remedy="Move it away, or use --output.",
    )


def remove_temp(temp: Path, fs: FileSystem) -> bool:
    """Remove a temporary file or folder; return False on failure, which the next start's sweep retries.

    Raises nothing, so that the result or error of the placement itself is reported.
    """
    try:
        if fs.lstat(temp) is not None:
            remove_tree(fs, temp)
            fs.fsync_dir(temp.parent)  # before the note goes, or a power cut could orphan it
    except OSError as error:
        get_logger().warning("temp_left_behind", path=printable(temp), reason=error.strerror)
        return False
    return True


def _temps_of_note(home: Path, note: bytes | None) -> list[Path]:
    """Return the temporary paths that a dead process's note lists; other names are ignored."""
    try:
        noted = json.loads(note) if note else []
    except (ValueError, RecursionError):
        return []
    names = noted if isinstance(noted, list) else []
    temps = [_own_temp(home, name) for name in names if isinstance(name, str)]
    return [path for path in temps if path is not None]


def _own_temp(home: Path, relative: str) -> Path | None:
    try:
        if b"\0" in os.fsencode(relative):
            return None
    except ValueError:  # not a valid file name
        return None
    temp = Path(os.path.normpath(home / relative))
    return temp if temp.name.startswith(OWN_PREFIX) and home in temp.parents else None


def find_earlier_sets(
    fs: FileSystem, home: Path, target: Path, proof: Certificate
) -> dict[Path, Certificate]:
    """Return the certificates, by path, of other sets of the same video and profile beside `target`."""
    folder = target.parent
    if not proof.files or fs.lstat(folder) is None:
        return {}
    versions = {name for name in fs.names(folder) if is_set_version(name)} - _versions(proof)
    jobs = {name[:8] for name in versions}
    certificates = Certificates((home,)).of_job_prefixes(target, jobs) if versions else ()
    return {path: each for path, each in certificates if _is_earlier_set(proof, each, versions)}


def _is_earlier_set(proof: Certificate, other: Certificate, versions: set[str]) -> bool:
    # The whole path counts: in an output folder, episode1 of another show has the same name.
    is_same_path = tail_of_key(proof.source.key) == tail_of_key(other.source.key)
    is_same_video = other.profile == proof.profile and is_same_path
    return is_same_video and bool(other.files) and _versions(other) <= versions


def _versions(proof: Certificate) -> set[str]:
    return {file.name.partition("/")[0] for file in proof.files}


def is_playlist_of_any(fs: FileSystem, target: Path, sets: Iterable[Certificate]) -> bool:
    """Return whether the file at `target` is the master playlist of one of these sets."""
    return any(holds(fs, target, each.rendition_size, each.rendition_sha256) for each in sets)


def move_set_over(fs: FileSystem, temp: Path, shown: Path, proof: Certificate) -> None:
    """Move a set from the folder `temp` over an earlier set in the folder `shown`, durably.

    Raises FileExistsError if a file of the set exists there with other bytes.
    """
    if not all(holds(fs, shown / file.name, file.size, file.sha256) for file in proof.files):
        for name in sorted(_versions(proof)):
            move_new(fs, temp / name, shown / name)
    fs.rename(temp / MASTER, shown / MASTER)
    fs.fsync_dir(shown)


def remove_earlier_sets(fs: FileSystem, folder: Path, earlier: dict[Path, Certificate]) -> None:
    """Remove the files of earlier sets from `folder`, and their certificates; other files stay.

    A file behind a symbolic link stays even if a certificate lists it: it is outside the folder.
    """
    for record, proof in earlier.items():
        below = set[Path]()
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
        fs.fsync_dir(folder)
        fs.unlink(record)


def _is_link(fs: FileSystem, path: Path) -> bool:
    facts = fs.lstat(path)
    return facts is not None and stat.S_ISLNK(facts.st_mode)
