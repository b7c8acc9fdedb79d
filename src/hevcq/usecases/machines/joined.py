"""The joined machine's side: take orders, fetch the source, encode, send back the result."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hevcq.domain.model import MachineLoad
from hevcq.domain.orders import (
    MachineFacts,
    MadeReport,
    Order,
    OrderedWork,
    OrderEnd,
    OrderProgress,
)
from hevcq.errors import (
    AccessDenied,
    DiskFull,
    HevcqError,
    SourceGone,
    Stopped,
    Unavailable,
    WorkerUnfit,
)
from hevcq.ports.encoder import (
    EncodeProgress,
    Encoder,
    EncodeRequest,
    StopEvent,
)
from hevcq.ports.store import Write
from hevcq.relay import serve
from hevcq.remotes.farm import HttpFarm
from hevcq.util.clock import Clock
from hevcq.util.file_io import sha256_file
from hevcq.util.log import get_logger

BEAT_S = 5.0
"""Seconds between two heartbeats of an order."""
AGAIN_S = 5.0
"""Seconds until a farm that does not answer is polled again."""


@dataclass(frozen=True)
class JoinedPorts:
    """The tools of a joined machine. `folder` makes an empty scratch folder of a name, `load` measures the load."""

    home: HttpFarm
    encoder: Encoder
    folder: Callable[[str], AbstractContextManager[Path]]
    clock: Clock
    threads: int
    min_free_bytes: int
    echo: Callable[[str], None]
    load: Callable[[], MachineLoad] = MachineLoad


class JoinedWorker:
    """Carries out orders in `facts.slots` threads until `stop`; `error` is what ended it earlier."""

    def __init__(self, ports: JoinedPorts, facts: MachineFacts, stop: threading.Event) -> None:
        self._ports, self._facts, self._stop = ports, facts, stop
        self._interrupted = threading.Event()
        self._away = ""
        self._busy: set[str] = set()
        self.error: HevcqError | None = None
        self._threads = [
            threading.Thread(target=self._serve, name=f"hevcq-order-{number}", daemon=True)
            for number in range(facts.slots)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def interrupt(self) -> None:
        """Give up the running orders; the farm learns it from an answer, or from silence."""
        self._stop.set()
        self._interrupted.set()

    @property
    def running(self) -> bool:
        """Whether an order is running or orders are still polled; after a stop, a pending poll does not count."""
        alive = any(thread.is_alive() for thread in self._threads)
        return alive and (bool(self._busy) or not self._stop.is_set())

    def _serve(self) -> None:
        try:
            while not self._stop.is_set():
                self.step()
        except HevcqError as error:
            self.error = self.error or error
            self._stop.set()
        except Exception as error:  # noqa: BLE001 - nothing above a thread catches
            get_logger().exception("joined_worker_broke")
            self.error = HevcqError(f"This is a bug: {type(error).__name__}: {error}")
            self._stop.set()

    def step(self) -> bool:
        """Poll for an order and carry it out; return whether there was one.

        Raises AccessDenied if this machine was removed, and WorkerUnfit if the farm refuses it.
        """
        ports = self._ports
        try:
            order = ports.home.poll(self._facts.model_copy(update=ports.load().load_facts()))
        except AccessDenied:
            raise
        except Unavailable as error:
            if str(error) != self._away:
                self._away = str(error)
                ports.echo(f"{error} Trying again.")
            ports.clock.wait(self._stop, AGAIN_S)
            return False
        if self._away:
            self._away = ""
            ports.echo("The farm answers again.")
        if order is None or self._stop.is_set():
            return False
        self._busy.add(order.order_id)
        try:
            _Execution(ports, order, self._interrupted).run()
        finally:
            self._busy.discard(order.order_id)
        return True


class _Execution:
    """Carries out one order, from its source to its answer."""

    def __init__(self, ports: JoinedPorts, order: Order, interrupted: threading.Event) -> None:
        self._ports, self._order, self._interrupted = ports, order, interrupted
        self._stop, self._ended = StopEvent(), threading.Event()
        self._wanted = True
        self._progress: OrderProgress | None = None

    def run(self) -> None:
        heartbeat = threading.Thread(target=self._beat, name="hevcq-order-beat", daemon=True)
        heartbeat.start()
        try:
            answer = self._execute()
        finally:
            self._ended.set()
            heartbeat.join()
        if not self._wanted:
            self._ports.echo("The farm no longer wants this order; it is dropped.")
            return
        try:
            self._ports.home.answer(self._order, answer)
        except AccessDenied:
            raise
        except Unavailable as error:
            self._ports.echo(f"An answer was lost: {error}")

    def _execute(self) -> OrderEnd:
        try:
            with self._ports.folder(self._order.order_id) as folder:
                if self._order.work is not None:
                    return self._encode_and_send(self._order.work, folder)
                self._ports.encoder.self_test(self._order.profile, folder, stop=self._stop)
                nothing = MadeReport(arguments=(), seconds=0, cpu_s=0, stderr=(), frames=0)
                return OrderEnd(report=nothing)
        except AccessDenied:
            raise
        except SourceGone as error:
            self._wanted = False
            return OrderEnd(reason=str(error)[:4000])
        except Stopped:
            return OrderEnd(reason="It was stopped.", stopped=True)
        except HevcqError as error:
            self._ports.echo(f"An order failed: {error}")
            return OrderEnd(reason=str(error)[:4000])

    def _encode_and_send(self, work: OrderedWork, folder: Path) -> OrderEnd:
        ports, output = self._ports, folder / f"made.{work.plan.extension}"
        needed = int(2 * work.source_size * work.share) + ports.min_free_bytes
        if shutil.disk_usage(folder).free < needed:
            raise DiskFull(f"This needs {-(-needed >> 20)} MiB free in the scratch folder.")
        with self._open_source(work, folder) as location:
            report = self._encode(work, location, output)
        ports.home.put(self._order, output, self._stop)
        sha256 = sha256_file(output, self._check)
        return OrderEnd(report=report, size=output.stat().st_size, sha256=sha256)

    @contextmanager
    def _open_source(self, work: OrderedWork, folder: Path) -> Iterator[str]:
        """Yield the source's location; for a chunk, only the bytes that the encoder reads are fetched."""
        home, name = self._ports.home, f"source{work.suffix}"
        if work.chunk is None:
            home.fetch(self._order, folder / name, self._stop)
            yield str(folder / name)
            return

        def fetch(start: int, end: int, write: Write) -> None:
            home.read(self._order, (start, end), write, self._stop)

        with serve(folder, work.source_size, fetch, name) as location:
            yield location

    def _encode(self, work: OrderedWork, location: str, output: Path) -> MadeReport:
        encoder = self._ports.encoder
        request = EncodeRequest(
            profile=self._order.profile,
            plan=work.plan,
            info=work.info,
            location=location,
            output=output,
            duration_s=work.duration_s,
            source_size=work.source_size,
            max_seconds=work.max_seconds,
            threads=self._order.profile.bounds.threads or self._ports.threads,
            measured=work.measured,
        )
        if work.chunks is None or work.chunk is None:
            report = encoder.encode(request, on_progress=self._note_progress, stop=self._stop)
        else:
            chunk = work.chunks.chunks[work.chunk]
            report = encoder.encode_chunk(
                request, work.chunks, chunk, on_progress=self._note_progress, stop=self._stop
            )
        return MadeReport(**{name: getattr(report, name) for name in MadeReport.model_fields})

    def _note_progress(self, progress: EncodeProgress) -> None:
        fraction = min(1.0, max(0.0, progress.fraction))
        self._progress = OrderProgress(**asdict(replace(progress, fraction=fraction)))

    def _progress_with_load(self) -> OrderProgress | None:
        progress = self._progress
        return progress and progress.model_copy(update=self._ports.load().load_facts())

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _beat(self) -> None:
        """Send heartbeats until the order ends; stop it when the farm no longer wants it."""
        clock, due = self._ports.clock, 0.0
        while not clock.wait(self._ended, 0.25):
            if self._interrupted.is_set():
                self._stop.set()
            if clock.monotonic() < due:
                continue
            due = clock.monotonic() + BEAT_S
            try:
                progress = self._progress_with_load()
                wanted, self._stop.held = self._ports.home.beat(self._order, progress)
            except Unavailable:
                continue  # the farm gives up a silent order by itself
            except WorkerUnfit:
                wanted = False
            if not wanted:
                self._wanted = False
                self._stop.set()
