"""Uploads of every kind become renditions, through real worker processes and real ffmpeg."""

import httpx2
import pytest

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JobState
from hevcq.domain.verdict import FailureClass
from support.clips import codec_of, make_clip

pytestmark = [pytest.mark.aws, pytest.mark.media]
ODD = "TODO/all/a video + more %20/é 漢字 &=?#.mp4"


def test_an_upload_of_each_kind_reaches_all_profiles_that_want_it(fleet, tmp_path):
    content = make_clip(tmp_path, seconds=1).read_bytes()
    fleet.put(ODD, content)
    s3, bucket = fleet.clients.s3, fleet.aws.input_bucket
    form = s3.generate_presigned_post(bucket, "TODO/all/form.mp4", ExpiresIn=60)
    sent = httpx2.post(form["url"], data=form["fields"], files={"file": ("f", content)})
    sent.raise_for_status()
    fleet.put("TODO/720p/only.mp4", content)
    fleet.clip("library.mp4")

    fleet.workers()
    ran = fleet.ingest(*(word for name in fleet.known for word in ("--profile", name)))

    assert ran.code == 0, ran.out + ran.err + fleet.log()
    done = fleet.until_done(7)
    fleet.until_quiet()
    placed = sorted(path.name for path in fleet.media.glob("library.*.mp4"))
    assert placed == ["library.720p.mp4", "library.hevc.mp4"]
    keys = fleet.renditions()
    assert len(keys) == len(set(keys)) == 7
    odd = ODD.removeprefix("TODO/all/")
    for profile, codec in (("hevc", "hevc"), ("720p", "h264")):
        assert f"DONE/{profile}/{odd}.mp4" in keys
        where = {"Bucket": fleet.aws.output_bucket, "Key": f"DONE/{profile}/{odd}.mp4"}
        url = s3.generate_presigned_url("get_object", where, ExpiresIn=60)
        assert codec_of(url) == codec
    assert [key for key in keys if "only" in key] == ["DONE/720p/only.mp4.mp4"]
    for job in done:
        stored = fleet.backend.store.stat(job.rendition.key)
        with fleet.backend.store.open(stored.metadata["certificate"]) as file:
            proof = Certificate.parse(file.read())
        assert (proof.job_id, proof.rendition_sha256) == (job.job_id, stored.sha256)
    assert fleet.left_behind() == []


def test_poison_is_in_the_dead_letters_of_each_profile_after_one_receive(fleet):
    fleet.put("TODO/all/poison.mp4", b"this is not a clip\n" * 100)
    sqs = fleet.clients.sqs
    queue = sqs.get_queue_url(QueueName=f"{fleet.aws.queue_prefix}hevc")["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody='{"forged": "yes"}')

    fleet.workers()
    fleet.until_done(2, state=JobState.DEAD)
    fleet.until_quiet()

    for name, queue in fleet.backend.queues.items():
        letters = list(queue.dead_letters())
        classes = sorted(letter.failure_class for letter in letters)
        assert classes == sorted(
            [FailureClass.UNREADABLE, *([FailureClass.MESSAGE] if name == "hevc" else [])]
        )
        assert {letter.attempts for letter in letters} == {1}
        assert all(letter.reason for letter in letters)
    assert fleet.renditions() == []
    assert fleet.left_behind() == []
