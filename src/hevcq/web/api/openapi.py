"""The API below /api/v1, and its OpenAPI 3.1 description, generated from the code."""

from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hevcq.web.api import farm, settings, videos
from hevcq.web.api.call import JSON
from hevcq.web.api.models import Problem
from hevcq.web.problems import MEDIA_TYPE

PREFIX = "/api/v1"
PROBLEMS = (
    "400: malformed. 401: authentication required. 403: not allowed. 404: not found."
    " 409: changed or ended in the meantime. 413: too large, or quota exceeded."
    " 415: not application/json. 422: a value is not allowed. 503: try again later."
    " 507: too little disk space."
)
API = APIRouter(prefix=PREFIX, responses={"default": {"model": Problem, "description": PROBLEMS}})
for room in (videos, farm, settings):
    API.include_router(room.router)


@API.get("/openapi.json", include_in_schema=False)
async def _show_description(_request: Request) -> Response:
    return JSONResponse(document())


def document() -> dict[str, Any]:
    description = get_openapi(
        title="hevcq",
        version="1",
        description="Upload videos, follow them, and run the farm. Errors are problem details"
        " (RFC 9457) with the error class and the remedy.",
        routes=API.routes,
    )
    for path in description["paths"].values():
        for operation in path.values():
            answer = operation["responses"]["default"]
            answer["content"] = {
                MEDIA_TYPE: answer["content"][JSON]
            }  # FastAPI supports one type only
    return description
