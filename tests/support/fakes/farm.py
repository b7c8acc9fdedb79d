"""A whole farm in memory: backend, encoder, scratch and one worker's handler, on one clock."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hevcq.domain.events import JobEvent
from hevcq.domain.job import JobRecord, JobState, Source, job_id
from hevcq.domain.keys import rendition_key, work_folder
from hevcq.domain.profile import Container, Profile
from hevcq.ports.backend import Backend
from hevcq.ports.queue import DeadLetter, Delivery
from hevcq.util.clock import Clock
from hevcq.worker.admission import Scratch
from hevcq.worker.delivery.claim import WorkerContext
from hevcq.worker.delivery.lease import Lease
from hevcq.worker.handler import DeliveryResult, Handler, ProfileQueue
from support.clips import ManualClock
from support.fakes.backend import HEVC, Faulty, Outage, memory_backend
from support.fakes.crashing import Calls, ComeTo
from support.fakes.encoder import FakeEncoder, fake_plan
from support.processes import Killed


class NoHeartbeat:
    """Beats only when a test does; knows how often it was started and joined."""

    def __init__(self, lease: Lease, _clock: object) -> None:
        self.lease, self.started, self.joined = lease, 0, 0

    def start(self) -> None:
        self.started += 1

    def join(self) -> None:
        self.joined += 1


class FakeWorker:
    """One worker process over any backend, which only pretends to encode."""

    def __init__(
        self,
        backend: Backend,
        folder: Path,
        clock: Clock,
        encoder: FakeEncoder | None = None,
        **parts,
    ) -> None:
        self.encoder = encoder or FakeEncoder()
        scratch = Scratch(folder / "scratch", clock)
        parts = {"threads": 1, "random": lambda: 0.5, "heartbeat": NoHeartbeat, **parts}
        self.context = WorkerContext(backend, self.encoder, fake_plan, scratch, clock, **parts)

    def do(self, *profiles: Profile, name: str = "w:0") -> None:
        """Handle what is visible now in the queues of these profiles."""
        for profile in profiles:
            served = ProfileQueue(profile, self.context.backend.queues[profile.name])
            for delivery in served.queue.receive(10, wait_s=0, stop=threading.Event()):
                Handler(self.context, name).process(served, delivery)


_UNTIDIED: list[object] = []


class DoomedScratch(Scratch):
    """A scratch folder whose process is killed: nothing is tidied, only the lock goes."""

    @contextmanager
    def job(self, name: str) -> Iterator[Path]:
        context = super().job(name)
        # Kept, for a context that is collected would tidy up after all.
        _UNTIDIED.append(context)
        folder = context.__enter__()
        try:
            yield folder
        except Killed:
            (folder / "left-behind").write_bytes(b"half an encode")
            raise
        except BaseException as error:
            context.__exit__(type(error), error, error.__traceback__)
            raise
        else:
            context.__exit__(None, None, None)

    def die(self) -> None:
        """Let go of the lock, as the kernel does for a process that is gone."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Farm:
    """One profile, `hevc` unless another is given. `events` and `heartbeats` collect what happened."""

    def __init__(self, folder: Path, profile=HEVC) -> None:
        self.folder, self.profile = folder, profile
        self.clock = ManualClock(auto=True)
        self.backend = memory_backend(self.clock, {profile.name: profile})
        self.queue = self.backend.queues[profile.name]
        self.ledger, self.store = self.backend.ledger, self.backend.store
        self.encoder = FakeEncoder()
        self.events: list[JobEvent] = []
        self.heartbeats: list[NoHeartbeat] = []
        self.context = WorkerContext(
            backend=self.backend,
            encoder=self.encoder,
            plan=fake_plan,
            scratch=Scratch(folder / "scratch", self.clock),
            clock=self.clock,
            random=lambda: 0.5,
            on_event=self.events.append,
            heartbeat=self._heartbeat,
        )

    def _heartbeat(self, lease: Lease, clock: object) -> NoHeartbeat:
        self.heartbeats.append(NoHeartbeat(lease, clock))
        return self.heartbeats[-1]

    @property
    def lease(self) -> Lease:
        """The lease of the delivery in hand, or of the last one."""
        return self.heartbeats[-1].lease

    def with_context(self, **changes: object) -> None:
        """Replace parts of the kit."""
        self.context = replace(self.context, **changes)

    def come_to(self, told: ComeTo) -> None:
        """Have `told` called at every crash point that a worker comes to from now on."""
        self.context = Calls(told).context(self.context)

    def break_port(self, port: str, side: str, outage: Outage) -> None:
        """Let calls of a port fail from now on: `before` they arrive, or `after` they took effect."""
        whole = self.context.backend
        if port == "queue":
            queues = {n: Faulty(q, **{side: outage}) for n, q in whole.queues.items()}
            self.with_context(backend=replace(whole, queues=queues))
        else:
            broken = Faulty(getattr(whole, port), **{side: outage})
            self.with_context(backend=replace(whole, **{port: broken}))

    def submit(self, name: str = "a.mp4", content: bytes = b"clip") -> Source:
        """Upload a source and queue its job."""
        source = self.store.add_source(f"TODO/all/{name}", content)
        self.backend.task_publisher.publish(source, [self.profile.name], announced=False)
        return source

    def receive(self) -> Delivery | None:
        """Take the next visible delivery."""
        queue = self.context.backend.queues[self.profile.name]
        found = queue.receive(1, wait_s=0, stop=threading.Event())
        return found[0] if found else None

    def doubt(self, job_id: str) -> None:
        """Let this job, or part of one, have had the failure that is not counted: the next one is."""
        record = self.ledger._records[job_id]
        self.ledger._records[job_id] = record.model_copy(update={"suspected_worker_faults": 1})

    def handler(self, worker: str = "here:0") -> Handler:
        """Return a handler of its own."""
        return Handler(self.context, worker)

    def handle(self, worker: str = "here:0") -> DeliveryResult | None:
        """Receive and handle one delivery; None if none is visible."""
        delivery = self.receive()
        if delivery is None:
            return None
        queue = self.context.backend.queues[self.profile.name]
        return self.handler(worker).process(ProfileQueue(self.profile, queue), delivery)

    def killed_at(self, point: str) -> bool:
        """Handle one delivery with a kill at `point`; return whether it was reached.

        A point of `fakes.crashing` without its kind of work is that of any kind. A kill leaves the
        scratch folder as it is and its lock free, as the kernel does.
        """
        reached: list[str] = []

        def kill(here: str) -> None:
            if point in {here, here.rpartition("/")[2]} and not reached:
                reached.append(here)
                raise Killed(here)

        before, scratch = self.context, DoomedScratch(self.folder / "scratch", self.clock)
        self.with_context(scratch=scratch)
        self.come_to(kill)
        try:
            self.handle("doomed:0")
        except Killed:
            pass
        finally:
            scratch.die()
            self.context = before
        return bool(reached)

    def vanish_at(self, point: str) -> None:
        """Let a worker be killed at this point, and its lease run out."""
        assert self.killed_at(point), "the delivery does not come to the point"
        self.clock.advance(self.profile.queue.visibility_s + 1)

    def until_settled(self, source: Source, *, rounds: int = 40) -> JobRecord:
        """Handle what becomes visible, moving time on, until the queue is empty."""
        for _ in range(rounds):
            depth = self.queue.depth()
            if not depth.ready + depth.in_flight + depth.delayed:
                break
            if self.handle() is None:
                self.clock.advance(100)
        return self.record(source)

    def record(self, source: Source) -> JobRecord:
        """Return the job's record."""
        return self.ledger.get(job_id(source, self.profile.name))

    def state(self, source: Source) -> JobState:
        """Return the job's state."""
        return self.record(source).state

    def letters(self) -> list[DeadLetter]:
        """Return the dead letters."""
        return list(self.queue.dead_letters())

    def kept(self, source: Source) -> list[str]:
        """Return the keys of what is kept for a split job."""
        folder = work_folder(job_id(source, self.profile.name), self.profile.name)
        return [found.key for found in self.store.list(folder)]

    def quiet(self) -> bool:
        """Whether no message waits or is held."""
        depth = self.queue.depth()
        return depth.ready + depth.in_flight + depth.delayed == 0

    def renditions(self) -> list[str]:
        return [o.key for o in self.store.list("DONE/") if not o.key.endswith(".json")]

    def key(self, source: Source) -> str:
        """Return where the rendition goes."""
        of_set = self.profile.container is Container.HLS
        extension = "m3u8" if of_set else "mp4"
        return rendition_key(source.key, self.profile.name, extension)

    def scratch_files(self) -> list[Path]:
        """Return everything in the scratch folder but lock files and processes' own folders."""
        root = self.folder / "scratch"
        found = root.rglob("*") if root.is_dir() else ()
        return [p for p in found if p.parent != root]


def adoptable(folder: Path) -> Farm:
    """Return a farm whose only job, `source`, was killed between publishing and completing."""
    farm = Farm(folder)
    farm.source = farm.submit()
    farm.vanish_at("ledger.complete:before")
    return farm
