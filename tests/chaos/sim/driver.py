"""The story of one world: sources arrive, trouble happens, then all heals and must become quiet."""

import json
from collections.abc import Callable

from chaos.sim.checks import require
from chaos.sim.machine import Machine
from chaos.sim.parts import WEIGHTS, SimJob
from chaos.sim.sched import FOREVER, Process, SimEvent
from hevcq.domain.job import Task
from hevcq.usecases.operations.dead_letters import DeadLetterFilter
from hevcq.usecases.operations.reprocess import ReprocessRequest, redrive

PATIENCE_S = 60 * 86_400.0
MAX_VISIBILITIES = 2.0
"""No video takes longer than so many visibility times: each has two to seven heartbeats, and the
twentieth of them shows no more than the tenth did."""
LENGTHS = ((5.0, 3), (40.0, 6), (300.0, 6), (2000.0, 3), (14_000.0, 1))


class Driver:
    """Runs in a thread of its own, outside of every machine, and is never harmed itself."""

    def __init__(self, world) -> None:
        self.world, self.random, self.sched = world, world.random, world.sched
        self.finished = False
        self._number = 0
        self._wanted = 1 + self._upto(4)
        self._slots = 1 + self._upto(2)
        self._wake: SimEvent = world.fallen
        self._over = False

    def _upto(self, limit: int) -> int:
        return int(self.random.random() * limit)

    def run(self) -> None:
        """Tell the whole story."""
        world = self.world
        for _ in range(self._wanted):
            self._start()
        self.sched.spawn(Process("supervisor"), self._supervise, "supervisor")
        for at, action in sorted(self._story(), key=lambda entry: entry[0]):
            self.sched.block(1_000.0 + at)
            action()
        self._heal()
        self._until_quiet()
        self._over = True
        self._wake.set()
        for machine in list(world.machines):
            machine.signals.asked.set()
            if not machine.process.threads[0].over:
                machine.process.threads[0].ended.wait(FOREVER)
        self.finished = True

    # --- the story

    def _story(self) -> list[tuple[float, Callable[[], None]]]:
        jobs = 12 + self._upto(12)
        lengths = [self._length() for _ in range(jobs)]
        span = sum(lengths) / self._wanted * (0.3 + self.random.random())
        story = [(self.random.random() * span, self._submitting(length)) for length in lengths]
        harm = {"calm": 0.0, "light": 0.5, "rough": 1.5, "storm": 4.0}[self.world.chaos.level]
        for action, often in (
            (self._duplicate, 2.0),
            (self._redeliver, 1.0),
            (self._odd_body, 0.7),
            (self._redrive, 0.5),
            (self._to_one(self._stop), 1.0 * harm),
            (self._to_one(self._kill), 1.0 * harm),
            (self._to_one(self._freeze), 1.0 * harm),
            (self._outage, 0.6 * harm),
            (self._to_one(self._disk), 0.4 * harm),
            (self._to_one(self._sicken), 0.3 * harm),
            (self._replace, 0.4 * harm),
            (self._jump, 0.1 * harm),
            (self._to_one(self._jump_one), 0.1 * harm),
        ):
            times = int(often * self.random.random() * 2 + 0.5)
            story += [(self.random.random() * span * 1.5, action) for _ in range(times)]
        return story

    def _length(self) -> float:
        lengths, weights = zip(*LENGTHS, strict=True)
        length = self.random.choices(lengths, weights)[0] * (0.5 + self.random.random())
        return min(length, self.world.visibility_s * MAX_VISIBILITIES)

    def _submitting(self, seconds: float) -> Callable[[], None]:
        def submit() -> None:
            for name in self.world.profiles:
                self._submit(name, seconds)

        return submit

    def _submit(self, profile: str, seconds: float) -> None:
        world, number = self.world, len(self.world.jobs)
        nature = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        job = SimJob(number, nature, seconds, profile, fails_left=1 + self._upto(2))
        self._enter(job, nature.value)
        world.ring(profile)

    def _enter(self, job: SimJob, what: str) -> None:
        """Put a job's source into the store and its task into the queue."""
        world = self.world
        content = b"%d|%s" % (job.number, job.nature.value.encode())
        job.source = world.store.add_source(f"TODO/all/{job.number}.mp4", content)
        job.job_id = Task(source=job.source, profile=job.profile).job_id
        world.jobs[job.number] = world.by_id[job.job_id] = job
        self.sched.note(f"submit {job.number} {what} {job.seconds:.0f}s {job.profile}")
        world.side.task_publisher.publish(job.source, [job.profile], announced=False)

    def _some_job(self) -> SimJob | None:
        jobs = self.world.jobs
        return jobs[self._upto(len(jobs))] if jobs else None

    def _send(self, profile: str, body: str) -> None:
        delay = self._upto(2) * self.random.random() * self.world.visibility_s
        self.world.side.send_body(profile, body, delay)
        self.world.ring(profile)

    def _duplicate(self) -> None:
        job = self._some_job()
        if job is not None:
            self.sched.note(f"duplicate {job.number}")
            self._send(job.profile, Task(source=job.source, profile=job.profile).body())

    def _redeliver(self) -> None:
        for name, queue in self.world.queues.items():
            self.world.side.redeliver(queue)
            self.world.ring(name)

    def _odd_body(self) -> None:
        """What a neighbouring version, a person or a stranger may have put there."""
        job = self._some_job()
        if job is None:
            return
        body = json.loads(Task(source=job.source, profile=job.profile).body())
        kind = self._upto(5)
        if kind == 0:
            body["hevcq"] = 2
        elif kind == 1:
            body["colour"] = "blue"
        elif kind == 2:
            body["profile"] = "stranger"
        elif kind == 3:
            body["source"].pop("version")
        text = json.dumps(body) if kind < 4 else '{"not": "a task'
        self.sched.note(f"odd body {kind}")
        self._send(job.profile, text)

    def _redrive(self) -> None:
        side = self.world.side
        request = ReprocessRequest((), who="sim")
        for done in redrive(side, request, DeadLetterFilter()):
            self.sched.note(f"redrive {done.result.value}")
        for name in self.world.queues:
            self.world.ring(name)

    # --- trouble

    def _to_one(self, harm: Callable[[Machine], None]) -> Callable[[], None]:
        """Return an action that does this to one machine that lives, if one does."""

        def act() -> None:
            alive = [m for m in self.world.machines if not m.process.dead]
            if alive:
                harm(alive[self._upto(len(alive))])

        return act

    def _stop(self, machine: Machine) -> None:
        self.sched.note(f"stop {machine.name}")
        machine.signals.asked.set()
        if self.random.random() < 0.3:
            machine.signals.insisted.set()

    def _kill(self, machine: Machine) -> None:
        self.sched.note(f"kill {machine.name}")
        self.world.stats.faults["killed"] += 1
        machine.kill()

    def _freeze(self, machine: Machine) -> None:
        seconds = self.world.chaos.hang_s * self.random.random() * 2
        self.sched.note(f"freeze {machine.name} {seconds:.0f}s")
        machine.suffered = True
        self.world.stats.faults["freeze"] += 1
        machine.process.frozen_until = self.sched.now + seconds

    def _outage(self) -> None:
        port = ("queue", "ledger", "store")[self._upto(3)]
        seconds = self.world.chaos.hang_s * self.random.random()
        self.sched.note(f"outage {port} {seconds:.0f}s")
        self.world.outages.add(port)

        def end() -> None:
            self.sched.sleep(seconds)
            self.world.outages.discard(port)

        self.sched.spawn(Process("outage"), end, "outage")

    def _disk(self, machine: Machine) -> None:
        machine.full_until = self.sched.now + 2000 * self.random.random()

    def _sicken(self, machine: Machine) -> None:
        self.sched.note(f"sick {machine.name}")
        machine.sick = self.random.random() < 0.6
        machine.no_ffmpeg = not machine.sick
        machine.shows = self.random.random() < 0.5

    def _replace(self) -> None:
        job = self._some_job()
        if job is not None and not job.replaced:
            self.sched.note(f"replaced {job.number}")
            job.replaced = True
            if self.random.random() < 0.5:
                self.world.store.remove_source(job.source)
            else:
                self.world.store.add_source(job.source.key, b"another upload")

    def _jump(self) -> None:
        seconds = (self.random.random() - 0.4) * self.world.visibility_s * 3
        self.sched.note(f"the wall clock jumps by {seconds:.0f}s")
        self.world.wall_moved = True
        self.sched.wall_jump += seconds

    def _jump_one(self, machine: Machine) -> None:
        """One machine's clock is set, by far more than a lease's margin; on one machine all share it."""
        if self.world.embedded:
            return
        seconds = (self.random.random() - 0.5) * self.world.visibility_s * 4
        self.sched.note(f"the wall clock of {machine.name} jumps by {seconds:.0f}s")
        self.world.wall_moved = True
        machine.clock.skew += seconds

    # --- machines

    def _start(self) -> None:
        self._number += 1
        # Clocks of a fleet differ, by less than the lease's margin.
        margin = min(5.0, self.world.visibility_s * 0.1)
        skew = 0.0 if self.world.embedded else (self.random.random() - 0.5) * margin * 0.8
        machine = self.world.worked_by(self.world, f"w{self._number}", skew=skew)
        if self.random.random() < 0.2:
            machine.encoder_version = "ffmpeg version next"
        machine.next_deployment = self.random.random() < 0.2
        self.world.machines.append(machine)
        machine.start(self._slots, grace_s=60.0 * self.random.random())

    def _supervise(self) -> None:
        """Replace what died or left, as a service scheduler does."""
        while not self._over:
            self._wake.wait()
            self._wake.clear()
            self.sched.sleep(max(10.0, self.world.visibility_s / 10) * self.random.random())
            for machine in [m for m in self.world.machines if m.process.dead]:
                self.world.machines.remove(machine)
                self.world.side.died(machine)
                for name in self.world.queues:
                    self.world.ring(name)
                if not self._over:
                    self._start()

    # --- the end

    def _heal(self) -> None:
        self.sched.note("all heals")
        world = self.world
        world.healed = True
        world.outages.clear()
        for machine in world.machines:
            machine.process.frozen_until = 0.0
            machine.sick = machine.no_ffmpeg = False

    def _until_quiet(self) -> None:
        end = self.sched.now + PATIENCE_S
        while self.world.side.left():
            require(self.sched.now < end, f"{self.world.side.left()} messages never settle")
            self.sched.sleep(max(30.0, self.world.visibility_s / 4))
