"""Let a joined machine encode, and verify its renditions here: nothing of it is taken on trust."""

import secrets
import threading
from pathlib import Path
from typing import Self

from hevcq.domain.certificate import GateResult
from hevcq.domain.chunking import Chunk, ChunkPlan
from hevcq.domain.orders import SUFFIX, Order, OrderedWork, OrderEnd, OrderProgress
from hevcq.domain.profile import Profile
from hevcq.errors import LimitExceeded, WorkerUnfit
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.inputs import is_url
from hevcq.ffmpeg.run.runner import max_output_bytes
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


class DelegatingEncoder(FfmpegEncoder):
    """Encodes on a joined machine; probes, samples, joins and verifies with this machine's ffmpeg.

    If the joined machine cannot encode a video, or a gate fails, this machine encodes it: only its own work may
    decide that a video cannot be encoded. The source's thumbnails and levels for the gates are also made here.
    Call `with_machine` before anything else.
    """

    _machine: Machine
    _verified: dict[Path, tuple[GateResult, ...]]

    def with_machine(self, machine: Machine) -> Self:
        """Let this machine encode; return this encoder."""
        self._machine, self._verified = machine, {}
        return self

    def version(self) -> str:
        return self._machine.facts.ffmpeg

    def build(self) -> str:
        return f"{self._machine.name} {self._machine.facts.build}"

    def self_test(
        self, profile: Profile, folder: Path, *, stop: threading.Event, again: bool = False
    ) -> None:
        if again:  # an encode on this machine failed
            super().self_test(profile, folder, stop=stop, again=True)
            return
        errand = Errand(Order(order_id=secrets.token_hex(8), profile=profile))
        answer = self._machine.carry_out(errand, lambda _progress: None, stop)
        if answer.report is None:
            raise WorkerUnfit(f"{self._machine.name}: {answer.reason}")

    def encode(
        self, request: EncodeRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> EncodeReport:
        report = self._encode_on_machine(request, None, None, on_progress, stop)
        if report is not None:
            to_verify = request.to_verify(report)
            gates = super().verify(to_verify, on_progress=lambda _progress: None, stop=stop)
            failed = next((gate for gate in gates if gate.has_failed), None)
            if failed is None:
                self._machine.praise()
                self._verified[request.output] = gates
                return report
            self._complain(f"what it made failed {failed.gate.value}: {failed.detail}")
            request.output.unlink()
        return super().encode(request, on_progress=on_progress, stop=stop)

    def verify(
        self, request: VerifyRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> tuple[GateResult, ...]:
        gates = self._verified.pop(request.output, None)
        return gates or super().verify(request, on_progress=on_progress, stop=stop)

    def encode_chunk(
        self,
        request: EncodeRequest,
        chunk_plan: ChunkPlan,
        chunk: Chunk,
        *,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> EncodeReport:
        # Chunks can be joined only if one build of ffmpeg encoded all of them.
        if self._machine.facts.ffmpeg == self._local_version():
            report = self._encode_on_machine(request, chunk_plan, chunk, on_progress, stop)
            if report is not None:
                self._machine.praise()
                return report
        return super().encode_chunk(request, chunk_plan, chunk, on_progress=on_progress, stop=stop)

    def _encode_on_machine(
        self,
        request: EncodeRequest,
        chunks: ChunkPlan | None,
        chunk: Chunk | None,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> EncodeReport | None:
        """Let the machine encode to `request.output`; return its report, or None if no file arrived."""
        if is_url(request.location):
            return None  # a joined machine reads this machine's files, and none in a bucket
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
            max_seconds=request.max_seconds / 2,  # the other half is for an encode here
            chunks=chunks,
            chunk=None if chunk is None else chunk.index,
        )
        order = Order(order_id=secrets.token_hex(8), profile=request.profile, work=work)

        def pass_on(progress: OrderProgress) -> None:
            on_progress(EncodeProgress(**progress.model_dump(exclude=set(progress.load_facts()))))

        try:
            errand = Errand(order, source, arrived, max_output_bytes(request))
            answer = self._machine.carry_out(errand, pass_on, stop)
            reason = answer.reason or _transfer_problem(arrived, answer)
            if reason or answer.report is None:
                self._complain(reason or "it returned no report")
                return None
            arrived.replace(request.output)
            return EncodeReport(**answer.report.model_dump())
        except LimitExceeded as error:
            self._complain(str(error))
            return None
        finally:
            arrived.unlink(missing_ok=True)

    def _complain(self, reason: str) -> None:
        """Log a failed order, which is then encoded here; after several the machine gets no more orders."""
        get_logger().warning("order_failed", machine=self._machine.name, reason=reason)
        self._machine.complain(reason)


def _transfer_problem(file: Path, answer: OrderEnd) -> str:
    """Return how a file differs from the machine's answer about it, or ""."""
    if not file.is_file() or file.stat().st_size != answer.size:
        return "what it made did not arrive whole"
    return "" if sha256_file(file, lambda: None) == answer.sha256 else "other bytes arrived"
