"""Scan library folders for videos and their facts."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hevcq.domain.certificate import Certificate
from hevcq.domain.keys import MACHINE, key_for_path
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan, Plan
from hevcq.domain.planning.metadata import in_words
from hevcq.errors import BadKey, SwapRefused
from hevcq.library.certificates import Certificates
from hevcq.library.filesystem import FileSystem, is_fine_time, size_of
from hevcq.library.replacement.preconditions import require_single_link
from hevcq.library.scanning.probe_files import probe_files
from hevcq.library.scanning.scan import (
    PROBLEMS,
    Filter,
    FoundFile,
    Rejected,
    RejectionCause,
    find,
)
from hevcq.ports.encoder import Encoder
from hevcq.sqlite.catalog import Catalog
from hevcq.usecases.ingest.decide import FoundVideo, OwnRendition, UnusableFile
from hevcq.usecases.ingest.destinations import TargetState
from hevcq.usecases.proofs import Proofs
from hevcq.util.text import printable

_LIBRARY_VERSION = re.compile(r"[0-9]+-([0-9]+)-[0-9]+")
"""The version of a library file: size, modification time in nanoseconds, inode."""


@dataclass(frozen=True, slots=True)
class Scanner:
    """Scans library folders; `threads` probes run in parallel."""

    catalog: Catalog
    encoder: Encoder
    chosen: Filter
    threads: int

    def scan(
        self, roots: Sequence[Path], stop: threading.Event
    ) -> Iterator[FoundVideo | UnusableFile | OwnRendition]:
        """Yield every video below the roots with its facts, and every unusable file with the reason.

        Raises Stopped when `stop` is set, WorkerUnfit if nothing can be probed here.
        """
        yield from self.inspect(find(roots, self.chosen), stop)

    def inspect(
        self, found: Iterator[FoundFile | Rejected], stop: threading.Event
    ) -> Iterator[FoundVideo | UnusableFile | OwnRendition]:
        """Yield the facts of the files found."""

        def probe(path: Path) -> MediaInfo:
            return self.encoder.probe(str(path), stop=stop)

        for each in probe_files(found, self.catalog, probe, threads=self.threads):
            if isinstance(each, Rejected):
                if each.cause is RejectionCause.OWN_RENDITION:
                    yield OwnRendition(each.path, size_of(each.path))
                else:
                    yield UnusableFile(
                        each.path, size_of(each.path), each.reason, each.cause in PROBLEMS
                    )
                continue
            here = each.found
            yield FoundVideo(here.path, here.root, here.fingerprint, each.info)


def inspect_target(
    target: Path, source: Path, size: int, certificates: Certificates
) -> TargetState:
    """Return what is at `target`, for the rendition of `source` with `size` bytes.

    OURS needs a valid certificate that names this rendition size and this source, so that an ingest
    with an empty data folder still finds earlier renditions, also in a library that was moved.
    `certificates` are those of this scan.
    """
    if not _writable(target.parent):
        return TargetState.READ_ONLY
    if certificates.behind_link(target):
        return TargetState.LINKED
    try:
        facts = target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return TargetState.FREE
    proofs = list(certificates.of_rendition(target, facts.st_size))
    if any(is_source(proof, source, size) for proof in proofs):
        return TargetState.OURS
    # The same name may be this video before its folder was moved.
    names = {PurePosixPath(proof.source.key).name for proof in proofs}
    other = proofs and _key_of(source).name not in names
    return TargetState.TWIN if other else TargetState.STRANGER


def is_source(proof: Certificate, source: Path, size: int) -> bool:
    """Return whether a certificate is of a rendition of the file at `source` with `size` bytes.

    By its path in the library, else by its modification time to the nanosecond, else by its SHA-256,
    for which the file is read.
    """
    if proof.source.size != size:
        return False
    if _tail(proof.source.key) == _tail(str(_key_of(source))):
        return True
    try:
        version = _LIBRARY_VERSION.fullmatch(proof.source.version)
        made = 0 if version is None else int(version[1])
        if is_fine_time(made) and made == source.lstat().st_mtime_ns:
            return True
        return FileSystem().digest(source) == proof.source_sha256
    except OSError:
        return False


def still_there(proof: Certificate, path: Path) -> bool:
    """Return whether a certificate's source is at its old path still, and `path` is a second copy."""
    old = Path("/", _tail(proof.source.key))
    return old != path and size_of(old) == proof.source.size


def why_not_ours(
    proofs: Proofs, certificates: Certificates, target: Path, source: Path, size: int
) -> str:
    """Return why no certificate proves the file at `target` for a `source` of `size` bytes, or "".

    Raises Stopped, and WorkerUnfit or a TransientError if it could not be checked now.
    """
    why = "no certificate is left"
    try:
        for proof in certificates.of_rendition(target, target.lstat().st_size):
            if is_source(proof, source, size):
                why = proofs.why_not_proven(proof, source, target)
                if not why:
                    return ""
    except OSError as error:
        why = f"{printable(target)} cannot be read: {(error.strerror or str(error)).lower()}."
    return why


def replacement_refusal(source: Path, plan: Plan) -> str:
    """Return why a video cannot be replaced, as far as it is known before encoding; or ""."""
    if isinstance(plan, EncodePlan) and plan.losses:
        return (
            f"{in_words(plan.losses)} It is not replaced; encode beside it, or set policies.metadata"
            " of the profile to drop."
        )
    try:
        require_single_link(source, source.lstat())
    except SwapRefused as refused:
        return str(refused)
    except OSError:
        pass  # the enqueuer reports it
    return ""


def _key_of(source: Path) -> PurePosixPath:
    try:
        return PurePosixPath(key_for_path(str(source)))
    except BadKey:
        return PurePosixPath(source.name)


def _tail(key: str) -> str:
    """Return a key without inbox, routing folder and machine: one source may be routed in several ways."""
    tail = key.split("/", 2)[-1]
    return tail.partition("/")[2] if tail.startswith(MACHINE) else tail


def _writable(folder: Path) -> bool:
    """Return whether files can be created in the folder, or in its nearest existing parent."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)
