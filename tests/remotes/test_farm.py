"""Reaching the farm that a machine joined: transfers resume, refusals say why, and http stays at home."""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import httpx2 as http
import pytest

from hevcq import __version__
from hevcq.domain.orders import MachineFacts, OrderEnd
from hevcq.errors import (
    AccessDenied,
    DiskFull,
    SourceGone,
    Unavailable,
    UsageError,
    WorkerUnfit,
)
from hevcq.relay import SparseFile
from hevcq.remotes.farm import MAX_OUTAGE_S, RETRY_S, UNENCRYPTED, HttpFarm, require_safe_address
from support.clips import ManualClock
from support.orders import new_order

SOURCE = bytes(range(256)) * 40
FACTS = MachineFacts(version=__version__, ffmpeg="f", build="b", start="s", slots=1)
Handler = Callable[[http.Request], http.Response]


def farm(handler: Handler) -> HttpFarm:
    clock = ManualClock(auto=True)
    return HttpFarm("https://farm.example", "token", clock, http.MockTransport(handler))


class Torn(http.SyncByteStream):
    """A body that breaks off after some bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self):
        yield self._content
        raise http.ReadError("connection reset")


def test_fetch_resumes_where_the_connection_broke_however_often(tmp_path):
    asked = list[str]()

    def serve(request: http.Request) -> http.Response:
        asked.append(request.headers["range"])
        span = asked[-1].removeprefix("bytes=")
        rest = SOURCE[int(span.partition("-")[0]) :]
        return http.Response(
            206, stream=Torn(rest[:100]), headers={"Content-Range": f"bytes {span}/10240"}
        )

    farm(serve).fetch(new_order(len(SOURCE)), tmp_path / "source", threading.Event())

    assert (tmp_path / "source").read_bytes() == SOURCE
    assert asked == [f"bytes={begin}-10239" for begin in range(0, len(SOURCE), 100)]
    assert len(asked) * RETRY_S > MAX_OUTAGE_S


def test_fetch_is_given_up_when_the_farm_stays_away(tmp_path):
    def away(_request: http.Request) -> http.Response:
        raise http.ConnectError("refused")

    with pytest.raises(Unavailable, match="does not answer"):
        farm(away).fetch(new_order(len(SOURCE)), tmp_path / "source", threading.Event())


def test_fetch_ends_with_its_order(tmp_path):
    with pytest.raises(SourceGone, match="no longer wanted"):
        farm(
            lambda _r: http.Response(404, json={"title": "This order is no longer wanted."})
        ).fetch(new_order(len(SOURCE)), tmp_path / "source", threading.Event())


def test_read_takes_the_bytes_that_were_asked_for_and_no_more():
    came = list[tuple[int, bytes]]()
    answer = {"content": b"12345678", "headers": {"Content-Range": "bytes 2-5/10240"}}

    farm(lambda _r: http.Response(206, **answer)).read(
        new_order(len(SOURCE)),
        (2, 6),
        lambda at, block: came.append((at, block)),
        threading.Event(),
    )

    assert came == [(2, b"1234")]


@pytest.mark.parametrize(("status", "span"), [(200, ""), (206, ""), (206, "bytes 5-10239/10240")])
def test_fetch_without_ranges_is_refused_and_not_appended(tmp_path, status, span):
    headers = {"Content-Range": span}
    with pytest.raises(Unavailable, match="no ranges"):
        farm(lambda _r: http.Response(status, content=SOURCE, headers=headers)).fetch(
            new_order(len(SOURCE)), tmp_path / "source", threading.Event()
        )

    assert (tmp_path / "source").read_bytes() == b""


def test_upload_asks_for_the_offset_after_a_lost_answer(tmp_path):
    file, came, lost = tmp_path / "made", bytearray(), [True]
    file.write_bytes(SOURCE)

    def take(request: http.Request) -> http.Response:
        if request.method == "PATCH":
            assert int(request.headers["upload-offset"]) == len(came)
            body = request.read()
            came.extend(body[: 1000 if lost[0] else None])
            if lost.pop() if lost else False:
                lost.append(False)
                raise http.ReadError("reset")
        return http.Response(204, headers={"Upload-Offset": str(len(came))})

    farm(take).put(new_order(len(SOURCE)), file, threading.Event())

    assert bytes(came) == SOURCE


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (http.Response(401), AccessDenied, "token"),
        (http.Response(403), WorkerUnfit, "takes nothing"),
        (http.Response(426, json={"title": "This farm has hevcq 9."}), WorkerUnfit, "hevcq 9"),
        (http.Response(413), DiskFull, "size"),
        (http.Response(503), Unavailable, "503"),
        (http.Response(200, json={"argv": ["rm"]}), WorkerUnfit, "cannot read"),
    ],
)
def test_refusals_of_a_poll(answer, error, words):
    with pytest.raises(error, match=words):
        farm(lambda _r: answer).poll(FACTS)


def test_beat_tells_whether_the_order_is_wanted_and_held():
    answers = [http.Response(200, json={"held": True}), http.Response(404)]
    there = farm(lambda _r: answers.pop(0))

    assert there.beat(new_order(len(SOURCE)), None) == (True, True)
    assert there.beat(new_order(len(SOURCE)), None) == (False, False)


def test_end_of_an_order_that_is_no_longer_wanted_is_no_error():
    farm(lambda _r: http.Response(404)).answer(new_order(len(SOURCE)), OrderEnd(reason="x"))


def named(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 80)) for each in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: found)


def test_https_needs_no_warning_and_http_at_home_one(monkeypatch):
    assert require_safe_address("https://farm.example") == ""
    named(monkeypatch, "192.168.1.5")
    assert require_safe_address("http://nas:8790") == UNENCRYPTED
    named(monkeypatch, "127.0.0.1")
    assert require_safe_address("http://127.0.0.1:8790") == ""


@pytest.mark.parametrize("addresses", [("93.184.216.34",), ("192.168.1.5", "93.184.216.34")])
def test_http_to_a_public_address_is_refused(monkeypatch, addresses):
    named(monkeypatch, *addresses)

    with pytest.raises(UsageError, match="public address"):
        require_safe_address("http://farm.example")


@pytest.mark.parametrize("line", ["", "nas:8790", "ftp://nas", "http://"])
def test_what_is_no_address_is_refused(line):
    with pytest.raises(UsageError, match="no address"):
        require_safe_address(line)


def test_a_write_that_is_under_way_ends_before_its_file_is_closed(tmp_path, monkeypatch):
    file, write, sizes = SparseFile(tmp_path, 10), os.pwrite, list[int]()
    closing = threading.Thread(target=file.close)

    def closed_meanwhile(descriptor: int, content: bytes, at: int) -> int:
        closing.start()
        closing.join(0.2)
        sizes.append(
            os.fstat(descriptor).st_size
        )  # another file may have the number of a closed one
        return write(descriptor, content, at)

    monkeypatch.setattr(os, "pwrite", closed_meanwhile)
    with suppress(ValueError):
        file.read(0, 10, lambda start, end, put: put(start, bytes(end - start)))
    closing.join()

    assert sizes == [10]
