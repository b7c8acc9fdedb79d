"""The words of a message: a title, a sentence, and the fields that programs read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from hevcq.domain.keys import EVERY_PROFILE
from hevcq.ports.event_log import Happened, Message
from hevcq.util.text import printable, size

TITLES: Mapping[str, str] = {
    "batch.finished": "Ingest finished",
    "job.done": "Encoded",
    "job.skipped": "Stays as it is",
    "job.retry": "Attempt failed",
    "job.failed": "Given up",
    "job.cancelled": "Cancelled",
    "video.placed": "New rendition",
    "video.replaced": "Replaced",
    "video.undone": "Original is back",
    "video.expired": "Kept original deleted",
    "video.unusable": "Video that cannot be encoded",
    "video.damaged": "Damaged video",
    "video.ready": "Video ready",
    "video.failed": "Video failed",
    "worker.unfit": "Worker takes no more work",
    "disk.low": "Too little disk space",
    "originals.expiring": "Kept originals will be deleted",
    "test": "Test message",
}


def message_of(happened: Happened) -> Message:
    """Return the message of an event."""
    source = _source(happened)
    saved = _saved(happened)
    what = printable(source)
    parts = [f"{what}: {happened.reason}" if what and happened.reason else what or happened.reason]
    if saved is not None and happened.name in {"job.done", "video.replaced", "video.placed"}:
        before, after = happened.before or 0, happened.after or 0
        share = f" ({100 * saved / before:.0f} % smaller)" if before and saved > 0 else ""
        parts.append(f"{size(before)} became {size(after)}{share}")
    if happened.failure_class:
        parts.append(f"class {happened.failure_class}")
    text = "; ".join(part for part in parts if part)
    return Message(
        message_id=f"hevcq-{happened.video_id or happened.seq}-{int(happened.at * 1000)}",
        event=happened.name,
        at=happened.at,
        title=TITLES.get(happened.name, happened.name),
        text=text if text.endswith((".", "!", "?")) else f"{text}.",
        data=_data(happened, source, saved),
        path=happened.path,
    )


def _saved(happened: Happened) -> int | None:
    if happened.before is None or happened.after is None:
        return None
    return happened.before - happened.after


def _source(happened: Happened) -> str:
    """Return the path of a library's source, else its key."""
    folder, _, rest = happened.source.removeprefix("TODO/").partition("/")
    if happened.source.startswith("/") or not happened.source.startswith("TODO/"):
        return happened.source
    return f"/{rest}" if folder == EVERY_PROFILE else rest


def _data(happened: Happened, source: str, saved: int | None) -> dict[str, object]:
    known: dict[str, object | None] = {
        "job": happened.job_id or None,
        "video": happened.video_id or None,
        "profile": happened.profile or None,
        "source": printable(source) or None,
        "path": None if happened.path is None else printable(str(happened.path)),
        "reason": happened.reason or None,
        "failure_class": happened.failure_class or None,
        "size_before": happened.before,
        "size_after": happened.after,
        "saved": saved,
        "cpu_s": happened.cpu_s,
    }
    found = {name: value for name, value in known.items() if value is not None}
    return {"at": iso(happened.at), **found}


def iso(at: float) -> str:
    """Return Unix seconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
