"""Scan library folders for videos and their facts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan, Plan
from hevcq.domain.planning.metadata import in_words
from hevcq.errors import SwapRefused
from hevcq.library.filesystem import size_of
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
