"""Put a new set of files in the place of an earlier one of the same video.

The files of each set are in a folder of its own beside the master playlist, which is renamed over
the old one last: whoever watches sees the old set or the new one, also after a kill at any step.
"""

import stat
from collections.abc import Iterable
from pathlib import Path

from hevcq.domain.certificate import Certificate
from hevcq.domain.keys import MASTER, is_set_version, tail_of_key
from hevcq.library.certificates import Certificates
from hevcq.library.filesystem import FileSystem, holds, move_new


def sets_before(
    fs: FileSystem, home: Path, target: Path, proof: Certificate
) -> dict[Path, Certificate]:
    """Return the certificates, by path, of sets of the same video and profile beside `target`.

    The certificate of the set that is to go there, `proof`, is none of them.
    """
    folder = target.parent
    if not proof.files or fs.lstat(folder) is None:
        return {}
    versions = {name for name in fs.names(folder) if is_set_version(name)} - _versions(proof)
    jobs = {name[:8] for name in versions}
    found = Certificates((home,)).of_jobs(target, jobs) if versions else ()
    return {path: each for path, each in found if _follows(proof, each, versions)}


def _follows(proof: Certificate, before: Certificate, versions: set[str]) -> bool:
    # By the whole path: in an output folder, episode1 of another show has the same name.
    keys = {tail_of_key(each.source.key) for each in (proof, before)}
    mine = before.profile == proof.profile and len(keys) == 1
    return mine and bool(before.files) and _versions(before) <= versions


def _versions(proof: Certificate) -> set[str]:
    return {file.name.partition("/")[0] for file in proof.files}


def shows_one(fs: FileSystem, target: Path, sets: Iterable[Certificate]) -> bool:
    """Return whether the master playlist at `target` is that of one of these sets."""
    return any(holds(fs, target, each.rendition_size, each.rendition_sha256) for each in sets)


def move_over(fs: FileSystem, temp: Path, shown: Path, proof: Certificate) -> None:
    """Move the set in the folder `temp` to the folder `shown` of an earlier one, durably.

    Raises FileExistsError if a file of the set is there already with other bytes.
    """
    if not all(holds(fs, shown / file.name, file.size, file.sha256) for file in proof.files):
        for name in sorted(_versions(proof)):
            move_new(fs, temp / name, shown / name)
    fs.rename(temp / MASTER, shown / MASTER)
    fs.fsync_dir(shown)


def remove_before(fs: FileSystem, folder: Path, before: dict[Path, Certificate]) -> None:
    """Remove the files of earlier sets from `folder`, and their certificates; other files stay.

    So does what a link inside the set leads to, whatever the certificate lists: it is elsewhere.
    """
    for record, proof in before.items():
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
