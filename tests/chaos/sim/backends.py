"""The shared side of a world: queues and ledger in memory, or the production SQL over SQLite."""

import copy

from chaos.sim.sched import SimClock
from hevcq.backends.sql.factory import free_owner
from hevcq.backends.sql.ledger import SqlLedger
from hevcq.backends.sql.queue import SqlQueue, SqlTaskPublisher, job_id_of, send
from hevcq.backends.sql.statements import PEEK
from hevcq.sql.database import Database
from support.fakes.backend import memory_backend
from support.fakes.ledger import MemoryLedger
from support.fakes.queue import MemoryQueue
from support.fakes.store import MemoryStore

TABLES = ("message", "dead_letter", "job", "remembered")


class MemorySide:
    """The memory fakes: a queue service and a ledger table with time of their own, as on AWS."""

    def open(self, world) -> None:
        clock = SimClock(world.sched)
        self._world, backend = world, memory_backend(clock, world.profiles)
        self.queues, self.ledger = backend.queues, backend.ledger
        self.store, self.task_publisher = backend.store, backend.task_publisher

    def queues_for(self, _machine) -> dict[str, MemoryQueue]:
        return self.queues

    def ledger_for(self, machine) -> MemoryLedger:
        """The same table, but judged by this machine's clock, as DynamoDB's conditions are."""
        view = copy.copy(self.ledger)
        view._clock = machine.clock
        return view

    def next_due(self, queue: MemoryQueue) -> float:
        messages = queue._messages.values()
        return min((m.visible_at for m in messages), default=1e12)

    def left(self) -> int:
        """How many messages are not settled."""
        return sum(len(queue._messages) for queue in self.queues.values())

    def mix(self, queue: MemoryQueue) -> None:
        messages = queue._messages
        if len(messages) > 1:
            names = list(messages)
            name = names[int(self._world.random.random() * len(names))]
            messages[name] = messages.pop(name)

    def redeliver(self, queue: MemoryQueue) -> None:
        """Show a message again although somebody holds it: at least once is all SQS says."""
        held = [m for m in queue._messages.values() if m.receipt]
        if held:
            message = held[int(self._world.random.random() * len(held))]
            message.visible_at = self._world.sched.now

    def send_body(self, name: str, body: str, delay_s: float) -> None:
        queue = self.queues[name]
        message = queue.send_body(body)
        queue._messages[message].visible_at += delay_s

    def has_message(self, queue: MemoryQueue, job_id: str) -> bool:
        return any(job_id_of(each.body) == job_id for each in queue._messages.values())

    def died(self, machine) -> None:
        """Nobody notices but the deadlines."""


class SqlSide:
    """The production tables, SQL and transactions; the database is kept for the next world."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, world) -> None:
        clock = SimClock(world.sched)
        self._world, self._dead = world, set()
        self._clocks: dict[SqlQueue, SimClock] = {}

        def wipe(connection) -> None:
            for table in TABLES:
                connection.execute(f"DELETE FROM {table}")

        self._database.write(wipe, durable=False)
        self.ledger = self._ledger(clock)
        self.store = MemoryStore(clock)
        self.queues = self._queues(clock, "driver")
        self.task_publisher = SqlTaskPublisher(self._database, clock, self.queues)

    def _ledger(self, clock) -> SqlLedger:
        return SqlLedger(
            self._database, clock, dead=lambda owner: owner.split(":")[0] in self._dead
        )

    def _queues(self, clock, owner: str) -> dict[str, SqlQueue]:
        queues = {
            name: SqlQueue(name, self._database, clock, profile.queue, owner=owner)
            for name, profile in self._world.profiles.items()
        }
        self._clocks |= dict.fromkeys(queues.values(), clock)
        return queues

    def queues_for(self, machine) -> dict[str, SqlQueue]:
        return self._queues(machine.clock, machine.name)

    def ledger_for(self, machine) -> SqlLedger:
        return self._ledger(machine.clock)

    def next_due(self, queue: SqlQueue) -> float:
        ((ready, due),) = self._database.rows(PEEK, (queue.name,))
        if ready:
            return self._world.sched.now
        clock = self._clocks[queue]
        return 1e12 if due is None else due - clock.now() + self._world.sched.now

    def left(self) -> int:
        """How many messages are not settled."""
        depths = [queue.depth() for queue in self.queues.values()]
        return sum(d.ready + d.in_flight + d.delayed for d in depths)

    def mix(self, queue) -> None:
        """SQLite hands out in its own order."""

    def redeliver(self, queue) -> None:
        """SQLite never shows a message that is held."""

    def send_body(self, name: str, body: str, delay_s: float) -> None:
        now = self._clocks[self.queues[name]].now()
        batch = [(body, "", False)]
        self._database.write(
            lambda c: send(c, name, batch, now=now, delay_s=delay_s), durable=False
        )

    def has_message(self, queue: SqlQueue, job_id: str) -> bool:
        rows = self._database.rows("SELECT body FROM message WHERE queue = ?", (queue.name,))
        return any(job_id_of(body) == job_id for (body,) in rows)

    def died(self, machine) -> None:
        """The next process that looks around frees what the dead one held."""
        self._dead.add(machine.name)
        free_owner(self._database, machine.name)

    def close(self) -> None:
        self._database.close()
