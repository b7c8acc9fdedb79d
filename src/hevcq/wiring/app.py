"""Settings to ports to use cases; the only module that knows both backends."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from hevcq.errors import ConfigError, HevcqError
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import installed_folder, load_profiles, pick
from hevcq.util.clock import Clock, SystemClock
from hevcq.util.host import Capacity, capacity
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from hevcq.backends.embedded.catalog import SqliteCatalog
    from hevcq.backends.embedded.factory import EmbeddedBackend
    from hevcq.domain.events import JobEvent, OnEvent
    from hevcq.domain.profile import Profile
    from hevcq.ports.backend import Backend
    from hevcq.ports.catalog import Catalog
    from hevcq.ports.encoder import Encoder
    from hevcq.usecases.context import LibraryPorts, Ports
    from hevcq.worker.handler import ProfileQueue
    from hevcq.worker.monitoring.health import Watcher
    from hevcq.worker.pool import Numbers, WorkerPool
    from hevcq.worker.signals import StopSignals
    from hevcq.worker.slot import SlotOutcome

GIVEN_UP_LOOK_S = 900.0
"""How often a worker looks for what its queues gave up by themselves. To look at a dead letter is to
hide it from others for a moment, so not often; who waits for a job looks more often."""

DRAIN_LOOK_S = 0.25
"""How often a pool that drains its queues looks at them while nothing is left to begin."""


class App:
    """Everything a use case may ask for, opened on first use and closed together.

    Opening raises ConfigError, StorageError or Unavailable.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock if clock is not None else SystemClock()

    @cached_property
    def profiles(self) -> Mapping[str, Profile]:
        """Every profile by name."""
        return load_profiles(self.settings.profiles_dir or installed_folder())

    @cached_property
    def _embedded(self) -> EmbeddedBackend:
        from hevcq.backends.embedded.factory import open_embedded

        return open_embedded(self.settings, self.profiles, self.clock)

    @cached_property
    def backend(self) -> Backend:
        """The queues, ledger, store and fan-out of the chosen way of running."""
        if self.settings.backend == "embedded":
            return self._embedded.backend
        from hevcq.backends.aws.factory import open_aws

        return open_aws(self.settings, self.profiles, self.clock)

    @cached_property
    def worker_backend(self) -> Backend:
        """The same for a worker, which repeats its control calls itself."""
        if self.settings.backend == "embedded":
            return self._embedded.backend
        from hevcq.backends.aws.factory import open_aws

        return open_aws(self.settings, self.profiles, self.clock, caller_retries=True)

    @cached_property
    def catalog(self) -> Catalog:
        """What this machine knows of library folders; local in both ways of running."""
        if self.settings.backend == "embedded":
            return self._embedded.catalog
        return self._own_catalog

    @cached_property
    def _own_catalog(self) -> SqliteCatalog:
        from hevcq.backends.embedded.factory import open_catalog

        return open_catalog(self.settings.data_dir / "catalog.db", self.clock)

    @cached_property
    def encoder(self) -> Encoder:
        """ffmpeg."""
        from hevcq.ffmpeg.encoder import FfmpegEncoder

        return FfmpegEncoder(self.settings.ffmpeg, self.settings.ffprobe, self.clock)

    @cached_property
    def capacity(self) -> Capacity:
        """How many encodes run at a time, by the setting `workers` or by this machine."""
        return capacity(self.settings.workers)

    @property
    def library_ports(self) -> LibraryPorts:
        """What changes library folders on this machine alone; no backend is opened."""
        from hevcq.usecases.context import LibraryPorts

        return LibraryPorts(self.catalog, self.clock, self.settings.data_dir)

    @property
    def ports(self) -> Ports:
        """What use cases work through."""
        from hevcq.usecases.context import Ports

        return Ports(self.catalog, self.clock, self.settings.data_dir, self.backend)

    def close(self) -> None:
        """Close what was opened; may be called twice."""
        self.__dict__.pop("catalog", None)
        for name in ("backend", "worker_backend", "_embedded", "_own_catalog"):
            opened = self.__dict__.pop(name, None)
            if opened is not None:
                opened.close()


def open_app(settings: Settings, clock: Clock | None = None) -> App:
    """Return the app of these settings; nothing is opened before it is used."""
    return App(settings, clock)


def stop_signals() -> StopSignals:
    """Return a context in which SIGINT, SIGTERM and SIGHUP ask for a stop; a second one insists."""
    from hevcq.worker.signals import StopSignals

    return StopSignals()


def build_pool(
    app: App,
    profiles: Sequence[str] = (),
    *,
    on_event: OnEvent | None = None,
    measured: bool = False,
) -> WorkerPool:
    """Return a pool of workers for the named profiles (none: all), not yet started.

    Both `hevcq worker` and `hevcq ingest` work through this one; only what is `measured` hands out
    metrics, as the settings say. Raises UnknownProfile, and ConfigError if they cannot be served.
    """
    from hevcq.domain.events import ignore
    from hevcq.domain.planning.planner import make_plan
    from hevcq.usecases.operations.expired_messages import GivenUp
    from hevcq.usecases.operations.finished_sources import LetGo
    from hevcq.worker.delivery.context import WorkerContext, keep
    from hevcq.worker.handler import ProfileQueue
    from hevcq.worker.monitoring.periodic import Periodic
    from hevcq.worker.pool import WorkerPool
    from hevcq.worker.scratch import Scratch

    settings, backend = app.settings, app.worker_backend
    wanted = pick(app.profiles, list(profiles)) if profiles else list(app.profiles.values())
    served = [ProfileQueue(profile, backend.queues[profile.name]) for profile in wanted]
    told, watching = on_event if on_event is not None else ignore, watchers(app)
    if backend.external_dlq:
        look = GivenUp(backend, [profile.name for profile in wanted]).look
        watching.append(Periodic("hevcq-given-up", look, app.clock, GIVEN_UP_LOOK_S))
    if measured and (settings.metrics_emf or settings.metrics_address):
        told, report = _measured(app, told, served)
        watching.append(report)
    context = WorkerContext(
        backend=backend,
        encoder=app.encoder,
        plan=make_plan,
        scratch=Scratch(settings.scratch, app.clock),
        clock=app.clock,
        min_free_bytes=settings.min_free_mib << 20,
        threads=app.capacity.threads,
        on_event=told,
        slots_per_job=partial(slots_per_job, settings, app.capacity.slots),
        sweep_on_start=settings.backend == "embedded",
        requeue_stragglers=settings.backend == "aws",
        let_go=LetGo(backend, app.profiles) if settings.aws.tag_done else keep,
    )
    return WorkerPool(context, served, _numbers(app), watching)


def run_pool(
    pool: WorkerPool, app: App, signals: StopSignals, *, drain: Sequence[str] = ()
) -> None:
    """Run a pool until told to stop, or until the queues of the profiles `drain` are empty.

    Raises what ended the pool, or HevcqError if it ended by itself.
    """
    from hevcq.worker.slot import SlotOutcome

    outcome = _drain(pool, app, signals, drain) if drain else pool.run(signals)
    if outcome is not SlotOutcome.STOPPED:
        raise pool.error or HevcqError("The worker ended by itself.")


def _drain(
    pool: WorkerPool, app: App, signals: StopSignals, profiles: Sequence[str]
) -> SlotOutcome:
    pool.start()
    while not pool.stopped:
        if signals.asked.is_set() or _idle(pool, app, profiles):
            pool.ask()
        if signals.insisted.is_set():
            pool.insist()
        pool.step()
        app.clock.wait(signals.insisted, DRAIN_LOOK_S)
    return pool.finish()


def _idle(pool: WorkerPool, app: App, profiles: Sequence[str]) -> bool:
    """Whether nothing waits, now or later, and no slot of this process works."""
    depths = [app.worker_backend.queues[name].depth() for name in profiles]
    waiting = sum(depth.ready + depth.delayed + depth.in_flight for depth in depths)
    return waiting == 0 and not any(slot.busy for slot in pool.workers)


def _numbers(app: App) -> Numbers:
    from hevcq.worker.pool import Numbers

    settings = app.settings
    return Numbers(
        slots=app.capacity.slots,
        # In a data folder a source is linked and a rendition moved: there is nothing to overlap.
        pipelined=settings.backend == "aws",
        grace_s=settings.stop_grace_s,
        poll_s=settings.poll_s,
    )


def slots_per_job(settings: Settings, slots: int, profile: Profile) -> int:
    """Return how many slots may share one video: this process's, and on aws the whole fleet's.

    There the queue's depth brings as many tasks as the profile's `fleet.max_tasks`, each with
    slots like this one's, and a video's chunks are depth. A fleet of one slot splits nothing.
    """
    return slots if settings.backend == "embedded" else slots * profile.fleet.max_tasks


def watchers(app: App) -> list[Watcher]:
    """Return who is told how a pool is, by what is configured and where this process runs."""
    from hevcq import health
    from hevcq.worker.monitoring.health import HealthFile

    found: list[Watcher] = [
        HealthFile(app.settings.data_dir, health.node(), os.getpid(), app.clock)
    ]
    agent_uri = os.environ.get("ECS_AGENT_URI", "")
    if agent_uri:
        found += _scale_in_guard(agent_uri, app.clock)
    return found


def _scale_in_guard(agent_uri: str, clock: Clock) -> list[Watcher]:
    from hevcq.backends.aws.task_protection import TaskProtection
    from hevcq.worker.monitoring.scale_in import ScaleInGuard

    try:
        return [ScaleInGuard(TaskProtection(agent_uri), clock)]
    except ConfigError as error:  # what it would protect must not suffer from it
        get_logger().warning("task_protection_unusable", reason=str(error))
        return []


def _measured(app: App, told: OnEvent, served: Sequence[ProfileQueue]) -> tuple[OnEvent, Watcher]:
    """Return who is told of events and of the pool, so that metrics go where the settings say."""
    from hevcq.worker.monitoring.cloudwatch_emf import Batch
    from hevcq.worker.monitoring.prometheus import Exposition, Totals
    from hevcq.worker.monitoring.recorder import Meter
    from hevcq.worker.monitoring.reporter import MetricsReport, Outlets

    settings = app.settings
    batch = Batch() if settings.metrics_emf else None
    totals = Totals() if settings.metrics_address else None
    meter = Meter([sink for sink in (batch, totals) if sink is not None], app.clock)
    exposition = Exposition(settings.metrics_address, totals) if totals is not None else None
    outlets = Outlets(batch, _write_line, exposition)

    def both(event: JobEvent) -> None:
        meter.note(event)
        told(event)

    return both, MetricsReport(meter, served, outlets, app.clock, settings.metrics_every_s)


def _write_line(line: str) -> None:
    """Write one line of data to stdout, whole and at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
