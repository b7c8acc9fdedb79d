"""Render templates, with sizes, times and states as people read them, and how often a page polls."""

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
"""The icon beside each state's word, so that colour is never the only difference."""
PAGE_POLL_S = 3
"""Seconds between two requests of an open page for what has changed."""
FASTER, SLOWER = 0.85, 1.3
"""Factors that turn the encoder's estimate, which knows only its speed so far, into a range."""
AFTER_ENCODE = 0.25
"""Duration of the checks after an encode, as a share of the encode's duration."""


@cache
def environment() -> Environment:
    templates = Environment(
        loader=PackageLoader("hevcq.web"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(
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
    templates.globals.update(
        asset=asset, version=__version__, menu_of=menu_of, poll_attributes=poll_attributes
    )
    return templates


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


def menu_of(person: Person) -> Sequence[tuple[str, str]]:
    """Return the address and name of each page in this person's menu."""
    everybody = (("/", "Videos"), ("/upload", "Upload"))
    return (
        (*everybody, ("/board", "Board"), ("/settings", "Settings"))
        if person.is_operator
        else everybody
    )


@cache
def asset(name: str) -> str:
    """Return the address of a static file. It changes with the file, so browsers may cache it."""
    content = files("hevcq.web").joinpath("static", name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


def poll_attributes(address: str) -> Markup:
    """Return the attributes of an element whose content an open page requests every PAGE_POLL_S seconds.

    After an error (busy, stopped) the old content stays; a sign-out replaces it by a notice.
    """
    attributes = (
        f'hx-get="{escape(address)}" hx-trigger="every {PAGE_POLL_S}s" hx-swap="innerMorph"'
        ' hx-status:401="swap:outerHTML"'
    )
    return Markup(attributes)  # noqa: S704 - the address is escaped


def when(then: float) -> str:
    """Return Unix seconds as a date and time in UTC."""
    return datetime.fromtimestamp(then, UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")


def iso(then: float) -> str:
    """Return Unix seconds in ISO 8601, for a `datetime` attribute."""
    return datetime.fromtimestamp(then, UTC).isoformat(timespec="seconds")


def place(key: str) -> str:
    """Return the path of a library file, or the key of any other source."""
    path = path_of_key(key)
    return printable(key if path is None else path)


def coded(text: str) -> Markup:
    """Return a sentence with the text in backticks, such as a command, marked as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def time_left(phase: str, percent: float, eta_s: float | None) -> str:
    """Return the time until a job ends as a range, such as `12 to 20 min`, or "" if unknown.

    `percent` (0 to 100) and `eta_s` (seconds left) are of the current phase. After an encode, the
    checks take a share of its time again.
    """
    if eta_s is None:
        return ""
    whole = eta_s / max(0.05, 1 - percent / 100)
    after = whole * AFTER_ENCODE if phase == "encode" else 0.0
    return duration_range(eta_s * FASTER + after / 2, eta_s * SLOWER + after)
