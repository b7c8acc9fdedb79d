"""Limit the files that a reader must open to follow one plain encode from receive to settlement."""

import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hevcq
from hevcq.backends.sql.factory import open_sql
from hevcq.domain.keys import key_for_path
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.verdict import Done
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import installed_folder, load_profiles
from hevcq.util.clock import SystemClock
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.handler import Handler, ProfileQueue
from hevcq.worker.scratch import Scratch
from support.clips import make_clip

SRC = Path(hevcq.__file__).parent
MAX_WORKER_FILES, MAX_FILES = 12, 62


def files_entered(action: Callable[[], Any]) -> set[str]:
    """Return the files of src whose functions `action` calls in any thread."""
    seen: set[str] = set()

    def note(frame: Any, event: str, _arg: Any) -> None:
        # A class body that runs because a module is imported is no function that is called.
        body = not frame.f_code.co_flags & inspect.CO_OPTIMIZED
        if event == "call" and not body and not frame.f_code.co_name.startswith("<"):
            seen.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    inside = (Path(name) for name in seen if Path(name).is_relative_to(SRC))
    return {path.relative_to(SRC).as_posix() for path in inside}


@pytest.mark.media
def test_one_plain_encode_is_read_in_few_files(tmp_path: Path) -> None:
    clock, profiles = SystemClock(), load_profiles(installed_folder())
    profile = profiles["hevc"]
    opened = open_sql(Settings(data_dir=tmp_path / "data"), profiles, clock)
    backend = opened.backend
    scratch = Scratch(tmp_path / "scratch", clock)
    encoder = FfmpegEncoder("ffmpeg", "ffprobe", clock)
    encoder.version()  # asked once, before a worker receives anything
    context = WorkerContext(backend, encoder, make_plan, scratch, clock)
    video = make_clip(tmp_path)
    key = key_for_path(str(video))
    source = backend.store.accept(video, key, moved=lambda _n: None, stop=threading.Event())
    backend.task_publisher.publish(source, ["hevc"], announced=False)
    queue, results = backend.queues["hevc"], []

    def life() -> None:
        (delivery,) = queue.receive(1, wait_s=0.0, stop=threading.Event())
        results.append(Handler(context, "here:0").process(ProfileQueue(profile, queue), delivery))

    entered = files_entered(life)
    opened.close()

    assert isinstance(results[0].verdict, Done), results
    worker = sorted(name for name in entered if name.startswith("worker/"))
    assert len(worker) <= MAX_WORKER_FILES, worker
    assert len(entered) <= MAX_FILES, sorted(entered)
