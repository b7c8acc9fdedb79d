"""Publish a verified rendition with its certificate, or adopt one that an earlier attempt published.

The certificate is written first. A rendition of another video under the same name is never replaced.
The files of a set go to a folder that is this attempt's own, the master playlist that names it last:
readers see the old set, the new one or none. A note in the store names each folder that may be left
over, before there is anything in it: by a kill, a lost race or a new set. It is read once players
that hold an old playlist had time to end.
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
from hevcq.worker.delivery.job import Made, Reporter
from hevcq.worker.delivery.lease import Lease

SWEEP_EVERY_S = 3600.0
GRACE_S = 24 * 3600.0
"""Seconds that a replaced set stays, for players that hold its playlists."""
FOR_EVER = "public, max-age=31536000, immutable"
"""How long players may keep a file that never changes under its name."""
A_MINUTE = "max-age=60"
"""How long players may keep the master playlist, which a new set replaces."""
MAX_NOTE_BYTES = 1 << 16


class _SetNote(Frozen):
    """What to look at later: the folders `versions` beside the master playlist at the key `master`.

    `noted_at` is in seconds since the Unix epoch.
    """

    master: str
    job_id: str
    fence: int
    versions: tuple[Annotated[str, StringConstraints(pattern=f"^{SET_VERSION}$")], ...]
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
            content_type="application/vnd.apple.mpegurl",
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
            for noted in list(backend.store.list(set_notes_prefix(profile))):
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
        if not stored.key.endswith(".certificate.json"):
            continue
        with store.open(stored.key) as stream:
            try:
                proof = Certificate.read(stream)
            except VerificationFailed:
                continue  # not known to be one of these
        folders = {file.name.partition("/")[0] for file in proof.files}
        if proof.job_id == note.job_id and folders and folders <= gone:
            store.delete(stored.key)


def adopt(
    context: WorkerContext, lease: Lease, task: Task, work: Work, key: str
) -> tuple[RenditionRef, float] | None:
    """Return the rendition visible at `key` and its CPU seconds if this job published it, else None.

    It counts only with a valid certificate of the same job, source bytes, recipe and encoder
    build whose digest the ledger has, and with its own bytes read back and hashed; otherwise the
    video is encoded again. Raises NeedsReview if `key` holds the rendition of another video. A
    crash between publishing and completing leaves such a finished rendition.
    """
    store = context.backend.store
    seen = context.retry_control_call(lambda: store.stat(key))
    if seen is None or not seen.metadata.get("certificate"):
        return None
    if seen.metadata.get("job") != task.job_id:
        require_own_place(context, seen, task, work.source_sha256)
        return None
    name = seen.metadata["certificate"]
    try:
        certificate = _proof(context, name)
        job = context.retry_control_call(lambda: context.backend.ledger.get(task.job_id))
        if job is None or not job.certified(certificate.digest):
            raise VerificationFailed("the ledger does not know its certificate")
        if not _same_work(certificate, task, work, context.encoder.version()):
            return None
        with store.open(key) as stream:
            sha256, size = sha256_stream(stream, lease.check)
        if certificate.files:
            require_intact(store, certificate, lease.check)
    except (BadKey, SourceGone, VerificationFailed) as error:
        get_logger(job=task.job_id).warning("rendition_not_adopted", reason=str(error))
        return None
    there = certificate.rendition_key, certificate.rendition_sha256, certificate.rendition_size
    if there != (seen.key, sha256, size):
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
    context: WorkerContext, seen: StoredObject, task: Task, source_sha256: str
) -> None:
    """Raise NeedsReview if the visible object is the rendition of another video.

    Uploads to the inbox itself, to `all/` and to the profile's folder share one rendition name.
    The rendition of a new upload to the same key replaces the earlier one. In a library every
    path has a name of its own.
    """
    if task.source.bucket == LIBRARY_BUCKET or seen.metadata.get("job") == task.job_id:
        return
    try:
        proof = _proof(context, seen.metadata.get("certificate", ""))
    except (BadKey, SourceGone, VerificationFailed):
        return
    there, ours = proof.source, task.source
    if (there.bucket, there.key) == (ours.bucket, ours.key) or proof.source_sha256 == source_sha256:
        return
    raise NeedsReview(
        f"{seen.key} holds the rendition of {there.key}, which is another video of that name; it was"
        " left as it is.",
        remedy=f"Give {ours.key} another name, or remove that rendition, then redrive.",
    )


def _proof(context: WorkerContext, name: str) -> Certificate:
    with context.backend.store.open(name) as stream:
        return Certificate.read(stream)


def _same_work(certificate: Certificate, task: Task, work: Work, encoder: str) -> bool:
    return (
        certificate.job_id == task.job_id
        and certificate.source == task.source
        and certificate.source_sha256 == work.source_sha256
        and certificate.profile == work.recipe.name
        and certificate.revision == work.recipe.revision
        and certificate.ffmpeg == encoder
    )


def publish(
    context: WorkerContext, claimed: ClaimedTask, made: Made, report: Reporter
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
    gates = (unchanged, *made.gates)
    require_passed(gates, of_set=bool(made.members), beside=bool(made.plan.sidecars))
    files = None
    if made.members:
        files = SetPublication(context, claimed, made.key, made.file.parent, made.join)
    certificate = _certificate(context, claimed, made, gates, files)
    sha256, job, fence = certificate.rendition_sha256, claimed.task.job_id, claimed.fence.number
    name = certificate_key(made.key, certificate.digest)
    claimed.lease.check()
    # Its digest first, so that the next attempt knows it; then the certificate, so that a rendition
    # is never visible without it.
    ledger, content = context.backend.ledger, certificate.to_json().encode()
    context.retry_control_call(lambda: ledger.certify(job, fence, certificate.digest))
    context.retry_control_call(
        lambda: context.backend.store.put(name, content, metadata={"job": job})
    )
    publication = Publication(
        key=made.key,
        file=made.file,
        sha256=sha256,
        job_id=job,
        fence=fence,
        metadata=_metadata(claimed, sha256, name),
        stop=claimed.lease.stop,
        recheck=lambda there: _recheck(context, claimed, made, there),
    )
    try:
        _publish_all(context, claimed.lease, publication, files)
    except PermanentError:  # refused for good: nobody will see what it certifies
        with suppress(HevcqError):
            context.backend.store.delete(name)
        raise
    return _reference(certificate, name)


def _publish_all(
    context: WorkerContext, lease: Lease, publication: Publication, files: SetPublication | None
) -> None:
    for each in () if files is None else files.members():
        _publish(context, each)
    if files is not None:
        publication = files.master(publication)
    # Last check before publication; the fence guards against changes during it.
    lease.check()
    _publish(context, publication)
    if files is not None:
        files.done()


def _recheck(context: WorkerContext, claimed: ClaimedTask, made: Made, there: StoredObject) -> None:
    context.retry_control_call(lambda: context.backend.store.check(claimed.task.source))
    require_own_place(context, there, claimed.task, made.source_sha256)


def _publish(context: WorkerContext, publication: Publication) -> None:
    store = context.backend.store
    try:
        store.publish(publication)
    except StaleFence as refused:
        _require_granted(context, publication, refused)
        raise
    except Unavailable:
        # The reply may be lost although the rendition is visible.
        seen = context.retry_control_call(lambda: store.stat(publication.key))
        ours = seen is not None and seen.metadata.get("job") == publication.job_id
        if seen is None or not ours or seen.sha256 != publication.sha256:
            raise
        get_logger(job=publication.job_id).info("publish_reply_lost", key=publication.key)


def _require_granted(context: WorkerContext, publication: Publication, refused: StaleFence) -> None:
    """Raise NeedsReview if the ledger cannot have granted the fence that outranks ours.

    While the ledger says that ours is the last one granted, no current attempt has a later fence,
    and every retry would be refused alike. Only a whole job publishes once per fence; an earlier
    join may have used the fence of a split one. If the ledger's answer is stale, it refuses the
    burial.
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
    made: Made,
    gates: tuple[GateResult, ...],
    files: SetPublication | None,
) -> Certificate:
    sha256 = sha256_file(made.file, claimed.lease.check, missing=Unavailable)
    return Certificate(
        job_id=claimed.task.job_id,
        fence=claimed.fence.number,
        source=claimed.task.source,
        source_sha256=made.source_sha256,
        rendition_key=made.key,
        rendition_sha256=sha256,
        rendition_size=made.file.stat().st_size,
        files=() if files is None else files.certify(made.members),
        profile=claimed.profile.name,
        revision=claimed.profile.revision,
        ffmpeg=context.encoder.version(),
        arguments=made.report.arguments,
        device=made.report.device,
        gates=gates,
        notices=made.plan.notices,
        personal=made.plan.personal,
        losses=made.plan.losses,
        quality=made.plan.aim,
        sidecars=made.plan.sidecars,
        hevcq_version=__version__,
        made_at=context.clock.now(),
        encode_s=made.report.seconds,
        verify_s=made.verify_s,
        cpu_s=made.report.cpu_s,
    )


def _metadata(claimed: ClaimedTask, sha256: str, certificate: str) -> dict[str, str]:
    return {
        "job": claimed.task.job_id,
        "fence": str(claimed.fence.number),
        "profile": claimed.profile.name,
        "revision": claimed.profile.revision,
        "sha256": sha256,
        "certificate": certificate,
    }
