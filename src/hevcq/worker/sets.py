"""Publish a rendition of several files, and remove the sets that nothing refers to any more.

The files go to a folder that is this attempt's own, the master playlist that names it last: readers
see the old set, the new one or none. A note in the store names each folder that may be left over,
before there is anything in it: by a kill, a lost race or a new set. It is read once players that
hold an old playlist had time to end.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints, ValidationError

from hevcq.domain.certificate import Certificate, CertifiedFile
from hevcq.domain.job import JobState
from hevcq.domain.keys import (
    MASTER,
    SET_FOLDER,
    SET_VERSION,
    is_set,
    member_key,
    set_note_key,
    set_notes,
    set_version,
)
from hevcq.domain.model import Frozen
from hevcq.errors import HevcqError, NeedsReview, Unavailable, VerificationFailed
from hevcq.ports.backend import Backend
from hevcq.ports.encoder import SetFile
from hevcq.ports.store import Publication, Store, StoredObject
from hevcq.util.clock import Clock
from hevcq.util.file_io import sha256_stream
from hevcq.util.log import get_logger
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.scratch import sha256_file

SWEEP_EVERY_S = 3600.0
GRACE_S = 24 * 3600.0
"""Seconds that a replaced set stays, for players that hold its playlists."""
FOR_EVER = "public, max-age=31536000, immutable"
"""How long players may keep a file that never changes under its name."""
A_MINUTE = "max-age=60"
"""How long players may keep the master playlist, which a new set replaces."""
Version = Annotated[str, StringConstraints(pattern=f"^{SET_VERSION}$")]
MAX_NOTE_BYTES = 1 << 16
PLAYLIST = "application/vnd.apple.mpegurl"
CERTIFICATE = ".certificate.json"


class _SetNote(Frozen):
    """What to look at later: the folders `versions` beside the master playlist at the key `master`.

    `noted_at` is in seconds since the Unix epoch.
    """

    master: str
    job_id: str
    fence: int
    versions: tuple[Version, ...]
    noted_at: float


class SetPublication:
    """The publication of one set by one attempt, from `folder`; its master playlist goes last.

    `join` is the join's own fence, if the video was split; else 0.
    """

    def __init__(
        self, context: WorkerContext, claimed: ClaimedTask, master: str, folder: Path, join: int
    ) -> None:
        self._context, self._claimed = context, claimed
        self._master, self._folder, self._join = master, folder, join
        self._job_id, self._fence = claimed.task.job_id, claimed.fence.number
        self._version = set_version(self._job_id, self._fence, join)
        self._files: list[tuple[SetFile, CertifiedFile]] = []
        self._replaced: tuple[str, ...] = ()

    def certify(self, files: Iterable[SetFile]) -> tuple[CertifiedFile, ...]:
        """Hash the set's files; return what the certificate says of them.

        Raises LeaseLost or Stopped, VerificationFailed if one is not in this attempt's own folder,
        and Unavailable if one is missing.
        """
        for file in files:
            if not file.name.startswith(f"{self._version}/"):
                raise VerificationFailed(f"{file.name} is not in the set's folder {self._version}.")
            path = self._folder / file.name
            sha256 = sha256_file(path, self._claimed.lease.check, missing=Unavailable)
            proof = CertifiedFile(name=file.name, size=path.stat().st_size, sha256=sha256)
            self._files.append((file, proof))
        return tuple(proof for _, proof in self._files)

    def members(self) -> Iterator[Publication]:
        """Note this attempt's folder in the store, then yield the publications of its files."""
        self._note(self._version)
        for file, proof in self._files:
            self._claimed.lease.check()
            yield Publication(
                key=member_key(self._master, file.name),
                file=self._folder / file.name,
                sha256=proof.sha256,
                job_id=self._job_id,
                fence=self._fence,
                metadata={
                    "job": self._job_id,
                    "fence": str(self._fence),
                    "profile": self._claimed.profile.name,
                    "sha256": proof.sha256,
                },
                stop=self._claimed.lease.stop,
                recheck=_refuse_stranger,
                content_type=file.content_type,
                cache_control=FOR_EVER,
            )

    def master(self, publication: Publication) -> Publication:
        """Return the publication of the master playlist, which notes the set that it replaces."""

        def recheck(there: StoredObject) -> None:
            publication.recheck(there)
            found = there.metadata.get(SET_FOLDER, "")
            if found and found != self._version:
                self._replaced = (found,)
                self._note(self._version, found)

        return replace(
            publication,
            metadata={**publication.metadata, SET_FOLDER: self._version},
            recheck=recheck,
            content_type=PLAYLIST,
            cache_control=A_MINUTE,
        )

    def done(self) -> None:
        """Let the grace of a replaced set begin; log errors, for the new one is published."""
        try:
            if self._replaced:
                self._note(*self._replaced)
            else:
                self._context.backend.store.delete(self._key)
        except HevcqError as error:
            get_logger(job=self._job_id).info("set_note_kept", reason=str(error))

    @property
    def _key(self) -> str:
        return set_note_key(self._claimed.profile.name, self._job_id, self._fence, self._join)

    def _note(self, *versions: str) -> None:
        note = _SetNote(
            master=self._master,
            job_id=self._job_id,
            fence=self._fence,
            versions=versions,
            noted_at=self._context.clock.now(),
        )
        self._context.retry_control_call(
            lambda: self._context.backend.store.put(
                self._key, note.model_dump_json().encode(), metadata={"job": self._job_id}
            )
        )


def _refuse_stranger(there: StoredObject) -> None:
    """Raise NeedsReview: only this attempt may write in its folder."""
    raise NeedsReview(
        f"{there.key} holds a file of another job, which was left as it is.",
        remedy="Look at that object; remove its folder, then redrive.",
    )


def require_intact(store: Store, certificate: Certificate, check: Callable[[], None]) -> None:
    """Read every file of a published set back but its master playlist.

    Raises VerificationFailed if one has other bytes than certified, SourceGone if it is missing.
    """
    for file in certificate.files:
        with store.open(member_key(certificate.rendition_key, file.name)) as stream:
            if sha256_stream(stream, check) != (file.sha256, file.size):
                raise VerificationFailed(f"{file.name} of the set has other bytes")


def sweep_sets(backend: Backend, clock: Clock, profiles: Iterable[str]) -> None:
    """Remove the replaced and unfinished sets whose grace is over; leave failures to a later sweep."""
    for profile in profiles:
        try:
            for noted in list(backend.store.list(set_notes(profile))):
                _sweep(backend, noted.key, clock.now() - GRACE_S)
        except HevcqError as error:
            get_logger().info("sets_not_swept", profile=profile, reason=str(error))


def _sweep(backend: Backend, key: str, before: float) -> None:
    with backend.store.open(key) as stream:
        content = stream.read(MAX_NOTE_BYTES)
    try:
        note = _SetNote.model_validate_json(content)
    except ValidationError as error:
        get_logger().warning("set_note_unreadable", key=key, reason=str(error))
        return
    if note.noted_at <= before and _remove(backend, note):
        backend.store.delete(key)


def _remove(backend: Backend, note: _SetNote) -> bool:
    """Remove the note's folders but the one in use; return False if its attempt is still publishing."""
    job = backend.ledger.get(note.job_id)
    at_work = {JobState.RUNNING, JobState.SPLIT}
    if job is not None and job.state in at_work and job.fence == note.fence:
        return False
    # After the ledger: what this attempt published before it ended is visible now.
    seen = backend.store.stat(note.master)
    used = "" if seen is None else seen.metadata.get(SET_FOLDER, "")
    gone = {version for version in note.versions if version != used and is_set(note.master)}
    for version in sorted(gone):
        for stored in list(backend.store.list(f"{note.master.removesuffix(MASTER)}{version}/")):
            backend.store.delete(stored.key)
    if gone:
        _remove_certificates(backend.store, note, gone)
    return True


def _remove_certificates(store: Store, note: _SetNote, gone: set[str]) -> None:
    """Remove the certificates of removed folders, which a killed attempt left or a new set replaced."""
    for stored in list(store.list(f"{note.master}.")):
        if not stored.key.endswith(CERTIFICATE):
            continue
        with store.open(stored.key) as stream:
            try:
                proof = Certificate.read(stream)
            except VerificationFailed:
                continue  # not known to be one of these
        folders = {file.name.partition("/")[0] for file in proof.files}
        if proof.job_id == note.job_id and folders and folders <= gone:
            store.delete(stored.key)
