"""Kill and stop real workers while they work; then count what was lost, doubled or left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos.kills.worker import (
    DURING,
    KILL,
    PROFILE,
    STOP,
    VISIBILITY_S,
    expected,
    open_folder,
    work,
)
from hevcq.clock import SystemClock
from hevcq.domain.job import JobState, job_id
from hevcq.embedded.open import EmbeddedBackend
from hevcq.ports.ledger import JobFilter
from hevcq.ports.queue import Selection
from hevcq.worker.faults import POINTS
from hevcq.worker.scratch import Scratch

SIDE_BY_SIDE = 3
KINDS = {"film": JobState.DONE, "flaky": JobState.DONE, "poison": JobState.DEAD}
SMALL = "small"
HAPPENS = tuple(p for p in POINTS if not p.endswith(("interrupt", "bury-unclaimed")))
"""The points that this campaign can come to: the two left out need an orderly stop or a queue
that fails before the claim."""


@dataclass
class Child:
    """A worker that runs, and how its end is to come."""

    pid: int
    point: str
    number: int
    kill_at: float | None
    stopped_at: float | None = None


@dataclass
class Campaign:
    """Runs workers over `folder` until `kills` and `stops` are done and no job is left."""

    folder: Path
    kills: int
    stops: int
    seed: int
    ended: Counter[str] = field(default_factory=Counter)
    children: list[Child] = field(default_factory=list)
    sources: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.mark = f"{os.getpid() % 100_000:05d}{self.seed % 100:02d}"
        self._points = list(HAPPENS)
        self._random.shuffle(self._points)
        self._number = 0

    def run(self) -> dict[str, object]:
        """Return the counts; every one of `lost` to `temp_files` has to be 0."""
        began = time.monotonic()
        try:
            while self.ended["SIGKILL"] < self.kills or self.ended["SIGSTOP"] < self.stops:
                self._apart(lambda: self._submit(SIDE_BY_SIDE * 4))
                self._round()
            self._drain()
        finally:
            for child in self.children:
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
        return self._counts() | {"seconds": round(time.monotonic() - began, 1)}

    def _apart(self, action) -> None:
        """Run something that opens the database in a process of its own: forks must not share it."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                action()
                code = 0
            except Exception:  # noqa: BLE001 - the fork must not go on as its parent
                traceback.print_exc()
            finally:
                os._exit(code)
        if os.waitpid(pid, 0)[1] != 0:
            raise RuntimeError("A helper process failed.")
        for path in (self.folder / "films").iterdir():
            self.sources.setdefault(path.name, ("", path.read_bytes()))

    def _submit(self, count: int) -> None:
        opened = open_folder(self.folder)
        films = self.folder / "films"
        films.mkdir(exist_ok=True)
        base = len(list(films.iterdir()))
        for number in range(base, base + count):
            kind = (*KINDS, SMALL, "film")[number % 5]
            path = films / f"{kind}-{number}.mp4"
            path.write_bytes(f"{kind} {number}".encode() * 50)
            source = opened.backend.store.accept(
                path, f"TODO/all/{path.name}", moved=lambda _: None, stop=threading.Event()
            )
            opened.backend.fanout.publish(source, [PROFILE.name], announced=False)
        opened.close()

    def _round(self) -> None:
        """Let some workers begin, and bring each to its end."""
        for _ in range(SIDE_BY_SIDE * 3):
            self._spawn(self._next())
            while len(self.children) >= SIDE_BY_SIDE:
                self._look()
        # All of them: one that is stopped may be inside a transaction, and others would wait.
        while self.children:
            self._look()

    def _next(self) -> Child:
        self._number += 1
        stops_left = self.stops - self.ended["SIGSTOP"]
        if self._number % 6 == 0 and stops_left > 0:
            point = self._random.choice(["before-publish", "before-complete", "before-ack"])
            return Child(0, point, STOP, time.monotonic() + 3.0)
        if self._number % 6 == 1:
            return Child(0, DURING, KILL, time.monotonic() + 1.0)
        if self._number % 6 == 2:
            return Child(0, "", KILL, time.monotonic() + self._random.uniform(0.02, 0.4))
        return Child(
            0, self._points[self._number % len(self._points)], KILL, time.monotonic() + 2.0
        )

    def _spawn(self, child: Child) -> None:
        child.pid = os.fork()
        if child.pid == 0:
            try:
                with open(self.folder / "log", "a") as log:
                    os.dup2(log.fileno(), 2)
                work(self.folder, child.point, child.number, self.mark)
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
                self.ended[
                    signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "exit"
                ] += 1
            elif child.stopped_at is not None and now > child.stopped_at + VISIBILITY_S + 0.5:
                self.ended["SIGSTOP"] += 1
                child.stopped_at, child.kill_at = None, now + 1.0
                os.kill(child.pid, signal.SIGCONT)
            elif child.kill_at is not None and now > child.kill_at:
                os.kill(child.pid, signal.SIGKILL)

    def _drain(self) -> None:
        """One worker more that nobody kills does what is left."""
        for child in self.children:
            os.kill(child.pid, signal.SIGKILL)
            os.kill(child.pid, signal.SIGCONT)
        while self.children:
            self._look()
        self._spawn(Child(0, "", KILL, None))
        end = time.monotonic() + 60
        while time.monotonic() < end and not self._all_settled():
            time.sleep(0.2)
        for child in self.children:
            os.kill(child.pid, signal.SIGTERM)
        while self.children:
            self._look()

    def _all_settled(self) -> bool:
        def ask() -> None:
            opened = open_folder(self.folder)
            depth = opened.backend.queues[PROFILE.name].depth()
            opened.close()
            (self.folder / "left").write_text(str(depth.ready + depth.in_flight + depth.delayed))

        self._apart(ask)
        return (self.folder / "left").read_text() == "0"

    def _counts(self) -> dict[str, object]:
        time.sleep(0.3)
        opened = open_folder(self.folder)
        scratch = Scratch(self.folder / "scratch", SystemClock())
        scratch.sweep()
        found = Counter(self._fates(opened))
        notes = [line.split() for line in (self.folder / "notes").read_text().splitlines()]
        counts: dict[str, object] = {
            "jobs": len(self.sources),
            "kills": self.ended["SIGKILL"],
            "stops": self.ended["SIGSTOP"],
            "points": len({n[1] for n in notes if n[0] == "ended"} & set(HAPPENS)),
            "points_possible": len(HAPPENS),
            "lost": found["lost"],
            "wrong": found["wrong"],
            "double_published": _doubled(notes),
            "partial_visible": sum(
                not _whole(opened, seen) for seen in opened.backend.store.list("")
            ),
            "stray_children": len(_running(self.mark)),
            "temp_files": len(list((self.folder / "scratch").iterdir()))
            + _unnamed(self.folder, opened),
        }
        opened.close()
        return counts | _again(notes)

    def _fates(self, opened: EmbeddedBackend):
        records = {
            r.source.key.rpartition("/")[2]: r for r in opened.backend.ledger.jobs(JobFilter())
        }
        letters = Counter(
            letter.task.job_id
            for letter in opened.backend.queues[PROFILE.name].dead_letters(Selection())
        )
        for name, (_, content) in self.sources.items():
            record = records.get(name)
            wanted = KINDS.get(name.partition("-")[0], JobState.SKIPPED)
            if record is None or record.state is JobState.QUEUED:
                yield "lost"
            elif record.state is not wanted:
                yield "wrong"
            elif wanted is JobState.DEAD and not letters[record.job_id]:
                yield "lost"
            elif wanted is JobState.DONE:
                with opened.backend.store.open(record.rendition.key) as stream:
                    yield "right" if stream.read() == expected(content) else "wrong"
            assert record is None or record.job_id == job_id(record.source, PROFILE.name)


def _whole(opened: EmbeddedBackend, seen) -> bool:
    import hashlib

    with opened.backend.store.open(seen.key) as stream:
        return hashlib.sha256(stream.read()).hexdigest() == seen.sha256


def _doubled(notes: list[list[str]]) -> int:
    versions: dict[str, set[str]] = {}
    for note in notes:
        if note[0] == "published":
            versions.setdefault(note[1], set()).add(note[2])
    return sum(len(found) > 1 for found in versions.values())


def _running(mark: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"sleep" and mark.encode() in b" ".join(words):
            found.append(int(path.parent.name))
    return found


def _unnamed(folder: Path, opened: EmbeddedBackend) -> int:
    """Versions in the store's folder that no row names."""
    named = {seen.version for seen in opened.backend.store.list("")}
    there = [p.name for p in (folder / "data" / "objects").glob("??/*/*")]
    return sum(name not in named for name in there)


def _again(notes: list[list[str]]) -> dict[str, object]:
    """How long after its worker's kill at a point a job was begun again, by another process."""
    at: dict[str, str] = {}
    waiting: dict[str, float] = {}
    took: list[float] = []
    for note in notes:
        if note[0] == "job_started":
            if note[1] in waiting:
                took.append(float(note[-1]) - waiting.pop(note[1]))
            at[note[2]] = note[1]
        elif _killed(note) and note[2] in at and "ack" not in note[1]:
            waiting[at[note[2]]] = float(note[-1])
    took.sort()
    middle = round(took[len(took) // 2], 3) if took else None
    return {"again_s_median": middle, "again_s_most": round(took[-1], 3) if took else None}


def _killed(note: list[str]) -> bool:
    return note[0] == "ended" and note[3] == str(KILL)


def line(counts: dict[str, object]) -> str:
    return json.dumps(counts)
