"""Kill and stop real workers while they work: who is to die where, and when all is done."""

import math
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field, replace

from chaos.kills.places import Place, apart
from chaos.kills.videos import FORGED, KINDS, VISIBILITY_S
from chaos.kills.worker import KILL, MAX_LATE_S, STOP, TERM, Orders, work
from chaos.points import WAYS, points, points_of_sets
from hevcq.domain.job import SETTLED, Source, Task, TaskKind
from hevcq.ports.ledger import JobFilter

SIDE_BY_SIDE = 3


def both(*calls: str) -> frozenset[str]:
    """Return the points before and after these calls."""
    return frozenset(f"{call}:{side}" for call in calls for side in ("before", "after"))


INTERRUPTS = both(
    "encode/ledger.interrupt",
    "encode/queue.release",
    "chunk/ledger.interrupt",
    "chunk/queue.release",
    "scratch.close",
)
BEATS = both("queue.extend", "ledger.renew")
GIVEN_BACK = both("queue.release")
LEFTOVERS = both("store.list", "store.delete", "ledger.forget_subjobs")
"""Only come to where a worker tidies the store as it starts: in a data folder."""
FEW = 10
"""With so few points left fewer workers look for them: who finds none lives for long."""
MAX_OPEN = 100
"""No more videos come in while so many wait: an emulator counts every message at every call."""
PATIENCE_S = 8.0
"""How long a worker may look for a wanted point before it is killed wherever it is."""
AIM_S = 25.0
"""The same on AWS, for one that wants no point but those that nobody died at yet."""


def wanted(*, on_aws: bool) -> tuple[str, ...]:
    """Return the points that workers are to die at, at this kind of place.

    One queue of several is received from in a thread of its own only where looks cost money, and
    only there a message may come to a worker that has no slot for it any more.
    """
    elsewhere = LEFTOVERS if on_aws else GIVEN_BACK
    return tuple(point for point in points(*WAYS) if point not in elsewhere)


@dataclass
class Child:
    """A worker that runs, and how its end is to come."""

    pid: int
    orders: Orders
    kill_at: float | None
    stopped_at: float | None = None


@dataclass
class Campaign:
    """Runs workers at a place until `kills` and `stops` are done and no job is left.

    Wanted are the points where fewest died so far, so that every one is come to in the end. With
    `sets_only`, no other videos come in, and the points are those on their way. The server of the
    database crashes `crashes` times meanwhile, by turns killed and stopped without a word.
    """

    place: Place
    kills: int
    stops: int
    seed: int
    most_s: float = math.inf
    sets_only: bool = False
    crashes: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    children: list[Child] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.mark = f"{os.getpid() % 100_000:05d}{self.seed % 100:02d}"
        self.points = points_of_sets() if self.sets_only else wanted(on_aws=self.place.on_aws)
        self._number = self._submitted = self._read = 0

    def run(self) -> None:
        """Kill and stop as often as was asked or there is time, then let the rest be done."""
        end = time.monotonic() + self.most_s
        try:
            while time.monotonic() < end and self._wants_more():
                if self._left()[0] < MAX_OPEN:
                    self.submit(7)
                self._round()
            self.drain()
        finally:
            self._end_all()

    def _wants_more(self) -> bool:
        return self.ended["SIGKILL"] < self.kills or self.ended["SIGSTOP"] < self.stops

    def submit(self, count: int) -> None:
        """Bring videos of every kind in, and a message that names no job."""

        def bring() -> None:
            backend = self.place.open()
            for number in range(self._submitted, self._submitted + count):
                kind = "set" if self.sets_only else list(KINDS)[number % len(KINDS)]
                path = self.place.videos / f"{kind}-{number}.mp4"
                path.write_bytes(f"{kind} {number} of {self.mark}".encode() * 50)
                self.place.submit(backend, path, KINDS[kind].profile)
            source = Source(bucket="none", key=f"TODO/all/{FORGED}", version="0", size=1)
            forged = Task(kind=TaskKind.CHUNK, source=source, profile="cut", chunk=0)
            backend.queues["cut"].send([forged])
            backend.close()

        apart(bring)
        self._submitted += count

    def _round(self) -> None:
        """Let some workers begin, and bring each to its end."""
        for _ in range(SIDE_BY_SIDE * 4):
            self._spawn(self._next())
            if self.ended["crash"] * self.kills < self.crashes * self.ended["SIGKILL"]:
                self._crash()
            while len(self.children) >= SIDE_BY_SIDE:
                self._look()
        # All of them: one that is stopped may be inside a transaction, and others would wait.
        while self.children:
            self._look()

    def _crash(self) -> None:
        """Let the server crash while workers are anywhere in their work, and start it again."""
        server = self.place.server
        assert server is not None
        time.sleep(self._random.uniform(0.0, 0.3))
        if self.ended["crash"] % 2:
            server.stop("immediate")
        else:
            server.kill()
        server.start()
        self.ended["crash"] += 1

    def _next(self) -> Child:
        self._number += 1
        self._count_hits()
        orders, most_s = self._ordered(frozenset(p for p in self.points if not self.hits[p]))
        orders = replace(orders, seed=self.seed * 100_000 + self._number)
        return Child(0, orders, time.monotonic() + most_s)

    def _ordered(self, never: frozenset[str]) -> tuple[Orders, float]:
        """Return how the next worker is to end, and how long it may look for that.

        Nobody died yet at the points `never`. Who wants those only goes past all others: the late
        points of a video are many calls on, and one that wanted more would die on its way there.
        """
        match self._number % 10:
            case 0 | 5 if self.ended["SIGSTOP"] < self.stops:
                return Orders(self._fewest(), STOP), PATIENCE_S
            case 1 if BEATS & never:
                # In mid-encode, for as long as it takes until the lease is to be extended.
                return Orders(BEATS & never, hangs=True), PATIENCE_S
            case 1:
                return Orders(hangs=True), 0.8
            case 2:
                return Orders(), self._random.uniform(0.02, 0.5)
            case 3 if INTERRUPTS & never:
                # Told to stop in mid-encode; dies on the way of giving the work back.
                return Orders(INTERRUPTS & self._fewest(), hangs=True), 0.7
            case 4 | 8:
                late = self._random.uniform(0.0005, MAX_LATE_S)
                return Orders(self._fewest(), late=late), PATIENCE_S
            case 5 if GIVEN_BACK & never:
                # Told to stop while a message is on its way to it.
                return Orders(GIVEN_BACK & never, told_at="queue.receive:after"), PATIENCE_S
            case 0 | 6 | 7 | 9 as turn if never and (
                turn in {6, 7} or len(never) > FEW or self.sets_only
            ):
                return Orders(never), AIM_S if self.place.on_aws else PATIENCE_S
            case _:
                return Orders(self._fewest()), PATIENCE_S

    def _fewest(self) -> frozenset[str]:
        """Return the half of all points where fewest died."""
        tried = sorted(self.points, key=lambda point: (self.hits[point], self._random.random()))
        return frozenset(tried[: len(tried) // 2])

    def _count_hits(self) -> None:
        path = self.place.folder / "notes"
        if not path.exists():
            return
        with path.open() as notes:
            notes.seek(self._read)
            for line in notes:
                words = line.split()
                if words[0] == "ended" and int(words[3]) == KILL:
                    self.hits[words[1]] += 1
            self._read = notes.tell()

    def _spawn(self, child: Child) -> None:
        child.pid = os.fork()
        if child.pid == 0:
            try:
                with (self.place.folder / "log").open("a") as log:
                    os.dup2(log.fileno(), 2)
                work(self.place, child.orders, self.mark)
            finally:
                os._exit(0)
        self.children.append(child)

    def _look(self) -> None:
        time.sleep(0.005)
        now = time.monotonic()
        for child in list(self.children):
            pid, status = os.waitpid(child.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                child.stopped_at, child.kill_at = now, None
            elif pid:
                self.children.remove(child)
                signalled = os.WIFSIGNALED(status)
                name = signal.Signals(os.WTERMSIG(status)).name if signalled else "exit"
                self.ended[name] += 1
            elif child.stopped_at is not None and now > child.stopped_at + VISIBILITY_S + 0.5:
                self.ended["SIGSTOP"] += 1
                child.stopped_at, child.kill_at = None, now + 1.0
                os.kill(child.pid, signal.SIGCONT)
            elif child.kill_at is not None and now > child.kill_at:
                self._end(child, now)

    def _end(self, child: Child, now: float) -> None:
        """Kill a worker; one that is to die on its way out is told to stop first."""
        if child.orders.hangs and child.orders.wanted:
            child.orders, child.kill_at = Orders(), now + PATIENCE_S
            os.kill(child.pid, TERM)
        else:
            os.kill(child.pid, KILL)

    def drain(self, quiet_s: float = 900.0) -> None:
        """Let workers that nobody kills do what is left, until no job ended for `quiet_s`.

        A duplicate that met a job at work may wait for an hour: it is not waited for.
        """
        end, fewest = time.monotonic() + quiet_s, math.inf
        while time.monotonic() < end:
            while len(self.children) < SIDE_BY_SIDE:
                self._spawn(Child(0, Orders(), None))
            self._look()
            open_jobs, messages = self._left()
            if open_jobs < fewest:
                end, fewest = time.monotonic() + quiet_s, open_jobs
            if not open_jobs:
                # What ended its job and was killed then may have its own end to come.
                end = min(end, time.monotonic() + 2 * VISIBILITY_S)
                if not messages:
                    break
            # A look costs a data folder nothing, and an emulator a dozen calls.
            time.sleep(1.0 if self.place.on_aws else 0.3)
        for child in self.children:
            os.kill(child.pid, TERM)
        late = time.monotonic() + 40
        while self.children and time.monotonic() < late:
            self._look()

    def _left(self) -> tuple[int, int]:
        """Return how many videos have no end yet, and how many messages there are."""
        left = self.place.folder / "left"

        def ask() -> None:
            backend = self.place.open()
            depths = [queue.depth() for queue in backend.queues.values()]
            ended = sum(job.state in SETTLED for job in backend.ledger.jobs(JobFilter()))
            backend.close()
            videos = len(list(self.place.videos.iterdir()))
            messages = sum(d.ready + d.in_flight + d.delayed for d in depths)
            left.write_text(f"{videos - ended} {messages}")

        apart(ask)
        videos, messages = left.read_text().split()
        return int(videos), int(messages)

    def _end_all(self) -> None:
        for child in self.children:
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
        self.children.clear()
