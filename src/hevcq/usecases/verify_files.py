"""Run the gates on an existing source and rendition."""

import math
import mimetypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hevcq.domain.certificate import Certificate, Gate, GateResult, Outcome
from hevcq.domain.keys import MASTER
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan, revise_plan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.errors import SourceDamaged, SourceUnreadable, UsageError
from hevcq.library.filesystem import FileSystem
from hevcq.library.own_files import SET_SUFFIX, Certificates, certificate_at
from hevcq.ports.encoder import (
    TRIMMED,
    Encoder,
    EncodeReport,
    FramePairs,
    SetFile,
    SpareFolder,
    VerifyRequest,
)
from hevcq.util.text import printable

NO_LOG = "not checked: without a certificate there is no encode log"


@dataclass(frozen=True, slots=True)
class VerifyFilesRequest:
    """The files to compare; `certificate` is the rendition's, if it has one."""

    source: Path
    rendition: Path
    profile: Profile
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class VerifyFilesReport:
    gates: tuple[GateResult, ...]
    notices: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate passed; a missing encode log does not count."""
        return not self.failures

    @property
    def complete(self) -> bool:
        return all(result.outcome is not Outcome.UNKNOWN for result in self.gates)

    @property
    def failures(self) -> tuple[GateResult, ...]:
        """The gates that did not pass; a missing encode log does not count."""
        return tuple(
            result
            for result in self.gates
            if result.outcome not in {Outcome.PASSED, Outcome.OFF} and result.detail != NO_LOG
        )


def read_certificate(rendition: Path, source: Path | None = None) -> Certificate | None:
    """Return the rendition's certificate from its library or beside it, or None.

    It is searched by the rendition's size, then by the source's: a rendition that was cut short must
    not count as one without a certificate.

    Raises UsageError if it cannot be read, VerificationFailed if it is damaged.
    """
    place, certificates = Path(os.path.realpath(rendition)), Certificates()
    size = _size(place) if place.is_file() else 0
    paths = [
        *sorted(_certificates_beside(rendition)),
        *certificates.paths_of_rendition(place, size),
    ]
    proofs = [_read(path) for path in paths]
    if not proofs and source is not None and source.is_file():
        name = (place.parent.name if place.name == MASTER else place.stem).casefold()
        proofs = [
            proof
            for proof in certificates.of_source(place, _size(source))
            if name.endswith((f".{proof.profile}", f".{proof.profile}{SET_SUFFIX}"))
        ]
    if len(proofs) > 1:
        digest = sha256(place, threading.Event())
        proofs = [proof for proof in proofs if proof.rendition_sha256 == digest] or proofs
    return proofs[0] if proofs else None


def rendition_at(path: Path) -> Path:
    """Return the rendition at a path that a person typed: for a set's folder, its master playlist."""
    return path / MASTER if (path / MASTER).is_file() else path


def _read(path: Path) -> Certificate:
    try:
        return certificate_at(Path(os.path.realpath(path)))
    except OSError as error:
        raise UsageError(f"Cannot read the certificate {path}: {error.strerror}.") from error


def _certificates_beside(rendition: Path) -> list[Path]:
    """Return the files `<name>.certificate.json`, or `<name>.<digest>.certificate.json` as in a store."""
    folder = rendition.parent
    if not folder.is_dir():
        return []
    head, tail = f"{rendition.name}.", "certificate.json"
    return [p for p in folder.iterdir() if p.name.startswith(head) and p.name.endswith(tail)]


def verify_files(
    encoder: Encoder,
    request: VerifyFilesRequest,
    *,
    stop: threading.Event,
    scratch: SpareFolder,
) -> VerifyFilesReport:
    """Check the certificate's digests (if there is one), then run gates G1 to G8.

    For a recording, the source is its trimmed copy with whole pictures and one clock, as for an encode;
    it is made in a folder of `scratch`.

    Raises UsageError if the profile would not encode this source, SourceUnreadable or
    SourceDamaged if the source itself is damaged, and DiskFull without room for the copy.
    """
    with _open_source(encoder, request, stop, scratch) as subject:
        check, notices = _prepare(encoder, request, subject, stop)
        results = _run_gates(encoder, check, request, stop)
    gates = [
        *_compare_digests(request, stop),
        *(_with_certified_log(result, request) for result in results),
    ]
    return VerifyFilesReport(tuple(gates), notices)


@contextmanager
def frame_pairs(
    encoder: Encoder,
    request: VerifyFilesRequest,
    *,
    stop: threading.Event,
    scratch: SpareFolder,
    child_s: float = math.inf,
) -> Iterator[FramePairs]:
    """Yield the frames of both files for comparison; each program takes at most `child_s` seconds.

    Raises what `verify_files` raises, and UsageError for a set of files.
    """
    if request.rendition.name == MASTER:
        raise UsageError(
            f"{printable(request.rendition)} is a set of files; compare needs one file."
        )
    with _open_source(encoder, request, stop, scratch) as subject:
        check, _ = _prepare(encoder, request, subject, stop)
        bounded = replace(check, max_seconds=min(child_s, check.max_seconds))
        yield encoder.frame_pairs(bounded, stop=stop)


@contextmanager
def _open_source(
    encoder: Encoder, request: VerifyFilesRequest, stop: threading.Event, scratch: SpareFolder
) -> Iterator[tuple[str, MediaInfo, EncodePlan]]:
    """Yield the location, facts and plan of the source, or of its trimmed copy if it is a recording."""
    location = str(request.source)
    info = encoder.probe(location, stop=stop)
    plan = _require_plan(request, info)
    if info.format_name not in TRIMMED:
        yield location, info, plan
        return
    with scratch(_size(request.source)) as folder:
        try:
            copy = encoder.trim_recording(location, info, folder, stop=stop)
        except OSError as error:
            raise SourceUnreadable(f"Cannot read {request.source}: {error.strerror}.") from error
        if copy is not None:
            location = str(copy.path)
            info = encoder.probe(location, stop=stop)
            plan = _require_plan(request, info).with_notices(*copy.notices)
        try:
            yield location, info, plan
        except SourceDamaged as error:
            words = error.message.replace(location, str(request.source))
            raise SourceDamaged(words, remedy=error.remedy) from error


def _require_plan(request: VerifyFilesRequest, info: MediaInfo) -> EncodePlan:
    plan = make_plan(request.profile, info)
    if isinstance(plan, EncodePlan):
        return plan
    raise UsageError(
        f"The profile {request.profile.name} would not encode {request.source}: {plan.detail}",
        remedy="Name the rendition's profile with --profile.",
    )


def _prepare(
    encoder: Encoder,
    request: VerifyFilesRequest,
    subject: tuple[str, MediaInfo, EncodePlan],
    stop: threading.Event,
) -> tuple[VerifyRequest, tuple[str, ...]]:
    location, info, plan = subject
    measured = encoder.preflight(location, info, request.profile, stop=stop)
    info, plan = revise_plan(make_plan, request.profile, (info, plan), measured)
    check = VerifyRequest(
        profile=request.profile,
        plan=plan,
        location=location,
        info=info,
        measured=measured,
        source_size=_size(request.source),
        output=request.rendition,
        report=EncodeReport(arguments=(), seconds=0.0, cpu_s=0.0, stderr=(), frames=0),
        max_seconds=float(request.profile.queue.max_job_s),
    )
    return check, plan.notices


def _run_gates(
    encoder: Encoder,
    check: VerifyRequest,
    request: VerifyFilesRequest,
    stop: threading.Event,
) -> tuple[GateResult, ...]:
    """Run the gates of one file, or of a set, which is named by its master playlist."""
    folder = request.rendition.parent
    of_set = request.rendition.name == MASTER
    if of_set != (check.plan.ladder is not None):
        what = "a set of files" if of_set else "one file"
        raise UsageError(
            f"{request.rendition} is {what}, which the profile {request.profile.name} does not make.",
            remedy="Name the rendition's profile with --profile.",
        )
    if not of_set:
        return encoder.verify(check, on_progress=lambda _: None, stop=stop)
    if request.certificate is not None:
        names = [file.name for file in request.certificate.files]
    else:
        below = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in below if path.name != MASTER]
    files = (SetFile(name, mimetypes.guess_type(name)[0] or "") for name in (*names, MASTER))
    whole = replace(check, output=folder, report=replace(check.report, files=tuple(files)))
    return encoder.verify(whole, on_progress=lambda _: None, stop=stop)


def _with_certified_log(result: GateResult, request: VerifyFilesRequest) -> GateResult:
    """Return a gate's result; G1's comes from the certificate, the only record of the encode's log."""
    if result.gate is not Gate.G1:
        return result
    if request.certificate is None:
        return GateResult(gate=Gate.G1, outcome=Outcome.UNKNOWN, detail=NO_LOG)
    log = (g for g in request.certificate.gates if (g.gate, g.file) == (Gate.G1, result.file))
    recorded = next(log, None)
    return recorded or GateResult(gate=Gate.G1, outcome=Outcome.UNKNOWN, detail="not certified")


def _compare_digests(request: VerifyFilesRequest, stop: threading.Event) -> Iterator[GateResult]:
    """Compare the digests of source, rendition and each file of a set with the certificate's."""
    certificate = request.certificate
    if certificate is None:
        return
    folder = request.rendition.parent
    certified = [
        (Gate.G0, request.source, certificate.source_sha256, ""),
        (Gate.G9, request.rendition, certificate.rendition_sha256, ""),
        *((Gate.G9, folder / f.name, f.sha256, Path(f.name).name) for f in certificate.files),
    ]
    for gate, path, digest, file in certified:
        same = (not file or path.is_file()) and sha256(path, stop) == digest
        words = f"digest {'matches' if same else 'differs from'} the certificate"
        detail = words if file else f"{path.name}: {words}"
        outcome = Outcome.PASSED if same else Outcome.FAILED
        yield GateResult(gate=gate, outcome=outcome, detail=detail, file=file)


def sha256(path: Path, stop: threading.Event) -> str:
    """Return the hexadecimal SHA-256 of a file; raise SourceUnreadable or Stopped."""
    try:
        return FileSystem(stop).digest(Path(os.path.realpath(path)))
    except OSError as error:
        raise SourceUnreadable(f"Cannot read {path}: {error.strerror}.") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise SourceUnreadable(f"Cannot read {path}: {error.strerror}.") from error
