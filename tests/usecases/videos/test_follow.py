"""A video's state follows its jobs; sharing, retrying, cancelling, deleting."""

import pytest

from hevcq.domain.job import JobState
from hevcq.domain.verdict import FailureClass
from hevcq.domain.videos import VideoStatus, Visibility
from hevcq.errors import UsageError
from hevcq.usecases.videos import manage
from hevcq.usecases.videos.manage import live_rows, refresh
from hevcq.usecases.videos.uploads import process_due
from support.videos import CLIP


def test_a_video_is_done_when_every_profile_is(bench):
    video = bench.upload()
    bench.work("hevc")
    process_due(bench.farm)
    half = bench.now(video)
    assert half.status is VideoStatus.PROCESSING
    assert {row.profile: row.state for row in live_rows(bench.farm, half)} == {
        "hevc": JobState.DONE,
        "720p": JobState.QUEUED,
    }

    bench.work("720p")
    process_due(bench.farm)
    done = bench.now(video)
    assert done.status is VideoStatus.DONE
    for row in live_rows(bench.farm, done):
        stored = bench.backend.store.stat(row.key)
        assert row.size == stored.size
        assert row.saved == pytest.approx(1 - stored.size / len(CLIP))
        assert bench.backend.store.stat(row.certificate_key) is not None
    assert refresh(bench.farm, done) == done
    made = sum(each.size for each in done.renditions)
    assert bench.farm.videos.usage("ann").size == len(CLIP) + made


def test_jobs_that_were_never_queued_are_queued(bench):
    """A process that dies between accepting and queueing on AWS leaves such a record."""
    video = bench.upload(profiles=("hevc",))
    wider = bench.farm.change(video, profiles=("hevc", "720p"))
    process_due(bench.farm)
    assert bench.job(wider, "720p").state is JobState.QUEUED


def test_a_public_address_ends_when_the_video_becomes_private(bench):
    video = bench.done(title="Über den Wolken!")
    shown = manage.publish(bench.farm, video)
    assert shown.slug.startswith("uber-den-wolken-")
    assert len(shown.slug) == len("uber-den-wolken-") + 16
    assert manage.publish(bench.farm, shown) == shown
    assert bench.farm.videos.by_slug(shown.slug) == shown

    hidden = manage.unpublish(bench.farm, shown)
    assert hidden.visibility is Visibility.PRIVATE
    assert manage.unpublish(bench.farm, hidden) == hidden
    assert bench.farm.videos.by_slug(shown.slug) is None
    assert manage.publish(bench.farm, hidden).slug != shown.slug


def test_a_video_without_a_format_is_shared_only_as_the_uploaded_file(bench):
    """Its visitors were told for ever that it is not ready yet."""
    video = bench.upload(profiles=("720p",))
    job = bench.job(video, "720p")
    claim = bench.backend.ledger.claim(job.source, "720p", owner="w", lease_s=60)
    bench.backend.ledger.skip(job.job_id, claim.fence, "already_target: Streams already.")

    with pytest.raises(UsageError, match="only the uploaded file"):
        manage.publish(bench.farm, video)

    assert bench.now(video).visibility is Visibility.PRIVATE
    assert manage.publish(bench.farm, bench.now(video), original=True).public_original


def test_deleting_a_video_leaves_nothing_of_it_and_all_of_the_others(bench):
    other, video = bench.done(), bench.done()
    raw = bench.raw(video)
    assert raw.exists()
    manage.delete(bench.farm, manage.publish(bench.farm, video), "ann")

    assert bench.farm.videos.get(video.video_id) is None
    assert not raw.exists()
    left = [stored.key for stored in bench.backend.store.list("")]
    assert left
    assert all(other.video_id in key for key in left)
    assert bench.raw(other).exists()
    assert bench.farm.videos.usage("ann").videos == 1


def test_deleting_a_video_cancels_its_jobs(bench):
    video = bench.upload()
    manage.delete(bench.farm, video, "ann")
    assert bench.job(video, "hevc").failure_class is FailureClass.CANCELLED
    bench.work()
    assert list(bench.backend.store.list("")) == []
