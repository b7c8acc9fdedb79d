"""Worlds in which videos are split, or several queues have receivers."""

import hashlib
import random
from typing import Any

from chaos.points import points
from chaos.sim import chaos as rates
from chaos.sim.doors import QueueDoor, StoreDoor
from chaos.sim.machine import Machine
from chaos.sim.parts import Nature
from chaos.sim.sched import SimClock
from chaos.sim.split_checks import SplitChecks
from chaos.sim.video_driver import VideoDriver
from chaos.sim.videos import MOST, SLOWED, Quirk, VideoEncoder, VideoJob, video_plan, video_profile
from chaos.sim.world import RIGHT, World
from hevcq.domain.job import JobState
from hevcq.worker.delivery.lease import Heartbeat, Lease
from hevcq.worker.pool import WorkerPool

LONG_POLL_S = 600.0
"""How long a poll of a simulated service waits at most: idle looks cost real time, and no virtual."""

STOP_WATCH_S = 5.0
LAST_POLL_S = 20.0
"""How long a poll of SQS takes at most, and so goes on after a stop."""


class WaitingClock(SimClock):
    """A clock that looks more often while a stop is under way."""

    urgent: Any = None
    """What a process that is told to stop waits for; then it must look at its slots more often."""

    def wait(self, event: Any, timeout_s: float) -> bool:
        return super().wait(
            event, min(timeout_s, STOP_WATCH_S) if event is self.urgent else timeout_s
        )


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
            due = max(world.side.next_due(self._queue), sched.now + 0.01)
            sched.block(min(end, due), self._bell, *([] if told else [stop]))
            if world.side.next_due(self._queue) <= sched.now:
                return True
        return False


class VideoStoreDoor(StoreDoor):
    """A store that keeps what is made of a split video."""

    def stream(self, source, scratch, *, moved, stop):
        return self.fetch(source, scratch, moved=moved, stop=stop)

    def list(self, prefix: str):
        return iter(self.io("store.list", lambda: [*self._store.list(prefix)]))

    def delete(self, key: str) -> bool:
        checks = self._machine.world.checks
        return self.io(
            "store.delete", lambda: checks.deleted(self._machine, key, self._store.delete)
        )

    def collect(self, key: str, target, *, stop) -> str:
        def carried() -> str:
            content = self._store.content(key)
            target.write_bytes(content)
            return hashlib.sha256(content).hexdigest()

        return self.io("store.collect", carried)


class VideoMachine(Machine):
    """A process of a world with split videos.

    `taken` says when each message came into the process, `leases` has that of each slot.
    `slots_per_job` is how many slots it believes to be there.
    """

    queue_door, store_door, encoder_of = VideoQueueDoor, VideoStoreDoor, VideoEncoder
    plan_by = staticmethod(video_plan)

    def __init__(self, world, name: str, *, skew: float = 0.0) -> None:
        super().__init__(world, name, skew=skew)
        self.clock = WaitingClock(world.sched, skew)
        self.clock.urgent = self.signals.insisted
        self.taken: dict[str, float] = {}
        self.leases: dict[str, Lease] = {}
        self.slots_per_job = 2 + int(world.random.random() * 5)
        self.sweep_on_start = world.embedded or world.random.random() < 0.2

    def more(self) -> dict[str, Any]:
        return {
            "slots_per_job": lambda _profile: self.slots_per_job,
            "sweep_on_start": self.sweep_on_start,
        }

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


EVERY = 160
"""About one world in so many is of this kind."""


def is_video_world(seed: int) -> bool:
    """Whether this seed's world is of this kind; its own dice, so that others keep their traces."""
    return random.Random(f"videos {seed}").random() * EVERY < 1.0


class VideoWorld(World):
    """A world of split videos, with `receivers` where its seed says so.

    The process that passes the crash point `target` for the `target_in`th time is killed there.
    """

    checked_by, driven_by, worked_by = SplitChecks, VideoDriver, VideoMachine
    videos = receivers = False
    forced: tuple[str, ...] = ()
    """What a world has whatever its seed says, for tests."""

    def _choose(self) -> None:
        super()._choose()
        throw = self.random.random
        self.receivers = not self.embedded and throw() < 0.4
        self.videos = throw() < 0.8 or not self.receivers
        for name in self.forced:
            setattr(self, name, True)
        names = ["hevc", "other"] if self.receivers else list(self.profiles)
        number = rates.PROFILES["hevc"].index(self.profiles["hevc"])
        self.profiles = {name: video_profile(name, number) for name in names}
        aims = points("chunk", "join") if throw() < 0.8 else points("", "encode")
        self.target = aims[int(throw() * len(aims))] if self.chaos.level != "calm" else ""
        self.target_in = 1 + int(throw() ** 3 * 4)

    # --- what checks need

    def natural(self, job: VideoJob) -> set[str]:
        own = super().natural(job)
        spoilt = job.lost or job.quirk in {Quirk.UNFIT, Quirk.MISFIT}
        own |= {"encoder"} if spoilt else set()
        return own | ({"limit"} if self._endless(job) else set())

    def right_ends(self, job: VideoJob) -> set[JobState]:
        """A video that only its cutting spoils ends as it would have done whole."""
        right = super().right_ends(job)
        good = job.nature is Nature.GOOD and self.chaos.level == "calm"
        killed = any(one.nature is Nature.KILLER for one in self.jobs.values())
        bounded = self.limited or self._endless(job)
        if good and not killed and not job.replaced and not bounded:
            right = {RIGHT[Nature.GOOD]}
        return right

    def _endless(self, job: VideoJob) -> bool:
        """Whether a chunk that takes many times its time may meet its job's time limit."""
        slowest = job.seconds * SLOWED * MOST
        limits = [profile.queue.max_job_s for profile in self.profiles.values()]
        return job.quirk is Quirk.SLOW and slowest > min(limits)

    @property
    def limited(self) -> bool:
        """Whether a job's time limit may end it."""
        return any(p.queue.max_job_s < 39600 for p in self.profiles.values())
