"""Scan library folders for videos and their facts."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.keys import key_for_path, key_without_machine
from hevcq.domain.media.facts import MediaInfo
from hevcq.errors import BadKey, SwapRefused, VerificationFailed
from hevcq.library.names import certificate_beside
from hevcq.library.replacement.preconditions import require_single_link
from hevcq.library.scanning.probe_files import probe_files
from hevcq.library.scanning.scan import (
    PROBLEMS,
    Filter,
    Found,
    Rejected,
    RejectionCause,
    certificate_at,
    find,
)
from hevcq.ports.catalog import Catalog
from hevcq.ports.encoder import Encoder
from hevcq.usecases.ingest.decide import UnusableFile, Video
from hevcq.usecases.ingest.destinations import TargetState

SILENT = frozenset({RejectionCause.OWN_RENDITION})
"""Rejections that are not reported: hevcq's own renditions."""


@dataclass(frozen=True, slots=True)
class Scanner:
    """Scans library folders; `threads` probes run in parallel."""

    catalog: Catalog
    encoder: Encoder
    chosen: Filter
    threads: int = 4

    def scan(self, roots: Sequence[Path], stop: threading.Event) -> Iterator[Video | UnusableFile]:
        """Yield every video below the roots with its facts, and every unusable file with the reason.

        Raises Stopped when `stop` is set, WorkerUnfit if nothing can be probed here.
        """
        yield from self.inspect(find(roots, self.chosen), stop)

    def inspect(
        self, found: Iterator[Found | Rejected], stop: threading.Event
    ) -> Iterator[Video | UnusableFile]:
        """Yield the facts of the files found."""

        def probe(path: Path) -> MediaInfo:
            return self.encoder.probe(str(path), stop=stop)

        for each in probe_files(found, self.catalog, probe, threads=self.threads):
            if isinstance(each, Rejected):
                if each.cause not in SILENT:
                    yield UnusableFile(
                        each.path, _size(each.path), each.reason, each.cause in PROBLEMS
                    )
                continue
            here = each.found
            yield Video(here.path, here.root, here.fingerprint, each.info)


def inspect_target(target: Path, source: Path, size: int) -> TargetState:
    """Return what is at `target`, for the rendition of `source` with `size` bytes.

    OURS needs a valid certificate beside it that names this rendition size and this source, so that
    an ingest with an empty data folder still finds earlier renditions.
    """
    if not _writable(target.parent):
        return TargetState.READ_ONLY
    try:
        facts = target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return TargetState.FREE
    try:
        proof = certificate_at(certificate_beside(target))
        key = key_for_path(str(source))
    except (OSError, VerificationFailed, BadKey):
        return TargetState.STRANGER
    if proof.rendition_size != facts.st_size:
        return TargetState.STRANGER
    if _tail(proof.source.key) == _tail(key):
        return TargetState.OURS if proof.source.size == size else TargetState.STRANGER
    # The same name may be this video before its folder was moved.
    same_name = Path(proof.source.key).name == Path(key).name
    return TargetState.STRANGER if same_name else TargetState.TWIN


def replacement_refusal(source: Path) -> str:
    """Return why a video cannot be replaced, as far as it is known before encoding; or ""."""
    try:
        require_single_link(source, source.lstat())
    except SwapRefused as refused:
        return str(refused)
    except OSError:
        pass  # the enqueuer reports it
    return ""


def _tail(key: str) -> str:
    """Return a key without inbox, routing folder and machine: one source may be routed in several ways."""
    return key_without_machine(key).split("/", 2)[-1]


def _writable(folder: Path) -> bool:
    """Return whether files can be created in the folder, or in its nearest existing parent."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
