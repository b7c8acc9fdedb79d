"""Make jobs end one way or another, through the real ports of an opened app."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import (
    JobRecord,
    Phase,
    Progress,
    RenditionRef,
    Source,
    Split,
    Task,
    subjob_id,
)
from hevcq.domain.keys import key_for_path
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.library.filesystem import fingerprint_of
from hevcq.ports.catalog import Mode, Placement, PlacementState
from hevcq.ports.store import Publication
from hevcq.wiring.app import App


@dataclass(frozen=True)
class Farm:
    """Makes jobs end one way or another, through the real ports."""

    app: App
    folder: Path

    def queued(self, name: str, *profiles: str) -> tuple[Path, list[JobRecord]]:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a clip called " + name.encode("utf-8", "surrogateescape"))
        store, stop = self.app.backend.store, threading.Event()
        source = store.accept(path, key_for_path(str(path)), moved=lambda _n: None, stop=stop)
        wanted = profiles or ("hevc",)
        return path, self.app.backend.task_publisher.publish(source, wanted, announced=False)

    def running(self, name: str) -> JobRecord:
        _, (job,) = self.queued(name)
        self._claim(job.source)
        return self._now(job)

    def split(self, name: str, frames: tuple[int, ...]) -> JobRecord:
        """Return a job shared out in chunks: the first is done, the second half done."""
        job = self.running(name)
        ledger, total = self.app.backend.ledger, sum(frames)
        split = Split(name="d-1", chunks=2, frames=total, seconds=10.0, plan_sha256="0" * 64)
        ledger.split(job.job_id, job.fence, split, frames)
        made = RenditionRef(key="work/0", size=1, sha256="0" * 64, certificate_key="work/0.json")
        for chunk in (0, 1):
            part = subjob_id(job.job_id, split.name, chunk)
            fence = ledger.claim_subjob(part, owner="test", lease_s=300).fence  # type: ignore[union-attr]
            if chunk == 0:
                ledger.complete(part, fence, made, cpu_s=1.0)
            else:
                ledger.progress(part, fence, Progress(phase=Phase.ENCODE, percent=50.0, speed=2.0))
        return self._now(job)

    def skipped(self, name: str) -> tuple[Path, JobRecord]:
        path, (job,) = self.queued(name)
        self.app.backend.ledger.skip(job.job_id, self._claim(job.source), "not smaller")
        self._settle(lambda queue, delivery: queue.ack(delivery))
        return path, self._now(job)

    def done(self, name: str, proof: Certificate | None = None) -> tuple[Path, JobRecord]:
        path, (job,) = self.queued(name)
        file = path.with_suffix(".rendition")
        file.write_bytes(b"rendition of " + path.name.encode())
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        fence, key = self._claim(job.source), f"DONE/hevc/{path.name}.mp4"
        where = Publication(key=key, file=file, sha256=sha256, job_id=job.job_id, fence=fence)
        size = self.app.backend.store.publish(where).size
        ref = RenditionRef(
            key=key,
            size=size,
            sha256=sha256,
            certificate_key=f"{key}.json",
            certificate_sha256=proof.digest if proof is not None else "",
        )
        self.app.backend.ledger.complete(job.job_id, fence, ref, cpu_s=1.0)
        self._settle(lambda queue, delivery: queue.ack(delivery))
        return path, self._now(job)

    def placement(self, path: Path, job: JobRecord, target: Path) -> Placement:
        fingerprint = fingerprint_of(path.lstat())
        return Placement(
            job_id=job.job_id,
            root=path.parent,
            source=path,
            fingerprint=fingerprint,
            profile=job.profile,
            mode=Mode.BESIDE,
            target=target,
            keep_days=0.0,
            state=PlacementState.PLACED,
        )

    def buried(
        self, name: str, failure_class: FailureClass = FailureClass.ENCODER, profile: str = "hevc"
    ) -> tuple[Path, JobRecord]:
        path, (job,) = self.queued(name, profile)
        why = Bury(reason=f"{name} broke", failure_class=failure_class, tail=("last words",))
        fence = self._claim(job.source, profile)
        self.app.backend.ledger.bury(job.job_id, fence, why.reason, failure_class)
        self._settle(lambda queue, delivery: queue.bury(delivery, why), profile)
        return path, self._now(job)

    def task(self, job: JobRecord) -> Task:
        return Task(source=job.source, profile=job.profile)

    def _claim(self, source: Source, profile: str = "hevc") -> int:
        claim = self.app.backend.ledger.claim(source, profile, owner="test", lease_s=300)
        return claim.fence  # type: ignore[union-attr]

    def _settle(self, how: Callable[[Any, Any], bool], profile: str = "hevc") -> None:
        queue = self.app.backend.queues[profile]
        (delivery,) = queue.receive(1, wait_s=0, stop=threading.Event())
        assert how(queue, delivery)

    def _now(self, job: JobRecord) -> JobRecord:
        return self.app.backend.ledger.get(job.job_id)
