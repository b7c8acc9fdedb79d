"""A source behind the local proxy: what it cannot serve is the network's fault, never the file's."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from ffmpeg.run.test_encoder import asked
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import VideoRecipe
from hevcq.errors import SourceDamaged, SourceGone, Unavailable
from hevcq.ffmpeg.inspect.preflight import preflight
from hevcq.ffmpeg.probe.probe import probe
from hevcq.ports.encoder import EncodeReport
from support.clips import make_clip
from support.rendition import ENCODER, TOOLS
from support.standin import Quiet, running

PROFILE = Profile(name="p", description="d", video=VideoRecipe(codec="hevc", crf=24))


class Shelf:
    """One file on 127.0.0.1, with ranges; `cut_after` bytes it hangs up, so many `cuts` times.

    `status` other than 200 is answered instead of the file.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.cut_after: int | None = None
        self.cuts = 0
        self.status = 200

    @contextmanager
    def open(self) -> Iterator[str]:
        with running(ThreadingHTTPServer(("127.0.0.1", 0), self._handler())) as server:
            yield f"relay+http://127.0.0.1:{server.server_port}/video.mkv?secret"

    def _handler(self) -> type[Quiet]:
        shelf = self

        class Handler(Quiet):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
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
                    body, self.close_connection = body[: shelf.cut_after], True
                try:
                    self.wfile.write(body)
                except ConnectionError:
                    self.close_connection = True

        return Handler


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


@pytest.mark.parametrize("error", [Unavailable, SourceDamaged], ids=["connection", "file"])
def test_a_cut_connection_is_tried_again_and_a_cut_file_is_damaged(clip, error):
    content = clip.read_bytes()
    half = len(content) // 2
    broken = served(content, cut=half) if error is Unavailable else served(content[:half])
    with broken as url, pytest.raises(error) as caught:
        check(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error"), [(404, SourceGone), (403, Unavailable), (503, Unavailable)]
)
def test_a_refusal_of_the_server_is_named(clip, status, error):
    with served(clip.read_bytes(), status=status) as url, pytest.raises(error) as caught:
        probe(TOOLS, url, threading.Event())
    assert "secret" not in str(caught.value)


def encode(url: str, tmp_path: Path) -> EncodeReport:
    request = replace(asked(tmp_path, tmp_path / "video.mkv"), location=url)
    return ENCODER.encode(request, on_progress=lambda _state: None, stop=threading.Event())


def test_a_video_streams_and_its_secret_stays_out_of_the_report(clip, tmp_path):
    with served(clip.read_bytes()) as url:
        report = encode(url, tmp_path)

    assert (report.frames, report.stderr) == (100, ())
    assert not [word for word in report.arguments if "secret" in word]


@pytest.mark.parametrize(
    ("status", "cut", "kind"),
    [(404, None, SourceGone), (503, None, Unavailable), (200, 0.5, Unavailable)],
    ids=["gone", "refused", "broken"],
)
def test_what_breaks_an_encode_is_named_and_leaves_no_short_video(
    clip, tmp_path, status, cut, kind
):
    content = clip.read_bytes()
    cut = cut and int(len(content) * cut)
    with served(content, status=status, cut=cut) as url, pytest.raises(kind) as caught:
        encode(url, tmp_path)

    assert "secret" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())
