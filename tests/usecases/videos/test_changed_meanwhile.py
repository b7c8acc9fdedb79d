"""Videos that others change at the same time, and records that a ledger or a store forgot."""

from dataclasses import replace

import pytest

from hevcq.errors import BadUpload, Conflict, NoSuchVideo, Unavailable
from hevcq.usecases.videos import manage
from hevcq.usecases.videos.manage import live_rows, refresh, settled_rows
from hevcq.usecases.videos.playback import (
    play_file,
)
from hevcq.usecases.videos.uploads import delete_raw, why_kept, why_not_settled, why_too_early
from support.fakes.backend import Faulty


def test_an_upload_that_is_not_complete_has_no_jobs_to_follow_stop_or_repeat(bench):
    video = bench.request()
    assert refresh(bench.farm, video) == video
    assert live_rows(bench.farm, video) == settled_rows(video) == []
    assert manage.stop(bench.farm, video, "ann") == video
    with pytest.raises(BadUpload, match="was not completed"):
        manage.retry(bench.farm, video, "ann")
    assert why_not_settled(bench.farm, video) == "the video is uploading"
    assert delete_raw(bench.farm, video) == video
    manage.delete(bench.farm, video, "ann")
    assert bench.farm.videos.get(video.video_id) is None


def test_a_public_video_that_cannot_be_deleted_whole_is_public_no_more(bench):
    video = manage.publish(bench.farm, bench.done(), tags=True)

    def away(_name: str) -> None:
        raise Unavailable("away")

    bench.farm = replace(bench.farm, files=Faulty(bench.farm.files, before=away))

    with pytest.raises(Unavailable):
        manage.delete(bench.farm, video, "ann")

    assert bench.farm.videos.by_slug(str(video.slug)) is None


def test_a_video_that_somebody_keeps_changing_is_not_deleted(bench):
    video = bench.upload()
    bench.farm.videos.delete = refused  # type: ignore[method-assign]
    with pytest.raises(Conflict, match="is being changed by somebody else"):
        manage.delete(bench.farm, video, "ann")
    assert bench.now(video).title


def refused(_video: object) -> None:
    raise Conflict("changed")


def test_an_uploaded_file_that_was_deleted_is_not_played_or_deleted_again(bench):
    video = bench.done()
    found = play_file(bench.farm, video, "original", video.source.key.rpartition("/")[2])
    assert found.at == bench.raw(video)
    leaving = bench.farm.change(video, raw_leaving=True)
    with pytest.raises(NoSuchVideo, match="no such file"):
        play_file(bench.farm, leaving, "original", video.source.key.rpartition("/")[2])
    with pytest.raises(BadUpload, match="was deleted"):
        manage.retry(bench.farm, leaving, "ann")
    gone = bench.farm.change(leaving, raw_deleted_at=1.0)
    assert delete_raw(bench.farm, gone) == gone


def test_only_what_was_published_is_played(bench):
    video = bench.upload()
    with pytest.raises(NoSuchVideo, match="no such format of this video yet"):
        play_file(bench.farm, video, "hevc", "a.mp4")
    bench.work()
    done = refresh(bench.farm, video)
    made = done.renditions[0]
    name = made.key.rpartition("/")[2]
    assert play_file(bench.farm, done, made.profile, name).key == made.key
    with pytest.raises(NoSuchVideo, match="no such file"):
        play_file(bench.farm, done, made.profile, "../secret")
    bench.backend.store.delete(made.key)
    with pytest.raises(NoSuchVideo, match="no such file"):
        play_file(bench.farm, done, made.profile, name)


def test_a_store_that_does_not_answer_keeps_the_uploaded_file(bench):
    video = bench.done()

    def before(name: str) -> None:
        if name == "open":
            raise Unavailable("no answer")

    store = Faulty(bench.farm.backend.store, before=before)
    farm = replace(bench.farm, backend=replace(bench.farm.backend, store=store))
    assert why_kept(farm, video).endswith(": no answer")
    assert bench.raw(video).exists()


def test_an_uploaded_file_goes_only_when_all_is_known_and_over(bench):
    video = bench.done()
    assert why_too_early(bench.farm, video) == "its retention has not ended"
    open_ended = video.model_copy(update={"raw_due_at": None})
    assert why_too_early(bench.farm, open_ended) == "not every rendition is published"
    bench.clock.advance(400 * 86_400.0)
    farm = replace(bench.farm, catalog=None)
    assert why_too_early(farm, video) == ""
