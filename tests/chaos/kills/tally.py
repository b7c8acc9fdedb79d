"""Count what a campaign lost, ended wrongly, doubled or left behind: all of it has to be zero."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from chaos.kills.campaign import Campaign
from chaos.kills.places import Place, apart
from chaos.kills.videos import FORGED, KINDS, LARGE_BYTES, kind_of
from chaos.kills.worker import KILL
from hevcq.backends.aws.s3 import metadata as object_metadata
from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JobRecord, JobState, job_id
from hevcq.domain.keys import MASTER, is_set, member_key
from hevcq.ports.backend import Backend
from hevcq.ports.ledger import JobFilter
from hevcq.util.clock import SystemClock
from hevcq.worker.admission import Scratch
from hevcq.worker.publish import GRACE_S, sweep_sets

ZERO = (
    "lost",
    "wrong_end",
    "double_published",
    "partial_visible",
    "stray_children",
    "temp_files",
    "work_objects",
    "open_uploads",
    "set_leftovers",
)
"""The counts that end a campaign with exit code 1 unless they are 0."""
LEFT_TO_RULES = ("work_objects", "open_uploads")
"""What a kill may leave in a bucket: its lifecycle rules remove it, and no worker looks for it."""


def zeros(place: Place) -> tuple[str, ...]:
    """Return the counts that have to be 0 at this place."""
    return tuple(name for name in ZERO if not (place.on_aws and name in LEFT_TO_RULES))


def tally(campaign: Campaign) -> dict[str, object]:
    """Return the counts of a campaign that has run."""
    place = campaign.place
    answer = place.folder / "tally.json"
    apart(lambda: answer.write_text(json.dumps(_seen(place))))
    notes = [line.split() for line in (place.folder / "notes").read_text().splitlines()]
    hit = {n[1] for n in notes if n[0] == "ended" and n[3] == str(KILL)}
    counts: dict[str, object] = {
        "kills": campaign.ended["SIGKILL"],
        "stops": campaign.ended["SIGSTOP"],
        "server_crashes": campaign.ended["crash"],
        "points_hit": len(hit & set(campaign.points)),
        "points": len(campaign.points),
        "points_missed": sorted(set(campaign.points) - hit),
        "other_points_hit": sorted(p for p in hit - set(campaign.points) if "inside-" not in p),
        "kills_inside_calls": sum(n[0] == "ended" and n[1].startswith("inside-") for n in notes),
        "stray_children": len(running(campaign.mark)),
    }
    return counts | json.loads(answer.read_text())


def _seen(place: Place) -> dict[str, object]:
    backend = place.open()
    try:
        records = {r.source.key.rpartition("/")[2]: r for r in _all(backend)}
        Scratch(place.scratch, SystemClock()).sweep()
        sweep_sets(backend, _ADayLater(), ["sets"])
        in_sets = dict(_in_sets(backend))
        found = Counter(_fates(place, backend, records))
        return {
            "jobs": found.total(),
            "lost": found["lost"],
            "wrong_end": found["wrong"],
            **_publications(place, backend),
            "partial_visible": sum(not _whole(backend, o) for o in backend.store.list(""))
            + sum(not whole for whole in in_sets.values()),
            "set_leftovers": sum(key not in in_sets for key in _files_of_sets(backend)),
            "temp_files": len(list(place.scratch.iterdir())) + _unnamed(place, backend),
            "work_objects": len(list(backend.store.list("work/"))),
            "open_uploads": _open_uploads(place),
        }
    finally:
        backend.close()


def _all(backend: Backend) -> Iterator[JobRecord]:
    return backend.ledger.jobs(JobFilter())


class _ADayLater(SystemClock):
    """A clock by which the grace of every set is over."""

    def now(self) -> float:
        return super().now() + GRACE_S + 1


def _files_of_sets(backend: Backend) -> list[str]:
    stored = backend.store.list("DONE/sets/")
    return [each.key for each in stored if not each.key.endswith((MASTER, ".json"))]


def _in_sets(backend: Backend) -> Iterator[tuple[str, bool]]:
    """Yield the files that visible sets name by their certificates, and whether each is whole."""
    for master in [each for each in backend.store.list("DONE/sets/") if is_set(each.key)]:
        with backend.store.open(master.metadata["certificate"]) as stream:
            proof = Certificate.parse(stream.read())
        for file in proof.files:
            key = member_key(master.key, file.name)
            seen = backend.store.stat(key)
            yield key, seen is not None and seen.sha256 == file.sha256 and _whole(backend, seen)


def _fates(place: Place, backend: Backend, records: dict[str, JobRecord]) -> Iterator[str]:
    letters = Counter(
        letter.task.job_id if letter.task is not None else ""
        for queue in backend.queues.values()
        for letter in queue.dead_letters()
    )
    for path in sorted(place.videos.iterdir()):
        record, kind = records.get(path.name), KINDS[kind_of(path.name)]
        if record is None or record.state in {JobState.QUEUED, JobState.RUNNING, JobState.SPLIT}:
            yield "lost"
        elif record.state is not kind.end:
            yield "wrong"
        elif record.state is JobState.DEAD and not letters[record.job_id]:
            yield "lost"
        elif record.state is JobState.DONE and not _proven(backend, record, path.read_bytes()):
            yield "wrong"
        else:
            assert record.job_id == job_id(record.source, record.profile)
            yield "right"
    forged = [key for key in records if key == FORGED]
    yield "wrong" if forged else "right"


def _proven(backend: Backend, record: JobRecord, content: bytes) -> bool:
    """Whether the rendition is the one that its certificate proves, of these very bytes."""
    there = record.rendition
    if there is None:
        return False
    with backend.store.open(there.key) as stream:
        rendition = stream.read()
    with backend.store.open(there.certificate_key) as stream:
        certificate = Certificate.parse(stream.read())
    digest = hashlib.sha256(content).hexdigest()
    begins = b"#EXTM3U" if certificate.files else f"rendition of {digest} ".encode()
    return (
        certificate.source_sha256 == digest
        and certificate.rendition_sha256 == hashlib.sha256(rendition).hexdigest()
        and there.sha256 == certificate.rendition_sha256
        and rendition.startswith(begins)
        and len(rendition) >= (LARGE_BYTES if content.startswith(b"large") else 0)
    )


def _whole(backend: Backend, seen) -> bool:
    with backend.store.open(seen.key) as stream:
        return hashlib.sha256(stream.read()).hexdigest() == seen.sha256


def _published(place: Place, backend: Backend) -> dict[str, list[tuple[int, str]]]:
    """Return each rendition's publications as fence and SHA-256: no two encodes are alike.

    In a data folder as the workers noted them, on AWS as the bucket kept them all.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    if place.clients is None:
        for line in (place.folder / "notes").read_text().splitlines():
            words = line.split()
            if words[0] == "published" and words[2].startswith("DONE/"):
                found.setdefault(words[2], []).append((int(words[4]), words[3]))
        for stored in backend.store.list("DONE/"):
            if not stored.key.endswith(".json"):
                fence = int(stored.metadata["fence"])
                found.setdefault(stored.key, []).append((fence, stored.sha256))
        return found
    s3, bucket = place.clients.s3, place.aws.output_bucket
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix="DONE/")
    for version in reversed([v for page in pages for v in page.get("Versions", [])]):
        if not version["Key"].endswith(".json"):
            head = s3.head_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
            facts = object_metadata.unpack(head["Metadata"])
            found.setdefault(version["Key"], []).append((int(facts["fence"]), facts["sha256"]))
    return found


def _publications(place: Place, backend: Backend) -> dict[str, int]:
    """Count renditions that changed under their key.

    S3 cannot ask the ledger in the call that publishes, so there a worker that was stopped just
    before it may publish once more, while the next holder of the job is still encoding: its
    rendition is proven too, and gives way to the one of the later fence before the job is
    complete. In a data folder even that is refused.
    """
    counts = {"double_published": 0, "zombie_published_first": 0}
    for seen in _published(place, backend).values():
        distinct = list(dict.fromkeys(seen))
        fences = [fence for fence, _ in distinct]
        if len(distinct) > 1:
            in_order = place.on_aws and fences == sorted(set(fences))
            counts["zombie_published_first" if in_order else "double_published"] += 1
    return counts


def _open_uploads(place: Place) -> int:
    if place.clients is None:
        return 0
    answer = place.clients.s3.list_multipart_uploads(Bucket=place.aws.output_bucket)
    return len(answer.get("Uploads", []))


def running(mark: str) -> list[int]:
    """Return the children of workers of this campaign that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"sleep") and mark.encode() in b" ".join(words):
            found.append(int(path.parent.name))
    return found


def _unnamed(place: Place, backend: Backend) -> int:
    """Versions in the data folder's store that no row names."""
    folder = place.folder / "data" / "objects"
    if place.on_aws or not folder.is_dir():
        return 0
    named = {seen.version for seen in backend.store.list("")}
    there = [path.name for path in folder.glob("??/*/*")]
    return sum(name not in named for name in there)
