"""One sick worker of four, simulated: it takes itself out, and no job ends because of it."""

from types import SimpleNamespace

import pytest

from chaos.sim.backends import MemorySide
from chaos.sim.campaign import silent
from chaos.sim.chaos import PROFILES
from chaos.sim.driver import Driver
from chaos.sim.parts import Nature, SimJob
from chaos.sim.sched import Process
from chaos.sim.threads import cooperative
from chaos.sim.world import World
from hevcq.domain.job import JobState, Task
from hevcq.worker.out_of_service import OUT_OF_SERVICE_AFTER_JOBS
from hevcq.worker.slot import SlotOutcome

JOBS, SECONDS = 120, 600.0
BEGIN_S = 1_000.0


class Shift(Driver):
    """Four workers with one slot, a queue full of good videos, and nobody who replaces a worker."""

    def __init__(self, world: World, sick: int, *, shows: bool, after_s: float) -> None:
        super().__init__(world)
        self._wanted, self._slots, self._sick, self._shows = 4, 1, sick, shows
        self._after_s = after_s

    def run(self) -> None:
        world = self.world
        for number in range(JOBS):
            source = world.store.add_source(f"TODO/all/{number}.mp4", b"%d|good" % number)
            job = SimJob(number, Nature.GOOD, SECONDS, "hevc", source=source)
            job.job_id = Task(source=source, profile="hevc").job_id
            world.jobs[number] = world.by_id[job.job_id] = job
            world.side.task_publisher.publish(source, ["hevc"], announced=False)
        for _ in range(self._wanted):
            self._start()
        self.sched.block(BEGIN_S + self._after_s)
        for machine in world.machines[: self._sick]:
            machine.sick, machine.shows = True, self._shows
        self.workers = list(world.machines)
        self._until_quiet()
        self.took_s = self.sched.now - BEGIN_S
        for machine in world.machines:
            machine.signals.asked.set()
        self.finished = True


def shift(sick: int, *, shows: bool = True, after_s: float = 0.0) -> SimpleNamespace:
    """Run a shift; return its time, its workers and its records.

    `shows` says whether the sick worker fails a trial of its encoder as well, and `after_s` when it
    falls sick.
    """
    world = World(99)
    world.profiles = {"hevc": PROFILES["hevc"][4]}
    world.visibility_s, world.healed = 300, True
    side = MemorySide()
    side.open(world)
    world.side, world.store, world.ledger, world.queues = side, side.store, side.ledger, side.queues
    driver = Shift(world, sick, shows=shows, after_s=after_s)
    with silent(), cooperative(world.sched):
        world.sched.spawn(Process("driver"), driver.run, "driver")
        try:
            world.sched.run()
        finally:
            world.sched.close()
    assert driver.finished
    records = [world.ledger.get(job.job_id) for job in world.jobs.values()]
    return SimpleNamespace(took_s=driver.took_s, workers=driver.workers, records=records)


def test_one_sick_worker_of_four_costs_no_job_an_attempt_and_leaves_at_once():
    healthy, one_sick = shift(0), shift(1)

    fall = 1 - healthy.took_s / one_sick.took_s
    print(f"throughput falls by {fall:.1%} with one sick worker of four")
    assert fall < 0.30
    assert [w.outcome for w in one_sick.workers] == [SlotOutcome.UNFIT, *[SlotOutcome.STOPPED] * 3]
    ends = {(record.state, record.failures, record.crashes) for record in one_sick.records}
    assert ends == {(JobState.DONE, 0, 0)}
    assert sum(record.fence - 1 for record in one_sick.records) == 1, "it met one job"
    assert {(r.state, r.failures) for r in healthy.records} == {(JobState.DONE, 0)}


@pytest.mark.parametrize("after_s", [0.0, 20.5 * SECONDS], ids=["at once", "after 20 videos"])
def test_a_sickness_that_no_trial_shows_takes_the_worker_out_and_costs_no_job_an_attempt(after_s):
    one_sick = shift(1, shows=False, after_s=after_s)

    lost = sum(record.failures for record in one_sick.records)
    print(f"{lost} attempts lost to the sick worker, of {JOBS} jobs")
    assert lost == 0
    # The others may be busy, so that it meets a job once more that it gave back.
    met = [record.fence - 1 for record in one_sick.records if record.fence > 1]
    assert len(met) == OUT_OF_SERVICE_AFTER_JOBS
    assert [w.outcome for w in one_sick.workers] == [SlotOutcome.UNFIT, *[SlotOutcome.STOPPED] * 3]
    assert {record.state for record in one_sick.records} == {JobState.DONE}
