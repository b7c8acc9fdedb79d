"""A worker process of a world with split videos, receivers or stages, and the ports it reaches."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chaos.sim.checks import require
from chaos.sim.doors import QueueDoor, StoreDoor
from chaos.sim.machine import Machine
from chaos.sim.videos import VideoEncoder, video_plan
from chaos.sim.waits import LONG_POLL_S, WaitingClock
from hevcq.worker.delivery.lease import Heartbeat, Lease
from hevcq.worker.pool import Numbers, WorkerPool

LAST_POLL_S = 20.0
"""How long a poll of SQS takes at most, and so goes on after a stop."""


class VideoQueueDoor(QueueDoor):
    """A queue that workers also send to; with receivers, one whose looks cost money."""

    def __init__(self, machine, queue, bell) -> None:
        super().__init__(machine, queue, bell)
        self.long_poll_s = LONG_POLL_S if machine.world.receivers else 0.0

    def _something(self, end: float, stop) -> bool:
        """Wait as a long poll of SQS does: one under way goes on after a stop, and may find much."""
        if self.long_poll_s == 0.0:
            return super()._something(end, stop)
        world = self._machine.world
        sched, told = world.sched, False
        while sched.now < end:
            if stop.is_set() and not told:
                told, end = True, min(end, sched.now + LAST_POLL_S * world.random.random())
            due = max(world.next_due(self._queue), sched.now + 0.01)
            sched.block(min(end, due), self._bell, *([] if told else [stop]))
            if world.next_due(self._queue) <= sched.now:
                return True
        return False


class VideoStoreDoor(StoreDoor):
    """A store that keeps what is made of a split video."""

    @contextmanager
    def fetch(self, source, scratch, *, moved, stop) -> Iterator[Any]:
        machine = self._machine
        with super().fetch(source, scratch, moved=moved, stop=stop) as found:
            room = machine.slots + (1 if machine.world.stages else 0)
            require(machine.sources() <= room, f"{machine.sources()} sources in scratch")
            yield found

    stream = fetch

    def list(self, prefix: str):
        return iter(self.io("store.list", lambda: [*self._store.list(prefix)]))

    def delete(self, key: str) -> bool:
        checks = self._machine.world.checks
        return self.io(
            "store.delete", lambda: checks.deleted(self._machine, key, self._store.delete)
        )

    def collect(self, key: str, target, *, moved, stop) -> str:
        def carried() -> str:
            content = self._store.content(key)
            target.write_bytes(content)
            return hashlib.sha256(content).hexdigest()

        return self.io("store.collect", carried)


class VideoMachine(Machine):
    """A process of a world with split videos.

    `taken` says when each message came into the process, `leases` has that of each slot, and
    `encoding` counts what is encoded just now. `slots_per_job` is how many slots it believes to be there.
    """

    queue_door, store_door, encoder_of = VideoQueueDoor, VideoStoreDoor, VideoEncoder
    plan_by = staticmethod(video_plan)

    def __init__(self, world, name: str, *, skew: float = 0.0) -> None:
        super().__init__(world, name, skew=skew)
        self.clock = WaitingClock(world.sched, skew)
        self.clock.urgent = self.signals.insisted
        self.taken: dict[str, float] = {}
        self.leases: dict[str, Lease] = {}
        self.encoding, self.slots = 0, 1
        self.slots_per_job = 2 + int(world.random.random() * 5)
        self.sweep_on_start = world.embedded or world.random.random() < 0.2

    def start(self, slots: int, grace_s: float) -> None:
        self.slots = slots
        super().start(slots, grace_s)

    def more(self) -> dict[str, Any]:
        return {
            "slots_per_job": lambda _profile: self.slots_per_job,
            "sweep_on_start": self.sweep_on_start,
        }

    def numbers(self, slots: int, grace_s: float) -> Numbers:
        return Numbers(slots=slots, pipelined=self.world.stages, grace_s=grace_s, poll_s=600.0)

    def sources(self) -> int:
        """How many sources its scratch folder holds."""
        return sum(name.endswith("/source") for name in self.files)

    def _heartbeat(self, lease: Lease, clock) -> Heartbeat:
        self.world.checks.begun(self, lease.delivery)
        self.leases[self.world.sched.current.name] = lease
        return super()._heartbeat(lease, clock)

    def point(self, name: str) -> None:
        """A crash point; every world has one of its own at which it surely kills."""
        world = self.world
        if name == world.target and not world.healed and not self.process.dead:
            world.target_in -= 1
            if world.target_in == 0:
                world.stats.points[name] += 1
                world.stats.killed_at[name] += 1
                self.die(name)
        super().point(name)

    def ended(self, pool: WorkerPool) -> None:
        self.world.checks.process_ended(self, pool)
