"""A real video in real chunks, by a real pool over the embedded backend: every frame once, in order."""

import json
import subprocess
import threading
from pathlib import Path

import pytest

from hevcq.backends.embedded.factory import open_embedded
from hevcq.domain.certificate import Certificate
from hevcq.domain.events import EventName
from hevcq.domain.job import JobState, job_id
from hevcq.domain.keys import key_for_path
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile_sections import Chunking, ChunkMode
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.settings.model import Settings
from hevcq.util.clock import SystemClock
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.pool import Numbers, WorkerPool
from hevcq.worker.scratch import Scratch
from support.clips import make_clip
from support.fakes.backend import HEVC

PROFILE = HEVC.model_copy(
    update={
        "video": HEVC.video.model_copy(update={"preset": "ultrafast"}),
        "chunking": Chunking(mode=ChunkMode.ALWAYS, min_s=1.0, target_s=1.0, max_s=2.0),
    }
)
EVERY_SECOND = ("-g", "25", "-keyint_min", "25", "-sc_threshold", "0", "-bf", "2")


def times(path: Path) -> list[str]:
    """Return the presentation times of the video's frames, in order, as ffprobe prints them."""
    asked = ["-select_streams", "v:0", "-show_entries", "frame=best_effort_timestamp_time"]
    words = ["ffprobe", "-v", "error", *asked, "-of", "json", str(path)]
    found = subprocess.run(words, check=True, capture_output=True, timeout=60)
    return [frame["best_effort_timestamp_time"] for frame in json.loads(found.stdout)["frames"]]


@pytest.mark.media
def test_a_video_of_many_key_frames_is_joined_to_every_frame_at_its_time(tmp_path):
    clip = make_clip(tmp_path, name="video.mp4", seconds=4, extra=EVERY_SECOND)
    clock, done, seen = SystemClock(), threading.Event(), []
    opened = open_embedded(Settings(data_dir=tmp_path / "data"), {"hevc": PROFILE}, clock)
    backend, key = opened.backend, key_for_path(str(clip))
    source = backend.store.accept(clip, key, moved=lambda _n: None, stop=done)
    backend.task_publisher.publish(source, ["hevc"], announced=False)

    def reported(event):
        seen.append(event)
        if event.kind in {EventName.JOB_DONE, EventName.JOB_BURIED, EventName.JOB_SKIPPED}:
            done.set()

    scratch = Scratch(tmp_path / "scratch", clock)
    encoder = FfmpegEncoder("ffmpeg", "ffprobe", clock)
    context = WorkerContext(
        backend, encoder, make_plan, scratch, clock, threads=1, on_event=reported
    )
    pool = WorkerPool(context, [ProfileQueue(PROFILE, backend.queues["hevc"])], Numbers(slots=2))
    pool.start()
    assert done.wait(120)
    pool.insist()
    for thread in pool._threads:
        thread.join(30)
    pool.finish()

    record = backend.ledger.get(job_id(source, "hevc"))
    assert (record.state, record.reason) == (JobState.DONE, "")
    rendition = tmp_path / "rendition.mp4"
    backend.store.collect(
        record.rendition.key, rendition, moved=lambda _n: None, stop=threading.Event()
    )
    assert times(rendition) == times(clip)
    chunks = {event.part for event in seen if event.kind is EventName.PART_DONE}
    assert len(chunks) >= 2
    with backend.store.open(record.rendition.certificate_key) as stream:
        certificate = Certificate.parse(stream.read())
    assert certificate.arguments.count("&&") == len(chunks)
    assert list(backend.store.list("work/")) == []
    depth = backend.queues["hevc"].depth()
    assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (0, 0, 0, 0)
    opened.close()
