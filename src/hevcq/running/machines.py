"""Run slots for machines that joined this farm, and carry out orders of a farm that this machine joined."""

from __future__ import annotations

import hashlib
import secrets
import socket
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hevcq import __version__
from hevcq.domain.model import Frozen
from hevcq.domain.orders import Greeting, MachineFacts
from hevcq.errors import AccessDenied, ConfigError, StorageError, UsageError
from hevcq.usecases.machines.board import JoinedMachine
from hevcq.util.file_io import write_durably
from hevcq.util.log import get_logger
from hevcq.util.signals import StopSignals
from hevcq.util.text import ffmpeg_release

if TYPE_CHECKING:
    from collections.abc import Callable

    from hevcq.ports.backend import WorkerFacts
    from hevcq.settings.web import WebSettings
    from hevcq.wiring.app import App
    from hevcq.worker.pool import WorkerPool

    OpenPool = Callable[[App, JoinedMachine, "JoinedMachines"], WorkerPool]

END_S = 40.0
"""Seconds that a stop waits for the slots of joined machines."""
JOINED_FILE = "joined.json"


class JoinedMachines:
    """The machines that poll this process, each with slots of its own for the jobs it encodes.

    A machine gets one slot more than it encodes at a time, so that it has the next order while its
    last encode is verified here. Of a split video it gets no chunk in advance. Thread-safe.
    """

    def __init__(self, app: App, open_pool: OpenPool | None = None) -> None:
        self._app, self._lock = app, threading.Lock()
        self._open_pool = open_pool or machine_pool
        self._machines: dict[str, JoinedMachine] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._signals: dict[str, StopSignals] = {}
        self.closing = False

    def greet(self, name: str, facts: MachineFacts) -> JoinedMachine:
        """Return a machine that polls; the first poll opens its slots. Raises ConfigError on AWS."""
        if self._app.settings.on_aws:
            raise ConfigError(
                "On AWS machines do not join: they work with credentials of their own."
            )
        with self._lock:
            machine = self._machines.get(name)
            if machine is None:
                machine = self._machines[name] = JoinedMachine(name, facts, self._app.clock)
            machine.greet(facts)
            thread = self._threads.get(name)
            has_slots = thread is not None and thread.is_alive()
            if not has_slots and not machine.refused and not self.closing:
                self._open_slots(machine)
        return machine

    def find(self, name: str) -> JoinedMachine | None:
        with self._lock:
            return self._machines.get(name)

    def close_soon(self) -> None:
        """Open no more slots, answer polls at once, and return running orders to their queue."""
        with self._lock:
            self.closing = True
            for signals in self._signals.values():
                signals.ask()
                signals.ask()

    def close(self) -> None:
        self.close_soon()
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(END_S)

    def _open_slots(self, machine: JoinedMachine) -> None:
        signals = self._signals[machine.name] = StopSignals()
        run = partial(self._run, machine, signals)
        thread = threading.Thread(target=run, name=f"hevcq-machine-{machine.name}", daemon=True)
        self._threads[machine.name] = thread
        thread.start()

    def _run(self, machine: JoinedMachine, signals: StopSignals) -> None:
        try:
            pool = self._open_pool(self._app, machine, self)
            self._write_count()
            get_logger().info("machine_joined", machine=machine.name, slots=machine.facts.slots)
            pool.run(signals, lambda: machine.gone or bool(machine.refused))
            self._record_end(machine)
            if pool.error is not None:
                get_logger().error("machine_ended", machine=machine.name, reason=str(pool.error))
        except Exception:  # noqa: BLE001 - nothing above a thread catches
            get_logger().exception("machine_broke", machine=machine.name)
        finally:
            self._write_count(ended=machine.name)

    def _write_count(self, ended: str = "") -> None:
        """Write into this process's row how many machines work through it, without the one that `ended`."""
        with self._lock:
            alive = [n for n, each in self._threads.items() if each.is_alive() and n != ended]
        self._app.processes.tell(joined=len(alive))

    def _record_end(self, machine: JoinedMachine) -> None:
        """Record in the list of machines why this one gets no more orders."""
        backend, why = self._app.worker_backend, machine.refused or "It no longer answers."
        if backend.machines is not None and not self.closing:
            facts = _facts(self._app, machine).model_copy(update={"waits": (why,)})
            backend.machines.leave(f"{backend.owner}:@{machine.name}", facts)

    def slots_with(self, ffmpeg: str) -> int:
        """Return how many encodes the machines with this ffmpeg run at a time: they share long videos."""
        with self._lock:
            present = [each for each in self._machines.values() if not each.gone]
        return sum(each.facts.slots for each in present if each.facts.ffmpeg == ffmpeg)


def machine_pool(app: App, machine: JoinedMachine, machines: JoinedMachines) -> WorkerPool:
    """Return the pool of one machine's slots. The machine only encodes; all other steps run here.

    HLS sets are encoded here too, because nothing transfers their many files yet.
    """
    from hevcq.domain.planning.planner import make_plan
    from hevcq.domain.profile import Container
    from hevcq.ffmpeg.delegated import DelegatingEncoder
    from hevcq.wiring.contexts import pool_events
    from hevcq.wiring.worker import admission
    from hevcq.worker.admission import Scratch
    from hevcq.worker.delivery.claim import WorkerContext
    from hevcq.worker.handler import ProfileQueue
    from hevcq.worker.monitoring.watchers import Presence, Watcher
    from hevcq.worker.pool import WorkerPool

    settings, backend, label = app.settings, app.worker_backend, f":@{machine.name}"
    encoder = app.new_encoder(DelegatingEncoder).with_machine(machine)
    scratch, events = Scratch(settings.scratch, app.clock), pool_events(app)
    assert backend.machines is not None, "on AWS nobody joins"
    facts = partial(_facts, app, machine)
    presence = Presence(backend.machines, f"{backend.owner}{label}", facts, app.clock)
    watchers: list[Watcher] = [presence]
    context = WorkerContext(
        backend=backend,
        encoder=encoder,
        admission=admission(app, scratch, watchers, presence.reason, machine.note_unfit, encoder),
        notify=events.notify if events else lambda _event, _reason: None,
        plan=make_plan,
        scratch=scratch,
        clock=app.clock,
        min_free_bytes=settings.min_free_mib << 20,
        slots_per_job=lambda _profile: machines.slots_with(app.encoder.version()),
        full=lambda: machine.full,
        label=label,
    )
    served = [
        ProfileQueue(profile, backend.queues[name])
        for name, profile in app.profiles.items()
        if profile.container is not Container.HLS
    ]
    slots, grace_s = machine.facts.slots + 1, settings.stop_grace_s
    return WorkerPool(context, served, watchers, slots=slots, grace_s=grace_s)


def _facts(app: App, machine: JoinedMachine) -> WorkerFacts:
    """Return the row of a joined machine in the list of machines."""
    from hevcq.domain.formats import encoder_of
    from hevcq.ports.backend import WorkerFacts

    facts, unfit = machine.facts, machine.unfit
    able = [each for each in app.profiles.values() if machine.passed(each.name)]
    return WorkerFacts(
        machine=machine.name,
        version=facts.version,
        ffmpeg=ffmpeg_release(facts.ffmpeg),
        cores=facts.cores,
        slots=facts.slots,
        encoders=tuple(sorted({encoder_of(each.video.codec) for each in able})),
        waits=tuple(dict.fromkeys([*machine.trouble(), *unfit.values()])),
        **facts.load_facts(),
    )


class Membership(Frozen):
    """The farm that this machine joined, as stored in its data folder; the token is a secret."""

    address: str
    name: str
    token: str


def membership(data_dir: Path) -> Membership | None:
    """Return the farm that this machine joined, if it did. Raises ConfigError."""
    file = data_dir / JOINED_FILE
    try:
        return Membership.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read.", remedy="Delete it, and join again.") from error


def join(app: App, line: str, echo: Callable[[str], None]) -> Membership:
    """Exchange the invitation in `line` for this machine's own token, and store that.

    Raises UsageError if `line` holds no invitation, AccessDenied if that was used or has expired,
    WorkerUnfit if ffmpeg or the version of hevcq does not fit.
    """
    from hevcq.remotes.farm import HttpFarm, require_safe_address

    address, _, invitation = line.partition("#")
    address = address.rstrip("/")
    warning = require_safe_address(address)
    if not invitation:
        raise UsageError(
            "The address has no invitation after a #.",
            remedy="Copy the whole line that `hevcq workers invite` prints.",
        )
    if warning:
        echo(warning)
    facts = machine_facts(app)
    greeting = Greeting(name=socket.gethostname() or "machine", **facts.model_dump())
    try:
        joined = HttpFarm(address, invitation, app.clock).join(greeting)
    except AccessDenied as error:
        raise AccessDenied(
            "This invitation was used already, or its hour is over.",
            remedy="`hevcq workers invite` there prints another.",
        ) from error
    farm = Membership(address=address, name=joined.name, token=joined.token)
    file = app.settings.data_dir / JOINED_FILE
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(file, farm.model_dump_json(), 0o600)
    except OSError as error:
        raise StorageError(f"Cannot write {file}: {error.strerror}.") from error
    echo(f"Joined {address} as {joined.name}.")
    return farm


def _own_address() -> str:
    """Return this machine's address in its network; sends nothing. Raises ConfigError without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError as error:
            raise ConfigError(
                "This machine has no network.", remedy="Say --address http://NAME:PORT."
            ) from error
        return str(probe.getsockname()[0])


LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def page_address(web: WebSettings) -> str:
    """Return the page's address for other machines. Raises ConfigError if they cannot reach it."""
    if web.url:
        return web.url
    if web.host in LOOPBACK:
        raise ConfigError(
            f"Only this machine reaches the page (web.host is {web.host}).",
            remedy="Set web.host to 0.0.0.0, or web.url to the address of a reverse proxy with TLS.",
        )
    host = _own_address() if web.host in {"0.0.0.0", "::"} else web.host  # noqa: S104 - compared
    return f"http://{f'[{host}]' if ':' in host else host}:{web.port}"


def machine_facts(app: App) -> MachineFacts:
    """Return the facts that this machine sends to a farm. Raises WorkerUnfit if ffmpeg does not run."""
    return MachineFacts(
        version=__version__,
        ffmpeg=app.encoder.version(),
        build=hashlib.sha256(app.encoder.build().encode()).hexdigest(),
        start=secrets.token_hex(8),
        slots=min(64, app.capacity.slots),
        cores=app.capacity.cores,
    )


def work_for_farm(
    app: App, farm: Membership, signals: StopSignals, echo: Callable[[str], None]
) -> None:
    """Carry out the farm's orders until a stop signal. Raises the error that ended the work earlier."""
    from hevcq.remotes.farm import HttpFarm, require_safe_address
    from hevcq.usecases.machines.joined import JoinedPorts, JoinedWorker
    from hevcq.worker.admission import Scratch
    from hevcq.worker.monitoring.watchers import load_now

    require_safe_address(farm.address)
    facts = machine_facts(app)
    with closing(Scratch(app.settings.scratch, app.clock)) as scratch:
        scratch.sweep()
        ports = JoinedPorts(
            HttpFarm(farm.address, farm.token, app.clock),
            app.encoder,
            scratch.job,
            app.clock,
            app.capacity.threads,
            app.settings.min_free_mib << 20,
            echo,
            partial(load_now, app.settings.scratch),
        )
        worker = JoinedWorker(ports, facts, signals.asked)
        worker.start()
        grace_ends_at: float | None = None
        while worker.running:
            if signals.asked.is_set() and grace_ends_at is None:
                grace_ends_at = app.clock.monotonic() + app.settings.stop_grace_s
            is_over = grace_ends_at is not None and app.clock.monotonic() > grace_ends_at
            if is_over or signals.insisted.is_set():
                worker.interrupt()
            app.clock.wait(threading.Event(), 0.1)
    if isinstance(worker.error, AccessDenied):
        raise AccessDenied(
            f"{farm.address} removed this machine.",
            remedy=f"Join again by another invitation, or delete {app.settings.data_dir / JOINED_FILE}"
            " to work on the queue here.",
        ) from worker.error
    if worker.error is not None:
        raise worker.error
