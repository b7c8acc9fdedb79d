"""Publish a verified rendition with its certificate, or adopt one that an earlier attempt published.

The certificate is written first. A rendition of another video under the same name is never replaced.
The files of a set go to a folder of this attempt's own. The master playlist, which names that folder,
goes last: readers see the old set, the new one or none. A kill, a lost race or a new set may leave a
folder over. So before anything is written to a folder, a note in the store names it; the sweep reads
the note once players that hold an old playlist had time to end.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints, ValidationError

from hevcq import __version__
from hevcq.domain.certificate import (
    Certificate,
    CertifiedFile,
    Gate,
    GateResult,
    Outcome,
    require_passed,
)
from hevcq.domain.job import JobState, Phase, RenditionRef, Task
from hevcq.domain.keys import (
    LIBRARY_BUCKET,
    MASTER,
    SET_FOLDER,
    SET_VERSION,
    certificate_key,
    is_set,
    member_key,
    set_note_key,
    set_notes_prefix,
    set_version,
)
from hevcq.domain.model import Frozen
from hevcq.domain.planning.encode_plan import Work
from hevcq.errors import (
    BadKey,
    HevcqError,
    NeedsReview,
    PermanentError,
    SourceGone,
    StaleFence,
    Unavailable,
    VerificationFailed,
)
from hevcq.ports.backend import Backend
from hevcq.ports.encoder import SetFile
from hevcq.ports.store import Publication, Store, StoredObject
from hevcq.util.clock import Clock
from hevcq.util.file_io import sha256_stream
from hevcq.util.log import get_logger
from hevcq.worker.admission import sha256_file
from hevcq.worker.delivery.claim import ClaimedTask, WorkerContext
from hevcq.worker.delivery.job import Reporter, VerifiedEncode
from hevcq.worker.delivery.lease import Lease

SWEEP_EVERY_S = 3600.0
GRACE_S = 24 * 3600.0
"""Seconds that a replaced set stays, for players that hold its playlists."""
CACHE_FOR_EVER = "public, max-age=31536000, immutable"
"""How long players may keep a file that never changes under its name."""
CACHE_A_MINUTE = "max-age=60"
"""How long players may keep the master playlist, which a new set replaces."""
MAX_NOTE_BYTES = 1 << 16


class _SetNote(Frozen):
    """What the sweep checks later: the folders `versions` beside the master playlist at the key `master`.

    `noted_at` is in seconds since the Unix epoch.
    """

    master: str
    job_id: str
    fence: int
    versions: tuple[Annotated[str, StringConstraints(pattern=f"^{SET_VERSION}$")], ...]
    noted_at: float


class SetPublication:
    """The publication of one set by one attempt, from `folder`; its master playlist goes last.

    `join` is the fence of the join if the video was split, else 0.
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
        """Hash the set's files; return their entries in the certificate.

        Raises LeaseLost or Stopped, VerificationFailed if a file is not in this attempt's own folder,
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
                metadata=_metadata(self._claimed, proof.sha256),
                stop=self._claimed.lease.stop,
                recheck=_refuse_foreign_file,
                content_type=file.content_type,
                cache_control=CACHE_FOR_EVER,
            )

    def master(self, publication: Publication) -> Publication:
        """Return the publication of the master playlist, which notes the set that it replaces."""

        def recheck(present: StoredObject) -> None:
            publication.recheck(present)
            version = present.metadata.get(SET_FOLDER, "")
            if version and version != self._version:
                self._replaced = (version,)
                self._note(self._version, version)

        return replace(
            publication,
            metadata={**publication.metadata, SET_FOLDER: self._version},
            recheck=recheck,
            content_type="application/vnd.apple.mpegurl",
            cache_control=CACHE_A_MINUTE,
        )

    def finish(self) -> None:
        """Begin the grace period of a replaced set; only log errors, since the new set is published."""
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


def _refuse_foreign_file(present: StoredObject) -> None:
    """Raise NeedsReview: only this attempt may write in its folder."""
    raise NeedsReview(
        f"{present.key} holds a file of another job, which was left as it is.",
        remedy="Look at that object; remove its folder, then redrive.",
    )


def require_intact(store: Store, certificate: Certificate, check: Callable[[], None]) -> None:
    """Read back every file of a published set except its master playlist.

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
            for stored in list(backend.store.list(set_notes_prefix(profile))):
                _sweep_noted(backend, stored.key, clock.now() - GRACE_S)
        except HevcqError as error:
            get_logger().info("sets_not_swept", profile=profile, reason=str(error))


def _sweep_noted(backend: Backend, key: str, before: float) -> None:
    with backend.store.open(key) as stream:
        content = stream.read(MAX_NOTE_BYTES)
    try:
        note = _SetNote.model_validate_json(content)
    except ValidationError as error:
        get_logger().warning("set_note_unreadable", key=key, reason=str(error))
        return
    if note.noted_at <= before and _remove_unused_folders(backend, note):
        backend.store.delete(key)


def _remove_unused_folders(backend: Backend, note: _SetNote) -> bool:
    """Remove the note's folders but the one in use; return False if its attempt is still publishing."""
    job = backend.ledger.get(note.job_id)
    at_work = {JobState.RUNNING, JobState.SPLIT}
    if job is not None and job.state in at_work and job.fence == note.fence:
        return False
    # Read after the ledger: a playlist that this attempt published before it ended is visible by now.
    master = backend.store.stat(note.master)
    used = "" if master is None else master.metadata.get(SET_FOLDER, "")
    unused = {version for version in note.versions if version != used and is_set(note.master)}
    for version in sorted(unused):
        for stored in list(backend.store.list(f"{note.master.removesuffix(MASTER)}{version}/")):
            backend.store.delete(stored.key)
    if unused:
        _remove_certificates(backend.store, note, unused)
    return True


def _remove_certificates(store: Store, note: _SetNote, removed: set[str]) -> None:
    """Remove the certificates of removed folders, which a killed attempt left or a new set replaced."""
    for stored in list(store.list(f"{note.master}.")):
        if not stored.key.endswith(".certificate.json"):
            continue
        with store.open(stored.key) as stream:
            try:
                proof = Certificate.read(stream)
            except VerificationFailed:
                continue  # perhaps of another set
        folders = {file.name.partition("/")[0] for file in proof.files}
        if proof.job_id == note.job_id and folders and folders <= removed:
            store.delete(stored.key)


def adopt(
    context: WorkerContext, lease: Lease, task: Task, work: Work, key: str
) -> tuple[RenditionRef, float] | None:
    """Return the rendition visible at `key` and its CPU seconds if this job published it, else None.

    A crash between publishing and completing leaves such a finished rendition. It counts only with a
    valid certificate of the same job, source bytes, recipe and encoder build whose digest the ledger
    has, and only if its own bytes, read back, have the certified hash. Otherwise the video is encoded
    again. Raises NeedsReview if `key` holds the rendition of another video.
    """
    store = context.backend.store
    present = context.retry_control_call(lambda: store.stat(key))
    if present is None or not present.metadata.get("certificate"):
        return None
    if present.metadata.get("job") != task.job_id:
        require_own_place(context, present, task, work.source_sha256)
        return None
    name = present.metadata["certificate"]
    try:
        certificate = _read_certificate(context, name)
        job = context.retry_control_call(lambda: context.backend.ledger.get(task.job_id))
        if job is None or not job.certified(certificate.digest):
            raise VerificationFailed("the ledger does not know its certificate")
        if not _is_same_work(certificate, task, work, context.encoder.version()):
            return None
        with store.open(key) as stream:
            sha256, size = sha256_stream(stream, lease.check)
        if certificate.files:
            require_intact(store, certificate, lease.check)
    except (BadKey, SourceGone, VerificationFailed) as error:
        get_logger(job=task.job_id).warning("rendition_not_adopted", reason=str(error))
        return None
    certified = certificate.rendition_key, certificate.rendition_sha256, certificate.rendition_size
    if certified != (present.key, sha256, size):
        get_logger(job=task.job_id).warning("rendition_not_adopted", reason="other bytes")
        return None
    return _reference(certificate, name), certificate.cpu_s


def _reference(certificate: Certificate, name: str) -> RenditionRef:
    return RenditionRef(
        key=certificate.rendition_key,
        size=certificate.total_size,
        sha256=certificate.rendition_sha256,
        certificate_key=name,
        certificate_sha256=certificate.digest,
        notices=certificate.notices,
        target=certificate.quality.target if certificate.quality else None,
        verified=certificate.quality.verified if certificate.quality else None,
    )


def require_own_place(
    context: WorkerContext, present: StoredObject, task: Task, source_sha256: str
) -> None:
    """Raise NeedsReview if the object `present` is the rendition of another video.

    Uploads to the inbox itself, to `all/` and to the profile's folder share one rendition name.
    The rendition of a new upload to the same key replaces the earlier one. In a library every
    path has a name of its own.
    """
    if task.source.bucket == LIBRARY_BUCKET or present.metadata.get("job") == task.job_id:
        return
    try:
        proof = _read_certificate(context, present.metadata.get("certificate", ""))
    except (BadKey, SourceGone, VerificationFailed):
        return
    other, ours = proof.source, task.source
    if (other.bucket, other.key) == (ours.bucket, ours.key) or proof.source_sha256 == source_sha256:
        return
    raise NeedsReview(
        f"{present.key} holds the rendition of {other.key}, which is another video of that name; it was"
        " left as it is.",
        remedy=f"Give {ours.key} another name, or remove that rendition, then redrive.",
    )


def _read_certificate(context: WorkerContext, name: str) -> Certificate:
    with context.backend.store.open(name) as stream:
        return Certificate.read(stream)


def _is_same_work(certificate: Certificate, task: Task, work: Work, encoder: str) -> bool:
    return (
        certificate.job_id == task.job_id
        and certificate.source == task.source
        and certificate.source_sha256 == work.source_sha256
        and certificate.profile == work.recipe.name
        and certificate.revision == work.recipe.revision
        and certificate.ffmpeg == encoder
    )


def publish(
    context: WorkerContext, claimed: ClaimedTask, encode: VerifiedEncode, report: Reporter
) -> RenditionRef:
    """Publish the rendition and its certificate; return the reference to both.

    Raises VerificationFailed unless every gate passed, SourceChanged or SourceGone if the source
    is no longer the queued one, LeaseLost, StaleFence or Stopped if this worker may not publish
    any more, and NeedsReview if the key holds a rendition that no retry can replace.
    """
    report.phase(Phase.PUBLISH)
    began = context.clock.monotonic()
    context.retry_control_call(lambda: context.backend.store.check(claimed.task.source))
    seconds = context.clock.monotonic() - began
    unchanged = GateResult(gate=Gate.G0, outcome=Outcome.PASSED, seconds=seconds)
    gates = (unchanged, *encode.gates)
    require_passed(gates, of_set=bool(encode.members), beside=bool(encode.plan.sidecars))
    files = None
    if encode.members:
        files = SetPublication(context, claimed, encode.key, encode.file.parent, encode.join)
    certificate = _certificate(context, claimed, encode, gates, files)
    sha256, job, fence = certificate.rendition_sha256, claimed.task.job_id, claimed.fence.number
    name = certificate_key(encode.key, certificate.digest)
    claimed.lease.check()
    # The digest first, so that the next attempt knows the certificate; then the certificate, so that no
    # rendition is ever visible without one.
    ledger, content = context.backend.ledger, certificate.to_json().encode()
    context.retry_control_call(lambda: ledger.certify(job, fence, certificate.digest))
    context.retry_control_call(
        lambda: context.backend.store.put(name, content, metadata={"job": job})
    )
    publication = Publication(
        key=encode.key,
        file=encode.file,
        sha256=sha256,
        job_id=job,
        fence=fence,
        metadata=_metadata(claimed, sha256, revision=claimed.profile.revision, certificate=name),
        stop=claimed.lease.stop,
        recheck=lambda present: _recheck(context, claimed, encode, present),
    )
    try:
        _publish_all(context, claimed.lease, publication, files)
    except PermanentError:  # refused for good, so the certified rendition will never be visible
        with suppress(HevcqError):
            context.backend.store.delete(name)
        raise
    return _reference(certificate, name)


def _publish_all(
    context: WorkerContext, lease: Lease, publication: Publication, files: SetPublication | None
) -> None:
    if files is not None:
        for member in files.members():
            _publish_object(context, member)
        publication = files.master(publication)
    # Last check before publication; the fence guards against changes during it.
    lease.check()
    _publish_object(context, publication)
    if files is not None:
        files.finish()


def _recheck(
    context: WorkerContext, claimed: ClaimedTask, encode: VerifiedEncode, present: StoredObject
) -> None:
    context.retry_control_call(lambda: context.backend.store.check(claimed.task.source))
    require_own_place(context, present, claimed.task, encode.source_sha256)


def _publish_object(context: WorkerContext, publication: Publication) -> None:
    store = context.backend.store
    try:
        store.publish(publication)
    except StaleFence as refused:
        _require_granted(context, publication, refused)
        raise
    except Unavailable:
        # The reply may be lost although the rendition is visible.
        present = context.retry_control_call(lambda: store.stat(publication.key))
        is_ours = present is not None and present.metadata.get("job") == publication.job_id
        if present is None or not is_ours or present.sha256 != publication.sha256:
            raise
        get_logger(job=publication.job_id).info("publish_reply_lost", key=publication.key)


def _require_granted(context: WorkerContext, publication: Publication, refused: StaleFence) -> None:
    """Raise NeedsReview if the ledger cannot have granted the fence that outranks ours.

    While the ledger says that ours is the last fence granted, no current attempt has a later one, and
    the store would refuse every retry alike. Only a whole job publishes once per fence; an earlier
    join may have used the fence of a split job. If the ledger's answer is stale, the ledger refuses
    the burial.
    """
    job = context.retry_control_call(lambda: context.backend.ledger.get(publication.job_id))
    if job is None or (job.state, job.fence) != (JobState.RUNNING, publication.fence):
        return
    raise NeedsReview(
        f"{publication.key} holds another rendition of this job, under a fence that the ledger never"
        " granted: somebody else put it there, or the ledger was made anew or restored since.",
        remedy="Look at that object; remove it if this job's is wanted, then redrive.",
    ) from refused


def _certificate(
    context: WorkerContext,
    claimed: ClaimedTask,
    encode: VerifiedEncode,
    gates: tuple[GateResult, ...],
    files: SetPublication | None,
) -> Certificate:
    sha256 = sha256_file(encode.file, claimed.lease.check, missing=Unavailable)
    return Certificate(
        job_id=claimed.task.job_id,
        fence=claimed.fence.number,
        source=claimed.task.source,
        source_sha256=encode.source_sha256,
        rendition_key=encode.key,
        rendition_sha256=sha256,
        rendition_size=encode.file.stat().st_size,
        files=() if files is None else files.certify(encode.members),
        profile=claimed.profile.name,
        revision=claimed.profile.revision,
        ffmpeg=context.encoder.version(),
        arguments=encode.report.arguments,
        device=encode.report.device,
        gates=gates,
        notices=encode.plan.notices,
        personal=encode.plan.personal,
        losses=encode.plan.losses,
        quality=encode.plan.aim,
        sidecars=encode.plan.sidecars,
        hevcq_version=__version__,
        made_at=context.clock.now(),
        encode_s=encode.report.seconds,
        verify_s=encode.verify_s,
        cpu_s=encode.report.cpu_s,
    )


def _metadata(claimed: ClaimedTask, sha256: str, **more: str) -> dict[str, str]:
    return {
        "job": claimed.task.job_id,
        "fence": str(claimed.fence.number),
        "profile": claimed.profile.name,
        "sha256": sha256,
        **more,
    }
