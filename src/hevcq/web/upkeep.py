"""Look after uploaded videos while the page runs: in one thread, whoever looks or not."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from hevcq.errors import HevcqError
from hevcq.usecases.videos.upkeep import EVERY_AWS_S, EVERY_S, look_after
from hevcq.util.log import get_logger
from hevcq.wiring.app import App
from hevcq.wiring.videos import video_farm

JOIN_S = 10.0
"""Seconds that a stop waits for a look under way; a kill in between is mended by the next start."""


class Upkeep:
    """Call `look` every `every_s` seconds until it is stopped; an error waits for the next turn."""

    def __init__(self, app: App, look: Callable[[], object], every_s: float) -> None:
        self._clock, self._look, self._every_s = app.clock, look, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hevcq-web-upkeep", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the look under way."""
        self._stop.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except HevcqError as error:
                get_logger().warning("videos_not_kept_up", reason=str(error))
            except Exception as error:  # noqa: BLE001 - a bug here must not end all later looks
                get_logger().error("videos_not_kept_up", reason=f"{type(error).__name__}: {error}")
            self._clock.wait(self._stop, self._every_s)


@asynccontextmanager
async def kept_up(made: Starlette) -> AsyncIterator[None]:
    """Look after videos as long as the application runs."""
    app: App = made.state.services.app
    every_s = EVERY_S if app.settings.backend == "embedded" else EVERY_AWS_S
    upkeep = Upkeep(app, lambda: look_after(video_farm(app), made.state.send_event), every_s)
    upkeep.start()
    try:
        yield
    finally:
        upkeep.stop()
        made.state.services.texts.close()
