"""A message that comes back lets nobody pass who came after others."""

from __future__ import annotations

import threading

from hevcq.domain.job import Source, Task, TaskKind
from support.fakes.videofarm import EmbeddedVideoFarm


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
