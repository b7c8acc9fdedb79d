"""A farm whose videos are split: the memory farm with chunking always on, and short chunks."""

import threading
import weakref
from pathlib import Path

from hevcq.backends.sql.factory import open_sql
from hevcq.domain.job import JobRecord, JobState, Source, Task, TaskKind, job_id
from hevcq.domain.keys import key_for_path
from hevcq.domain.profile_sections import Chunking, ChunkMode
from hevcq.ports.queue import Delivery
from hevcq.settings.model import Settings
from hevcq.worker.handler import DeliveryResult, ProfileQueue
from support.fakes.backend import HEVC
from support.fakes.encoder import fake_index
from support.fakes.farm import Farm

CHUNKS = 3
CHUNKED = HEVC.model_copy(update={"chunking": Chunking(mode=ChunkMode.ALWAYS, target_s=20.0)})


class VideoFarm(Farm):
    """A farm that splits a video of one minute into three chunks."""

    def __init__(self, folder: Path, profile=CHUNKED) -> None:
        super().__init__(folder, profile)
        self.encoder.index = fake_index(length_s=60, every_s=20)
        self.with_context(slots_per_job=lambda _profile: CHUNKS)

    def split(self, name: str = "a.mp4") -> Source:
        """Submit a video and split it: its chunks are queued."""
        source = self.submit(name)
        self.handle()
        assert self.state(source) is JobState.SPLIT
        return source

    def chunked(self) -> Source:
        """Submit a video, and bring it to where only the join is left."""
        source = self.split()
        for _ in range(CHUNKS):
            self.handle()
        assert [p.state for p in self.chunks(source)] == [JobState.DONE] * CHUNKS
        return source

    def parts(self, source: Source) -> list[JobRecord]:
        return self.ledger.subjobs(job_id(source, self.profile.name))

    def chunks(self, source: Source) -> list[JobRecord]:
        return self.parts(source)[:-1]

    def do(self, delivery: Delivery, worker: str = "here:0") -> DeliveryResult:
        """Handle one delivery that a test took by itself."""
        queue = self.context.backend.queues[self.profile.name]
        return self.handler(worker).process(ProfileQueue(self.profile, queue), delivery)

    def task(self, source: Source, chunk: int | None) -> Task:
        """Return the task of a part under the job's present split."""
        split = self.record(source).split
        return Task(
            kind=TaskKind.JOIN if chunk is None else TaskKind.CHUNK,
            source=source,
            profile=self.profile.name,
            chunk=chunk,
            split=split.name,
        )


class EmbeddedVideoFarm(VideoFarm):
    """The same over the embedded backend: its sources are files, its records in a database."""

    def __init__(self, folder: Path, profile=CHUNKED) -> None:
        super().__init__(folder, profile)
        self.opened = open_sql(
            Settings(data_dir=folder / "data"), {profile.name: profile}, self.clock
        )
        weakref.finalize(self, self.opened.close)
        self.backend = self.opened.backend
        self.queue = self.backend.queues[profile.name]
        self.ledger, self.store = self.backend.ledger, self.backend.store
        self.with_context(backend=self.backend)

    def submit(self, name: str = "a.mp4", content: bytes = b"clip") -> Source:
        """Put a file into the library and queue its job."""
        path = self.folder / name
        path.write_bytes(content)
        source = self.store.accept(
            path, key_for_path(str(path)), moved=lambda _n: None, stop=threading.Event()
        )
        self.backend.task_publisher.publish(source, [self.profile.name], announced=False)
        return source
