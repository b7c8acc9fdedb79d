"""One seeded world: machines, queues and a driver that makes trouble, run until all is quiet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from chaos.sim import chaos as rates
from chaos.sim.backends import MemorySide, SqlSide
from chaos.sim.checks import Checks, require
from chaos.sim.driver import Driver
from chaos.sim.machine import Machine
from chaos.sim.parts import Nature, SimJob
from chaos.sim.sched import Process, Scheduler, SimEvent
from chaos.sim.threads import cooperative
from hevcq.domain.job import JobState
from hevcq.domain.keys import rendition_key

RIGHT = {
    Nature.GOOD: JobState.DONE,
    Nature.FLAKY: JobState.DONE,
    Nature.NOT_SMALLER: JobState.SKIPPED,
    Nature.ALREADY: JobState.SKIPPED,
}
NATURAL = {
    Nature.DAMAGED: {"damaged"},
    Nature.UNREADABLE: {"unreadable"},
    Nature.BAD_GATE: {"verification"},
}


class World:
    """A farm of one seed. `run` raises Broken, with the trace in `sched`, if an invariant breaks."""

    checked_by, driven_by, worked_by = Checks, Driver, Machine

    def __init__(self, seed: int, *, embedded: SqlSide | None = None) -> None:
        self.seed = seed
        self.sched = Scheduler(seed)
        self.random = self.sched.random
        self.stats = rates.Stats(worlds=1)
        self.checks = self.checked_by(self)
        self.embedded = embedded is not None
        self.healed = self.wall_moved = False
        self.same_bytes = self.random.random() < 0.5
        self.outages: set[str] = set()
        self.jobs: dict[int, SimJob] = {}
        self.by_id: dict[str, SimJob] = {}
        self.machines: list[Machine] = []
        self.fallen = SimEvent(self.sched)
        self._listeners: dict[str, list[tuple[Machine, Callable[[], None]]]] = defaultdict(list)
        self._choose()
        side = embedded or MemorySide()
        side.open(self)
        self.side, self.store = side, side.store
        self.ledger, self.queues = side.ledger, side.queues
        self.bells = {name: SimEvent(self.sched) for name in self.queues}

    def _choose(self) -> None:
        random = self.random
        names = ["hevc", "other"][: 1 if random.random() < 0.7 else 2]
        number = int(random.random() * len(rates.PROFILES["hevc"]))
        self.profiles = {name: rates.PROFILES[name][number] for name in names}
        queue = self.profiles["hevc"].queue
        self.visibility_s = queue.visibility_s
        self.chaos = rates.draw(random, queue.visibility_s)

    # --- what machines need

    def mix(self, queue) -> None:
        """Let the queue hand out in another order now and then, as SQS may."""
        if not self.healed and self.random.random() < 0.1:
            self.side.mix(queue)

    def listen(self, machine: Machine, name: str, wake: Callable[[], None]) -> None:
        self._listeners[name].append((machine, wake))

    def ring(self, name: str) -> None:
        """Something may be ready in this queue."""
        self.bells[name].ring()
        listeners = self._listeners[name] = [
            one for one in self._listeners[name] if not one[0].process.dead
        ]
        for _machine, wake in listeners:
            wake()

    # --- what checks need

    def natural(self, job: SimJob) -> set[str]:
        """The classes of failure that belong to the source itself."""
        own = set(NATURAL.get(job.nature, ()))
        if job.replaced:
            own |= {"gone", "changed"}
        if self.profiles[job.profile].queue.max_job_s < 39600 or self.chaos.level != "calm":
            own.add("limit")
        return own

    def right_ends(self, job: SimJob) -> set[JobState]:
        """The ends that are right, given what the source is and what it met."""
        if job.nature is Nature.KILLER:
            return {JobState.DONE, JobState.DEAD}
        harmed = self.natural(job) or job.blamed or self.chaos.level != "calm"
        # A source that kills its worker kills what the other slot works on with it.
        harmed = harmed or any(one.nature is Nature.KILLER for one in self.jobs.values())
        right = {RIGHT.get(job.nature, JobState.DEAD)}
        return right | ({JobState.DEAD} if harmed else set())

    def has_letter(self, job_id: str) -> bool:
        """Whether there is a dead letter of this job."""
        return any(any(queue.dead_letters(job_id)) for queue in self.queues.values())

    def renditions(self, job: SimJob) -> list[str]:
        key = rendition_key(job.source.key, job.profile, "mp4")
        seen = self.store.stat(key)
        return [key] if seen is not None else []

    def letters(self) -> dict[str, list]:
        """Return all dead letters by job id; unreadable ones under ''."""
        found = defaultdict(list)
        for queue in self.queues.values():
            for letter in queue.dead_letters():
                found[letter.task.job_id if letter.task else ""].append(letter)
        return found

    # --- running

    def run(self) -> World:
        """Live through the whole story and check its end."""
        with cooperative(self.sched):
            driver = self.driven_by(self)
            self.sched.spawn(Process("driver"), driver.run, "driver")
            try:
                self.sched.run()
                require(driver.finished, "the world stopped before its end")
                self.checks.quiet()
                self._count()
            finally:
                self.sched.close()
        return self

    def _count(self) -> None:
        stats = self.stats
        stats.lives, stats.steps = len(self.jobs), self.sched.steps
        stats.seconds = self.sched.now - 1_000.0
        stats.ends.update(self.checks.ends)
        self.sched.note(f"ends {sorted(self.checks.ends.items())}")
