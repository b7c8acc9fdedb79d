"""What a simulated worker works with: a file system in memory, an encoder, scratch, and job natures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.planning.encode_plan import Skip, SkipReason
from hevcq.errors import (
    DiskFull,
    EncoderFailed,
    EncoderStalled,
    OutOfMemory,
    SourceDamaged,
    SourceUnreadable,
    Stopped,
    Unavailable,
    WorkerUnfit,
)
from hevcq.ports.encoder import EncodeProgress, EncodeReport
from support.fakes.encoder import INFO, _measured, fake_plan, passed


class Nature(StrEnum):
    """What a source is; `ENDS` says which ends are right for it without any fault."""

    GOOD = "good"
    FLAKY = "flaky"
    NOT_SMALLER = "not_smaller"
    ALREADY = "already"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    BAD_GATE = "bad_gate"
    ENCODER_POISON = "encoder_poison"
    STALLS = "stalls"
    KILLER = "killer"


WEIGHTS = {
    Nature.GOOD: 70,
    Nature.FLAKY: 6,
    Nature.NOT_SMALLER: 5,
    Nature.ALREADY: 4,
    Nature.DAMAGED: 4,
    Nature.UNREADABLE: 3,
    Nature.BAD_GATE: 2,
    Nature.ENCODER_POISON: 3,
    Nature.STALLS: 2,
    Nature.KILLER: 1,
}
_PLANS: dict[str, Any] = {}
MEASURED, PASSED = _measured(INFO), passed()
NOT_SMALLER = passed(GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER))
BAD_GATE = passed(GateResult(gate=Gate.G4, outcome=Outcome.FAILED, detail="a frame is missing"))
ALREADY_INFO = INFO.model_copy(update={"format_name": "already"})


def sim_plan(profile, info):
    """Plan once a profile: planning has its own tests, and a world needs speed."""
    if info is ALREADY_INFO:
        return Skip(reason=SkipReason.ALREADY_TARGET, detail="hevc already")
    if profile.name not in _PLANS:
        _PLANS[profile.name] = fake_plan(profile, info)
    return _PLANS[profile.name]


@dataclass
class SimJob:
    """One source and what it does to a worker."""

    number: int
    nature: Nature
    seconds: float
    profile: str
    job_id: str = ""
    source: Any = None
    fails_left: int = 0
    replaced: bool = False
    blamed: list[str] = field(default_factory=list)
    """Classes of the failures that were really injected into attempts at this job."""


class MemPath:
    """As much of pathlib.Path as the worker uses, over a dict."""

    __slots__ = ("_files", "name")

    def __init__(self, files: dict[str, bytes], name: str) -> None:
        self._files, self.name = files, name

    def __truediv__(self, part: str) -> MemPath:
        return MemPath(self._files, f"{self.name}/{part}")

    @property
    def parent(self) -> MemPath:
        return MemPath(self._files, self.name.rpartition("/")[0])

    def __str__(self) -> str:
        return self.name

    def exists(self) -> bool:
        return self.name in self._files

    def write_bytes(self, content: bytes) -> None:
        self._files[self.name] = content

    def read_bytes(self) -> bytes:
        if self.name not in self._files:
            raise FileNotFoundError(self.name)
        return self._files[self.name]

    def open(self, _mode: str, **_how: object) -> io.BytesIO:
        return io.BytesIO(self.read_bytes())

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(st_size=len(self.read_bytes()))

    def unlink(self, *, missing_ok: bool = False) -> None:
        if self._files.pop(self.name, None) is None and not missing_ok:
            raise FileNotFoundError(self.name)


class SimScratch:
    """The scratch folder of one process; its disk is as full as the world says."""

    folder = "scratch"

    def __init__(self, machine) -> None:
        self._machine, self._number = machine, 0

    @contextmanager
    def job(self, name: str) -> Iterator[MemPath]:
        files = self._machine.files
        self._number += 1
        root = f"/{name}-{self._number}"
        if self._machine.disk_full():
            raise DiskFull("The scratch folder is full.")
        try:
            yield MemPath(files, root)
        finally:
            for path in [f for f in files if f.startswith(f"{root}/")]:
                del files[path]

    def free_bytes(self) -> int:
        return 0 if self._machine.disk_full() else 1 << 40

    def total_bytes(self) -> int:
        return 1 << 40

    def sweep(self) -> int:
        return 0

    def close(self) -> None:
        assert not self._machine.files, "a stop left files behind"


ERRORS = {
    "encoder": lambda: EncoderFailed("x265 broke."),
    "stalled": lambda: EncoderStalled("No output time for 300 s."),
    "memory": lambda: OutOfMemory("ffmpeg was killed."),
    "disk": lambda: DiskFull("No space left."),
    "internal": lambda: ZeroDivisionError("a defect"),
    "worker": lambda: WorkerUnfit("ffmpeg cannot be started."),
    "network": lambda: Unavailable("The network drive went away."),
}
SICK = ("encoder", "stalled", "internal")


class SimEncoder:
    """Takes virtual time, and does what the source's nature, the machine and the faults ask."""

    def __init__(self, machine) -> None:
        self._machine = machine

    def version(self) -> str:
        if self._machine.no_ffmpeg:
            raise WorkerUnfit("ffmpeg is missing.")
        return self._machine.encoder_version

    def self_test(self, profile, folder, *, stop, again=False) -> None:
        self._take(0.5, stop)
        if self._machine.sick and self._machine.shows:
            raise WorkerUnfit("Ten test pictures could not be encoded.")

    def _job(self, location: str) -> SimJob:
        number = int(self._machine.files[location].split(b"|")[0])
        return self._machine.world.jobs[number]

    def _take(self, seconds: float, stop) -> None:
        """Let time pass; a stop ends it."""
        sched = self._machine.world.sched
        if not stop.is_set():
            sched.block(sched.now + seconds, stop)
        if stop.is_set():
            raise Stopped

    def probe(self, location: str, *, stop, quick=False):
        job = self._job(location)
        self._take(0.3, stop)
        if job.nature is Nature.UNREADABLE:
            raise SourceUnreadable("It is not media.")
        return ALREADY_INFO if job.nature is Nature.ALREADY else INFO

    def look(self, location: str, *, stop):
        return self.probe(location, stop=stop), None

    def trim_recording(self, location: str, info, folder, *, stop) -> None:
        """No video here is a recording."""

    def preflight(self, location: str, info, profile, *, stop, looked=None):
        job = self._job(location)
        self._take(job.seconds / 50, stop)
        if job.nature is Nature.DAMAGED:
            raise SourceDamaged("Packets are missing.")
        return MEASURED

    def encode(self, request, *, on_progress, stop) -> EncodeReport:
        job, world = self._job(request.location), self._machine.world
        assert not request.output.exists(), "the output must not exist yet"
        request.output.write_bytes(b"partial")
        began = world.sched.now
        try:
            self._encode(job, on_progress, stop)
        except BaseException:
            request.output.unlink(missing_ok=True)
            raise
        salt = b"" if world.same_bytes else str(world.random.random()).encode()
        request.output.write_bytes(b"rendition|%d|%s" % (job.number, salt))
        return EncodeReport(("ffmpeg",), world.sched.now - began, 1.0, (), 250)

    def _encode(self, job: SimJob, on_progress, stop) -> None:
        machine, world = self._machine, self._machine.world
        self._take(job.seconds * world.random.random(), stop)
        on_progress(EncodeProgress(0.3, 3.0, 75, 1.0, 7))
        if job.nature is Nature.KILLER and world.random.random() < 0.8:
            machine.die("killed by the source")
        kind = machine.encode_fault() or self._natural(job)
        if kind is not None:
            job.blamed.append(kind)
            raise ERRORS[kind]()
        self._take(job.seconds * world.random.random(), stop)
        on_progress(EncodeProgress(0.9, 9.0, 225, 1.0, 9))

    @staticmethod
    def _natural(job: SimJob) -> str | None:
        if job.nature is Nature.ENCODER_POISON:
            return "encoder"
        if job.nature is Nature.STALLS:
            return "stalled"
        if job.nature is Nature.FLAKY and job.fails_left > 0:
            job.fails_left -= 1
            return "encoder"
        return None

    def verify(self, request, *, on_progress, stop):
        job = self._job(request.location)
        self._take(job.seconds / 20, stop)
        if job.nature is Nature.NOT_SMALLER:
            return NOT_SMALLER
        return BAD_GATE if job.nature is Nature.BAD_GATE else PASSED
