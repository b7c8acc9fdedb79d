"""What every handler of the page works with, and how it reads a form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from anyio import CapacityLimiter
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from hevcq.settings.web import WebSettings
from hevcq.usecases.videos.picture import Pictures
from hevcq.util.clock import Clock
from hevcq.web.identity.folder import SecretsFolder
from hevcq.web.identity.gate import Gate
from hevcq.web.identity.limiter import Limiter
from hevcq.web.live import Hub
from hevcq.wiring.app import App

MAX_FORM_BYTES = 64 * 1024
MAX_FIELDS = 200
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Services:
    """The opened farm, who is asking, and what keeps pages up to date.

    `app` blocks: call it in a thread (`starlette.concurrency.run_in_threadpool`).
    """

    app: App
    folder: SecretsFolder
    gate: Gate
    limiter: Limiter
    hub: Hub
    pictures: Pictures
    one_picture: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    """The turn to take a picture: whoever waits for it holds no thread."""

    @property
    def settings(self) -> WebSettings:
        """The settings of the page."""
        return self.app.settings.web

    @property
    def clock(self) -> Clock:
        """The clock of the app."""
        return self.app.clock


def services_of(connection: HTTPConnection) -> Services:
    """Return the services of the application that handles this request."""
    found = connection.app.state.services
    assert isinstance(found, Services)
    return found


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of a small urlencoded form; of a repeated one the last.

    Raises HTTPException 400, 413 or 415.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HTTPException(415, "Send the form as it is on the page.")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_FORM_BYTES:
            raise HTTPException(413, "The form is too large.")
    try:
        fields = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:
        raise HTTPException(400, "The form cannot be read.") from error
    return dict(fields)
