"""Uploads by tus: whose, how many bytes, resumed, taken over, ended."""

import asyncio
import base64
import errno
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from hevcq.domain.videos import Video, VideoStatus
from hevcq.ports.ledger import JobFilter
from hevcq.ports.videos import VideoFilter
from hevcq.web import uploads as tus
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm

V = {"Tus-Resumable": "1.0.0"}
CHUNK = {**V, "Content-Type": "application/offset+octet-stream"}


def metadata(**facts: str) -> dict[str, str]:
    pairs = (f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in facts.items())
    return {"Upload-Metadata": ",".join(pairs)}


def begin(client: TestClient, size: int = 10, **facts: str) -> str:
    headers = {**V, "Upload-Length": str(size), **metadata(**{"filename": "a.mp4", **facts})}
    answer = client.post("/uploads", headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["Location"])


def patch(client: TestClient, where: str, offset: int, content: bytes, **more: str) -> Response:
    headers = {**CHUNK, "Upload-Offset": str(offset), **more}
    return client.patch(where, headers=headers, content=content)


def offset(client: TestClient, where: str) -> tuple[int, str]:
    answer = client.head(where, headers=V)
    return answer.status_code, answer.headers.get("Upload-Offset", "")


def one(opened: App) -> Video:
    (video,) = video_farm(opened).videos.page(VideoFilter()).videos
    return video


def test_an_upload_in_two_requests_is_queued(ann, opened):
    where = begin(ann, title="Ä title", description="d", profiles="hevc")
    assert offset(ann, where) == (200, "0")
    answer = patch(ann, where, 0, b"01234")
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, "5")
    assert answer.headers["Upload-Expires"]
    assert list(opened.backend.ledger.jobs(JobFilter())) == []
    assert offset(ann, where) == (200, "5")
    assert patch(ann, where, 0, b"01234").status_code == 409, "it has these bytes"

    assert patch(ann, where, 5, b"56789").status_code == 204
    video = one(opened)
    assert (video.owner, video.title, video.status) == ("ann", "Ä title", VideoStatus.PROCESSING)
    (job,) = opened.backend.ledger.jobs(JobFilter())
    assert (job.profile, job.source.size) == ("hevc", 10)
    with opened.backend.store.fetch(
        job.source,
        opened.settings.scratch,
        moved=lambda _n: None,
        stop=threading.Event(),
    ) as given:
        assert given.path.read_bytes() == b"0123456789"
    assert offset(ann, where) == (200, "10")
    assert patch(ann, where, 10, b"").status_code == 409
    assert ann.delete(where, headers=V).status_code == 409


REFUSED: list[tuple[dict[str, str], int]] = [
    ({"Tus-Resumable": "0.2.2"}, 412),
    ({"Upload-Length": "-1"}, 400),
    ({"Upload-Length": "1e3"}, 400),
    ({"Upload-Length": "९"}, 400),
    ({"Upload-Length": "9" * 30}, 400),
    ({"Upload-Length": ""}, 400),
    ({"Upload-Length": "0"}, 422),
    ({"Upload-Length": str(2**50)}, 413),
    ({"Upload-Defer-Length": "1"}, 400),
    ({"Upload-Concat": "partial"}, 400),
    ({"X-HTTP-Method-Override": "DELETE"}, 400),
    ({"Upload-Metadata": "filename ???"}, 400),
    ({"Upload-Metadata": "filename " + base64.b64encode(b"\xff").decode()}, 400),
    ({"Upload-Metadata": "a " + "QQ==" * 5000}, 400),
    (metadata(profiles="nope"), 422),
]


def test_a_creation_that_is_refused_leaves_no_record(ann, opened):
    for headers, status in REFUSED:
        given = {k: v.encode() for k, v in {**V, "Upload-Length": "10", **headers}.items()}
        answer = ann.post("/uploads", headers=given)
        assert answer.status_code == status, headers
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == status
    assert video_farm(opened).videos.usage().videos == 0


def test_anothers_upload_is_not_there(ann, as_person, opened):
    where, bob = begin(ann), as_person("bob")
    before = one(opened)
    assert offset(bob, where)[0] == 404
    assert patch(bob, where, 0, b"01234").status_code == 404
    assert bob.delete(where, headers=V).status_code == 404
    assert offset(bob, "/uploads/" + "0" * 26)[0] == 404
    assert offset(bob, "/uploads/..%2f..%2fhevcq.db")[0] == 404
    assert offset(ann, where) == (200, "0")
    assert one(opened) == before


def test_a_wrong_request_changes_nothing(ann):
    where = begin(ann)
    for given, content, status in (
        ({"Upload-Offset": "3"}, b"0", 409),
        ({"Upload-Offset": "x"}, b"0", 400),
        ({"Content-Type": "application/octet-stream"}, b"0", 415),
        ({}, b"0" * 11, 413),
        ({"Upload-Offset": "10"}, b"0", 413),
    ):
        assert patch(ann, where, 0, content, **given).status_code == status, given
        assert offset(ann, where) == (200, "0")


def test_a_stopped_upload_is_gone_with_its_file(ann, opened):
    where = begin(ann)
    patch(ann, where, 0, b"01234")
    assert ann.delete(where, headers=V).status_code == 204
    assert offset(ann, where)[0] == 404
    assert [p.name for p in (opened.settings.data_dir / "videos").iterdir()] == []


def test_a_last_byte_that_was_never_answered_is_completed_by_the_next_look(ann, opened):
    """As after a kill between the last write and the queueing."""
    where = begin(ann)
    farm = video_farm(opened)
    with farm.files.receive(one(opened)) as receiver:
        receiver.append(b"0123456789")
    assert offset(ann, where) == (200, "10")
    assert one(opened).status is VideoStatus.PROCESSING


class Line:
    """One request over a connection that a test feeds message by message."""

    def __init__(
        self, app: Any, where: str, start: int, method: str = "PATCH", **headers: str
    ) -> None:
        given = {**CHUNK, "Upload-Offset": str(start), "Remote-User": "ann"}
        given |= {"Host": "127.0.0.1:8790", "Sec-Fetch-Site": "same-origin", **headers}
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": where,
            "raw_path": where.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(k.lower().encode(), v.encode()) for k, v in given.items()],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8790),
        }
        self._app = app
        self._coming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.read = 0
        self.status = 0

    async def _receive(self) -> dict[str, Any]:
        message = await self._coming.get()
        self.read += 1
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]

    def feed(self, content: bytes, *, more: bool = True) -> None:
        self._coming.put_nowait({"type": "http.request", "body": content, "more_body": more})

    def hang_up(self) -> None:
        self._coming.put_nowait({"type": "http.disconnect"})

    @asynccontextmanager
    async def open(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self._app(self._scope, self._receive, self._send))
        yield task
        await asyncio.wait_for(task, 20)

    async def until_read(self, count: int) -> None:
        while self.read < count or not self._coming.empty():
            await asyncio.sleep(0)


def test_a_body_that_is_longer_than_declared_leaves_nothing(ann):
    where = begin(ann)
    patch(ann, where, 0, b"01")

    async def lie() -> int:
        line = Line(ann.app, where, 2)
        async with line.open():
            line.feed(b"23456")
            line.feed(b"78901234", more=True)
        return line.status

    assert asyncio.run(lie()) == 413
    assert offset(ann, where) == (200, "2")


@pytest.mark.parametrize("silent", [False, True])
def test_a_connection_that_breaks_or_falls_silent_keeps_what_came(ann, monkeypatch, silent):
    if silent:
        monkeypatch.setattr(tus, "IDLE_S", 0.05)
    where = begin(ann)

    async def breaks() -> None:
        line = Line(ann.app, where, 0)
        async with line.open():
            line.feed(b"0123")
            if not silent:
                line.hang_up()

    asyncio.run(breaks())
    assert offset(ann, where) == (200, "4")


def test_an_upload_is_sent_by_one_connection_at_a_time(ann, opened):
    where = begin(ann)

    async def two() -> tuple[int, int, int, int]:
        first, second = Line(ann.app, where, 0), Line(ann.app, where, 0)
        ended, third = Line(ann.app, where, 0, method="DELETE"), Line(ann.app, where, 4)
        async with first.open():
            first.feed(b"0123")
            await first.until_read(1)
            for line in (second, ended):
                async with line.open():
                    pass
            first.hang_up()
        async with third.open():
            third.feed(b"456789", more=False)
        return first.status, second.status, ended.status, third.status

    assert asyncio.run(two()) == (204, 423, 423, 204)
    assert one(opened).status is VideoStatus.PROCESSING


def test_no_byte_is_read_before_the_request_was_judged(ann, as_person):
    where = begin(ann)

    async def refused(**headers: str) -> tuple[int, int]:
        line = Line(ann.app, where, 0, **headers)
        line.feed(b"01234")
        async with line.open():
            pass
        return line.status, line.read

    async def each() -> list[tuple[int, int]]:
        return [
            await refused(**{"Remote-User": "bob"}),
            await refused(**{"Upload-Offset": "9", "Content-Length": "5"}),
            await refused(**{"Content-Type": "text/plain"}),
            await refused(**{"Tus-Resumable": "2"}),
            await refused(**{"Sec-Fetch-Site": "cross-site"}),
        ]

    found = asyncio.run(each())
    assert [status for status, _ in found] == [404, 413, 415, 412, 403]
    assert [read for _, read in found] == [0] * 5


def test_a_full_disk_keeps_what_was_written(ann, monkeypatch):
    where = begin(ann)
    patch(ann, where, 0, b"01234")

    with monkeypatch.context() as at:
        at.setattr(
            "hevcq.backends.sql.video_records.os.pwrite",
            Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")),
        )
        answer = patch(ann, where, 5, b"56789")
    assert (answer.status_code, answer.json()["class"]) == (507, "disk_full")
    assert offset(ann, where) == (200, "5")
    assert patch(ann, where, 5, b"56789").status_code == 204
