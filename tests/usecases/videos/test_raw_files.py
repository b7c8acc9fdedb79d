"""The uploaded file goes only after every rendition is published and was read back, and never early."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JobState
from hevcq.domain.videos import Video, VideoStatus
from hevcq.errors import BadUpload, HevcqError, SourceDamaged
from hevcq.usecases.videos import manage
from hevcq.usecases.videos.manage import refresh
from hevcq.usecases.videos.uploads import delete_raw, process_due
from support.catalog import new_catalog
from support.fakes.backend import HLS
from support.videos import VideoBench

DAY_S = 86_400.0
KEPT_DAYS = 7


def later(bench: VideoBench, days: float = KEPT_DAYS + 0.1) -> None:
    """Let the machine live through some days, with looks at its videos."""
    for _ in range(int(days)):
        bench.clock.advance(DAY_S)
        process_due(bench.farm)
    bench.clock.advance((days - int(days)) * DAY_S)
    process_due(bench.farm)


def test_it_goes_when_its_time_is_over_and_the_renditions_stay(bench):
    video = bench.done()
    raw = bench.raw(video)
    later(bench, KEPT_DAYS - 0.1)
    assert raw.exists()
    later(bench, 0.2)

    assert not raw.exists()
    after = bench.now(video)
    assert after.raw_deleted_at is not None
    assert after.status is VideoStatus.DONE
    assert all(bench.backend.store.stat(each.key) for each in after.renditions)
    assert bench.farm.videos.usage("ann").size == sum(each.size for each in after.renditions)
    later(bench)
    assert bench.now(video) == after
    with pytest.raises(BadUpload, match="deleted"):
        manage.retry(bench.farm, after, "ann")


def test_a_longer_retention_counts_for_videos_of_before(bench):
    video = bench.done()
    bench.limit(raw_retention_days=30)
    bench.farm = replace(bench.farm, catalog=None)  # as on AWS
    later(bench, 29)
    assert bench.raw(video).exists()


def test_it_is_kept_from_now_on_where_nobody_knows_since_when(bench):
    video = bench.done()
    bench.farm = replace(bench.farm, catalog=new_catalog(bench.clock))
    bench.clock.advance((KEPT_DAYS + 1) * DAY_S)
    process_due(bench.farm)
    assert bench.raw(video).exists()


def test_of_a_set_every_file_is_read_back_first(bench):
    of_sets = HLS.model_copy(update={"name": "720p"})
    bench.farm = replace(bench.farm, profiles={**bench.farm.profiles, "720p": of_sets})
    bench.limit(raw_retention_days=0)
    video = bench.done()
    store = bench.backend.store
    rung = next(each.key for each in store.list("DONE/720p/") if each.key.endswith("v360.mp4"))
    with store.open(rung) as reading:
        content = reading.read()

    store.put(rung, b"noise", metadata={})
    process_due(bench.farm)
    process_due(bench.farm)
    assert bench.raw(video).exists()
    store.put(rung, content, metadata={})
    bench.clock.advance(DAY_S)
    process_due(bench.farm)
    process_due(bench.farm)
    assert not bench.raw(video).exists()


def _fails(bench: VideoBench) -> Video:
    video = bench.upload()
    bench.encoder.errors["probe"] = [SourceDamaged("Two packets are missing.")]
    bench.work()
    return refresh(bench.farm, video)


def _still_queued(bench: VideoBench) -> Video:
    video = bench.upload()
    bench.work("hevc")
    return refresh(bench.farm, video)


def _cancelled(bench: VideoBench) -> Video:
    video = bench.upload()
    bench.work("hevc")
    return manage.stop(bench.farm, video, "ann")


def _skipped(bench: VideoBench) -> Video:
    """One profile had nothing to do, e.g. because the upload is HEVC: it is that format's only copy."""
    video = bench.upload()
    bench.work("hevc")
    job = bench.job(video, "720p")
    claim = bench.backend.ledger.claim(job.source, "720p", owner="w", lease_s=60)
    bench.backend.ledger.skip(job.job_id, claim.fence, "already_target: Already HEVC.")
    return refresh(bench.farm, video)


def _rendition_gone(bench: VideoBench) -> Video:
    video = bench.done()
    bench.backend.store.delete(video.renditions[1].key)
    return video


def _certificate_gone(bench: VideoBench) -> Video:
    video = bench.done()
    bench.backend.store.delete(video.renditions[0].certificate_key)
    return video


def _rendition_rotted(bench: VideoBench) -> Video:
    video = bench.done()
    for data in (bench.folder / "data" / "objects").rglob("data"):
        content = data.read_bytes()
        if not content.startswith(b"{"):
            data.write_bytes(bytes([content[0] ^ 1]) + content[1:])
            break
    return video


def _rendition_replaced(bench: VideoBench) -> Video:
    video = bench.done()
    bench.backend.store.put(video.renditions[0].key, b"x", metadata={})
    return video


def _another_certificate(bench: VideoBench) -> Video:
    video, other = bench.done(), bench.done()
    with bench.backend.store.open(other.renditions[0].certificate_key) as stream:
        content = stream.read()
    bench.backend.store.put(video.renditions[0].certificate_key, content, metadata={})
    return video


def _certificate_rewritten(bench: VideoBench) -> Video:
    video = bench.done()
    key = video.renditions[0].certificate_key
    with bench.backend.store.open(key) as stream:
        proof = Certificate.read(stream).model_copy(update={"notices": ("not what was recorded",)})
    bench.backend.store.put(key, proof.to_json().encode(), metadata={})
    return video


def _queued_again(bench: VideoBench) -> Video:
    video = bench.done()
    bench.backend.task_publisher.requeue(bench.job(video, "hevc"), who="op", why="test")
    return video


def _never_finished(bench: VideoBench) -> Video:
    video = bench.request(size=100)
    bench.send(video)
    bench.limit(raw_retention_days=0)
    return bench.farm.change(video, upload={**video.upload.model_dump(), "expires_at": 2e9})


WAYS: dict[str, Callable[[VideoBench], Video]] = {
    way.__name__.strip("_"): way
    for way in (
        _fails,
        _still_queued,
        _cancelled,
        _skipped,
        _rendition_gone,
        _certificate_gone,
        _rendition_rotted,
        _rendition_replaced,
        _another_certificate,
        _certificate_rewritten,
        _queued_again,
        _never_finished,
    )
}


@pytest.mark.parametrize("way", WAYS)
def test_it_stays_while_anything_is_missing(bench, way):
    bench.limit(raw_retention_days=0)
    video = WAYS[way](bench)
    raw = bench.raw(video)
    assert raw.exists()
    later(bench, 9)
    delete_raw(bench.farm, bench.now(video))
    assert raw.exists()

    # Even where the record says that it may go: the ledger and the store are asked.
    past = {"done_at": 1.0, "raw_due_at": 1.0, "status": VideoStatus.DONE}
    delete_raw(bench.farm, bench.farm.change(bench.now(video), **past))
    assert raw.exists()
    assert bench.now(video).raw_deleted_at is None


def test_a_clock_that_was_set_forward_deletes_nothing(bench):
    video = bench.done()
    bench.clock.jump_wall(60 * DAY_S)
    process_due(bench.farm)
    later(bench, 2)
    assert bench.raw(video).exists()


def test_a_shorter_retention_counts_for_no_video_of_before(bench):
    bench.limit(raw_retention_days=30)
    video = bench.done()
    bench.limit(raw_retention_days=1)
    later(bench, 5)

    delete_raw(bench.farm, bench.now(video))

    assert bench.raw(video).exists()
    later(bench, 26)
    assert not bench.raw(video).exists()


def test_a_job_queued_while_the_renditions_are_read_keeps_it(bench):
    bench.limit(raw_retention_days=0)
    video = bench.done()
    opened, calls = bench.backend.store.open, []

    def read(key: str, **named: int):
        calls.append(key)
        if len(calls) == 2:
            bench.backend.task_publisher.requeue(bench.job(video, "hevc"), who="op", why="test")
        return opened(key, **named)

    bench.backend.store.open = read  # type: ignore[method-assign]
    delete_raw(bench.farm, video)
    assert bench.job(video, "hevc").state is JobState.QUEUED
    assert bench.raw(video).exists()
    assert not bench.now(video).raw_leaving


def test_a_kill_while_it_goes_is_mended_by_the_next_look(bench):
    bench.limit(raw_retention_days=0)
    video, files = bench.done(), bench.farm.files
    delete = files.delete_raw

    def killed(given: Video) -> None:
        delete(given)
        raise HevcqError("killed")

    files.delete_raw = killed  # type: ignore[method-assign]
    process_due(bench.farm)
    assert bench.now(video).raw_leaving
    files.delete_raw = delete  # type: ignore[method-assign]
    process_due(bench.farm)
    assert bench.now(video).raw_deleted_at is not None


def test_a_file_that_was_exchanged_is_nobodys_to_delete(bench):
    bench.limit(raw_retention_days=0)
    video = bench.done()
    raw: Path = bench.raw(video)
    raw.unlink()
    raw.write_bytes(b"a person's own")
    later(bench, 3)
    assert raw.read_bytes() == b"a person's own"
