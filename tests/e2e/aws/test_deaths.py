"""Workers that die or fail: another one finishes, and nothing is left behind."""

import json
from pathlib import Path

import pytest

from e2e.aws.fleet import Fleet
from e2e.embedded.farm import alive, children_of, until
from hevcq.domain.job import JobRecord, JobState, Phase
from hevcq.domain.verdict import FailureClass
from hevcq.ports.queue import Selection
from support.clips import make_clip

pytestmark = [pytest.mark.aws, pytest.mark.media]


def slow_video(folder: Path) -> bytes:
    return make_clip(folder, size="640x360", seconds=6, crf=20).read_bytes()


def until_encoding(fleet: Fleet) -> JobRecord:
    """Wait until a job is in the middle of its encode, and return it."""

    def encoding() -> list[JobRecord]:
        running = fleet.jobs(states=frozenset({JobState.RUNNING}))
        return [j for j in running if j.progress and j.progress.phase is Phase.ENCODE]

    until(lambda: bool(encoding()), timeout=60)
    return encoding()[0]


def test_a_worker_killed_in_mid_encode_is_replaced_by_another(fleet: Fleet, tmp_path: Path) -> None:
    fleet.recipe("hevc", preset="medium")
    pair = {worker.pid: worker for worker in (fleet.worker("hevc"), fleet.worker("hevc"))}
    fleet.put("TODO/hevc/video.mp4", slow_video(tmp_path))
    job = until_encoding(fleet)
    victim = pair.pop(int(job.owner.split("/")[1]))
    children = children_of(victim.pid)
    assert children

    victim.kill()
    victim.wait()
    (done,) = fleet.until_done(1)

    until(lambda: not any(alive(pid) for pid in children))
    assert (done.job_id, done.fence, done.crashes) == (job.job_id, job.fence + 1, 1)
    assert done.failures == 0
    assert [key for key in fleet.renditions() if "video" in key] == [done.rendition.key]
    (survivor,) = pair.values()
    assert fleet.stop(survivor) == 0
    # The next worker to start on the machine sweeps what the dead one had on its disk.
    assert fleet.run("worker", "hevc", "--drain", "--workers", "1").code == 0
    assert fleet.left_behind() == []


def test_a_failure_that_lasts_is_buried_and_redriven_after_the_fix(
    fleet: Fleet, tmp_path: Path
) -> None:
    fleet.recipe("hevc", bounds=", max_pixels: 4096")
    fleet.put("TODO/hevc/video.mp4", make_clip(tmp_path).read_bytes())
    worker = fleet.worker("hevc")
    (dead,) = fleet.until_done(1, state=JobState.DEAD)
    fleet.until_quiet("hevc")
    worker.kill()
    (letter,) = fleet.backend.queues["hevc"].dead_letters(Selection())
    assert letter.failure_class is dead.failure_class is FailureClass.UNSUPPORTED
    assert dead.reason == letter.reason

    fleet.recipe("hevc")
    listed = fleet.run("failures", "list", "--json")
    dry = fleet.run("redrive", "--dlq", "--dry-run", "--json")
    ran = fleet.run("redrive", "--dlq", "--profile", "hevc", "--json")
    fleet.worker("hevc")
    (done,) = fleet.until_done(1)

    assert [line["job_id"] for line in map(json.loads, listed.out.splitlines())] == [dead.job_id]
    assert [line["result"] for line in map(json.loads, dry.out.splitlines())] == ["would_redrive"]
    assert [line["result"] for line in map(json.loads, ran.out.splitlines())] == ["redriven"]
    assert (done.job_id, done.failures) == (dead.job_id, 0)
    fleet.until_quiet("hevc")
    assert fleet.run("failures", "list", "--json").out == ""
    assert fleet.left_behind() == []
