"""Let a joined machine encode, and prove here what it returns: nothing of it is taken on trust."""

import secrets
import threading
from pathlib import Path
from typing import Self

from hevcq.domain.certificate import GateResult, Outcome
from hevcq.domain.chunking import Chunk, ChunkPlan
from hevcq.domain.orders import SUFFIX, MadeReport, Order, OrderedWork, OrderEnd, OrderProgress
from hevcq.domain.profile import Profile
from hevcq.errors import LimitExceeded, WorkerUnfit
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.inputs import is_url
from hevcq.ffmpeg.run.runner import most_bytes
from hevcq.ports.backend import Errand, Machine, source_tag
from hevcq.ports.encoder import (
    EncodeProgress,
    EncodeReport,
    EncodeRequest,
    OnProgress,
    VerifyRequest,
)
from hevcq.util.file_io import sha256_file
from hevcq.util.log import get_logger

BAD = frozenset({Outcome.FAILED, Outcome.UNKNOWN})


class DelegatingEncoder(FfmpegEncoder):
    """Encodes on a joined machine; probes, samples, joins and verifies with the ffmpeg of this one.

    What the machine cannot make, or makes so that a gate fails, is encoded here: so only this machine's
    own work decides that a video cannot be encoded. The thumbnails and levels of the source that the
    gates compare with are made here too. Call `led_by` before anything else.
    """

    _machine: Machine
    _proved: dict[Path, tuple[GateResult, ...]]

    def led_by(self, machine: Machine) -> Self:
        """Let this machine encode; return this encoder."""
        self._machine, self._proved = machine, {}
        return self

    def version(self) -> str:
        return self._machine.facts.ffmpeg

    def build(self) -> str:
        return f"{self._machine.name} {self._machine.facts.build}"

    def self_test(
        self, profile: Profile, folder: Path, *, stop: threading.Event, again: bool = False
    ) -> None:
        if again:  # an encode of this machine failed
            super().self_test(profile, folder, stop=stop, again=True)
            return
        errand = Errand(Order(order_id=secrets.token_hex(8), profile=profile))
        answer = self._machine.carry_out(errand, lambda _progress: None, stop)
        if answer.report is None:
            raise WorkerUnfit(f"{self._machine.name}: {answer.reason}")

    def encode(
        self, request: EncodeRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> EncodeReport:
        made = self._delegated(request, None, None, on_progress, stop)
        if made is not None:
            report = _report(made)
            asked = request.to_verify(report)
            gates = super().verify(asked, on_progress=lambda _progress: None, stop=stop)
            failed = [gate for gate in gates if gate.outcome in BAD]
            if not failed:
                self._machine.praise()
                self._proved[request.output] = gates
                return report
            self._complain(f"what it made failed {failed[0].gate.value}: {failed[0].detail}")
            request.output.unlink()
        return super().encode(request, on_progress=on_progress, stop=stop)

    def verify(
        self, request: VerifyRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> tuple[GateResult, ...]:
        proved = self._proved.pop(request.output, None)
        return proved or super().verify(request, on_progress=on_progress, stop=stop)

    def encode_chunk(
        self,
        request: EncodeRequest,
        chunk_plan: ChunkPlan,
        chunk: Chunk,
        *,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> EncodeReport:
        made = None
        # The chunks of a video must be alike to be joined, so they come from one build of ffmpeg.
        if self._machine.facts.ffmpeg == self._here():
            made = self._delegated(request, chunk_plan, chunk, on_progress, stop)
        if made is None:
            return super().encode_chunk(
                request, chunk_plan, chunk, on_progress=on_progress, stop=stop
            )
        self._machine.praise()
        return _report(made)

    def _delegated(
        self,
        request: EncodeRequest,
        chunks: ChunkPlan | None,
        chunk: Chunk | None,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> MadeReport | None:
        """Return the report on what the machine put at `request.output`, or None if it made nothing."""
        if is_url(request.location):
            return None  # it is in a bucket, and a machine reads files of this one
        source = Path(request.location)
        arrived = request.output.with_name(f"{request.output.name}.arriving")
        suffix = source.suffix if SUFFIX.fullmatch(source.suffix) else ""
        work = OrderedWork(
            plan=request.plan,
            info=request.info,
            measured=request.measured,
            duration_s=request.duration_s,
            source_size=source.stat().st_size,
            source_tag=source_tag(source),
            suffix=suffix,
            max_seconds=request.max_seconds / 2,  # the rest is for an encode here
            chunks=chunks,
            chunk=None if chunk is None else chunk.index,
        )
        order = Order(order_id=secrets.token_hex(8), profile=request.profile, work=work)

        def progressed(seen: OrderProgress) -> None:
            on_progress(EncodeProgress(**seen.model_dump(exclude=set(seen.left()))))

        try:
            errand = Errand(order, source, arrived, most_bytes(request))
            answer = self._machine.carry_out(errand, progressed, stop)
            reason = answer.reason or _not_arrived(arrived, answer)
            if reason or answer.report is None:
                self._complain(reason or "it returned no report")
                return None
            arrived.replace(request.output)
            return answer.report
        except LimitExceeded as error:
            self._complain(str(error))
            return None
        finally:
            arrived.unlink(missing_ok=True)

    def _complain(self, reason: str) -> None:
        """Encoding here is what follows; after several complaints the machine gets no more orders."""
        get_logger().warning("order_failed", machine=self._machine.name, reason=reason)
        self._machine.complain(reason)


def _not_arrived(file: Path, answer: OrderEnd) -> str:
    """Return why a file is not the one that the machine says it made, or ""."""
    if not file.is_file() or file.stat().st_size != answer.size:
        return "what it made did not arrive whole"
    return "" if sha256_file(file, lambda: None) == answer.sha256 else "other bytes arrived"


def _report(made: MadeReport) -> EncodeReport:
    return EncodeReport(**made.model_dump())
