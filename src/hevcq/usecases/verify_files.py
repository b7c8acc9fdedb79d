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
    """The files to compare; `certificate` is the one beside the rendition, if any."""

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
        """Whether every gate could be checked."""
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
    """Return the rendition's certificate, or None where there is none in its library or beside it.

    It is looked for by the size of the rendition, then by that of the source: a rendition that was
    cut short since must not pass for one without a certificate.

    Raises UsageError if it cannot be read, VerificationFailed if it is not whole.
    """
    place, known = Path(os.path.realpath(rendition)), Certificates()
    size = _size(place) if place.is_file() else 0
    paths = [*sorted(_beside(rendition)), *known.paths_of_rendition(place, size)]
    found = [_read(path) for path in paths]
    if not found and source is not None and source.is_file():
        made = (proof for proof in known.of_source(place, _size(source)))
        name = (place.parent.name if place.name == MASTER else place.stem).casefold()
        found = [p for p in made if name.endswith((f".{p.profile}", f".{p.profile}{SET_SUFFIX}"))]
    if len(found) > 1:
        digest = sha256(place, threading.Event())
        found = [proof for proof in found if proof.rendition_sha256 == digest] or found
    return found[0] if found else None


def rendition_at(path: Path) -> Path:
    """Return the rendition that a person names: of a set's folder, the master playlist in it."""
    return path / MASTER if (path / MASTER).is_file() else path


def _read(path: Path) -> Certificate:
    try:
        return certificate_at(Path(os.path.realpath(path)))
    except OSError as error:
        raise UsageError(f"Cannot read the certificate {path}: {error.strerror}.") from error


def _beside(rendition: Path) -> list[Path]:
    """Find `<name>.certificate.json`, or `<name>.<digest>.certificate.json` as stores name it."""
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
    """Check the certificate's digests (where there is one), then run gates G1 to G8.

    A recording is judged by the copy with whole pictures and one clock of which an encode is made,
    in a folder of `scratch`.

    Raises UsageError when the profile would not encode this source, SourceUnreadable or
    SourceDamaged when the source itself is not whole, and DiskFull without room for the copy.
    """
    with _opened(encoder, request, stop, scratch) as subject:
        check, notices = _check(encoder, request, subject, stop)
        results = _verified(encoder, check, request, stop)
    gates = [*_digests(request, stop), *(_honest(result, request) for result in results)]
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
    """Yield the frames of two files to compare; a program takes at most `child_s` seconds.

    Raises what `verify_files` raises, also of a set of files.
    """
    if request.rendition.name == MASTER:
        raise UsageError(
            f"{printable(request.rendition)} is a set of files; compare needs one file."
        )
    with _opened(encoder, request, stop, scratch) as subject:
        check, _ = _check(encoder, request, subject, stop)
        bounded = replace(check, max_seconds=min(child_s, check.max_seconds))
        yield encoder.frame_pairs(bounded, stop=stop)


@contextmanager
def _opened(
    encoder: Encoder, request: VerifyFilesRequest, stop: threading.Event, scratch: SpareFolder
) -> Iterator[tuple[str, MediaInfo, EncodePlan]]:
    """Yield the source's location, facts and plan: of a recording, those of its trimmed copy."""
    location = str(request.source)
    info = encoder.probe(location, stop=stop)
    plan = _planned(request, info)
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
            plan = _planned(request, info).with_notices(*copy.notices)
        try:
            yield location, info, plan
        except SourceDamaged as error:
            words = error.message.replace(location, str(request.source))
            raise SourceDamaged(words, remedy=error.remedy) from error


def _planned(request: VerifyFilesRequest, info: MediaInfo) -> EncodePlan:
    plan = make_plan(request.profile, info)
    if isinstance(plan, EncodePlan):
        return plan
    raise UsageError(
        f"The profile {request.profile.name} would not encode {request.source}: {plan.detail}",
        remedy="Name the rendition's profile with --profile.",
    )


def _check(
    encoder: Encoder,
    request: VerifyFilesRequest,
    subject: tuple[str, MediaInfo, EncodePlan],
    stop: threading.Event,
) -> tuple[VerifyRequest, tuple[str, ...]]:
    """Return what the gates judge by, and the notices of its plan."""
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


def _verified(
    encoder: Encoder,
    check: VerifyRequest,
    request: VerifyFilesRequest,
    stop: threading.Event,
) -> tuple[GateResult, ...]:
    """Run the gates of one file, or those of a set that is named by its master playlist."""
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


def _honest(result: GateResult, request: VerifyFilesRequest) -> GateResult:
    """Take G1 from the certificate, the only record of the encode's error lines."""
    if result.gate is not Gate.G1:
        return result
    if request.certificate is None:
        return GateResult(gate=Gate.G1, outcome=Outcome.UNKNOWN, detail=NO_LOG)
    log = (g for g in request.certificate.gates if (g.gate, g.file) == (Gate.G1, result.file))
    recorded = next(log, None)
    return recorded or GateResult(gate=Gate.G1, outcome=Outcome.UNKNOWN, detail="not certified")


def _digests(request: VerifyFilesRequest, stop: threading.Event) -> Iterator[GateResult]:
    """Compare the digests of source, rendition and each file of a set with the certificate's."""
    certificate = request.certificate
    if certificate is None:
        return
    wanted = [
        (Gate.G0, request.source, certificate.source_sha256, ""),
        (Gate.G9, request.rendition, certificate.rendition_sha256, ""),
    ]
    for each in certificate.files:
        path = request.rendition.parent / each.name
        wanted.append((Gate.G9, path, each.sha256, path.name))
    for gate, path, digest, file in wanted:
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
