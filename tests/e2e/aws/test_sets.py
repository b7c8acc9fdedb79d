"""An HLS rendition through S3: placed as a folder, whole for players of the bucket, whatever is killed."""

import subprocess

import pytest

from e2e.aws.fleet import Fleet
from e2e.embedded.farm import until
from hevcq.domain.job import JobRecord, JobState
from hevcq.domain.keys import MASTER, is_set

pytestmark = [pytest.mark.aws, pytest.mark.media, pytest.mark.slow]
PROFILE = "720p"
"""The name of a queue that every fleet has; here its profile makes sets."""


@pytest.fixture
def sets(fleet: Fleet) -> Fleet:
    fleet.recipe(PROFILE, container="hls", video="codec: h264, crf: 22")
    return fleet


def packets(master: str) -> list[str]:
    """Return the packets of every stream that a player of the master playlist reads."""
    command = ["ffprobe", "-v", "error", "-count_packets", "-show_entries"]
    command += ["stream=codec_type,nb_read_packets", "-of", "csv=p=0", master]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return sorted({line for line in done.stdout.splitlines() if line.startswith(("v", "a"))})


def test_the_hls_of_a_long_video_is_shared_by_workers_one_of_which_is_killed(fleet: Fleet) -> None:
    # Segments of a second, and chunks of two: what a video of ten minutes has by default.
    short = "hls: {segment_s: 1}\nchunking: {mode: always, target_s: 2}"
    fleet.recipe(PROFILE, container=f"hls\n{short}", video="codec: h264, crf: 22")
    video = fleet.clip("long.mp4", seconds=9)
    first, second = fleet.worker(PROFILE), fleet.worker(PROFILE)
    queued = fleet.ingest("--profile", PROFILE, "--no-wait")
    assert queued.code == 0, queued.err

    def chunks() -> list[JobRecord]:
        split = [job for job in fleet.jobs() if job.state is JobState.SPLIT]
        parts = fleet.backend.ledger.subjobs(split[0].job_id) if split else []
        return [part for part in parts if part.state is JobState.DONE]

    until(lambda: len(chunks()) >= 1, timeout=90)
    first.kill()
    first.wait()
    ran = fleet.ingest("--profile", PROFILE)

    assert ran.code == 0, ran.out + ran.err + fleet.log()
    (job,) = fleet.jobs()
    assert job.split is not None, "it was not given up for a whole encode"
    assert job.split.chunks >= 3
    placed = video.with_name("long.720p.hls")
    checked = fleet.run("check", placed, "--source", video)
    assert checked.code == 0, checked.out + checked.err
    assert f"video,{225}" in packets(str(placed / MASTER))
    assert fleet.stop(second) == 0
    assert fleet.strays() == []


def test_a_bucket_serves_a_set_with_types_and_times_for_players(sets: Fleet) -> None:
    sets.clip("video.mp4", seconds=1)
    sets.worker(PROFILE)

    ran = sets.ingest("--profile", PROFILE)

    assert ran.code == 0, ran.out + ran.err + sets.log()
    heads = {}
    for key in sets.renditions():
        heads[key] = sets.clients.s3.head_object(Bucket=sets.aws.output_bucket, Key=key)
    facts = {
        key.rpartition(".")[2]: (head["ContentType"], head["CacheControl"])
        for key, head in heads.items()
        if not is_set(key)
    }
    for_ever = "public, max-age=31536000, immutable"
    assert facts["mp4"] == ("video/mp4", for_ever)
    assert facts["m3u8"] == ("application/vnd.apple.mpegurl", for_ever)
    assert facts["jpg"] == ("image/jpeg", for_ever)
    assert facts["vtt"] == ("text/vtt", for_ever)
    (master,) = [head for key, head in heads.items() if is_set(key)]
    assert (master["ContentType"], master["CacheControl"]) == (
        "application/vnd.apple.mpegurl",
        "max-age=60",
    )
    assert sets.left_behind() == []
