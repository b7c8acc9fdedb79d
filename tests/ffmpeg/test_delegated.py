"""What a joined machine returns is proved here; what it cannot make, or makes wrong, is made here."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.domain.certificate import Outcome
from hevcq.domain.orders import MachineFacts, MadeReport, OrderEnd, OrderProgress
from hevcq.errors import LimitExceeded, Stopped, WorkerUnfit
from hevcq.ffmpeg.delegated import DelegatingEncoder
from hevcq.ports.backend import Errand, Machine
from hevcq.ports.encoder import EncodeRequest
from hevcq.ports.store import Write
from hevcq.relay import serve
from hevcq.util.clock import SystemClock
from hevcq.util.file_io import sha256_file
from support.clips import make_clip
from support.media_facts import profile
from support.rendition import ENCODER, GATES, RECIPE, probed, request_of

REPORT = MadeReport(arguments=("there",), seconds=1, cpu_s=1, stderr=(), frames=25)


class Away(Machine):
    """A machine that puts what `make` writes at the target, and ends as it says."""

    name = "desk"
    facts = MachineFacts(version="0", ffmpeg="ffmpeg version 99", build="b", start="s", slots=1)

    def __init__(self, make: Callable[[Errand], OrderEnd]) -> None:
        self._make = make
        self.complaints, self.praised = list[str](), 0

    def carry_out(
        self,
        errand: Errand,
        on_progress: Callable[[OrderProgress], None],
        stop: threading.Event,
    ) -> OrderEnd:
        on_progress(OrderProgress(fraction=0.5, out_time_s=0.5, frame=12, speed=None, size=1))
        return self._make(errand)

    def complain(self, reason: str) -> None:
        self.complaints.append(reason)

    def praise(self) -> None:
        self.praised += 1


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = make_clip(folder)
        self.profile = profile(video=RECIPE, gates=GATES)

    def request(self, source: Path, output: Path) -> EncodeRequest:
        info = probed(source)
        measured = ENCODER.preflight(str(source), info, self.profile, stop=threading.Event())
        known = {"info": info, "measured": measured, "max_seconds": 600}
        return request_of(source, output, self.profile, **known)

    def encoded(self, source: Path, name: str) -> Path:
        output = self.folder / name
        ENCODER.encode(
            self.request(source, output), on_progress=lambda _p: None, stop=threading.Event()
        )
        return output

    def run(self, machine: Away) -> tuple[Path, tuple[str, ...], list[Outcome]]:
        """Return what a job gets by this machine: file, arguments, and the outcomes of the gates."""
        encoder = DelegatingEncoder("ffmpeg", "ffprobe", SystemClock()).with_machine(machine)
        request, stop = self.request(self.source, self.folder / "made.mp4"), threading.Event()
        seen = list[float]()
        report = encoder.encode(request, on_progress=lambda p: seen.append(p.fraction), stop=stop)
        gates = encoder.verify(
            request.to_verify(report), on_progress=lambda _progress: None, stop=stop
        )
        assert 0.5 in seen
        assert not list(self.folder.glob("*.arriving"))
        return request.output, report.arguments, [gate.outcome for gate in gates]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def returning(file: Path, **other: object) -> Callable[[Errand], OrderEnd]:
    """Return what a machine does that sends this file, and says of it what is true or `other`."""

    def make(errand: Errand) -> OrderEnd:
        assert errand.target is not None
        shutil.copyfile(file, errand.target)
        said = {"size": file.stat().st_size, "sha256": sha256_file(file, lambda: None)}
        return OrderEnd.model_validate({"report": REPORT, **said, **other})

    return make


def test_sound_rendition_of_a_machine_is_taken(bench):
    made = bench.encoded(bench.source, "there.mp4")
    machine = Away(returning(made))

    output, arguments, outcomes = bench.run(machine)

    assert output.read_bytes() == made.read_bytes()
    assert (arguments, machine.praised, machine.complaints) == (("there",), 1, [])
    assert outcomes
    assert not {Outcome.FAILED, Outcome.UNKNOWN} & set(outcomes)


def test_video_in_a_bucket_is_encoded_here(bench):
    machine = Away(returning(bench.source))
    encoder = DelegatingEncoder("ffmpeg", "ffprobe", SystemClock()).with_machine(machine)

    def fetch(start: int, end: int, write: Write) -> None:
        write(start, bench.source.read_bytes()[start:end])

    size = bench.source.stat().st_size
    with serve(bench.folder, size, fetch, "source.mp4") as location:
        request = replace(bench.request(bench.source, bench.folder / "made.mp4"), location=location)
        report = encoder.encode(request, on_progress=lambda _p: None, stop=threading.Event())

    assert report.arguments != ("there",)
    assert not machine.complaints


@pytest.mark.parametrize(
    ("forgery", "gate"), [("other", "G8"), ("cut", "G"), ("still", "G8"), ("source", "G2")]
)
def test_forged_rendition_is_replaced_by_one_made_here(bench, forgery, gate):
    filters = {"other": "negate,hflip", "still": "loop=loop=-1:size=1,trim=end_frame=25"}
    other = make_clip(bench.folder, name="other.mp4", extra=("-vf", filters.get(forgery, "null")))
    forged = other if forgery == "source" else bench.encoded(other, "forged.mp4")
    if forgery == "cut":
        forged.write_bytes(forged.read_bytes()[: -(forged.stat().st_size // 3)])
    machine = Away(returning(forged))

    output, arguments, outcomes = bench.run(machine)

    assert gate in machine.complaints[0]
    assert output.read_bytes() != forged.read_bytes()
    assert arguments != ("there",)
    assert not {Outcome.FAILED, Outcome.UNKNOWN} & set(outcomes)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"size": 1}, "did not arrive whole"),
        ({"sha256": "0" * 64}, "other bytes arrived"),
        ({"report": None}, "it returned no report"),
        ({"reason": "This source is damaged."}, "This source is damaged."),
    ],
)
def test_video_that_a_machine_failed_to_return_is_encoded_here(bench, said, complaint):
    machine = Away(returning(bench.encoded(bench.source, "there.mp4"), **said))

    _output, arguments, _outcomes = bench.run(machine)

    assert complaint in machine.complaints[0]
    assert arguments != ("there",)


def test_machine_that_does_not_end_in_time_leaves_time_to_encode_here(bench):
    given = list[float]()

    def linger(errand: Errand) -> OrderEnd:
        assert errand.order.work is not None
        given.append(errand.order.work.max_seconds)
        raise LimitExceeded("The machine desk did not end in time.")

    machine = Away(linger)
    _output, arguments, outcomes = bench.run(machine)

    assert given == [300]  # of the 600 of the job
    assert machine.complaints == ["The machine desk did not end in time."]
    assert arguments != ("there",)
    assert not {Outcome.FAILED, Outcome.UNKNOWN} & set(outcomes)


def test_lost_machine_leaves_nothing_behind(bench):
    def vanish(errand: Errand) -> OrderEnd:
        assert errand.target is not None
        errand.target.write_bytes(b"half")
        raise Stopped

    with pytest.raises(Stopped):
        bench.run(Away(vanish))

    assert not (bench.folder / "made.mp4").exists()
    assert not list(bench.folder.glob("*.arriving"))


def test_profile_that_a_machine_cannot_make_waits_with_its_reason(bench):
    machine = Away(lambda _errand: OrderEnd(reason="libx265 is missing."))
    encoder = DelegatingEncoder("ffmpeg", "ffprobe", SystemClock()).with_machine(machine)

    with pytest.raises(WorkerUnfit, match="desk: libx265 is missing"):
        encoder.self_test(bench.profile, bench.folder, stop=threading.Event())
