"""A source behind a URL: a server that fails is the network's fault, never the file's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ffmpeg.run.test_http import Shelf
from hevcq.domain.profile import Profile, VideoRecipe
from hevcq.errors import SourceDamaged, SourceGone, SourceUnreadable, Unavailable
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.inspect.preflight import preflight
from hevcq.ffmpeg.probe.probe import probe
from hevcq.util.clock import SystemClock
from support.clips import make_clip

TOOLS = FfmpegTools("ffmpeg", "ffprobe", SystemClock())
PROFILE = Profile(name="p", description="d", video=VideoRecipe(codec="hevc", crf=24))


@contextmanager
def served(content: bytes, *, status: int = 200, cut: int | None = None) -> Iterator[str]:
    """Serve `content`; with `cut`, hang up after so many bytes of each answer."""
    shelf = Shelf(content)
    shelf.status, shelf.cut_after, shelf.cuts = status, cut, 1000
    with shelf.open() as url:
        yield url


@pytest.fixture
def clip(tmp_path) -> Path:
    return make_clip(tmp_path, name="video.mkv", seconds=4)


def check(url: str):
    stop = threading.Event()
    return preflight(TOOLS, url, probe(TOOLS, url, stop), PROFILE, stop)


def test_a_source_behind_a_url_is_measured_like_a_file(clip):
    with served(clip.read_bytes()) as url:
        assert check(url).tracks[0].packets == 100


def test_a_connection_that_is_cut_is_tried_again_later(clip):
    content = clip.read_bytes()
    with served(content, cut=len(content) // 2) as url, pytest.raises(Unavailable) as caught:
        check(url)
    assert "secret" not in str(caught.value)


def test_a_file_that_was_cut_before_it_was_uploaded_is_damaged(clip):
    content = clip.read_bytes()
    with (
        served(content[: len(content) // 2]) as url,
        pytest.raises(SourceDamaged) as caught,
    ):
        check(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error"), [(404, SourceGone), (403, Unavailable), (503, Unavailable)]
)
def test_a_refusal_of_the_server_is_named(clip, status, error):
    with served(clip.read_bytes(), status=status) as url, pytest.raises(error) as caught:
        probe(TOOLS, url, threading.Event())
    assert "secret" not in str(caught.value)


def test_a_playlist_behind_a_url_is_refused():
    playlist = (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:1/x.ts\n#EXT-X-ENDLIST\n"
    )
    with served(playlist) as url, pytest.raises(SourceUnreadable, match="playlist"):
        probe(TOOLS, url, threading.Event())
