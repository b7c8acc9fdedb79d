"""Answer programs with problem details (RFC 9457): what went wrong, its class, and what to do."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse, Response

from hevcq.errors import (
    BadKey,
    BadUpload,
    ConfigError,
    Conflict,
    DiskFull,
    HevcqError,
    NoSuchVideo,
    PermanentError,
    QuotaExceeded,
    SourceGone,
    UsageError,
)

MEDIA_TYPE = "application/problem+json"
_STATUS: tuple[tuple[type[HevcqError], int], ...] = (
    (NoSuchVideo, 404),
    (SourceGone, 404),
    (BadKey, 404),
    (QuotaExceeded, 413),
    (BadUpload, 422),
    (ConfigError, 500),
    (UsageError, 422),
    (Conflict, 409),
    (DiskFull, 507),
    (PermanentError, 422),
)
"""The status of an error; any other of hevcq's own is 503: it may go away."""


def status_of(error: HevcqError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 503)


def error_class(error: HevcqError) -> str:
    """Return the stable name of an error's class, such as `quota_exceeded`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def of_error(error: HevcqError, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return the problem of an error. Those of the server's own settings and disk stay in its log."""
    status = status_of(error)
    sentence, remedy = error.message, error.remedy
    if status >= 500 and not isinstance(error, DiskFull):
        sentence, remedy = (
            "The server cannot do this just now.",
            "Try again later, or ask an operator.",
        )
    return problem(status, sentence, kind=error_class(error), remedy=remedy, headers=headers)


def of_values(errors: Sequence[Mapping[str, Any]]) -> Response:
    """Return the problem of values that pydantic refused; 400 if the body is no JSON at all."""
    first = errors[0]
    if first["type"] == "json_invalid" or (first["type"], first["loc"]) == ("missing", ("body",)):
        return problem(400, "The body is not JSON.")
    said = []
    for each in errors[:5]:
        at = ".".join(str(part)[:40] for part in each["loc"][1:]) or each["loc"][0]
        said.append(f"{at}: {each['msg']}")
    return problem(422, "; ".join(said).encode("utf-8", "backslashreplace").decode() + ".")


def unauthenticated() -> Response:
    """Return the problem of whoever must sign in first; the body of their request is not read."""
    headers = {"Connection": "close", "WWW-Authenticate": "Bearer"}
    return problem(401, "Authentication required.", headers=headers)


def problem(
    status: int,
    detail: str,
    *,
    kind: str = "",
    remedy: str = "",
    headers: Mapping[str, str] | None = None,
) -> Response:
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    body |= {name: value for name, value in (("class", kind), ("remedy", remedy)) if value}
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)
