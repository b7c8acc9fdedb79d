"""What a join keeps in its scratch folder while its video is published: not the source any more."""

from __future__ import annotations

from hevcq.domain.job import JobState
from support.fakes.videofarm import VideoFarm


def test_the_source_is_gone_from_scratch_before_a_joined_video_is_published(tmp_path, monkeypatch):
    farm = VideoFarm(tmp_path)
    source = farm.chunked()
    publish, there = farm.store.publish, []

    def watched(publication):
        there.append([path.name for path in farm.scratch_files() if path.name == "source"])
        return publish(publication)

    monkeypatch.setattr(farm.store, "publish", watched)
    farm.handle()

    assert farm.state(source) is JobState.DONE
    assert there == [[]]
