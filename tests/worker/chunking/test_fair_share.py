"""Short jobs are not stuck behind a video's chunks: two videos and ten short jobs on four workers."""

import heapq
import itertools
import threading
from pathlib import Path

import pytest

from contracts.backends import source
from hevcq.backends.embedded.factory import open_embedded
from hevcq.domain.job import Source, Task, TaskKind
from hevcq.settings.model import Settings
from support.clips import ManualClock
from support.fakes.backend import HEVC
from support.fakes.videofarm import EmbeddedVideoFarm

WORKERS, CHUNKS, SHORT_JOBS = 4, 60, 10
CHUNK_S, SHORT_S = 60.0, 60.0


def run(folder: Path) -> dict[str, float]:
    """Return when each short job ended, and each video, by workers in virtual time."""
    clock = ManualClock(auto=True)
    profile = HEVC.model_copy(
        update={"queue": HEVC.queue.model_copy(update={"visibility_s": 43_200})}
    )
    opened = open_embedded(Settings(data_dir=folder), {"hevc": profile}, clock)
    queue, begin = opened.backend.queues["hevc"], clock.monotonic()
    for video in ("video one", "video two"):
        group = source(video).source_id
        queue.send(
            [
                Task(
                    kind=TaskKind.CHUNK,
                    source=source(video),
                    profile="hevc",
                    chunk=number,
                    group=group,
                    split="digest-1",
                )
                for number in range(CHUNKS)
            ]
        )
    queue.send([Task(source=source(f"short {n}"), profile="hevc") for n in range(SHORT_JOBS)])
    ended: dict[str, float] = {}
    busy: list[tuple[float, int, object]] = []
    numbers = itertools.count()
    for _ in range(2 * CHUNKS + SHORT_JOBS + WORKERS):
        while len(busy) < WORKERS:
            found = queue.receive(1, wait_s=0, stop=threading.Event())
            if not found:
                break
            kind = found[0].tasks[0].kind
            cost = CHUNK_S if kind is TaskKind.CHUNK else SHORT_S
            heapq.heappush(busy, (clock.monotonic() + cost, next(numbers), found[0]))
        if not busy:
            break
        at, _, delivery = heapq.heappop(busy)
        clock.advance(max(0.0, at - clock.monotonic()))
        queue.ack(delivery)
        ended[delivery.tasks[0].source.key] = clock.monotonic() - begin
    assert queue.depth().ready + queue.depth().in_flight == 0
    opened.close()
    return ended


@pytest.mark.repeats
def test_short_jobs_pass_between_the_chunks_of_videos_that_were_there_before_them(tmp_path, capsys):
    ended = run(tmp_path / "data")
    shorts = [at for key, at in ended.items() if "short" in key]
    alone = SHORT_JOBS / WORKERS * SHORT_S
    worst = max(shorts) / alone
    with capsys.disabled():
        print(f"\nfairness: last of {SHORT_JOBS} short jobs after {worst:.2f} x its time alone")

    # Round by round they take turns with one chunk of each video, and wait for those under way.
    assert worst <= 2.0
    assert max(shorts) < min(at for key, at in ended.items() if "video" in key) / 4


def task(name: str, chunk: int | None = None) -> Task:
    """Return the task of a job, or of a chunk of a video."""
    source = Source(bucket="uploads", key=f"TODO/all/{name}.mp4", version="v1", size=1)
    if chunk is None:
        return Task(source=source, profile="hevc")
    return Task(
        kind=TaskKind.CHUNK,
        source=source,
        profile="hevc",
        chunk=chunk,
        group=source.source_id,
        split="0123-1",
    )


def test_a_video_does_not_pass_a_waiting_job_because_an_old_message_came_back(tmp_path):
    queue = EmbeddedVideoFarm(tmp_path).queue

    def received():
        (found,) = queue.receive(1, wait_s=0, stop=threading.Event())
        return found

    queue.send([task("old")])
    old = received()
    queue.send([task("first-video", n) for n in range(5)])
    for _ in range(4):
        queue.ack(received())
    queue.send([task("waits")])
    queue.ack(received())
    queue.release(old)
    queue.send([task("second-video", n) for n in range(10)])

    names = []
    for _ in range(3):
        found = received()
        names.append(found.tasks[0].source.key.split("/")[-1])
        queue.ack(found)
    assert names == ["old.mp4", "waits.mp4", "second-video.mp4"]
