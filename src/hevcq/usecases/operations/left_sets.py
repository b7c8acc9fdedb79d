"""Remove the files of sets that no master playlist names, without the notes that workers keep.

A worker removes what its notes name; on AWS a note expires after some weeks, so where a profile of
sets is given up, what its last notes named would stay for good. A folder is removed only if it is
nobody's: its master playlist names another one or is gone, nothing in it or about it changed for a
long time, and each file says itself which attempt made it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from hevcq.domain.certificate import Certificate
from hevcq.domain.keys import (
    MASTER,
    OUTBOX,
    SET_FOLDER,
    is_set_version,
)
from hevcq.errors import SourceGone, VerificationFailed
from hevcq.ports.store import Store, StoredObject
from hevcq.util.clock import Clock

LEFT_S = 7 * 86400.0
"""Seconds without a change after which a folder is nobody's: longer than any attempt publishes, and
than players hold a replaced playlist."""


@dataclass(slots=True)
class Left:
    """What was removed: folders of sets with their bytes, and certificates of such folders."""

    sets: int = 0
    size: int = 0
    certificates: int = 0


def remove_left_sets(store: Store, clock: Clock, profiles: Iterable[str]) -> Left:
    """Remove what is left of these profiles' sets; return how much. Raises StorageError, Unavailable."""
    left, before = Left(), clock.now() - LEFT_S
    for profile in profiles:
        for master, members in groupby(store.list(f"{OUTBOX}/{profile}/"), _master_of):
            if master:
                _remove_unused(store, profile, master, list(members), before, left)
    return left


def _master_of(stored: StoredObject) -> str:
    """Return the key of the master playlist beside the folder that an object is in, or ""."""
    parts = stored.key.split("/")
    for index in range(len(parts) - 2, 1, -1):
        if is_set_version(parts[index]):
            return "/".join([*parts[:index], MASTER])
    return ""


def _remove_unused(
    store: Store,
    profile: str,
    master: str,
    members: list[StoredObject],
    before: float,
    left: Left,
) -> None:
    start = len(master) - len(MASTER)
    folders: dict[str, list[StoredObject]] = {}
    for member in members:
        folders.setdefault(member.key[start:].partition("/")[0], []).append(member)
    seen = store.stat(master)
    if seen is not None and (len(folders) == 1 or seen.modified_at > before):
        return
    used = "" if seen is None else seen.metadata.get(SET_FOLDER, "")
    if seen is not None and used not in folders:
        return  # not a playlist of ours, or one whose folder is not known
    for version, files in folders.items():
        if version == used or any(file.modified_at > before for file in files):
            continue
        if all(_made_by(store, file.key, profile, version) for file in files):
            for file in files:
                store.delete(file.key)
            left.sets += 1
            left.size += sum(file.size for file in files)
            left.certificates += _remove_proofs(store, master, version)


def _made_by(store: Store, key: str, profile: str, version: str) -> bool:
    """Return whether an object says that the attempt of this folder published it."""
    seen = store.stat(key)
    if seen is None:
        return True
    job, _, attempt = version.partition("-")
    metadata = seen.metadata
    return (
        metadata.get("job", "").startswith(job)
        and metadata.get("fence") == attempt.partition("-")[0]
        and metadata.get("profile") == profile
    )


def _remove_proofs(store: Store, master: str, version: str) -> int:
    found = [
        stored.key
        for stored in store.list(f"{master}.")
        if (proof := _read(store, stored.key)) is not None and _folders(proof) == {version}
    ]
    for key in found:
        store.delete(key)
    return len(found)


def _read(store: Store, key: str) -> Certificate | None:
    try:
        with store.open(key) as stream:
            return Certificate.read(stream)
    except (SourceGone, VerificationFailed):
        return None


def _folders(proof: Certificate) -> set[str]:
    return {name for file in proof.files if is_set_version(name := file.name.partition("/")[0])}
