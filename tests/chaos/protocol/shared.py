"""The shared side of one job: its message, its record, its rendition, moved by the real rules.

A Video is all that the farm knows of one job, as a plain value. `Shared.carry` puts it into a queue,
a ledger and a store, makes one call, and reads back what became of it. So the rules that are
searched are those of the backend itself, its SQL included.
"""

import threading
from pathlib import Path
from typing import Any

from chaos.protocol.values import (
    BASE,
    BODY,
    DIGESTS,
    FENCES,
    MAX_RECEIVES,
    SOURCE,
    TASK,
    VISIBILITY_S,
    StillClock,
    content_of,
)
from chaos.protocol.videos import (
    GONE,
    JOB,
    KEY,
    Bytes,
    Holder,
    Message,
    Video,
    classes_of,
    full,
    known,
    letters_of,
    rendition_of,
    spent_beside,
)
from hevcq.backends.embedded.database import Database
from hevcq.backends.embedded.jobs import tables
from hevcq.backends.embedded.jobs.ledger import SqliteLedger
from hevcq.backends.embedded.jobs.queue import QueueConfig, SqliteQueue
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import LeaseLost, StaleFence, Unavailable
from hevcq.ports.ledger import AlreadySettled, Granted, Held
from hevcq.ports.queue import Delivery, Selection
from hevcq.ports.store import Publication, StoredObject
from support.fakes.ledger import MemoryLedger
from support.fakes.queue import MemoryQueue, _Message
from support.fakes.store import MemoryStore


class Shared:
    """The rules of one backend; a subclass puts a video in and takes it out."""

    lands_with_the_job = False
    """Whether a message that the queue gives up takes its job along."""

    def __init__(self) -> None:
        self.calls = 0
        self._known: dict[tuple, tuple[Any, Video]] = {}
        self.clock = StillClock()

    def carry(self, video: Video, holder: Holder, request: tuple) -> tuple[Any, Video]:
        """Return the answer to one call, and the video after it."""
        key = (video, holder, request)
        found = self._known.get(key)
        if found is None:
            self.calls += 1
            self.clock.skew = holder.skew
            self.put(video)
            answer = self._answered(holder, request)
            found = self._known[key] = (answer, self.take(video))
        return found

    def _answered(self, holder: Holder, request: tuple) -> Any:
        name = request[0].replace("-", "_")
        try:
            return getattr(self, f"_{name}")(holder, *request[1:])
        except StaleFence:
            return "stale"
        except LeaseLost:
            return "lost"
        except Unavailable:
            return "silent"

    # --- the queue

    def _receive(self, _holder: Holder) -> int | None:
        found = self.queue.receive(1, wait_s=0.0, stop=threading.Event())
        return found[0].attempt if found else None

    def _delivery(self, holder: Holder) -> Delivery:
        return Delivery(
            queue="hevc",
            receipt=self.receipt(holder.receipt),
            message_id="1",
            body=BODY,
            attempt=holder.receipt,
            deadline=BASE,
            sent_at=BASE,
            tasks=(TASK,),
        )

    def _extend(self, holder: Holder) -> float:
        self.queue.extend(self._delivery(holder), float(VISIBILITY_S))
        return 0.0

    def _ack(self, holder: Holder) -> bool:
        return self.queue.ack(self._delivery(holder))

    def _release(self, holder: Holder, delay_s: float) -> bool:
        return self.queue.release(self._delivery(holder), delay_s=delay_s)

    def _bury_delivery(self, holder: Holder, failure_class: str) -> bool:
        why = Bury(reason="so", failure_class=FailureClass(failure_class))
        return self.queue.bury(self._delivery(holder), why)

    # --- the ledger

    def _claim(self, holder: Holder) -> tuple:
        claim = self.ledger.claim(SOURCE, "hevc", owner=holder.name, lease_s=float(VISIBILITY_S))
        if isinstance(claim, Granted):
            return ("granted", claim.failures, claim.crashes, claim.suspected_worker_faults > 0)
        if isinstance(claim, Held):
            return ("held", round(claim.until - BASE - holder.skew, 3))
        assert isinstance(claim, AlreadySettled), claim
        record = claim.record
        return ("settled", record.state.value, 0, record.failure_class or "")

    def _get(self, holder: Holder) -> tuple:
        record = self.ledger.get(JOB)
        mine = 1 if record.fence == holder.fence else 2
        return (record.state.value, mine, record.failure_class or "")

    def _renew(self, holder: Holder) -> None:
        self.ledger.renew(JOB, holder.fence, lease_s=float(VISIBILITY_S))

    def _complete(self, holder: Holder, mine: bool) -> None:
        made = holder.fence if mine else holder.seen
        self.ledger.complete(JOB, holder.fence, rendition_of(made), cpu_s=1.0)

    def _skip(self, holder: Holder) -> None:
        self.ledger.skip(JOB, holder.fence, "so")

    def _fail(self, holder: Holder, failure_class: str) -> None:
        self.ledger.fail(JOB, holder.fence, "so", FailureClass(failure_class))

    def _interrupt(self, holder: Holder, suspected_worker_fault: bool) -> None:
        self.ledger.interrupt(
            JOB, holder.fence, "so", suspected_worker_fault=suspected_worker_fault
        )

    def _bury(self, holder: Holder, failure_class: str) -> None:
        self.ledger.bury(JOB, holder.fence, "so", FailureClass(failure_class))

    def _bury_unclaimed(self, _holder: Holder, failure_class: str) -> bool:
        return self.ledger.bury_unclaimed(JOB, "so", FailureClass(failure_class))

    # --- the store

    def _stat(self, holder: Holder) -> str:
        seen = self.store.stat(KEY)
        if seen is None:
            return "nothing"
        return "mine" if FENCES[seen.sha256] == holder.fence else "other"

    def _publish(self, holder: Holder, _late: str) -> None:
        self.store.publish(
            Publication(
                key=KEY,
                file=Bytes(content_of(holder.fence)),
                sha256=DIGESTS[holder.fence],
                job_id=JOB,
                fence=holder.fence,
                metadata={},
            )
        )

    def _show(self, fence: int) -> None:
        self.store._objects.clear()
        if fence:
            seen = StoredObject(KEY, "v", 1, DIGESTS[fence], {"job": JOB}, BASE)
            self.store._objects[KEY] = (seen, content_of(fence), JOB, fence)

    def _shown(self) -> int:
        seen = self.store.stat(KEY)
        return FENCES[seen.sha256] if seen is not None else 0


class MemoryShared(Shared):
    """The memory fakes, which pass the contracts of queue, ledger and store."""

    def __init__(self) -> None:
        super().__init__()
        still = StillClock()
        self.queue = MemoryQueue(
            "hevc", still, visibility_s=VISIBILITY_S, max_receives=MAX_RECEIVES
        )
        self.ledger, self.store = MemoryLedger(self.clock), MemoryStore(still)

    def receipt(self, number: int) -> str:
        return f"r{number}"

    def put(self, video: Video) -> None:
        state, message = self.queue._state, video.message
        state.messages.clear()
        state.dead.clear()
        if message is not None:
            state.messages["1"] = _Message(
                "1",
                BODY,
                BASE,
                BASE + message.hidden_s,
                message.attempts,
                self.receipt(message.attempts) if message.held else "",
            )
        self.ledger._records = {JOB: full(video.record)}
        self._show(video.visible)

    def take(self, before: Video) -> Video:
        state = self.queue._state
        one, record = state.messages.get("1"), known(self.ledger._records[JOB])
        message = None
        if one is not None:
            hidden = max(0.0, round(one.visible_at - BASE, 3))
            beside = spent_beside(before, one.attempts, self.queue._max_receives, record)
            message = Message(hidden, one.attempts, bool(one.receipt), beside)
        letters = {letter.failure_class.value for letter in state.dead.values()}
        letters |= classes_of(before)
        return Video(message, record, self._shown(), letters_of(before, letters, record))


class SqliteShared(Shared):
    """The production SQL and transactions of the embedded queue and ledger.

    Both judge by the caller's clock, as processes of one machine do; so there is no skew.
    """

    lands_with_the_job = True

    def __init__(self, folder: Path, *, max_receives: int = MAX_RECEIVES) -> None:
        super().__init__()
        self._database = Database(folder / "protocol.db")
        self.queue = SqliteQueue(
            "hevc",
            self._database,
            self.clock,
            QueueConfig(VISIBILITY_S, max_receives),
            owner="here",
        )
        self.ledger = SqliteLedger(self._database, self.clock, dead=lambda owner: owner == GONE)
        self.store = MemoryStore(self.clock)

    def receipt(self, number: int) -> str:
        return f"1:{number}"

    def put(self, video: Video) -> None:
        self._database.write(lambda connection: self._load(connection, video), durable=False)
        self._show(video.visible)

    def _load(self, connection: Any, video: Video) -> None:
        for table in ("message", "dead_letter", "job"):
            connection.execute(f"DELETE FROM {table}")
        one, record = video.message, video.record
        if one is not None:
            state = (1 if one.held else 2) if one.hidden_s > 0 or one.held else 0
            held = one.attempts if one.held else None
            connection.execute(
                "INSERT INTO message (id, queue, state, turn, visible_at, attempts, held, sent_at,"
                " body) VALUES (1, 'hevc', ?, 1, ?, ?, ?, ?, ?)",
                (state, BASE + one.hidden_s, one.attempts, held, BASE, BODY),
            )
        for failure_class in classes_of(video):
            letter = ("hevc", BODY, JOB, "so", failure_class, MAX_RECEIVES, "[]", "", BASE)
            connection.execute(tables.INSERT_DEAD_LETTER, letter)
        made = DIGESTS[record.made] if record.made else None
        lease = BASE + record.lease_s if record.state == "running" else 0.0
        connection.execute(
            "INSERT INTO job (job_id, bucket, key, version, size, profile, state, fence, failures,"
            " crashes, doubts, owner, lease_until, failure_class, reason, rendition_key, rendition_size,"
            " rendition_sha256, certificate_key, created_at, updated_at)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,'so',?,?,?,?,?,?)",
            (
                *(JOB, SOURCE.bucket, SOURCE.key, SOURCE.version, SOURCE.size, "hevc"),
                *(record.state, record.fence, record.failures, record.crashes),
                *(int(record.suspected_worker_fault), record.owner),
                *(lease, record.failure_class or None, KEY if made else None, 1, made),
                *("proof" if made else None, BASE, BASE),
            ),
        )

    def take(self, before: Video) -> Video:
        row = self._database.row("SELECT state, visible_at, attempts, held FROM message")
        message = None
        if row is not None:
            state, visible_at, attempts, held = row
            hidden = max(0.0, round(visible_at - BASE, 3)) if state else 0.0
            message = Message(hidden, attempts, held is not None)
        found = self.queue.dead_letters(Selection())
        letters = {letter.failure_class.value for letter in found}
        record = known(self.ledger.get(JOB))
        return Video(message, record, self._shown(), letters_of(before, letters, record))

    def close(self) -> None:
        self._database.close()
