"""A media folder, memory ports and a collector, for the tests of queueing, following and placing."""

import hashlib
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from hevcq.domain.certificate import REQUIRED, Certificate, GateResult, Outcome
from hevcq.domain.events import IngestEvent
from hevcq.domain.job import JobRecord, RenditionRef
from hevcq.domain.keys import certificate_key, rendition_key
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.library.scanning.scan import FoundVideo
from hevcq.ports.backend import Backend
from hevcq.ports.catalog import Mode
from hevcq.ports.encoder import SpareFolder
from hevcq.ports.ledger import Granted
from hevcq.ports.store import Publication
from hevcq.usecases.context import Ports
from hevcq.usecases.ingest.decide import Item, Recorded, decide
from hevcq.usecases.ingest.enqueue import Enqueuer
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.ingest.session import Ingest
from hevcq.usecases.ingest.track import IngestOutcome, IngestSummary, JobTracker
from hevcq.usecases.placement.collect import Collected, Collector
from hevcq.usecases.proofs import Proofs
from support.catalog import new_catalog
from support.clips import ManualClock
from support.fakes.backend import HEVC, memory_backend
from support.fakes.encoder import FakeEncoder
from support.ingest.values import encode_plan, media_info, video

NEVER = threading.Event()


@dataclass
class Bench:
    """Everything around one ingest, in memory but for the media folder itself."""

    folder: Path
    where: Destination = field(default_factory=lambda: Destination(Mode.BESIDE))
    discard: bool = True

    def __post_init__(self) -> None:
        self.clock = ManualClock(auto=True)
        self.backend: Backend = memory_backend(self.clock)
        self.catalog = new_catalog(self.clock)
        self.encoder = FakeEncoder(info=media_info())
        self.events: list[IngestEvent] = []
        self.summary = IngestSummary()
        self.media = self.folder / "media"
        self.media.mkdir()
        self.wire()

    def wire(self) -> None:
        """(Re)build the use case over the ports, as a new process does."""
        self.ports = Ports(self.catalog, self.clock, self.folder / "data", self.backend)
        spare: SpareFolder = lambda _: nullcontext(self.folder)  # noqa: E731
        known = self.catalog, self.backend.ledger, self.encoder
        self.proofs = Proofs(*known, {HEVC.name: HEVC}, spare)
        self.collector = Collector(self.ports, self.proofs, discard=self.discard)
        tell = self.events.append
        ledger = self.backend.ledger
        self.tracker = JobTracker(ledger, self.collector, self.summary, tell, self.clock)
        self.enqueuer = Enqueuer(self.ports, self.where, self.tracker)

    def video(self, name: str = "a.mp4", content: bytes = b"clip" * 100) -> Item:
        path = self.media / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        found = video(path, root=self.media)
        return decide(found, HEVC, encode_plan(), Recorded(), self.where)

    def queue(self, item: Item) -> JobRecord:
        ((item, job),) = self.enqueuer.enqueue([item], NEVER)
        self.tracker.add(item, job)
        return job

    def place(self, item: Item, content: bytes = b"small") -> Collected:
        """Queue and encode a video, and put its rendition in place."""
        return self.collector.collect(self.done(self.encode(item, content)), NEVER)

    def encode(self, item: Item | None = None, content: bytes = b"small") -> JobRecord:
        """Queue a video and do what a worker does; return the job as it was queued."""
        job = self.queue(item or self.video())
        self.work(job, content)
        return job

    def claim(self, job: JobRecord) -> int:
        granted = self.backend.ledger.claim(job.source, job.profile, owner="w", lease_s=60.0)
        assert isinstance(granted, Granted)
        return granted.fence

    def work(
        self, job: JobRecord, content: bytes = b"small", notices: tuple[str, ...] = ()
    ) -> RenditionRef:
        """Do what a worker does: publish a rendition with its certificate and complete the job."""
        fence = self.claim(job)
        digest = hashlib.sha256(content).hexdigest()
        key = rendition_key(job.source.key, job.profile, "mp4")
        proof = self.proof(job, key, content, fence)
        proof_key = certificate_key(key, proof.digest)
        self.backend.ledger.certify(job.job_id, fence, proof.digest)
        self.backend.store.put(proof_key, proof.to_json().encode(), metadata={})
        file = self.folder / f"out-{fence}"
        file.write_bytes(content)
        metadata = {"job": job.job_id, "certificate": proof_key}
        self.backend.store.publish(Publication(key, file, digest, job.job_id, fence, metadata))
        ref = RenditionRef(
            key=key,
            size=len(content),
            sha256=digest,
            certificate_key=proof_key,
            certificate_sha256=proof.digest,
            notices=notices,
        )
        self.backend.ledger.complete(job.job_id, fence, ref, cpu_s=1.0)
        return ref

    def proof(self, job: JobRecord, key: str, content: bytes, fence: int) -> Certificate:
        placement = self.catalog.placement(job.job_id)
        source = placement.source
        return Certificate(
            job_id=job.job_id,
            fence=fence,
            source=job.source,
            source_sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
            rendition_key=key,
            rendition_sha256=hashlib.sha256(content).hexdigest(),
            rendition_size=len(content),
            profile=job.profile,
            revision="0" * 12,
            ffmpeg="ffmpeg version fake",
            arguments=("ffmpeg",),
            gates=tuple(GateResult(gate=gate, outcome=Outcome.PASSED) for gate in REQUIRED),
            hevcq_version="0",
            made_at=1.0,
            cpu_s=0.25,  # of the job's 1.0: it searched a quality first
        )

    def done(self, job: JobRecord) -> JobRecord:
        return self.backend.ledger.get(job.job_id)

    def ends(self) -> dict[IngestOutcome, int]:
        return self.summary.counts()

    def reported(self) -> list[str]:
        return [event.event.value for event in self.events]


def plain(_profile: object, _info: object) -> EncodePlan:
    return encode_plan()


def session(bench: Bench, planner=plain, **changes: object) -> Ingest:
    """Return an ingest of the bench's folder."""
    usual = {
        "roots": (bench.media,),
        "profiles": (HEVC,),
        "where": bench.where,
        "planner": planner,
        "cores": 2.0,
    }
    ports = bench.ports, bench.collector, bench.proofs, bench.events.append
    return Ingest(*ports, **usual | changes)


def videos(bench: Bench, *names: str) -> list[FoundVideo]:
    for name in names:
        (bench.media / name).write_bytes(b"clip" * 100)
    return [video(bench.media / name, root=bench.media) for name in names]
