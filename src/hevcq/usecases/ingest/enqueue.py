"""Enqueue planned files: store the source, record its placements, publish the tasks."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.domain.job import JobRecord, JobState, Source, job_id
from hevcq.domain.keys import EVERY_PROFILE, key_for_path
from hevcq.errors import SourceChanged, SourceGone
from hevcq.library.filesystem import fingerprint_of, same_bytes
from hevcq.ports.catalog import UNPLACED, Placement
from hevcq.usecases.context import Ports
from hevcq.usecases.ingest.decide import Item
from hevcq.usecases.ingest.destinations import Destination
from hevcq.usecases.placement.lock import placement_lock
from hevcq.util.clock import Clock
from hevcq.util.text import printable


@dataclass(frozen=True, slots=True)
class Queued:
    """One item and its job."""

    item: Item
    job: JobRecord


class Enqueuer:
    """Enqueues files. A placement is durable before its job can start, so that no kill leaves a
    rendition without a known place."""

    def __init__(
        self, ports: Ports, where: Destination, emit: Listener, *, separate_keys: bool = False
    ) -> None:
        """`separate_keys`: upload once per profile under its own key, because the store's events send a
        key under `TODO/all/` to every subscribed profile."""
        self._ports = ports
        self._separate_keys = separate_keys
        self._where = where
        self._emit = emit

    def enqueue(self, items: Sequence[Item], stop: threading.Event) -> list[Queued]:
        """Enqueue one file for the profiles of its items (all of one path); return its jobs.

        Raises SourceGone, SourceChanged or an error of the store; nothing is queued then.
        """
        if not self._separate_keys:
            return self._enqueue(items, EVERY_PROFILE, stop)
        wanted = [(item, item.profile.name) for item in items if item.profile is not None]
        return [each for item, name in wanted for each in self._enqueue([item], name, stop)]

    def _enqueue(self, items: Sequence[Item], folder: str, stop: threading.Event) -> list[Queued]:
        path = items[0].path
        moved = self._moved(items[0])
        accept = self._ports.backend.store.accept
        key = key_for_path(os.fspath(path), folder, self._ports.backend.namespace())
        source = accept(path, key, moved=moved, stop=stop)
        self._unchanged(items[0])
        by_profile = {item.profile.name: item for item in items if item.profile is not None}
        with placement_lock(self._ports.data_dir):
            self._note(items, source)
            for profile in by_profile:
                self._prefer(job_id(source, profile), profile)
            jobs = self._publish(by_profile, source)
        return [Queued(replace(item, job_id=job.job_id), job) for item, job in jobs]

    def adopt(self, item: Item) -> Queued | None:
        """Record the placement of a job queued earlier; return None if the job is gone."""
        with placement_lock(self._ports.data_dir):
            job = self._ports.backend.ledger.get(item.job_id)
            if job is None:
                return None
            self._note([item], job.source)
        self._prefer(job.job_id, job.profile)
        task_publisher = self._ports.backend.task_publisher
        if task_publisher.message_expired(job):
            task_publisher.requeue(job, who="hevcq ingest", why="its message expired")
        return Queued(item, job)

    def _prefer(self, name: str, profile: str) -> None:
        """Let the workers of this process begin with the job, before what other folders left."""
        queue = self._ports.backend.queues.get(profile)
        if queue is not None:
            queue.prefer(name)

    def _note(self, items: Sequence[Item], source: Source) -> None:
        notes = [self._placement(item, source) for item in items]
        self._ports.catalog.record_placements([note for note in notes if note is not None])

    def _placement(self, item: Item, source: Source) -> Placement | None:
        """Return the placement to record, or None if the recorded one stays."""
        if item.target is None or item.profile is None or item.fingerprint is None:
            return None
        if item.moved is None and item.placement is not None:
            return None
        name = job_id(source, item.profile.name)
        known = self._ports.catalog.placement(name)
        if known is not None and known.state not in UNPLACED and self._is_done(name):
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
            sha256=known.sha256 if known is not None else "",
            updated_at=self._ports.clock.now(),
        )

    def _is_done(self, name: str) -> bool:
        job = self._ports.backend.ledger.get(name)
        return job is not None and job.state is JobState.DONE

    def _publish(
        self, by_profile: Mapping[str, Item], source: Source
    ) -> list[tuple[Item, JobRecord]]:
        jobs = self._ports.backend.task_publisher.publish(
            source, list(by_profile), announced=self._ports.backend.announces_uploads
        )
        return [(by_profile[job.profile], job) for job in jobs if job.profile in by_profile]

    def _unchanged(self, item: Item) -> None:
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

    def _moved(self, item: Item) -> UploadProgress:
        return UploadProgress(item, self._emit, self._ports.clock)


class UploadProgress:
    """Emits upload progress about twice a second, and at the end if any was emitted before: a link or a
    short upload shows none."""

    STEP_S = 0.5

    def __init__(self, item: Item, emit: Listener, clock: Clock) -> None:
        self._item, self._emit, self._clock = item, emit, clock
        self._last, self._reported = clock.monotonic(), False

    def __call__(self, count: int) -> None:
        """Emit that `count` bytes are uploaded, unless the last event was just now."""
        now = self._clock.monotonic()
        size = self._item.size
        due = now - self._last >= self.STEP_S or (self._reported and count >= size)
        if not size or not due:
            return
        self._last, self._reported = now, True
        self._emit(
            IngestEvent(
                event=EventName.UPLOAD_PROGRESS,
                at=self._clock.now(),
                path=printable(self._item.path),
                size=size,
                percent=min(100.0, 100.0 * count / size),
            )
        )


def by_file(items: Sequence[Item]) -> list[list[Item]]:
    """Return the items grouped by path, in order."""
    return [list(group) for _, group in groupby(items, key=lambda item: item.path)]
