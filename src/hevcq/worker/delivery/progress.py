"""Tell the ledger (now and then) and the display (always) how far a job is."""

from __future__ import annotations

from hevcq.domain.events import EventName, JobEvent
from hevcq.domain.job import Phase, Progress, Task
from hevcq.errors import StaleFence, StorageError, TransientError
from hevcq.ports.encoder import EncodeProgress, OnProgress
from hevcq.util.log import get_logger
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.lease import Fence, Lease


class Reporter:
    """Reports one job's progress; nothing that fails here fails the job, but a stale fence ends it."""

    part = ""
    """Which part of a split job it is; then what it reports is not the job's."""

    def __init__(
        self, context: WorkerContext, lease: Lease, task: Task, fence: Fence, worker: str
    ) -> None:
        self._context, self._lease, self._task = context, lease, task
        self._fence, self._worker = fence, worker
        self._written: tuple[Phase | None, float] = (None, 0.0)

    def phase(self, phase: Phase) -> None:
        """Report that a phase begins."""
        self._report(Progress(phase=phase))

    def moved(self, phase: Phase, total: int) -> OnMoved:
        """Return a callback for a transfer of `total` bytes."""
        return OnMoved(self, phase, total)

    def encoding(self, phase: Phase, expected_s: float | None) -> OnProgress:
        """Return a callback for an encode or a check of `expected_s` seconds of video."""

        def on_progress(now: EncodeProgress) -> None:
            eta = None
            if expected_s and now.speed:
                eta = max(0.0, expected_s - now.out_time_s) / now.speed
            self.percent(phase, now.fraction * 100, speed=now.speed, eta_s=eta)

        return on_progress

    def percent(
        self,
        phase: Phase,
        percent: float,
        *,
        speed: float | None = None,
        eta_s: float | None = None,
    ) -> None:
        """Report a percentage; it is held within 0 to 100."""
        bounded = min(100.0, max(0.0, percent))
        self._report(Progress(phase=phase, percent=bounded, speed=speed, eta_s=eta_s))

    def _report(self, progress: Progress) -> None:
        # Asking the lease here notices a deadline that passed while a heartbeat hangs.
        if self._lease.cause is not None:
            return
        self._expect(progress)
        self._context.emit(
            JobEvent(
                kind=EventName.JOB_PROGRESS,
                job_id=self._task.job_id,
                source=self._task.source,
                profile=self._task.profile,
                worker=self._worker,
                progress=progress,
                part=self.part,
            )
        )
        now = self._context.clock.monotonic()
        phase, written_at = self._written
        if progress.phase is phase and now - written_at < self._fence.ledger.progress_every_s:
            return
        self._written = (progress.phase, now)
        try:
            self._fence.ledger.progress(self._fence.job_id, self._fence.number, progress)
        except StaleFence as error:
            self._lease.end(error)
        except (TransientError, StorageError) as error:
            get_logger(job=self._task.job_id).debug("progress_not_written", reason=str(error))
        self._look()

    def _expect(self, progress: Progress) -> None:
        """Say when the encode in hand should end; what is checked is as good as encoded."""
        encode_slots, eta_s = self._context.encode_slots, progress.eta_s
        if eta_s is None and progress.phase is Phase.VERIFY:
            eta_s = 0.0
        if encode_slots is not None and eta_s is not None:
            encode_slots.expect(self._worker, eta_s)

    def _look(self) -> None:
        """Look whether the work is still wanted; called as often as the ledger is told."""


class OnMoved:
    """Called with the bytes moved so far."""

    def __init__(self, reporter: Reporter, phase: Phase, total: int) -> None:
        self._reporter, self._phase, self._total = reporter, phase, total

    def __call__(self, moved: int) -> None:
        """Report the share of the whole."""
        share = 100 * moved / self._total if self._total else 100.0
        self._reporter.percent(self._phase, share)
