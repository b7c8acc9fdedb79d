"""What a probe found, kept for the one look that follows it in the same process.

An ingest scans a film and then hands it to a worker beside it: without this each film is probed
twice, at about 0.08 s of CPU a look.
"""

from __future__ import annotations

import os
import threading

from hevcq.domain.media import MediaInfo
from hevcq.ffmpeg.tools import is_url

MOST = 1024
"""So many are kept (about 5 KB each); what comes later is probed again."""

Identity = tuple[int, int, int, int, int]


def identity(location: str) -> Identity | None:
    """Return which bytes a local file holds; None if that cannot be told.

    The time of the last change cannot be set back by whoever writes to a file.
    """
    if is_url(location):
        return None
    try:
        facts = os.stat(location)  # noqa: PTH116 - any bytes a name can hold
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


class ProbeMemo:
    """Facts by location and identity; each is handed out once, so that nothing piles up."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Identity, MediaInfo]] = {}
        self._lock = threading.Lock()

    def take(self, location: str, now: Identity | None) -> MediaInfo | None:
        """Return and forget what was found at `location`, if it is the same file still."""
        with self._lock:
            kept = self._kept.pop(location, None)
        return kept[1] if kept is not None and kept[0] == now else None

    def keep(self, location: str, before: Identity | None, info: MediaInfo) -> None:
        """Keep what was found; `before` is the file's identity before it was looked at."""
        if before is None:
            return
        with self._lock:
            if len(self._kept) < MOST:
                self._kept[location] = (before, info)
