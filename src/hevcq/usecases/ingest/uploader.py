"""Enqueue a plan's files from background threads, while the first ones already encode."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.errors import HevcqError, Interruption, StorageError
from hevcq.usecases.ingest.decide import Disposition, Item
from hevcq.usecases.ingest.enqueue import Enqueuer
from hevcq.usecases.ingest.summary import IngestOutcome, IngestSummary, result_of
from hevcq.usecases.ingest.track import JobTracker
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.text import printable

UPLOADS = 4
"""Files uploaded at a time: enough to fill a line while one of them is slow. Linking needs one."""
NOT_QUEUED = "Not queued; run the same command to resume."
STEP_S = 0.2


class Uploader:
    """Queues files one group (one path) at a time in `threads` threads.

    An error of one file is that file's outcome; an error of the data folder ends the uploader
    and is raised by `raise_error` in the caller's thread.
    """

    def __init__(
        self,
        enqueuer: Enqueuer,
        tracker: JobTracker,
        summary: IngestSummary,
        emit: Listener,
        clock: Clock,
    ) -> None:
        self._enqueuer = enqueuer
        self._tracker = tracker
        self._summary = summary
        self._emit = emit
        self._clock = clock
        self._waiting: queue.Queue[Sequence[Item]] = queue.Queue()
        self._left = 0
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []

    @property
    def left(self) -> int:
        """Number of files that are still waiting to be queued."""
        with self._lock:
            return self._left

    @property
    def busy(self) -> bool:
        """Whether files are still waiting to be queued."""
        with self._lock:
            return self._left > 0 and self._error is None

    def raise_error(self) -> None:
        """Raise the error that ended a thread, if any."""
        with self._lock:
            error = self._error
        if error is not None:
            raise error

    def submit(self, groups: Sequence[Sequence[Item]]) -> None:
        """Add files, each a group of the items of one path."""
        with self._lock:
            self._left += len(groups)
        for group in groups:
            self._waiting.put(group)

    def start(self, threads: int, stop: threading.Event) -> None:
        """Start queueing; the threads end once `stop` is set."""
        for number in range(threads):
            thread = threading.Thread(
                target=self._run, args=(stop,), name=f"upload-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        """Wait for the threads; call it after `stop` was set or `drain` returned."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def leave(self) -> None:
        """Count what was never queued as open, after the threads have ended."""
        while True:
            try:
                group = self._waiting.get_nowait()
            except queue.Empty:
                return
            for item in group:
                self._summary.add(result_of(item, IngestOutcome.OPEN, NOT_QUEUED))

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                group = self._waiting.get(timeout=STEP_S)
            except queue.Empty:
                continue
            try:
                self.step(group, stop)
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                with self._lock:
                    self._error = self._error or error
                return

    def step(self, group: Sequence[Item], stop: threading.Event) -> None:
        """Enqueue one file; an error of the file itself becomes its outcome.

        Raises StorageError.
        """
        try:
            self._queue_group(group, stop)
        except Interruption:
            self._waiting.put(group)
            return
        except StorageError:
            raise
        except HevcqError as error:
            get_logger().info("file_not_queued", path=printable(group[0].path), reason=str(error))
            for item in group:
                self._fail(item, str(error))
        with self._lock:
            self._left -= 1

    def _queue_group(self, group: Sequence[Item], stop: threading.Event) -> None:
        fresh = [item for item in group if item.disposition is Disposition.QUEUE]
        for item in group:
            if item.disposition is Disposition.QUEUE:
                continue
            queued = self._enqueuer.adopt(item)
            if queued is None:
                fresh.append(item)
            else:
                self._tracker.add(queued)
        if fresh:
            for queued in self._enqueuer.enqueue(fresh, stop):
                self._tracker.add(queued)

    def _fail(self, item: Item, reason: str) -> None:
        self._summary.add(result_of(item, IngestOutcome.FAILED, reason))
        self._emit(
            IngestEvent(
                event=EventName.JOB_FAILED,
                at=self._clock.now(),
                path=printable(item.path),
                profile=item.profile.name if item.profile else None,
                reason=reason,
            )
        )
