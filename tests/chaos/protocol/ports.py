"""The ports as the stepped handler sees them: each call waits until the search answers it."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chaos.protocol.values import BASE, CONTENT, PROFILE, SOURCE, TASK
from chaos.sim.parts import MEASURED, PASSED, MemPath
from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JobRecord, JobState
from hevcq.domain.verdict import FailureClass
from hevcq.errors import EncoderFailed, Stopped
from hevcq.ports.encoder import EncodeReport
from hevcq.ports.ledger import AlreadySettled, Granted, Held, JobLedger
from hevcq.ports.store import Input, StoredObject
from support.fakes.encoder import INFO, fake_plan

if TYPE_CHECKING:
    from chaos.protocol.local import Run

PLAN = fake_plan(PROFILE, INFO)


class RunQueue:
    """The queue as the handler sees it."""

    name = "hevc"

    def __init__(self, run: Run) -> None:
        self._run = run

    def extend(self, delivery, seconds: float) -> float:
        age = self._run.call("extend")
        self._run.hidden_until = self._run.now - age + seconds
        return self._run.hidden_until

    def ack(self, delivery) -> bool:
        return self._run.call("ack")

    def release(self, delivery, *, delay_s: float = 0.0) -> bool:
        return self._run.call("release", round(delay_s, 2))

    def bury(self, delivery, why) -> bool:
        return self._run.call("bury-delivery", why.failure_class.value)


class RunLedger:
    """The ledger as the handler sees it."""

    progress_every_s = JobLedger.progress_every_s

    def __init__(self, run: Run) -> None:
        self._run = run

    def claim(self, source, profile, *, owner: str, lease_s: float):
        kind, *facts = self._run.call("claim")
        self._run.claimed(kind == "granted")
        if kind == "granted":
            failures, crashes, suspected_worker_fault = facts
            return Granted(1, failures, crashes, int(suspected_worker_fault))
        if kind == "held":
            return Held(self._run.now + facts[0])
        return AlreadySettled(self._record(*facts))

    def _record(self, state: str, fence: int, failure_class: str = "") -> JobRecord:
        return JobRecord(
            job_id=TASK.job_id,
            source=SOURCE,
            profile="hevc",
            state=JobState(state),
            fence=fence,
            reason="so",
            failure_class=FailureClass(failure_class) if failure_class else None,
            created_at=BASE,
            updated_at=BASE,
        )

    def get(self, job_id: str):
        return self._record(*self._run.call("get"))

    def renew(self, job_id: str, fence: int, *, lease_s: float) -> None:
        self._run.call("renew")
        self._run.claimed(self._run.holds)

    def complete(self, job_id: str, fence: int, rendition, *, cpu_s: float) -> None:
        self._run.call("complete", rendition.sha256 == MINE.sha256)

    def skip(self, job_id: str, fence: int, reason: str) -> None:
        self._run.call("skip")

    def fail(self, job_id: str, fence: int, reason: str, failure_class) -> None:
        self._run.call("fail", failure_class.value)

    def interrupt(
        self, job_id: str, fence: int, reason: str, *, suspected_worker_fault: bool = False
    ) -> None:
        self._run.call("interrupt", suspected_worker_fault)

    def bury(self, job_id: str, fence: int, reason: str, failure_class) -> None:
        self._run.call("bury", failure_class.value)

    def bury_unclaimed(self, job_id: str, reason: str, failure_class) -> bool:
        return self._run.call("bury-unclaimed", failure_class.value)

    def progress(self, job_id: str, fence: int, progress) -> None:
        """May be dropped, and is."""

    def recall(self, *_what: object) -> None:
        return None


def _seen(content: bytes) -> StoredObject:
    digest = hashlib.sha256(content).hexdigest()
    named = {"job": TASK.job_id, "certificate": "proof"}
    return StoredObject("k", "v", len(content), digest, named, BASE)


OUTPUT, STRANGE = b"rendition", b"another's rendition"
MINE, OTHER = _seen(OUTPUT), _seen(STRANGE)


class RunStore:
    """The store as the handler sees it; what is visible is this attempt's own or another's."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def check(self, source) -> None:
        """Sources do not change in this story."""

    @contextmanager
    def fetch(self, source, scratch, *, moved, stop) -> Iterator[Input]:
        path = scratch / "source"
        path.write_bytes(CONTENT)
        yield Input(location=str(path), path=path)

    def stat(self, key: str) -> StoredObject | None:
        return {"nothing": None, "mine": MINE, "other": OTHER}[self._run.call("stat")]

    def open(self, key: str):
        return io.BytesIO(PROOF.content if key == "proof" else STRANGE)

    def put(self, key: str, content: bytes, *, metadata) -> None:
        """The certificate; that it comes first is tested elsewhere."""
        PROOF.keep(content)

    def publish(self, publication) -> StoredObject:
        self._run.call("publish", "")
        return MINE

    def free_bytes(self) -> int | None:
        return None


class Proof:
    """The certificate of another attempt, made of a real one's."""

    content = b""

    def keep(self, content: bytes) -> None:
        if not self.content:
            changes = {"rendition_sha256": OTHER.sha256, "rendition_size": OTHER.size}
            changes |= {"rendition_key": OTHER.key}
            proof = Certificate.parse(content).model_copy(update=changes)
            self.content = proof.to_json().encode()


PROOF = Proof()


class RunScratch:
    """A scratch folder in memory."""

    folder = "scratch"

    @contextmanager
    def job(self, name: str) -> Iterator[MemPath]:
        yield MemPath({}, name)

    def free_bytes(self) -> int:
        return 1 << 40


class RunEncoder:
    """Encodes when told to, for as long as it is let."""

    sampled_from_s = math.inf

    def __init__(self, run: Run) -> None:
        self._run = run

    def version(self) -> str:
        return "ffmpeg version protocol"

    def self_test(self, profile, *, stop) -> None:
        """This machine is well."""

    def probe(self, location: str, *, stop):
        return INFO

    def joints(self, location: str, info, *, stop) -> str:
        return ""

    def trim_recording(self, location: str, info, policies, folder, *, stop) -> None:
        """No video here is a recording."""

    def preflight(self, location: str, info, profile, *, stop):
        return MEASURED

    def encode(self, request, *, on_progress, stop) -> EncodeReport:
        outcome = self._run.call("encode")
        if stop.is_set():
            raise Stopped
        if outcome == "broken":
            raise EncoderFailed("x265 broke.")
        request.output.write_bytes(OUTPUT)
        return EncodeReport(("ffmpeg",), 1.0, 1.0, (), 250)

    def verify(self, request, *, on_progress, stop):
        return PASSED
