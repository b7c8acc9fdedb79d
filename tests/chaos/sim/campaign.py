"""Many worlds, on several cores, counted; a seed that breaks is printed with the end of its trace."""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import structlog

from chaos.sim.backends import SqliteSide
from chaos.sim.chaos import Stats
from chaos.sim.film_world import FilmWorld, is_film_world
from chaos.sim.world import World

EMBEDDED_EVERY = 24
"""One world in so many runs over the production SQL; SQLite costs several times a dict."""
COLLECT_EVERY = 16
"""After so many worlds their cycles are collected; doing so all the time is an eighth of the cost."""


class _Silent:
    """A logger that says nothing: formatting would be most of a world's cost."""

    def __getattr__(self, _name: str):
        return _nothing


def _nothing(*_args: object, **_named: object) -> None:
    return None


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Say nothing while worlds run."""
    before, silent_ = structlog.get_logger, _Silent()
    structlog.get_logger = lambda **_bound: silent_
    try:
        yield
    finally:
        structlog.get_logger = before


@contextlib.contextmanager
def embedded_side() -> Iterator[SqliteSide]:
    """A database on a memory disk where there is one."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        side = SqliteSide(Path(folder))
        try:
            yield side
        finally:
            side.close()


def is_embedded(seed: int) -> bool:
    """Whether this seed's world has the production SQL under it."""
    return seed % EMBEDDED_EVERY == 0


def world_of(seed: int, *, films: bool = False) -> type[World]:
    """Which kind of world this seed's is; with `films` every one has split films."""
    return FilmWorld if films or is_film_world(seed) else World


def live(seed: int, side: SqliteSide, *, verbose: bool = False, films: bool = False) -> World:
    """Run one world; raises what broke, with the world's trace in the notes."""
    world = world_of(seed, films=films)(seed, embedded=side if is_embedded(seed) else None)
    world.sched.verbose = verbose
    with silent():
        try:
            return world.run()
        except BaseException as error:
            more = " --films" if films else ""
            replay = f"python -m tests.chaos.sim --seed {seed}{more}"
            error.add_note(f"seed {seed}: replay with `{replay}`")
            error.add_note("\n".join(list(world.sched.tail)[-60:]))
            raise AssertionError(f"seed {seed}: {error!r}") from error


@dataclass(frozen=True)
class Share:
    """What one process does: seeds `first`, `first + step` and so on, until a bound is met."""

    first: int
    step: int
    lives: int
    seconds: float
    films: bool = False


def work(share: Share) -> Stats:
    """Live through worlds until the share's lives or its seconds are used up."""
    total, end = Stats(), time.monotonic() + share.seconds
    with embedded_side() as side, _rarely_collected() as collect:
        for seed in itertools.count(share.first, share.step):
            if total.lives >= share.lives or time.monotonic() > end:
                return total
            total.add(live(seed, side, films=share.films).stats)
            if total.worlds % COLLECT_EVERY == 0:
                collect()
    raise AssertionError


@contextlib.contextmanager
def _rarely_collected() -> Iterator[Callable[[], object]]:
    """Leave cyclic garbage alone inside the context, but for calls of what it yields."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield gc.collect
    finally:
        if was:
            gc.enable()


def campaign(
    *, first: int, lives: int, seconds: float, processes: int, films: bool = False
) -> SimpleNamespace:
    """Run a campaign; return `stats`, `wall_s` and the number of processes."""
    began = time.monotonic()
    each = -(-lives // processes)
    shares = [Share(first + n, processes, each, seconds, films) for n in range(processes)]
    total = Stats()
    if processes == 1:
        total.add(work(shares[0]))
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            for stats in pool.imap_unordered(work, shares):
                total.add(stats)
    return SimpleNamespace(stats=total, wall_s=time.monotonic() - began, processes=processes)
