"""Answer programs with problem details (RFC 9457): what went wrong, the error class, and the remedy."""

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
"""The HTTP status of an error class; every other HevcqError is 503, as it may be temporary."""


def status_of(error: HevcqError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 503)


def error_class(error: HevcqError) -> str:
    """Return the API's name of an error class, such as `quota_exceeded`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def error_problem(error: HevcqError, *, headers: Mapping[str, str] | None = None) -> Response:
    """Answer an error. Details of a server error stay in the log, but for a full disk."""
    status = status_of(error)
    sentence, remedy = error.message, error.remedy
    if status >= 500 and not isinstance(error, DiskFull):
        sentence, remedy = (
            "The server cannot do this now.",
            "Try again later, or ask an operator.",
        )
    return problem(status, sentence, kind=error_class(error), remedy=remedy, headers=headers)


def validation_problem(errors: Sequence[Mapping[str, Any]]) -> Response:
    """Answer values that pydantic refused, with status 422, or 400 if the body is not JSON."""
    first = errors[0]
    if first["type"] == "json_invalid" or (first["type"], first["loc"]) == ("missing", ("body",)):
        return problem(400, "The body is not JSON.")
    sentences = []
    for each in errors[:5]:
        at = ".".join(str(part)[:40] for part in each["loc"][1:]) or each["loc"][0]
        sentences.append(f"{at}: {each['msg']}")
    return problem(422, "; ".join(sentences).encode("utf-8", "backslashreplace").decode() + ".")


def unauthenticated() -> Response:
    """Answer a request without a sign-in, and close the connection: its body was not read."""
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
