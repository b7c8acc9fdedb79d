"""One worker process of a world: the production pool, handler and lease on simulated parts."""

from types import SimpleNamespace
from typing import Any

from chaos.sim.chaos import revised
from chaos.sim.doors import LedgerDoor, QueueDoor, StoreDoor
from chaos.sim.parts import SICK, SimEncoder, SimScratch, sim_plan
from chaos.sim.sched import Killed, Process, SimClock, SimEvent
from hevcq.errors import HevcqError
from hevcq.ports.backend import Backend
from hevcq.worker.delivery.claim import WorkerContext
from hevcq.worker.delivery.lease import Heartbeat, Lease
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.pool import WorkerPool
from hevcq.worker.slot import SlotOutcome
from support.fakes.crashing import Calls


class Beat(Heartbeat):
    """A heartbeat that says whether its thread lives."""

    alive = False

    def start(self) -> None:
        self.alive = True
        super().start()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self.alive = False


class Machine:
    """A process that works until it is stopped, killed or unfit; the world then starts another.

    `suffered` says that a fault of the services or a freeze met it, so that what its job lost can
    be explained. `sick` makes it fail every encode, and a trial of its encoder where that `shows`.
    `next_deployment` gives it another revision of every profile, as while a farm is being updated.
    """

    queue_door, store_door, encoder_of = QueueDoor, StoreDoor, SimEncoder
    plan_by = staticmethod(sim_plan)

    def __init__(self, world, name: str, *, skew: float = 0.0) -> None:
        self.world, self.name = world, name
        self.process = Process(name)
        self.files: dict[str, bytes] = {}
        self.beats: dict[str, Any] = {}
        self.suffered = self.sick = self.no_ffmpeg = False
        self.shows = True
        self.full_until = 0.0
        self.encoder_version = "ffmpeg version sim"
        self.next_deployment = False
        self.clock = SimClock(world.sched, skew)
        self.outcome: SlotOutcome | None = None
        self.signals = SimpleNamespace(asked=SimEvent(world.sched), insisted=SimEvent(world.sched))

    def more(self) -> dict[str, Any]:
        """What else its kit has."""
        return {}

    def ended(self, pool: WorkerPool) -> None:
        """Called once the pool has ended by itself."""

    def start(self, slots: int, grace_s: float) -> None:
        """Start the process in a thread of its own."""
        self.world.sched.spawn(self.process, lambda: self._main(slots, grace_s), self.name)

    def _main(self, slots: int, grace_s: float) -> None:
        world = self.world
        world.sched.note("process starts")
        doors = {
            name: self.queue_door(self, queue, world.bells[name])
            for name, queue in world.side.queues_for(self).items()
        }
        ledger = LedgerDoor(self, world.side.ledger_for(self))
        store = self.store_door(self, world.store)
        context = WorkerContext(
            backend=Backend(self.name, doors, ledger, store, None, lambda: None),
            encoder=self.encoder_of(self),
            plan=self.plan_by,
            scratch=SimScratch(self),
            clock=self.clock,
            min_free_bytes=1,
            random=world.random.random,
            heartbeat=self._heartbeat,
            **self.more(),
        )
        context = Calls(self.point, thread=self._thread).context(context)
        profiles = world.profiles
        if self.next_deployment:
            profiles = {name: revised(profile) for name, profile in profiles.items()}
        served = [
            ProfileQueue(profiles[name], queue) for name, queue in context.backend.queues.items()
        ]
        pool = WorkerPool(context, served, slots=slots, grace_s=grace_s, poll_s=600.0)
        self.outcome = pool.run(self.signals)
        world.sched.note(f"process ends {self.outcome}")
        world.stats.outcomes[self.outcome.value] += 1
        if pool.error is not None and not isinstance(pool.error, HevcqError):
            raise pool.error
        self.ended(pool)
        self.process.dead = True
        world.fallen.set()

    def kill(self) -> None:
        """SIGKILL this process."""
        self.world.sched.kill(self.process)
        self.world.fallen.set()

    def _heartbeat(self, lease: Lease, clock: SimClock) -> Heartbeat:
        beat, delivery = Beat(lease, clock), lease.delivery
        self.beats[f"{delivery.queue}/{delivery.receipt}"] = beat
        return beat

    def _thread(self) -> str:
        return self.world.sched.current.name

    def point(self, name: str) -> None:
        """A crash point: before or after a call of a port."""
        world = self.world
        if self.process.dead:
            raise Killed
        world.stats.points[name] += 1
        if not world.healed and world.random.random() < world.chaos.p_kill_point:
            world.stats.killed_at[name] += 1
            self.die(name)

    def die(self, where: str) -> None:
        """SIGKILL this process from inside one of its threads."""
        self.world.sched.note(f"killed {where}")
        self.world.stats.faults["killed"] += 1
        self.kill()
        raise Killed

    def disk_full(self) -> bool:
        """Whether this machine's disk is full just now."""
        return self.world.sched.now < self.full_until and not self.world.healed

    def encode_fault(self) -> str | None:
        """What breaks an encode here, whatever its source is."""
        world = self.world
        if self.sick:
            return SICK[int(world.random.random() * len(SICK))]
        if not world.healed and world.random.random() < world.chaos.p_encode:
            kinds = ("encoder", "stalled", "memory", "disk", "internal", "worker", "network")
            return kinds[int(world.random.random() * len(kinds))]
        return None
