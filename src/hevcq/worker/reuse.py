"""Adopt a rendition that an earlier attempt published, and leave alone what is another video's."""

from __future__ import annotations

from dataclasses import dataclass

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import RenditionRef, Task
from hevcq.domain.keys import LIBRARY_BUCKET
from hevcq.domain.profile import Profile
from hevcq.errors import BadKey, NeedsReview, SourceGone, VerificationFailed
from hevcq.ports.store import StoredObject
from hevcq.util.hashing import sha256_stream
from hevcq.util.log import get_logger
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.lease import Lease


@dataclass(frozen=True, slots=True)
class Adopted:
    """A rendition that was found whole and proven, and what it cost when it was made."""

    rendition: RenditionRef
    cpu_s: float


def adopt(
    context: WorkerContext,
    lease: Lease,
    task: Task,
    profile: Profile,
    *,
    key: str,
    source_sha256: str,
) -> Adopted | None:
    """Return the rendition that is visible at `key` if it is this very job's, else None.

    That is what a crash between publishing and completing leaves: the work is done. It counts
    only with a valid certificate of the same job, source bytes, recipe and encoder build, and
    with its own bytes read back and hashed; anything less is encoded again. Raises NeedsReview
    where the rendition of another video is.
    """
    store = context.backend.store
    seen = context.retry_control_call(lambda: store.stat(key))
    if seen is None or not seen.metadata.get("certificate"):
        return None
    if seen.metadata.get("job") != task.job_id:
        require_own_place(context, seen, task, source_sha256)
        return None
    name = seen.metadata["certificate"]
    try:
        certificate = _proof(context, name)
        if not _same_work(certificate, task, profile, source_sha256, context.encoder.version()):
            return None
        with store.open(key) as stream:
            sha256, size = sha256_stream(stream, lease.check)
    except (BadKey, SourceGone, VerificationFailed) as error:
        get_logger(job=task.job_id).warning("rendition_not_adopted", reason=str(error))
        return None
    if not _same_bytes(certificate, seen, sha256, size):
        get_logger(job=task.job_id).warning("rendition_not_adopted", reason="other bytes")
        return None
    rendition = RenditionRef(key=key, size=size, sha256=sha256, certificate_key=name)
    return Adopted(rendition, certificate.cpu_s)


def require_own_place(
    context: WorkerContext, seen: StoredObject, task: Task, source_sha256: str
) -> None:
    """Raise NeedsReview if what is visible is the rendition of another video.

    Uploads to the inbox itself, to `all/` and to the profile's folder come to one name. A new
    upload to the same key is another matter: its rendition is to take the earlier one's place. And
    in a library one name is one path.
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


def _same_work(
    certificate: Certificate, task: Task, profile: Profile, source_sha256: str, encoder: str
) -> bool:
    return (
        certificate.job_id == task.job_id
        and certificate.source == task.source
        and certificate.source_sha256 == source_sha256
        and certificate.profile == profile.name
        and certificate.revision == profile.revision
        and certificate.ffmpeg == encoder
    )


def _same_bytes(certificate: Certificate, seen: StoredObject, sha256: str, size: int) -> bool:
    return (
        certificate.rendition_key == seen.key
        and certificate.rendition_sha256 == sha256
        and certificate.rendition_size == size
    )
