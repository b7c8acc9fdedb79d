"""How soon many workers end one video: planner, order and queue as they are, workers in virtual time.

Run as `python benchmarks/makespan_bench.py [VIDEOS]`. Videos of two and of six hours are put together
from groups of pictures whose cost was recorded with a real encoder (chunk_costs.tsv); the planner
sees their frames and bytes only. Every hundredth chunk is a straggler: its first worker needs five
times as long for it. What is reached is held against max(all work / workers, longest chunk), medians
over videos; with stragglers against that of what each chunk takes at its first worker, and, which is
harder, of what each takes where no worker is slow.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import report
from hevcq.util.clock import Clock
from hevcq.domain.chunking.planner import KeyFrame, KeyIndex
from hevcq.domain.chunking.boundaries import choose_boundaries
from hevcq.domain.chunking.chunk_count import longest_first
from hevcq.domain.chunk_settings import Chunking
from hevcq.worker.chunking.straggler import LOOK_S, is_straggler
from hevcq.domain.job import Source, Task, TaskKind
from hevcq.domain.verdict import REQUEUED_CHUNK_DELAY_S
from hevcq.backends.embedded.factory import open_embedded
from hevcq.ports.queue import Delivery, Queue
from hevcq.settings.profile_files import installed_folder, load_profile
from hevcq.settings.model import Settings
from hevcq.worker.delivery.context import RequeuedChunks

TABLE = Path(__file__).resolve().parent / "chunk_costs.tsv"
STRAGGLERS, SLOWER = 0.01, 5.0
START_S = 0.15
"""CPU seconds that each chunk takes before its first frame."""
WORKERS = (2, 4, 8, 16, 32, 64, 256)
RATE = 24
PROFILE = load_profile(installed_folder() / "hevc.yaml")


class VirtualClock(Clock):
    """Time that is set by the slots."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.is_set()

    def wait_on(self, condition: threading.Condition, timeout_s: float) -> bool:
        return False


@dataclass(frozen=True)
class Group:
    """A group of pictures as it was recorded."""

    frames: int
    bytes: int
    cpu_s: float


@dataclass(frozen=True)
class Costs:
    """What each chunk takes, and its modelled share; `slow` are those whose first worker is slow."""

    shares: Sequence[float]
    costs: Sequence[float]
    slow: frozenset[int] = frozenset()
    requeue_stragglers: bool = True

    def seconds(self, chunk: int, *, first: bool) -> float:
        """Return how long a chunk takes at its first worker, or at a later one."""
        return self.costs[chunk] * (SLOWER if first and chunk in self.slow else 1.0)


@lru_cache
def recorded(preset: str) -> tuple[Group, ...]:
    """Return the recorded groups of one preset, in the order of their video."""
    lines = TABLE.read_text(encoding="ascii").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return tuple(
        Group(int(frames), int(size), float(cpu))
        for _, kind, _, frames, size, cpu in rows
        if kind == preset
    )


def imagined(seed: int, hours: float, preset: str = "medium") -> list[Group]:
    """Return a video: runs of up to six recorded groups, drawn at random until it is long enough."""
    draw, groups = random.Random(seed), recorded(preset)
    made: list[Group] = []
    frames = 0
    while frames < hours * 3600 * RATE:
        place = draw.randrange(len(groups))
        for group in (groups * 2)[place : place + draw.randint(1, 6)]:
            made.append(group)
            frames += group.frames
    return made


def index_of(video: Sequence[Group]) -> KeyIndex:
    """Return what the packet pass would find of that video."""
    begins = [0, *itertools.accumulate(group.frames for group in video)]
    keys = tuple(
        KeyFrame(
            pts=begin,
            dts=begin,
            bytes_until_next=group.bytes,
            frames_until_next=group.frames,
            last_pts=begin + group.frames - 1,
        )
        for begin, group in zip(begins, video, strict=False)
    )
    return KeyIndex(
        stream_index=0,
        time_base=f"1/{RATE}",
        keys=keys,
        end_pts=begins[-1],
        frames=begins[-1],
        monotonic=True,
    )


def chunks_of(video: Sequence[Group], workers: int) -> list[tuple[float, float]]:
    """Return (modelled share, seconds it takes) of each chunk that the planner makes.

    The recorded costs are scaled so that one worker encodes the video as fast as it plays.
    """
    index = index_of(video)
    places = choose_boundaries(Chunking(), index, workers_hint=workers)
    ends = [*places[1:], len(video)]
    weights = share_of_groups(index)
    scale = index.frames / RATE / sum(group.cpu_s for group in video)
    return [
        (sum(weights[begin:end]), START_S + scale * sum(group.cpu_s for group in video[begin:end]))
        for begin, end in zip(places, ends, strict=True)
    ]


def share_of_groups(index: KeyIndex) -> list[float]:
    """Return the modelled share of the work of each group of pictures."""
    from hevcq.domain.chunking.boundaries import share_of_work

    total = sum(key.bytes_until_next for key in index.keys)
    return [
        share_of_work(key.frames_until_next / index.frames, key.bytes_until_next / total)
        for key in index.keys
    ]


def makespan(video: Costs, order: Sequence[int], workers: int) -> float:
    """Return when the last chunk is done, by the embedded queue and workers in virtual time."""
    with tempfile.TemporaryDirectory() as name:
        clock = VirtualClock()
        queues = PROFILE.queue.model_copy(update={"visibility_s": 43_200})
        profile = PROFILE.model_copy(update={"queue": queues})
        settings = Settings(data_dir=Path(name))
        opened = open_embedded(settings, {profile.name: profile}, clock)
        try:
            queue = opened.backend.queues[profile.name]
            queue.send([task(place) for place in order])
            return Fleet(queue, clock, video, workers).run()
        finally:
            opened.close()


def task(chunk: int) -> Task:
    source = Source(bucket="library", key="TODO/all/video.mp4", version="1", size=1)
    return Task(
        kind=TaskKind.CHUNK,
        source=source,
        profile=PROFILE.name,
        chunk=chunk,
        group=source.source_id,
        split="digest-1",
    )


@dataclass(frozen=True)
class Turn:
    """One worker with one chunk: since when, and how long it would take."""

    worker: int
    delivery: Delivery
    chunk: int
    began: float
    took: float


class Fleet:
    """Workers that take what the queue gives until it is empty, and hand on what trails.

    Of those that wait any is given the next message, as by SQS. A chunk that was handed on is slow
    again where it was slow.
    """

    def __init__(self, queue: Queue, clock: VirtualClock, video: Costs, workers: int) -> None:
        self.queue, self.clock, self.video = queue, clock, video
        self.idle, self.last = list(range(workers)), 0.0
        self.done: list[tuple[float, float]] = []
        self._firsts: dict[int, int] = {}
        self._handed_on, self._draw = RequeuedChunks(), random.Random(workers)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def run(self) -> float:
        """Work everything off; return when the last chunk was done."""
        self._take()
        while self._events:
            self.clock.at, _, event = heapq.heappop(self._events)
            event()
            self._take()
        return self.last

    def _at(self, moment: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._numbers), event))

    def _take(self) -> None:
        while self.idle:
            found = self.queue.receive(1, wait_s=0, stop=threading.Event())
            if not found:
                return
            worker = self.idle.pop(self._draw.randrange(len(self.idle)))
            chunk = found[0].tasks[0].chunk
            assert chunk is not None
            first = self._firsts.setdefault(chunk, worker) == worker
            if first and self._handed_on.leaves(str(chunk), self.clock.at):
                self._give_back(worker, found[0])
                continue
            took = self.video.seconds(chunk, first=first)
            self._go_on(Turn(worker, found[0], chunk, self.clock.at, took), 0.0)

    def _go_on(self, turn: Turn, elapsed: float) -> None:
        """Go on with a chunk up to the next look at it, or to its end."""
        look = elapsed + LOOK_S
        if turn.delivery.attempt > 1 or look >= turn.took:
            self._at(turn.began + turn.took, lambda: self._end(turn))
        else:
            self._at(turn.began + look, lambda: self._look(turn, look))

    def _look(self, turn: Turn, elapsed: float) -> None:
        share = self.video.shares[turn.chunk]
        if not self.video.requeue_stragglers or not is_straggler(
            share, elapsed / turn.took, elapsed, self.done
        ):
            self._go_on(turn, elapsed)
            return
        self._handed_on.note(str(turn.chunk), self.clock.at)
        self._give_back(turn.worker, turn.delivery)

    def _give_back(self, worker: int, delivery: Delivery) -> None:
        self.queue.release(delivery, delay_s=REQUEUED_CHUNK_DELAY_S)
        self._at(self.clock.at + REQUEUED_CHUNK_DELAY_S, lambda: None)
        self.idle.append(worker)

    def _end(self, turn: Turn) -> None:
        self.queue.ack(turn.delivery)
        self.idle.append(turn.worker)
        self.done.append((self.video.shares[turn.chunk], turn.took))
        self.last = self.clock.at


@dataclass(frozen=True)
class Outcome:
    """One video: makespan over the bound, plain and with stragglers, and over all work / workers."""

    even: float
    straggling: float
    against_even: float
    not_handed_on: float
    against_work: float
    chunks: int


def one(seed: int, hours: float, workers: int, preset: str = "medium") -> Outcome:
    """Plan and work off one video."""
    chunks = chunks_of(imagined(seed, hours, preset), workers)
    shares = [share for share, _ in chunks]
    plain = Costs(shares, [cost for _, cost in chunks])
    order = longest_first(shares)
    draw = random.Random(seed + 1)
    slow = frozenset(draw.sample(range(len(chunks)), max(1, round(STRAGGLERS * len(chunks)))))
    least = bound(plain.costs, workers)
    even = makespan(plain, order, workers)
    slowed = replace(plain, slow=slow)
    late = makespan(slowed, order, workers)
    kept = makespan(replace(slowed, requeue_stragglers=False), order, workers)
    return Outcome(
        even=even / least,
        straggling=late
        / bound([slowed.seconds(n, first=True) for n in range(len(chunks))], workers),
        against_even=late / least,
        not_handed_on=kept / least,
        against_work=even / (sum(plain.costs) / workers),
        chunks=len(chunks),
    )


def bound(costs: Sequence[float], workers: int) -> float:
    """Return what no order of these chunks can beat."""
    return max(sum(costs) / workers, *costs)


def main() -> int:
    """Measure, print, write, judge."""
    videos = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    rows: list[dict[str, object]] = []
    for hours in (2.0, 6.0):
        for workers in WORKERS:
            found = [one(seed, hours, workers) for seed in range(videos)]
            limit = 1.10 if workers > 64 else 1.05
            name = f"{hours:.0f} h, {workers} workers"
            even, late, strict, kept, work, count = (
                statistics.median(getattr(each, what) for each in found)
                for what in (
                    "even",
                    "straggling",
                    "against_even",
                    "not_handed_on",
                    "against_work",
                    "chunks",
                )
            )
            rows += [
                {"figure": f"{name}: makespan / bound", "value": even, "limit": limit},
                {"figure": f"{name}: with 1 % stragglers at 5 x", "value": late, "limit": limit},
                {"figure": f"{name}: the same / bound without stragglers", "value": strict},
                {"figure": f"{name}: that if they were not handed on", "value": kept},
                {"figure": f"{name}: makespan / (work / workers), {count:.0f} chunks", "value": work},
            ]  # fmt: skip
    return report("makespan", rows)


if __name__ == "__main__":
    sys.exit(main())
