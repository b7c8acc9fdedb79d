"""What a joined machine does with an order: encode and return it, or say in a sentence why not."""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from hevcq import __version__
from hevcq.domain.model import MachineLoad
from hevcq.domain.orders import MachineFacts, Order, OrderEnd, OrderProgress
from hevcq.errors import AccessDenied, EncoderFailed, SourceGone, Stopped, Unavailable, WorkerUnfit
from hevcq.ports.encoder import EncodeProgress, EncodeReport
from hevcq.ports.store import Write
from hevcq.relay import BLOCK_BYTES
from hevcq.usecases.machines.joined import JoinedPorts, JoinedWorker
from hevcq.util.clock import SystemClock
from support.clips import ManualClock
from support.orders import new_order
from support.relay import open_relay

FACTS = MachineFacts(version=__version__, ffmpeg="f", build="b", start="s", slots=1)
SOURCE, MADE = b"source" * 100, b"made"
LONG = random.Random(7).randbytes(4 * BLOCK_BYTES)


class NearHome:
    """A farm in this process, with orders to hand out; `wanted` ends an order from there."""

    def __init__(self, *orders: Order | Exception) -> None:
        self.orders, self.ends = list(orders), list[OrderEnd]()
        self.put_bytes, self.wanted, self.beats = b"", True, 0
        self.spans = list[tuple[int, int]]()

    def poll(self, facts: MachineFacts) -> Order | None:
        assert facts.model_copy(update=MachineLoad().load_facts()) == FACTS
        found = self.orders.pop(0) if self.orders else None
        if isinstance(found, Exception):
            raise found
        return found

    def beat(self, order: Order, progress: OrderProgress | None) -> tuple[bool, bool]:
        self.beats += 1
        return self.wanted, False

    def fetch(self, order: Order, target: Path, stop: threading.Event) -> None:
        target.write_bytes(SOURCE)

    def read(
        self, order: Order, span: tuple[int, int], write: Write, stop: threading.Event
    ) -> None:
        self.spans.append(span)
        write(span[0], LONG[slice(*span)])

    def put(self, order: Order, file: Path, stop: threading.Event) -> None:
        self.put_bytes = file.read_bytes()

    def answer(self, order: Order, answer: OrderEnd) -> None:
        self.ends.append(answer)


class NearEncoder:
    """Writes MADE, or raises; `until_stopped` encodes until somebody stops it."""

    def __init__(self, error: Exception | None = None, *, until_stopped: bool = False) -> None:
        self._error, self._until_stopped = error, until_stopped
        self.began = threading.Event()

    def self_test(self, *_given: Any, **_named: Any) -> None:
        if self._error is not None:
            raise self._error

    def encode(self, request: Any, *, on_progress: Any, stop: threading.Event) -> EncodeReport:
        assert Path(request.location).read_bytes() == SOURCE
        on_progress(EncodeProgress(1.2, 1.0, 25, 2.0, 4))
        self.began.set()
        if self._until_stopped:
            stop.wait(30)
            raise Stopped
        if self._error is not None:
            raise self._error
        request.output.write_bytes(MADE)
        return EncodeReport(("ffmpeg",), 1.0, 1.0, (), 25)

    def encode_chunk(self, request: Any, _plan: Any, chunk: Any, **_more: Any) -> EncodeReport:
        """Read the index at the end, and the block of this chunk."""
        for at in (len(LONG) - 9, chunk.index * BLOCK_BYTES):
            with open_relay(request.location, f"{at}-{at + 8}") as answer:
                assert answer.read() == LONG[at : at + 9]
        request.output.write_bytes(MADE)
        return EncodeReport(("ffmpeg",), 1.0, 1.0, (), 10)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, list[str]()
        self.stop = threading.Event()

    @contextmanager
    def _scratch(self, name: str) -> Iterator[Path]:
        with TemporaryDirectory(prefix=name, dir=self.folder) as place:
            yield Path(place)

    def worker(
        self, home: NearHome, encoder: Any, clock: Any = None, load: Any = MachineLoad
    ) -> JoinedWorker:
        given = clock or ManualClock(auto=True)
        ports = JoinedPorts(home, encoder, self._scratch, given, 2, 0, self.said.append, load)
        return JoinedWorker(ports, FACTS, self.stop)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("error", [EncoderFailed("x265 broke"), WorkerUnfit("no libx265")])
def test_failed_order_is_told_with_its_reason(bench, error):
    home = NearHome(new_order(len(SOURCE)), new_order(len(SOURCE), test=True))
    worker = bench.worker(home, NearEncoder(error))

    worker.step()
    worker.step()

    assert [end.reason for end in home.ends] == [str(error)] * 2
    assert all(end.report is None and not end.stopped for end in home.ends)


def test_order_that_does_not_fit_on_the_disk_is_refused_before_it_is_fetched(bench):
    home = NearHome(new_order(1 << 60))

    bench.worker(home, NearEncoder()).step()

    assert "MiB free" in home.ends[0].reason
    assert home.put_bytes == b""


def test_chunk_costs_its_own_bytes_and_those_of_the_index(bench):
    orders = [new_order(len(LONG), chunk=0), new_order(len(LONG), chunk=1)]
    home = NearHome(*orders)
    worker = bench.worker(home, NearEncoder())

    worker.step()
    worker.step()

    assert [start // BLOCK_BYTES for start, _end in home.spans] == [3, 0, 3, 1]
    opened = map(os.path.realpath, Path("/proc/self/fd").iterdir())
    assert not [each for each in opened if str(bench.folder) in each], "sources take space still"
    assert all(end.report is not None for end in home.ends)


def test_chunk_whose_source_cannot_be_read_is_no_fault_of_its_encoder(bench):
    class Changed(NearHome):
        def read(self, *_given: object) -> None:
            raise SourceGone("It was replaced.")

    class Fooled(NearEncoder):
        def encode_chunk(self, request: Any, *_given: Any, **_more: Any) -> EncodeReport:
            with suppress(OSError), open_relay(request.location, "0-8") as answer:
                assert len(answer.read()) < 9
            return EncodeReport(("ffmpeg",), 1.0, 1.0, (), 10)

    home = Changed(new_order(len(LONG), chunk=0))

    worker = bench.worker(home, Fooled())
    assert [worker.step(), worker.step()] == [True, False]

    assert (home.ends, home.put_bytes) == ([], b"")


def test_order_that_is_no_longer_wanted_stops_and_is_not_answered(bench):
    home = NearHome(new_order(len(SOURCE)))
    home.wanted = False

    bench.worker(home, NearEncoder(until_stopped=True), SystemClock()).step()

    assert home.ends == []
    assert "no longer wants" in bench.said[0]


def test_machine_says_how_busy_it_is_when_it_asks_and_while_it_encodes(bench):
    told = list[MachineLoad]()

    class Heard(NearHome):
        def poll(self, facts: MachineFacts) -> Order | None:
            told.append(facts)
            return super().poll(facts)

        def beat(self, order: Order, progress: OrderProgress | None) -> tuple[bool, bool]:
            told.extend([progress] if progress else [])
            return progress is None, False  # until it was told

    encoder, busy = NearEncoder(until_stopped=True), MachineLoad(load=2.5, scratch_free=7)
    home = Heard(new_order(len(SOURCE)))
    bench.worker(home, encoder, SystemClock(), lambda: busy).step()

    assert [each.load_facts() for each in told] == [busy.load_facts()] * 2


def test_changed_source_drops_the_order(bench):
    class Changed(NearHome):
        def fetch(self, *_given: object) -> None:
            raise SourceGone

    home = Changed(new_order(len(SOURCE)))

    bench.worker(home, NearEncoder()).step()

    assert home.ends == []


def test_stopped_machine_gives_its_order_back(bench):
    home, encoder = NearHome(new_order(len(SOURCE))), NearEncoder(until_stopped=True)
    worker = bench.worker(home, encoder, SystemClock())

    worker.start()
    assert encoder.began.wait(30)
    worker.interrupt()
    while worker.running:
        pass

    assert [end.stopped for end in home.ends] == [True]
    assert worker.error is None


def test_silent_farm_is_asked_again_and_complained_of_once(bench):
    home = NearHome(Unavailable("away"), Unavailable("away"), new_order(len(SOURCE)))
    worker = bench.worker(home, NearEncoder())

    assert [worker.step(), worker.step(), worker.step()] == [False, False, True]

    assert bench.said == ["away Trying again.", "The farm answers again."]


@pytest.mark.parametrize("error", [AccessDenied("removed"), WorkerUnfit("too old")])
def test_shut_out_machine_ends_with_the_reason(bench, error):
    worker = bench.worker(NearHome(error), NearEncoder())

    worker.start()
    while worker.running:
        pass

    assert worker.error is error
