"""Live pages: one look for all who watch, the newest text for the slow, nothing while nobody looks."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from hevcq.errors import Unavailable
from hevcq.ports.videos import Page, VideoFilter
from hevcq.web.live import Hub

MANY = 1000


def texts(count: int) -> Any:
    """Return a part whose text changes `count` times, and the number of looks at it."""
    looks: list[int] = []

    def render() -> str:
        looks.append(1)
        return f"text {min(len(looks), count)}"

    return render, looks


def signed_in() -> bool:
    return True


async def reported(stream: AsyncIterator[Any]) -> str:
    return str((await anext(stream)).data)


def test_all_viewers_share_one_look_and_get_what_changed() -> None:
    async def watch() -> None:
        hub = Hub(0.001)
        render, looks = texts(2)
        streams = [hub._events("board", render, signed_in) for _ in range(MANY)]
        first = await asyncio.gather(*(reported(each) for each in streams))
        second = await asyncio.gather(*(reported(each) for each in streams))
        assert set(first) <= {"text 1", "text 2"}
        assert set(second) == {"text 2"} or set(first) == {"text 1"}
        assert hub.viewers == MANY
        assert len(looks) < 100
        for each in streams:
            await each.aclose()  # type: ignore[attr-defined]
        assert hub.viewers == 0
        await asyncio.wait_for(hub._poller, 10)  # type: ignore[arg-type]
        seen = len(looks)
        await asyncio.sleep(0.01)
        assert len(looks) == seen, "nobody looks, so the farm is not asked"

    asyncio.run(watch())


def test_a_slow_viewer_gets_the_newest_text_only() -> None:
    async def watch() -> None:
        hub = Hub(0.0001)
        numbers = itertools.count(1)
        stream = hub._events("board", lambda: f"text {next(numbers)}", signed_in)
        first = await reported(stream)
        while next(numbers) < 50:
            await asyncio.sleep(0.001)
        second = await reported(stream)
        assert int(second.split()[1]) > int(first.split()[1]) + 10
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(watch())


def test_a_look_that_fails_is_tried_again_and_a_stop_ends_every_stream() -> None:
    async def watch() -> None:
        hub = Hub(0.001)
        answers = iter([Unavailable("Busy."), "here"])

        def render() -> str:
            found = next(answers, "here")
            if isinstance(found, Exception):
                raise found
            return found

        stream = hub._events("board", render, signed_in)
        assert await reported(stream) == "here"
        hub.close_soon()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(reported(stream), 10)

    asyncio.run(watch())


def test_a_stream_ends_with_the_session_of_its_viewer() -> None:
    async def watch() -> None:
        hub = Hub(0.001)
        numbers, answers = itertools.count(1), iter([True, True])
        stream = hub._events("board", lambda: f"text {next(numbers)}", lambda: next(answers, False))
        await reported(stream)
        await reported(stream)
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(reported(stream), 10)
        assert hub.viewers == 0

    asyncio.run(watch())


def test_one_person_s_pages_leave_others_theirs() -> None:
    async def watch() -> None:
        hub, (render, _) = Hub(0.001), texts(2)
        open_ones = [hub._events(f"search {n}", render, signed_in, "anna") for n in range(20)]
        await asyncio.gather(*(reported(each) for each in open_ones))
        with pytest.raises(HTTPException, match="Too many pages"):
            hub.stream("search 20", render, signed_in, "anna")
        hub.stream("board", render, signed_in, "ben")
        await open_ones.pop().aclose()  # type: ignore[attr-defined]
        hub.stream("search 20", render, signed_in, "anna")
        for each in open_ones:
            await each.aclose()  # type: ignore[attr-defined]

    asyncio.run(watch())


@pytest.mark.parametrize("search", ["/?q=x", "/api/v1/videos?text=x"])
def test_many_searches_leave_threads_for_other_pages(
    visit, opened, monkeypatch, search: str
) -> None:
    gate, begun, page = threading.Event(), threading.Semaphore(0), opened.videos.page
    at_once: list[int] = []

    def slow(wanted: VideoFilter) -> Page:
        if wanted.text:
            at_once.append(1)
            begun.release()
            assert gate.wait(60)
        return page(wanted)

    monkeypatch.setattr(opened.videos, "page", slow)
    with visit(auth="none") as client, ThreadPoolExecutor(30) as many:
        searches = [many.submit(client.get, search) for _ in range(20)]
        for _ in range(4):
            assert begun.acquire(timeout=60)
        for _ in range(5):
            assert client.get("/board").status_code == 200
        assert len(at_once) == 4
        gate.set()
        assert {each.result().status_code for each in searches} == {200}
