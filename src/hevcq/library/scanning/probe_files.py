"""Probe each candidate file once, and reuse the catalog's result while its bytes are unchanged."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.media.facts import MediaInfo
from hevcq.errors import (
    HevcqError,
    Interruption,
    MediaRefused,
    SourceDamaged,
    SourceUnreadable,
    WorkerUnfit,
)
from hevcq.library.filesystem import fingerprint_of, same_bytes
from hevcq.library.scanning.scan import FoundFile, Rejected, RejectionCause, readable
from hevcq.ports.catalog import Fingerprint
from hevcq.sql.catalog import Catalog
from hevcq.util.clock import Clock, SystemClock
from hevcq.util.text import printable

BATCH = 500
"""Files per catalog query: well below SQLite's 32,766 variables
(https://www.sqlite.org/limits.html)."""
KEEP_EVERY_S = 2.0
"""Seconds between two writes of probe results to the catalog."""
PROBES_PER_SLOT = 2
"""Files probed at once for each slot of this machine."""
LASTING = (SourceUnreadable, SourceDamaged, MediaRefused)
"""Errors caused by the file's content: the same bytes are not probed again."""

Inspect = Callable[[Path], MediaInfo]
Learnt = tuple[Path, Fingerprint, MediaInfo | str]


@dataclass(frozen=True, slots=True)
class FoundVideo(FoundFile):
    """A file that is a video, with its facts."""

    info: MediaInfo


def probe_files(
    found: Iterable[FoundFile | Rejected],
    catalog: Catalog,
    inspect: Inspect,
    *,
    threads: int,
    batch: int = BATCH,
    clock: Clock | None = None,
) -> Iterator[FoundVideo | Rejected]:
    """Yield each file with its media info, or its rejection, in the order of `found`.

    `inspect` probes one path and raises a HevcqError. It is called from `threads` threads, only for
    bytes that the catalog does not know. Up to `batch` files are looked up together. The results are
    cached every KEEP_EVERY_S seconds, so that a kill loses no more than that.

    Raises Interruption or WorkerUnfit from `inspect`, after the results so far are cached; any other
    error rejects only that file.
    """
    with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="probe") as pool:
        waiting = iter(found)
        while chunk := list(itertools.islice(waiting, batch)):
            yield from _chunk(chunk, catalog, inspect, pool, clock or SystemClock())


def _chunk(
    chunk: list[FoundFile | Rejected],
    catalog: Catalog,
    inspect: Inspect,
    pool: ThreadPoolExecutor,
    clock: Clock,
) -> Iterator[FoundVideo | Rejected]:
    files = [item for item in chunk if isinstance(item, FoundFile)]
    cached = catalog.cached([item.path for item in files]) if files else {}
    known = {
        item.path: seen[1]
        for item in files
        if (seen := cached.get(item.path)) and same_bytes(seen[0], item.fingerprint)
    }
    unknown = [item for item in files if item.path not in known]
    futures = {item.path: pool.submit(_probed, item, inspect) for item in unknown}
    learnt: list[Learnt] = []
    due = clock.monotonic() + KEEP_EVERY_S
    try:
        for item in chunk:
            if isinstance(item, Rejected):
                yield item
            elif item.path in futures:
                result = futures[item.path].result()
                _remember(item, result, learnt)
                if learnt and clock.monotonic() >= due:
                    catalog.cache(learnt)
                    learnt.clear()
                    due = clock.monotonic() + KEEP_EVERY_S
                yield result
            else:
                yield _as_found(item, known[item.path])
    finally:
        for future in futures.values():
            future.cancel()
        if learnt:
            catalog.cache(learnt)


def _as_found(item: FoundFile, facts: MediaInfo | str) -> FoundVideo | Rejected:
    if isinstance(facts, str):
        return Rejected(item.path, RejectionCause.NOT_VIDEO, facts)
    return FoundVideo(item.path, item.root, item.fingerprint, facts)


def _remember(item: FoundFile, result: FoundVideo | Rejected, learnt: list[Learnt]) -> None:
    if isinstance(result, FoundVideo):
        learnt.append((item.path, item.fingerprint, result.info))
    elif result.cause is RejectionCause.NOT_VIDEO:
        learnt.append((item.path, item.fingerprint, result.reason))


def _probed(item: FoundFile, inspect: Inspect) -> FoundVideo | Rejected:
    try:
        info = inspect(item.path)
    except (Interruption, WorkerUnfit):
        raise
    except HevcqError as error:
        return _changed(item) or _refused(item, error)
    return _changed(item) or _as_found(item, info)


def _refused(item: FoundFile, error: HevcqError) -> Rejected:
    if not isinstance(error, LASTING):
        # Not caused by the content (a busy disk, a killed child): probe again next time.
        return Rejected(item.path, RejectionCause.UNREADABLE, str(error))
    if not readable(item.path):
        sentence = f"{printable(item.path)} cannot be read: give this user read permission."
        return Rejected(item.path, RejectionCause.UNREADABLE, sentence)
    return Rejected(item.path, RejectionCause.NOT_VIDEO, str(error))


def _changed(item: FoundFile) -> Rejected | None:
    """Return a rejection if the file changed since the scan, which makes the probe result invalid."""
    try:
        now = fingerprint_of(os.lstat(item.path))
    except OSError:
        sentence = f"{printable(item.path)} was removed while it was being probed."
        return Rejected(item.path, RejectionCause.GONE, sentence)
    if same_bytes(now, item.fingerprint):
        return None
    sentence = (
        f"{printable(item.path)} is still being written; it is queued once it stops changing."
    )
    return Rejected(item.path, RejectionCause.GROWING, sentence)
