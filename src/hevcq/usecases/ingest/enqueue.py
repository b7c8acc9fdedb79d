"""Enqueue planned files from background threads, while the first files already encode."""

import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hevcq.domain.events import EventName
from hevcq.domain.job import JobRecord, JobState, Source, job_id
from hevcq.domain.keys import EVERY_PROFILE, key_for_path
from hevcq.errors import HevcqError, Interruption, SourceChanged, SourceGone, StorageError
from hevcq.library.filesystem import fingerprint_of, same_bytes
from hevcq.ports.catalog import UNPLACED, Placement, PlacementState
from hevcq.usecases.context import Ports, placing
from hevcq.usecases.ingest.decide import Disposition, Item
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.ingest.track import (
    IngestOutcome,
    IngestResult,
    JobTracker,
)
from hevcq.util.log import get_logger
from hevcq.util.text import printable

UPLOADS = 4
"""Files uploaded at a time: enough to use the connection while one of them is slow. Linking needs one."""
NOT_QUEUED = "Not queued; run the same command to resume."
STEP_S = 0.2
PROGRESS_S = 0.5
Enqueued = tuple[Item, JobRecord]


class Enqueuer:
    """Queues files in threads, one group (the items of one path) at a time.

    A placement is durable before its job can start, so that no kill leaves a rendition without a known
    target. An error of one file is that file's outcome; an error of the data folder ends the threads,
    and `raise_error` raises it in the caller's thread.
    """

    def __init__(
        self, ports: Ports, where: Destination, tracker: JobTracker, *, separate_keys: bool = False
    ) -> None:
        """`separate_keys`: upload once per profile, under a key of its own: the store announces a key under
        `TODO/all/` to every subscribed profile."""
        self._ports, self._where, self._tracker = ports, where, tracker
        self._separate_keys = separate_keys
        self._waiting: queue.Queue[Sequence[Item]] = queue.Queue()
        self._left = 0
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def enqueue(self, items: Sequence[Item], stop: threading.Event) -> list[Enqueued]:
        """Enqueue one file for the profiles of its items, which have one path; return its jobs.

        Raises SourceGone, SourceChanged or an error of the store; nothing is queued then.
        """
        if not self._separate_keys:
            return self._enqueue(items, EVERY_PROFILE, stop)
        named = [(item, item.profile.name) for item in items if item.profile is not None]
        return [queued for item, name in named for queued in self._enqueue([item], name, stop)]

    def _enqueue(self, items: Sequence[Item], folder: str, stop: threading.Event) -> list[Enqueued]:
        path = items[0].path
        backend = self._ports.backend
        moved = self._upload_progress(items[0])
        key = key_for_path(os.fspath(backend.common(path)), folder, backend.namespace())
        source = backend.store.accept(path, key, moved=moved, stop=stop)
        _require_unchanged(items[0])
        by_profile = {item.profile.name: item for item in items if item.profile is not None}
        with placing(self._ports) as require:
            undone = [n for each in by_profile if self._is_undone(n := job_id(source, each))]
            require()
            self._record_placements(items, source)
            for profile in by_profile:
                self._prefer(job_id(source, profile), profile)
            jobs = backend.task_publisher.publish(
                source, list(by_profile), announced=backend.announces_uploads
            )
            jobs = [self._requeue(job) if job.job_id in undone else job for job in jobs]
        return [
            (replace(by_profile[job.profile], job_id=job.job_id), job)
            for job in jobs
            if job.profile in by_profile
        ]

    def _upload_progress(self, item: Item) -> Callable[[int], None]:
        """Return a callback that emits an upload's progress every PROGRESS_S seconds.

        It emits the end only after an earlier report, so a link or a short upload shows no progress.
        """
        clock, size, file = self._ports.clock, item.size, replace(item, profile=None)
        last, reported = clock.monotonic(), False

        def tell(count: int) -> None:
            nonlocal last, reported
            due = clock.monotonic() - last >= PROGRESS_S or (reported and count >= size)
            if size and due:
                last, reported = clock.monotonic(), True
                percent = min(100.0, 100.0 * count / size)
                self._tracker.tell(EventName.UPLOAD_PROGRESS, file, size=size, percent=percent)

        return tell

    def adopt(self, item: Item) -> JobRecord | None:
        """Record the placement of a job queued earlier, and return it; None if it is gone."""
        with placing(self._ports) as require:
            job = self._ports.backend.ledger.get(item.job_id)
            if job is None:
                return None
            require()
            self._record_placements([item], job.source)
        self._prefer(job.job_id, job.profile)
        task_publisher = self._ports.backend.task_publisher
        if task_publisher.message_expired(job):
            task_publisher.requeue(job, who="hevcq ingest", why="its message expired")
        return job

    def _prefer(self, name: str, profile: str) -> None:
        """Let this process's workers take the job before jobs that were queued earlier."""
        queue = self._ports.backend.queues.get(profile)
        if queue is not None:
            queue.prefer(name)

    def _record_placements(self, items: Sequence[Item], source: Source) -> None:
        placements = [self._new_placement(item, source) for item in items]
        self._ports.catalog.record_placements([each for each in placements if each is not None])

    def _new_placement(self, item: Item, source: Source) -> Placement | None:
        """Return the placement to record, or None if the recorded one stays."""
        if item.target is None or item.profile is None or item.fingerprint is None:
            return None
        if item.moved is None and item.placement is not None:
            return None
        name = job_id(source, item.profile.name)
        known = self._ports.catalog.placement(name)
        if known is not None and known.state not in UNPLACED and self._is_done(name):
            undone = item.disposition is Disposition.QUEUE and known.state is PlacementState.UNDONE
            if not (undone or _is_elsewhere(item, known)):
                return None
        return Placement(
            job_id=name,
            root=item.root,
            source=item.path,
            fingerprint=item.fingerprint,
            profile=item.profile.name,
            mode=self._where.mode,
            target=item.target,
            keep_days=self._where.keep_days,
            retained=_earlier_target(item, known),
            sha256=known.sha256 if known is not None else "",
            updated_at=self._ports.clock.now(),
        )

    def _is_done(self, name: str) -> bool:
        job = self._ports.backend.ledger.get(name)
        return job is not None and job.state is JobState.DONE

    def _is_undone(self, name: str) -> bool:
        known = self._ports.catalog.placement(name)
        undone = known is not None and known.state is PlacementState.UNDONE
        return undone and self._is_done(name)

    def _requeue(self, job: JobRecord) -> JobRecord:
        backend = self._ports.backend
        backend.task_publisher.requeue(job, who="hevcq ingest", why="named after its undo")
        return backend.ledger.get(job.job_id) or job

    @property
    def waiting_files(self) -> int:
        with self._lock:
            return self._left

    @property
    def busy(self) -> bool:
        """Whether files are waiting and the threads still work."""
        with self._lock:
            return self._left > 0 and self._error is None

    def raise_error(self) -> None:
        with self._lock:
            error = self._error
        if error is not None:
            raise error

    def submit(self, groups: Sequence[Sequence[Item]]) -> None:
        """Add files; a group holds the items of one path."""
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
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def leave(self) -> None:
        """Count files that were never queued as open, after the threads have ended."""
        while True:
            try:
                group = self._waiting.get_nowait()
            except queue.Empty:
                return
            for item in group:
                self._tracker.summary.add(IngestResult(item, IngestOutcome.OPEN, NOT_QUEUED))

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
            fresh = [item for item in group if not self._adopt(item)]
            if fresh:
                for queued in self.enqueue(fresh, stop):
                    self._tracker.add(*queued)
        except Interruption:
            self._waiting.put(group)
            return
        except StorageError:
            raise
        except HevcqError as error:
            get_logger().info("file_not_queued", path=printable(group[0].path), reason=str(error))
            for item in group:
                self._tracker.summary.add(IngestResult(item, IngestOutcome.FAILED, str(error)))
                self._tracker.tell(EventName.JOB_FAILED, item, reason=str(error))
        with self._lock:
            self._left -= 1

    def _adopt(self, item: Item) -> bool:
        """Track the job that an item has already; return whether it has one."""
        job = None if item.disposition is Disposition.QUEUE else self.adopt(item)
        if job is not None:
            self._tracker.add(item, job)
        return job is not None


def _require_unchanged(item: Item) -> None:
    try:
        now = fingerprint_of(item.path.lstat())
    except FileNotFoundError as error:
        raise SourceGone(
            f"{printable(item.path)} was removed after the scan.",
            remedy="If you moved it, run hevcq ingest again.",
        ) from error
    if item.fingerprint is None or not same_bytes(now, item.fingerprint):
        raise SourceChanged(
            f"{printable(item.path)} changed after the scan; it may still be growing.",
            remedy="Run hevcq ingest again once it is complete.",
        )


def _is_elsewhere(item: Item, known: Placement) -> bool:
    """Return whether an earlier command placed the rendition at another target than this command wants."""
    collects = item.disposition is Disposition.COLLECT
    return collects and known.state is PlacementState.PLACED and item.target != known.target


def _earlier_target(item: Item, known: Placement | None) -> Path | None:
    """Return where an earlier command placed the rendition that now gets another target, or None."""
    if known is None:
        return None
    if known.state in UNPLACED:
        return known.retained
    return known.target if _is_elsewhere(item, known) else None
