"""Build the pool of workers of one process, with everything that watches it."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

from hevcq.domain.events import JobEvent, OnEvent
from hevcq.domain.formats import encoder_of
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Container, Profile
from hevcq.errors import ConfigError
from hevcq.ffmpeg.process.child import run_command
from hevcq.ports.backend import WorkerFacts
from hevcq.ports.encoder import Encoder
from hevcq.settings.model import ScheduleSettings
from hevcq.settings.profile_files import pick
from hevcq.usecases.context import require_shares
from hevcq.usecases.operations.dead_letters import WORKER_LOOKS_EVERY_S, ExpiredMessages
from hevcq.usecases.operations.pausing import COMMAND_EVERY_S, SPENT_EVERY_S, GateCommand
from hevcq.usecases.placement.originals import FIRST_S, LOOK_EVERY_S, free_due
from hevcq.util.log import get_logger
from hevcq.wiring.app import App
from hevcq.wiring.contexts import pool_events
from hevcq.worker.admission import Admission, Scratch
from hevcq.worker.delivery.claim import WorkerContext
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.monitoring.watchers import (
    Background,
    Presence,
    ScaleInGuard,
    SignOfLife,
    Watcher,
    periodic,
    worker_facts,
)
from hevcq.worker.out_of_service import RETEST_CHECK_S, SelfTests
from hevcq.worker.pool import WorkerPool
from hevcq.worker.publish import SWEEP_EVERY_S, sweep_sets


def build_pool(
    app: App,
    profiles: Sequence[str] = (),
    *,
    on_event: OnEvent | None = None,
    measured: bool = False,
) -> WorkerPool:
    """Return a pool of workers for the named profiles (none: all), not yet started.

    `measured` exports metrics as configured; `hevcq worker` sets it, `hevcq ingest` does not. Raises
    UnknownProfile, StorageError if a folder of `paths` does not hold its videos, or ConfigError if
    videos have two names here or the metrics cannot be served.
    """
    settings, backend = app.settings, app.worker_backend
    chosen = pick(app.profiles, list(profiles)) if profiles else list(app.profiles.values())
    served = [ProfileQueue(profile, backend.queues[profile.name]) for profile in chosen]
    emit, events = on_event or (lambda _event: None), pool_events(app)
    notify = events.notify if events else lambda _event, _reason: None
    scratch = Scratch(settings.scratch, app.clock)
    watchers = [*process_watchers(app), *_maintenance(app, chosen)]
    require_shares(app.catalog)
    withdrawn = _add_presence(app, chosen, watchers, lambda: pool)
    if events:
        watchers.append(Background("hevcq-messages", events.try_step, app.clock))
    if measured and (settings.metrics_emf or settings.metrics_address):
        emit, report = _with_metrics(app, emit, served)
        watchers.append(report)
    context = WorkerContext(
        backend=backend,
        encoder=app.encoder,
        admission=admission(app, scratch, watchers, withdrawn, partial(_report_unfit, app, notify)),
        notify=notify,
        plan=make_plan,
        scratch=scratch,
        clock=app.clock,
        min_free_bytes=settings.min_free_mib << 20,
        threads=app.capacity.threads,
        on_event=emit,
        slots_per_job=app.slots_per_job,
        sweep_on_start=not settings.on_aws,
    )
    slots, grace_s = app.capacity.slots, settings.stop_grace_s
    pool = WorkerPool(context, served, watchers, slots=slots, grace_s=grace_s)
    return pool


def _add_presence(
    app: App, served: Sequence[Profile], watchers: list[Watcher], pool: Callable[[], WorkerPool]
) -> Callable[[], str]:
    """Keep this process in the list of machines; return a function for `Admission.withdrawn`."""
    machines = app.worker_backend.machines
    if machines is None:
        return lambda: ""

    def facts() -> WorkerFacts:
        proven = {encoder_of(each.video.codec) for each in app.encoder.proven(served)}
        waits = dict.fromkeys(filter(None, (pool().why_paused(each.name) for each in served)))
        update = {"encoders": tuple(sorted(proven)), "waits": tuple(waits)}
        return facts_of(app).model_copy(update=update)

    presence = Presence(machines, app.worker_backend.owner, facts, app.clock)
    watchers.append(presence)
    return presence.reason


def facts_of(app: App) -> WorkerFacts:
    return worker_facts(app.encoder, app.capacity, app.settings.scratch)


def _maintenance(app: App, served: Sequence[Profile]) -> list[Watcher]:
    """Return the watchers that sweep replaced sets, keep the daily cap, and find expired messages."""

    def sweep() -> None:
        # Embedded, every worker may sweep all sets; on AWS each has its own profile's rights only.
        profiles = served if app.settings.on_aws else list(app.profiles.values())
        names = [profile.name for profile in profiles if profile.container is Container.HLS]
        sweep_sets(app.worker_backend, app.clock, names)

    watchers: list[Watcher] = [periodic("hevcq-sets", sweep, app.clock, SWEEP_EVERY_S)]
    if not app.settings.on_aws:  # there a worker may not pause others: the page and an ingest do
        cap = app.daily_cap.check
        cap()  # before the first job begins
        watchers.append(periodic("hevcq-daily-cap", cap, app.clock, SPENT_EVERY_S))
    if app.worker_backend.external_dlq:
        check = ExpiredMessages(app.worker_backend, [each.name for each in served]).check
        watchers.append(periodic("hevcq-given-up", check, app.clock, WORKER_LOOKS_EVERY_S))
    return watchers


def _report_unfit(
    app: App, notify: Callable[[str, str], None], problems: Mapping[str, str]
) -> None:
    app.processes.tell(unfit=dict(problems))
    for problem in problems.values():
        notify("worker.unfit", problem)


def admission(
    app: App,
    scratch: Scratch,
    watchers: list[Watcher],
    withdrawn: Callable[[], str],
    report: Callable[[Mapping[str, str]], None],
    encoder: Encoder | None = None,
) -> Admission:
    """Return the admission of a pool; add to `watchers` those that keep it up to date.

    `report` gets why the encoder, by default this machine's, cannot make profiles, by their names.
    """

    def schedule() -> ScheduleSettings:
        return app.settings.schedule  # not a copy, since a service reloads it

    parsed = lru_cache(maxsize=1)(ScheduleSettings.hours)
    condition = GateCommand(lambda: schedule().gate_command, run_command)
    watchers.append(periodic("hevcq-condition", condition.check, app.clock, COMMAND_EVERY_S))

    tests = SelfTests(encoder or app.encoder, scratch.job, app.clock, lambda: app.profiles, report)
    watchers.append(periodic("hevcq-self-test", tests.retest_failed, app.clock, RETEST_CHECK_S))
    ledger, hours = app.worker_backend.ledger, lambda: parsed(schedule())
    return Admission(ledger, app.clock, hours, condition.reason, tests, withdrawn)


def process_watchers(app: App) -> list[Watcher]:
    """Return the sign of life, the deletion of kept originals that are due, and on ECS the scale-in guard."""
    watchers: list[Watcher] = [SignOfLife(app.processes, app.clock)]
    if not app.settings.on_aws:  # a fleet's workers have no library
        free = partial(free_due, app.library_ports)
        watchers.append(periodic("hevcq-originals", free, app.clock, LOOK_EVERY_S, first_s=FIRST_S))
    if agent_uri := os.environ.get("ECS_AGENT_URI", ""):
        from hevcq.backends.aws.clients import TaskProtection

        try:
            watchers.append(ScaleInGuard(TaskProtection(agent_uri), app.clock))
        except ConfigError as error:  # the work must go on without it
            get_logger().warning("task_protection_unusable", reason=str(error))
    return watchers


def _with_metrics(
    app: App, emit: OnEvent, served: Sequence[ProfileQueue]
) -> tuple[OnEvent, Watcher]:
    """Return `emit` with metrics added, and the watcher that exports them as configured."""
    from hevcq.worker.monitoring.metrics import EventMeter, Exposition, Metrics, MetricsReport

    settings = app.settings
    meter = EventMeter(Metrics(emf=settings.metrics_emf), app.clock)
    write = partial(print, flush=True) if settings.metrics_emf else None
    address = settings.metrics_address
    exposition = Exposition(address, meter.metrics) if address else None

    def record_and_emit(event: JobEvent) -> None:
        meter.note(event)
        emit(event)

    report = MetricsReport(meter, served, app.clock, write=write, exposition=exposition)
    return record_and_emit, report
