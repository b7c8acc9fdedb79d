"""Render ingest events as sentences, for the live display and the log lines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from hevcq.domain.events import EventName, IngestEvent
from hevcq.util.text import duration, size

if TYPE_CHECKING:
    from hevcq.usecases.ingest.forecast import Range


SHOWN_WHEN_QUIET = frozenset(
    {EventName.FILE_UNUSABLE, EventName.JOB_FAILED, EventName.PLACE_FAILED, EventName.PAUSED}
)
"""Events that --quiet still prints."""
VERBOSE_ONLY = frozenset({EventName.JOB_QUEUED, EventName.JOB_PROGRESS, EventName.UPLOAD_PROGRESS})
"""Events that only --verbose prints."""


def is_routine(event: IngestEvent) -> bool:
    """Return whether only --verbose shows the event: one line a video is enough."""
    placed = event.event is EventName.PLACED and not event.notices
    return placed or event.event in VERBOSE_ONLY


def size_range(count: Range | None) -> str:
    """Return a range of bytes: `1.2 to 1.6 GiB`, `888.0 KiB to 1.1 MiB`; empty for None."""
    if count is None:
        return ""
    low, high = size(round(count.low)), size(round(count.high))
    number, _, unit = low.partition(" ")
    return high if low == high else f"{number if high.endswith(unit) else low} to {high}"


def without_path(path: str, reason: str) -> str:
    """Return a reason without the path printed before it: `x.mp4 is empty.` → `It is empty.`"""
    rest = reason.removeprefix(path)
    if not path or rest == reason:
        return reason
    if rest.startswith(" "):
        return f"It{rest}"
    rest = rest.lstrip(": ")
    return rest[:1].upper() + rest[1:]


def sentence(event: IngestEvent) -> str | None:
    if event.event in _PLAIN:
        reason = event.reason or ""
        return f"Paused: {reason}" if event.event is EventName.PAUSED else reason or None
    words = _WORDS.get(event.event)
    if words is None:
        return None
    who = f"{event.path} [{event.profile}]" if event.profile else (event.path or "")
    return f"{who}: {words(event)}"


def _placed(event: IngestEvent) -> str:
    extra = f" ({' '.join(event.notices)})" if event.notices else ""
    if event.mode == "replace":
        return f"replaced; original kept{extra}"
    return f"done: {event.target}{extra}"


def _shrunk(event: IngestEvent) -> str:
    before, after = event.size or 0, event.output_size or 0
    percent = 100 * (before - after) / before if before else 0.0
    share = f", {abs(percent):.0f} % {'smaller' if percent >= 0 else 'larger'}" if before else ""
    took = f", in {duration(event.seconds)}" if event.seconds is not None else ""
    return f"{size(before)} → {size(after)}{share}{took}"


def _reason(event: IngestEvent) -> str:
    return without_path(event.path or "", event.reason or "")


_PLAIN = frozenset(
    {
        EventName.CRF_CHOSEN,
        EventName.PAUSED,
        EventName.RESUMED,
        EventName.STOPPING,
        EventName.RECOVERED,
    }
)
_WORDS: dict[EventName, Callable[[IngestEvent], str]] = {
    EventName.FILE_UNUSABLE: lambda e: f"not encoded: {_reason(e)}",
    EventName.JOB_DONE: _shrunk,
    EventName.PLACED: _placed,
    EventName.JOB_SKIPPED: lambda e: f"skipped: {e.reason}",
    EventName.JOB_FAILED: lambda e: f"failed ({e.failure_class or 'unknown'}): {_reason(e)}",
    EventName.PLACE_FAILED: lambda e: f"encoded, but not put in place: {_reason(e)}",
    EventName.JOB_RETRY: lambda e: f"will be retried: {_reason(e)}",
    EventName.JOB_QUEUED: lambda _: "queued",
    EventName.JOB_PROGRESS: lambda e: f"{e.phase} {e.percent or 0:.0f} %",
    EventName.UPLOAD_PROGRESS: lambda e: f"upload {e.percent or 0:.0f} %",
}


def day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d")
