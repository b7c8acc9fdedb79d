"""Many worlds, on several cores, counted; a seed that breaks is printed with the end of its trace."""

import contextlib
import gc
import itertools
import multiprocessing
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.pool import AsyncResult
from pathlib import Path
from types import SimpleNamespace

import structlog

from chaos.sim.backends import SqlSide
from chaos.sim.chaos import Stats
from chaos.sim.video_world import VideoWorld, is_video_world
from chaos.sim.world import World
from hevcq.sql.sqlite import SqliteDatabase

EMBEDDED_EVERY = 36
"""One world in so many runs over the production SQL; SQLite costs several times a dict."""
BATCH = 250
"""Worlds of one process, which then ends: taking their cyclic garbage apart would be a seventh of the
cost, and half a MiB of it is left by each."""


class _Silent:
    """A logger that says nothing: formatting would be most of a world's cost."""

    def __getattr__(self, _name: str):
        return _nothing


def _nothing(*_args: object, **_named: object) -> None:
    return None


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Say nothing while worlds run."""
    before, silent_, unbound = structlog.get_logger, _Silent(), contextlib.nullcontext()
    binding = structlog.contextvars.bound_contextvars
    structlog.get_logger = lambda **_bound: silent_
    structlog.contextvars.bound_contextvars = lambda **_bound: unbound
    try:
        yield
    finally:
        structlog.get_logger, structlog.contextvars.bound_contextvars = before, binding


@contextlib.contextmanager
def embedded_side() -> Iterator[SqlSide]:
    """A database on a memory disk where there is one."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        side = SqlSide(SqliteDatabase(Path(folder) / "sim.db"))
        try:
            yield side
        finally:
            side.close()


def is_embedded(seed: int) -> bool:
    """Whether this seed's world has the production SQL under it."""
    return seed % EMBEDDED_EVERY == 0


def world_of(seed: int, *, videos: bool = False) -> type[World]:
    """Which kind of world this seed's is; with `videos` every one has split videos."""
    return VideoWorld if videos or is_video_world(seed) else World


def live(seed: int, side: SqlSide, *, verbose: bool = False, videos: bool = False) -> World:
    """Run one world; raises what broke, with the world's trace in the notes."""
    world = world_of(seed, videos=videos)(seed, embedded=side if is_embedded(seed) else None)
    world.sched.verbose = verbose
    with silent():
        try:
            return world.run()
        except BaseException as error:
            more = " --videos" if videos else ""
            replay = f"python -m tests.chaos.sim --seed {seed}{more}"
            error.add_note(f"seed {seed}: replay with `{replay}`")
            error.add_note("\n".join(list(world.sched.tail)[-60:]))
            raise AssertionError(f"seed {seed}: {error!r}") from error


@dataclass(frozen=True)
class Batch:
    """What one process does before it ends: so many worlds from a seed on, or fewer if it is late."""

    first: int
    worlds: int
    until: float
    videos: bool = False


def work(batch: Batch) -> Stats:
    """Live through a batch."""
    total = Stats()
    with embedded_side() as side:
        for seed in range(batch.first, batch.first + batch.worlds):
            if time.monotonic() >= batch.until:
                break
            total.add(live(seed, side, videos=batch.videos).stats)
    return total


def campaign(
    *, first: int, lives: int, seconds: float, processes: int, videos: bool = False
) -> SimpleNamespace:
    """Run a campaign; return `stats`, `wall_s` and the number of processes."""
    began, total = time.monotonic(), Stats()
    # Forked from a process that has imported all of this and nothing else, and has one thread.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["chaos.sim.campaign"])
    seeds = itertools.count(first, BATCH)
    with context.Pool(processes, initializer=gc.disable, maxtasksperchild=1) as pool:

        def begin() -> AsyncResult:
            batch = Batch(next(seeds), BATCH, began + seconds, videos)
            return pool.apply_async(work, (batch,))

        running = deque(begin() for _ in range(processes + 1))
        while running:
            total.add(running.popleft().get())
            if total.lives < lives and time.monotonic() < began + seconds:
                running.append(begin())
    return SimpleNamespace(stats=total, wall_s=time.monotonic() - began, processes=processes)
