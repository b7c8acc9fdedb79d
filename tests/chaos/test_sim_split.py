"""Split videos and receivers in the simulation's short form, and that it sees what is wrong."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from chaos.points import points
from chaos.sim.campaign import EMBEDDED_EVERY, embedded_side, is_embedded, live, silent
from chaos.sim.chaos import Stats
from chaos.sim.video_driver import VideoDriver
from chaos.sim.video_world import VideoWorld, is_video_world
from hevcq.domain.keys import parse_work_key
from hevcq.errors import Superseded
from hevcq.worker import chunking
from hevcq.worker.delivery.lease import Lease
from hevcq.worker.encode_job import subjob_task

ROOT = Path(__file__).resolve().parents[2]
WORLDS = (*range(1, 11), EMBEDDED_EVERY)
SEEDS = 40
"""How many worlds a planted defect may take until it is noticed."""
VIDEO_SEED = next(seed for seed in itertools.count(1) if is_video_world(seed))


def _live(seed: int, side, kind: type[VideoWorld] = VideoWorld) -> VideoWorld:
    """Run the world of split videos that a seed has, also where the seed's own is a plain one."""
    aws = set(kind.forced) - {"videos"}
    world = kind(seed, embedded=side if is_embedded(seed) and not aws else None)
    with silent():
        return world.run()


def test_no_world_of_videos_breaks_an_invariant():
    stats, numbers, kinds = Stats(), {}, set()
    with embedded_side() as side:
        for seed in WORLDS:
            world = _live(seed, side)
            stats.add(world.stats)
            kinds |= {name for name in ("videos", "receivers") if getattr(world, name)}
            for name, number in world.checks.numbers.items():
                numbers[name] = numbers.get(name, 0) + number

    print(f"{stats.lives} jobs, {numbers}")
    of_videos = set(points("chunk", "join"))
    killed_at = set(stats.killed_at) & of_videos
    print(f"{len(stats.points)} points, {len(killed_at)} of a chunk or join killed at")
    print(f"never come to: {sorted(of_videos - set(stats.points))}")
    assert kinds == {"videos", "receivers"}
    assert numbers["end_complete"] > numbers["end_abandon_split"] > 0
    assert set(stats.points) >= of_videos
    assert len(killed_at) >= 5


def test_a_world_of_videos_replays_byte_for_byte_and_in_another_process():
    with embedded_side() as side:
        first, second = live(VIDEO_SEED, side).sched, live(VIDEO_SEED, side).sched
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    command = [sys.executable, "-m", "tests.chaos.sim", "--seed", str(VIDEO_SEED)]
    there = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True
    )

    assert (first.trace_hash, first.steps) == (second.trace_hash, second.steps)
    assert f"trace hash {first.trace_hash}" in there.stdout


class Split(VideoWorld):
    forced = ("videos",)


class ImpatientDriver(VideoDriver):
    """Cancels a split video now and then for as long as videos arrive."""

    def _story(self):
        story = super()._story()
        last = max(at for at, _action in story)
        return story + [(last * share / 10, self._cancel) for share in range(1, 11)]


class Impatient(VideoWorld):
    driven_by, forced = ImpatientDriver, ("videos",)


def _broken(word: str, *, kind: type[VideoWorld] = VideoWorld, first=1) -> None:
    """Run worlds until one breaks and says `word`; begin with the seed that has done so lately."""
    said = set()
    with embedded_side() as side:
        for seed in range(first, first + SEEDS):
            try:
                _live(seed, side, kind)
            except BaseException as error:
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise
                said.add(str(error))
                if word in str(error):
                    return
    raise AssertionError(f"{SEEDS} worlds noticed only {sorted(said)}")


def test_a_join_that_is_sent_too_early_is_noticed(monkeypatch):
    def hasty(context, task):
        join_task = subjob_task(task, task.split, None)
        context.retry_control_call(lambda: context.backend.queues[task.profile].send([join_task]))

    monkeypatch.setattr(chunking, "send_join", hasty)

    _broken("a join was sent before the set was complete")


def test_a_join_that_takes_a_part_of_a_stale_plan_is_noticed(monkeypatch):
    """Parts are looked up by their number alone, as if a job had only ever one split."""
    download = chunking.JoinJob._download_chunk

    def any_split(self, part, folder):
        if part.subjob.chunk == 0:
            found = [o for o in self._store.list("work/") if o.key.endswith("/00000.part")]
            other = [o for o in found if parse_work_key(o.key)[0] == self._job.job_id]
            oldest = min(other, key=lambda o: o.modified_at, default=None)
            if oldest is not None:
                there = part.rendition.model_copy(
                    update={"key": oldest.key, "sha256": oldest.sha256}
                )
                part = part.model_copy(update={"rendition": there})
        return download(self, part, folder)

    monkeypatch.setattr(chunking.JoinJob, "_download_chunk", any_split)
    monkeypatch.setattr(chunking, "sweep", lambda *_a, **_n: None)

    _broken("splits in one video", first=18)


def test_a_job_that_publishes_without_asking_the_lease_is_noticed(monkeypatch):
    """What lost its lease goes on to its end, and publishes."""
    ended = Lease.end

    def unheard(self, cause):
        stop, self.stop = self.stop, SimpleNamespace(set=lambda: None)
        ended(self, cause)
        self.stop = stop

    monkeypatch.setattr(Lease, "end", unheard)
    monkeypatch.setattr(Lease, "check", lambda self: None)

    _broken("a publication without a live lease", kind=Split, first=3)


def test_a_chunk_that_nobody_stops_after_a_cancel_is_noticed(monkeypatch):
    end = Lease.end

    def unstopped(self, cause):
        if not isinstance(cause, Superseded):
            end(self, cause)

    monkeypatch.setattr(Lease, "end", unstopped)

    _broken("nobody wants it any more", kind=Impatient)


def test_a_video_that_is_not_swept_is_noticed(monkeypatch):
    monkeypatch.setattr(chunking, "sweep", lambda *_a, **_n: None)

    _broken("this is left", first=2)
