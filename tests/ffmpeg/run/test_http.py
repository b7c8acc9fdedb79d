"""Sources over HTTP with ranges: a broken connection is taken up again, or is no rendition."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from ffmpeg.run.test_encoder import asked
from hevcq.errors import HevcqError, SourceGone, Unavailable
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.run.messages import Pass, unexpected_lines
from hevcq.ports.encoder import EncodeReport
from hevcq.util.clock import SystemClock
from support.clips import make_clip
from support.standin import Quiet, running

ENCODER = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())


class Shelf:
    """One file on 127.0.0.1, with ranges; `cut_after` bytes it hangs up, so many `cuts` times.

    `status` other than 200 is answered instead of the file.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.cut_after: int | None = None
        self.cuts = 0
        self.status = 200
        self.status_after_cut = 200
        self.asked = 0

    @contextmanager
    def open(self) -> Iterator[str]:
        with running(ThreadingHTTPServer(("127.0.0.1", 0), self._handler())) as server:
            yield f"http://127.0.0.1:{server.server_port}/video.mkv?X-Signature=secret"

    def _handler(self) -> type[Quiet]:
        shelf = self

        class Handler(Quiet):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                shelf.asked += 1
                if shelf.status != 200:
                    self.reply(shelf.status)
                    return
                wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))
                start, whole = int(wanted.group(1)), len(shelf.content)
                body = shelf.content[start:]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if shelf.cut_after is not None and shelf.cuts > 0 and len(body) > shelf.cut_after:
                    shelf.cuts -= 1
                    shelf.status = shelf.status_after_cut
                    body, self.close_connection = body[: shelf.cut_after], True
                try:
                    self.wfile.write(body)
                except ConnectionError:
                    self.close_connection = True

        return Handler


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(make_clip(tmp_path, name="video.mkv", seconds=2, size="320x180").read_bytes())


def encode(url: str, shelf: Shelf, tmp_path: Path) -> EncodeReport:
    request = asked(tmp_path, tmp_path / "video.mkv")
    return ENCODER.encode(
        replace(request, location=url), on_progress=lambda _state: None, stop=threading.Event()
    )


def test_a_video_streams_and_the_signature_stays_out_of_the_report(shelf, tmp_path) -> None:
    with shelf.open() as url:
        report = encode(url, shelf, tmp_path)

    assert (report.frames, report.stderr) == (50, ())
    assert not [word for word in report.arguments if "secret" in word]


def test_a_broken_connection_is_taken_up_where_it_broke(shelf, tmp_path) -> None:
    shelf.cut_after, shelf.cuts = len(shelf.content) // 2, 1

    with shelf.open() as url:
        report = encode(url, shelf, tmp_path)

    assert report.frames == 50
    assert shelf.asked > 1
    assert unexpected_lines(report.stderr, Pass.ENCODE) == ()


def test_a_connection_that_breaks_for_good_leaves_no_short_video(
    shelf, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("hevcq.ffmpeg.command.build.RECONNECT_S", "0")
    shelf.cut_after, shelf.cuts, shelf.status_after_cut = len(shelf.content) // 2, 1, 503

    with shelf.open() as url, pytest.raises(Unavailable, match="could not be read to its end"):
        encode(url, shelf, tmp_path)

    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("status", "kind"), [(404, SourceGone), (403, Unavailable), (503, Unavailable)]
)
def test_what_the_server_says_is_what_is_raised(shelf, tmp_path, status, kind) -> None:
    shelf.status = status

    with shelf.open() as url, pytest.raises(HevcqError) as caught:
        encode(url, shelf, tmp_path)

    assert type(caught.value) is kind
    assert "secret" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


def test_a_server_that_is_not_there_is_unavailable(shelf, tmp_path) -> None:
    with shelf.open() as url:
        pass

    with pytest.raises(Unavailable):
        encode(url, shelf, tmp_path)
