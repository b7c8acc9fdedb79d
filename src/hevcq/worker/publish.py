"""Publish a verified rendition with its certificate, or adopt one that an earlier attempt published.

The certificate is written first. A rendition of another video under the same name is never replaced.
"""

from contextlib import suppress

from hevcq import __version__
from hevcq.domain.certificate import (
    Certificate,
    Gate,
    GateResult,
    Outcome,
    require_passed,
)
from hevcq.domain.job import JobState, Phase, RenditionRef, Task
from hevcq.domain.keys import LIBRARY_BUCKET, certificate_key
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
from hevcq.ports.store import Publication, StoredObject
from hevcq.util.file_io import sha256_stream
from hevcq.util.log import get_logger
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.events import Reporter
from hevcq.worker.delivery.job import Made
from hevcq.worker.delivery.lease import Lease
from hevcq.worker.scratch import sha256_file
from hevcq.worker.sets import SetPublication, require_intact


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
    if not _same_bytes(certificate, seen, sha256, size):
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


def _same_bytes(certificate: Certificate, seen: StoredObject, sha256: str, size: int) -> bool:
    return (
        certificate.rendition_key == seen.key
        and certificate.rendition_sha256 == sha256
        and certificate.rendition_size == size
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
    files = _set_of(context, claimed, made)
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


def _set_of(context: WorkerContext, claimed: ClaimedTask, made: Made) -> SetPublication | None:
    if not made.members:
        return None
    return SetPublication(context, claimed, made.key, made.file.parent, made.join)


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
