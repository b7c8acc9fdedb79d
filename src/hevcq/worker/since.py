"""What became of a source while it was worked on: a film that went or changed has failed nothing."""

from __future__ import annotations

from hevcq.domain.job import Source
from hevcq.domain.verdict import Handling, handling
from hevcq.errors import HevcqError, SourceChanged, SourceGone
from hevcq.util.log import get_logger
from hevcq.worker.faults import around
from hevcq.worker.kit import Kit

FILMS_OWN = frozenset({Handling.NEVER_AGAIN, Handling.LATER})
"""How errors are handled that say something of the film, or may."""


def since_then(kit: Kit, source: Source, error: Exception) -> Exception:
    """Return SourceGone or SourceChanged instead of an `error` that it may have caused.

    A file that is overwritten or removed under its reader reads as damaged, or fails a gate; its
    owner must not be told that of a film which is whole.
    """
    if handling(error) not in FILMS_OWN:
        return error
    try:
        with around(kit.faults, "recheck"):
            kit.retry_control_call(lambda: kit.backend.store.check(source))
    except (SourceGone, SourceChanged) as became:
        became.__cause__ = error
        return became
    except HevcqError as unknown:
        get_logger().info("source_not_asked", reason=str(unknown))
    return error
