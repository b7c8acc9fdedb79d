"""Render templates: sizes, times and states as people read them."""

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from hevcq import __version__
from hevcq.domain.keys import path_of_key
from hevcq.util.text import ago, counted, duration, duration_range, printable, size, timecode
from hevcq.web.identity.person import Person, maybe_person

STATE_ICONS = {
    "queued": "◷",
    "running": "▶",
    "split": "▶",
    "processing": "▶",
    "uploading": "↑",
    "done": "✓",
    "skipped": "–",
    "dead": "✕",
    "failed": "✕",
}
"""A sign beside each state's word, so that colour is never the only difference."""
POLL_S = 3
FASTER, SLOWER = 0.85, 1.3
"""Bounds of the time left around the encoder's own estimate, which knows only its speed so far."""
AFTER_ENCODE = 0.25
"""Time of the checks after an encode, as a share of the whole encode's."""


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("hevcq.web"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        size=size,
        ago=ago,
        counted=counted,
        number="{:,}".format,
        when=when,
        iso=iso,
        timecode=timecode,
        duration=duration,
        printable=printable,
        icon=lambda state: STATE_ICONS.get(state, "•"),
        coded=coded,
        place=place,
        base=lambda path: path.rstrip("/").rpartition("/")[2] or path,
        folder=lambda path: path.rstrip("/").rpartition("/")[0],
    )
    made.globals.update(asset=asset, version=__version__, pages_of=pages_of, polled=polled)
    return made


def render(name: str, **values: Any) -> str:
    return environment().get_template(name).render(**values)


def page(
    request: Request,
    name: str,
    *,
    status: int = 200,
    retry_s: int = 0,
    **values: Any,
) -> HTMLResponse:
    headers = {"Retry-After": str(retry_s)} if retry_s else None
    whole = render(name, person=maybe_person(request), path=request.url.path, **values)
    return HTMLResponse(whole, status, headers)


def pages_of(person: Person) -> Sequence[tuple[str, str]]:
    """Return the pages that this person finds in the menu: address and name."""
    everybody = (("/", "Videos"), ("/upload", "Upload"))
    return (
        (*everybody, ("/board", "Board"), ("/settings", "Settings"))
        if person.is_operator
        else everybody
    )


@cache
def asset(name: str) -> str:
    """Return the address of a static file; it changes with the file, so that browsers keep it."""
    content = files("hevcq.web").joinpath("static", name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


def polled(address: str) -> Markup:
    """Return the attributes of a part that an open page asks for anew every few seconds.

    An answer that is no part (busy, stopped) leaves what is shown; being signed out is said in its place.
    """
    made = (
        f'hx-get="{escape(address)}" hx-trigger="every {POLL_S}s" hx-swap="innerMorph"'
        ' hx-status:401="swap:outerHTML"'
    )
    return Markup(made)  # noqa: S704 - the address is escaped


def when(then: float) -> str:
    """Return a wall time, `then` in Unix seconds, as a date and time in UTC."""
    return datetime.fromtimestamp(then, UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")


def iso(then: float) -> str:
    """Return a wall time, `then` in Unix seconds, for a `datetime` attribute."""
    return datetime.fromtimestamp(then, UTC).isoformat(timespec="seconds")


def place(key: str) -> str:
    """Return a source's key as people know it: a library file's is its path."""
    path = path_of_key(key)
    return printable(key if path is None else path)


def coded(text: str) -> Markup:
    """Return a sentence in which what stands in backticks, such as a command, looks like code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def time_left(phase: str, percent: float, eta_s: float | None) -> str:
    """Return the range of time until a job ends: `12 to 20 min`; empty if it is unknown.

    `percent` is that of the phase, 0 to 100, `eta_s` the seconds that it still takes.
    The encoder knows the rest of its phase; the checks after an encode take part of its time again.
    """
    if eta_s is None:
        return ""
    whole = eta_s / max(0.05, 1 - percent / 100)
    after = whole * AFTER_ENCODE if phase == "encode" else 0.0
    return duration_range(eta_s * FASTER + after / 2, eta_s * SLOWER + after)
