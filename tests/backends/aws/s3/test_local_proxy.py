"""A source read by ranges: only what is asked for comes, it is never other bytes, and never fewer."""

import random
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends.aws.s3.test_store import accept, tear
from hevcq import relay
from hevcq.errors import DiskFull, HevcqError, SourceChanged, Stopped, Unavailable
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.process import child
from hevcq.ports.store import PROXY_SCHEME
from hevcq.util.clock import SystemClock
from support.aws.breaking import refusal
from support.clips import make_clip
from support.relay import open_relay

pytestmark = pytest.mark.aws


@contextmanager
def streamed(store, source, scratch: Path, stop: threading.Event | None = None, moved=None):
    told = moved if moved is not None else [0]
    scratch.mkdir(exist_ok=True)
    with store.stream(source, scratch, moved=told.append, stop=stop or threading.Event()) as given:
        assert given.path is None
        yield given.location


def get(location: str, span: str = "") -> bytes:
    with open_relay(location, span) as answer:
        return answer.read()


def test_any_range_of_it_is_the_bytes_of_the_source(store, large, tmp_path):
    source, content, dice = accept(store, large), large.read_bytes(), random.Random(7)
    told: list[int] = []

    with streamed(store, source, tmp_path / "scratch", moved=told) as location:
        assert location.startswith(f"{PROXY_SCHEME}127.0.0.1:")
        for _ in range(20):
            first, last = sorted(dice.sample(range(len(content)), 2))
            last = min(last, first + 200_000)
            assert get(location, f"{first}-{last}") == content[first : last + 1]
        assert get(location, f"{len(content) - 5}-") == content[-5:]
        assert get(location) == content

    assert told[-1] == len(content), "each byte comes once, however often it is read"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_only_what_is_read_is_fetched(store, large, tmp_path):
    source, told = accept(store, large), [0]

    with streamed(store, source, tmp_path / "scratch", moved=told) as location:
        get(location, "0-99")
        get(location, "7000000-7000099")

    assert told[-1] == 2 * relay.BLOCK_BYTES


def test_who_does_not_know_its_password_gets_nothing(store, large, tmp_path):
    source, told = accept(store, large), [0]

    with (
        streamed(store, source, tmp_path / "scratch", moved=told) as location,
        pytest.raises(urllib.error.HTTPError, match="407") as refused,
    ):
        get(location.partition("?")[0] + "?guess")
    refused.value.close()

    assert told == [0]


BREAKS = {
    "cut for good": ([tear(10)] * 30, Unavailable),
    "signature expired": ([refusal("ExpiredToken", 400)] * 30, HevcqError),
    "replaced": ([refusal("PreconditionFailed", 412)], SourceChanged),
    "disk full": ([OSError(28, "No space left on device")], DiskFull),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_a_reader_may_take_for_the_end_is_an_error_all_the_same(store, large, tmp_path, name):
    source, (steps, error) = accept(store, large), BREAKS[name]
    got = b""

    def read() -> None:
        nonlocal got
        with streamed(store, source, tmp_path / "scratch") as location:
            get(location, "0-99")
            store._s3.plan["get_object"] = list(steps)
            try:
                got = get(location, "4000000-")
            except OSError as short:
                got = getattr(short, "partial", b"")

    with pytest.raises(error):
        read()

    assert len(got) < source.size - 4_000_000
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_is_published_anew_while_it_is_read_is_never_mixed(store, large, tmp_path):
    content = large.read_bytes()
    store.put("work/x", content, metadata={})

    def read() -> None:
        with store.stream_published("work/x", tmp_path, stop=threading.Event()) as given:
            assert get(given.location, "0-99") == content[:100]
            store.put("work/x", b"x" * len(content), metadata={})
            with pytest.raises(OSError, match=r"IncompleteRead|Remote end|bytes read|timed out"):
                get(given.location, "6000000-6000099")

    with pytest.raises(SourceChanged):
        read()


def test_a_stop_ends_it(store, large, tmp_path):
    source, stop = accept(store, large), threading.Event()

    def read() -> None:
        with streamed(store, source, tmp_path / "scratch", stop) as location:
            stop.set()
            with pytest.raises(OSError, match=r"IncompleteRead|Remote end|bytes read|timed out"):
                get(location)

    with pytest.raises(Stopped):
        read()


@pytest.mark.media
def test_ffprobe_in_its_sandbox_reads_through_it_and_shows_nobody_the_password(
    store, tmp_path, monkeypatch
):
    """Given a real ffprobe, confined to the proxy's port, then it finds what the video is."""
    started: list[list[str]] = []
    real = child.subprocess.Popen

    def popen(command, **options):
        started.append(command)
        return real(command, **options)

    monkeypatch.setattr(child.subprocess, "Popen", popen)
    source = accept(store, make_clip(tmp_path, name="video.mp4"))

    with streamed(store, source, tmp_path / "scratch") as location:
        info = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock()).probe(
            location, stop=threading.Event()
        )
        password = location.partition("?")[2]

    assert info.streams
    assert started
    assert not any(password in word for command in started for word in command)
