"""What must hold of the messages of split videos: joins, fair share, and what becomes of the last."""

from collections import Counter, defaultdict

from chaos.sim.checks import Checks, _name, require
from hevcq.backends.sql.queue import job_of
from hevcq.domain.job import JobState, TaskKind
from hevcq.domain.verdict import FailureClass
from hevcq.ports.queue import Delivery

PATIENCE_S = 2.0
"""How long a message may be in a process before somebody works on it; calls take up to a second."""
READY = "SELECT body FROM message WHERE queue = ? AND state = 0"
AHEAD = 3
"""So many messages of one video may go before a job that was there first: what the round that is
served has of it, what the next has, and one that was on its way."""


class QueueChecks(Checks):
    """The invariants of the queues of one world of split videos."""

    def __init__(self, world) -> None:
        super().__init__(world)
        self._complete: set[str] = set()
        self._waiting: dict[str, dict[str, Counter[str]]] = defaultdict(dict)
        self._since: dict[str, float] = {}
        self.numbers: Counter[str] = Counter()

    def sent(self, tasks) -> None:
        """No join is sent before every chunk of its split was done at one time."""
        for task in tasks:
            if task.kind is not TaskKind.JOIN:
                self.numbers["chunks_sent"] += 1
                continue
            self.numbers["joins_sent"] += 1
            require(task.split in self._complete, "a join was sent before the set was complete")

    def submitted(self, job) -> None:
        """Note that a job waits from now on."""
        self._waiting[job.profile][job.job_id] = Counter()
        self._since[job.job_id] = self._world.sched.now

    def received(self, machine, delivery: Delivery) -> None:
        super().received(machine, delivery)
        machine.taken[_name(delivery)] = self._world.sched.now
        waiting = self._waiting[delivery.queue]
        for task in delivery.tasks:
            if task.kind is TaskKind.ENCODE:
                waiting.pop(task.job_id, None)
            elif self._world.embedded and delivery.attempt == 1:
                # Its reply may have taken long: what was sent meanwhile was not passed.
                taken = delivery.deadline - self._world.visibility_s
                older = {job: n for job, n in waiting.items() if self._since[job] < taken}
                self._passed(older, delivery.queue, task.job_id)

    def _passed(self, waiting: dict[str, Counter[str]], queue: str, video: str) -> None:
        """Count what goes before a job that could be received, and never was."""
        rows = self._world.side._database.rows(READY, (queue,)) if waiting else ()
        ready = {job_of(body) for (body,) in rows}
        for job_id, passed in waiting.items():
            if job_id in ready:
                passed[video] += 1
                require(passed[video] <= AHEAD, "a video pushed ahead of a job")

    def begun(self, machine, delivery: Delivery) -> None:
        """A message is worked on as soon as it is in the process."""
        waited = self._world.sched.now - machine.taken[_name(delivery)]
        require(machine.suffered or waited <= PATIENCE_S, f"a message was kept for {waited:.0f} s")

    def excused(self, record, task) -> bool:
        """A job with a dead letter, or a cancelled one, needs no message."""
        dead = record is not None and record.state is JobState.DEAD
        cancelled = dead and record.failure_class is FailureClass.CANCELLED
        # SQS gives a message up without telling the ledger; its letter is the job's word then.
        return cancelled or self._world.has_letter(task.job_id)
