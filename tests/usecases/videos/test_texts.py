"""Subtitles of a rendition: read once, kept with its files, and never in the way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hevcq.domain.media.facts import Chapter
from hevcq.errors import NoSuchVideo
from hevcq.ports.encoder import TextTrack
from hevcq.usecases.videos import manage
from hevcq.usecases.videos.playback import TextReader, track
from support.fakes.encoder import FakeEncoder

WORDS = TextTrack("WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n", "de", "Deutsch", ("forced",))


class Librarian(FakeEncoder):
    """Finds these words in each file."""

    read = 0

    def texts(self, location: str, **_named: Any) -> Any:
        self.read += 1
        assert Path(location).is_file()
        return (WORDS,), (
            Chapter(start_s=0.0, end_s=1.0),
            Chapter(start_s=1.0, end_s=2.0, title="B"),
        )


@pytest.fixture
def librarian() -> Librarian:
    return Librarian()


@pytest.fixture
def reader(librarian: Librarian, tmp_path: Path) -> Iterator[TextReader]:
    made = TextReader(librarian, tmp_path / "texts")
    yield made
    made.close()


def test_they_are_read_once_of_each_rendition_and_deleted_with_the_video(bench, reader, librarian):
    video = bench.done()

    found = reader.texts(bench.farm, video, "hevc")

    (only,) = found.tracks
    assert only == WORDS
    assert [(each.start_s, each.title) for each in found.chapters] == [(0.0, ""), (1.0, "B")]
    assert reader.texts(bench.farm, video, "hevc") == found
    assert librarian.read == 1
    assert track(bench.farm, video, "hevc", 0) == WORDS.content
    with pytest.raises(NoSuchVideo):
        track(bench.farm, video, "hevc", 1)
    with pytest.raises(NoSuchVideo):
        track(bench.farm, video, "720p", 0)
    kept = [each.key for each in bench.backend.store.list("") if each.key.endswith("texts.json")]
    assert len(kept) == 1
    manage.delete(bench.farm, video, "ann")
    assert bench.backend.store.stat(kept[0]) is None
