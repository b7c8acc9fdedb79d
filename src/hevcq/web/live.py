"""Keep open pages up to date: one poller a process, only while somebody looks, one stream a page."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from hevcq.errors import HevcqError
from hevcq.util.log import get_logger

PING_S = 15
RECONNECT_MS = 2000
MAX_STREAMS = 20
"""Open streams of one person. Each part is rendered again and again: sixty searches of one person would
hold up everybody's pages."""
Still = Callable[[], bool]
"""Return whether the viewer may go on looking. Blocking."""
Render = Callable[[], str]
"""Return the part of a page that changes, as HTML. Blocking: called in a thread."""


@dataclass
class _Part:
    """A part that at least one page shows; every page of it gets the same text."""

    render: Render
    digest: bytes = b""
    text: str = ""
    viewers: set[asyncio.Queue[str | None]] = field(default_factory=set)


class Hub:
    """Render each part that is looked at once every `every_s` seconds, and send what changed.

    A viewer that reads slowly gets the newest text only, so it costs one text of memory.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._parts: dict[str, _Part] = {}
        self._poller: asyncio.Task[None] | None = None
        self._closed = False
        self._watching: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stream(self, key: str, render: Render, still: Still, who: str) -> EventSourceResponse:
        """Return the stream of a part; `key` names what it shows and to whom.

        `still` is asked before each text: a stream may stay open longer than its viewer's session.
        Raises HTTPException 429 if `who` has MAX_STREAMS open.
        """
        if self._watching[who] >= MAX_STREAMS:
            raise HTTPException(429, "Too many pages are open: close some.")
        return EventSourceResponse(
            self._events(key, render, still, who), ping=PING_S, headers={"X-Accel-Buffering": "no"}
        )

    @property
    def viewers(self) -> int:
        return sum(len(part.viewers) for part in self._parts.values())

    def close_soon(self) -> None:
        """End every stream, from any thread: the server is about to stop."""
        self._closed = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        for part in self._parts.values():
            for viewer in part.viewers:
                _offer(viewer, None)

    async def _events(
        self, key: str, render: Render, still: Still, who: str = ""
    ) -> AsyncIterator[ServerSentEvent]:
        self._loop = asyncio.get_running_loop()
        viewer: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)
        part = self._parts.setdefault(key, _Part(render))
        part.viewers.add(viewer)
        self._watching[who] += 1
        if part.text:
            _offer(viewer, part.text)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            while not self._closed and (text := await viewer.get()) is not None:
                if not await run_in_threadpool(still):
                    return
                yield ServerSentEvent(data=text, retry=RECONNECT_MS)
        finally:
            part.viewers.discard(viewer)
            self._watching[who] -= 1
            if not part.viewers and self._parts.get(key) is part:
                del self._parts[key]

    async def _poll(self) -> None:
        while self._parts and not self._closed:
            for part in list(self._parts.values()):
                await self._renew(part)
            await asyncio.sleep(self._every_s)

    async def _renew(self, part: _Part) -> None:
        try:
            text = await run_in_threadpool(part.render)
        except HevcqError as error:  # the next look may succeed; the page keeps what it shows
            get_logger().warning("page_not_renewed", reason=str(error))
            return
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if digest != part.digest:
            part.digest, part.text = digest, text
            for viewer in part.viewers:
                _offer(viewer, text)


def _offer(viewer: asyncio.Queue[str | None], text: str | None) -> None:
    """Put the newest text in place of one that was not taken yet."""
    while not viewer.empty():
        viewer.get_nowait()
    viewer.put_nowait(text)
