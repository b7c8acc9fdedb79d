"""Describe the API by OpenAPI 3.1, generated from the table of operations and their models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.videos.record import VIDEO_ID
from hevcq.web.api import board, farm, videos
from hevcq.web.api.models import Problem
from hevcq.web.api.operation import JSON, PREFIX, Operation
from hevcq.web.api.operation import routes as routes_of
from hevcq.web.problems import MEDIA_TYPE

OPERATIONS: tuple[Operation, ...] = (
    *videos.OPERATIONS,
    *farm.OPERATIONS,
    *board.OPERATIONS,
)
REF = "#/components/schemas/{model}"
ALWAYS = {401: "Nobody signed in", 403: "Not allowed", 503: "Try again later"}
WORDS = {
    400: "Not a readable request",
    404: "No such thing, or another's",
    409: "Changed or ended meanwhile",
    413: "Too large, or a quota is used up",
    415: "Another media type is wanted",
    422: "A value is not allowed",
    507: "Too little disk space",
}


def routes() -> list[BaseRoute]:
    """Return the routes of the API and of its description."""
    return [*routes_of(OPERATIONS), Route(f"{PREFIX}/openapi.json", _described)]


async def _described(_request: Request) -> Response:
    return JSONResponse(document())


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    schemas = _schemas()
    paths: dict[str, Any] = {}
    for each in OPERATIONS:
        paths.setdefault(each.address, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hevcq",
            "version": "1",
            "description": "Upload videos, follow them, and run the farm. Errors are problem details"
            " (RFC 9457) with the class of the error and what to do.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _schemas() -> dict[str, Any]:
    inputs = [model for each in OPERATIONS if (model := each.body) is not None]
    outputs = [model for each in OPERATIONS if (model := each.answer) is not None]
    wanted: list[Any] = [(model, "validation") for model in dict.fromkeys(inputs)]
    wanted += [(model, "serialization") for model in dict.fromkeys([*outputs, Problem])]
    _, found = models_json_schema(wanted, ref_template=REF)
    return dict(sorted(found["$defs"].items()))


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": REF.format(model=model.__name__)}


def _operation(each: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": each.name,
        "summary": each.summary,
        "description": f"Scope `{each.scope}`" + (", operators only." if each.operators else "."),
        "responses": _responses(each),
    }
    if parameters := _parameters(each):
        described["parameters"] = parameters
    if each.body is not None:
        content = {JSON: {"schema": _ref(each.body)}}
        described["requestBody"] = {"required": each.body_needed, "content": content}
    return described


def _responses(each: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {"description": "Done"}
    if each.answer is not None:
        made = {"description": "Done", "content": {JSON: {"schema": _ref(each.answer)}}}
    statuses = {422, *each.problems}
    if "{" in each.path:
        statuses |= {404, 409}
    if each.body is not None:
        statuses |= {400, 413, 415}
    if each.creates:
        statuses |= {400, 409}
    problems = {status: WORDS[status] for status in statuses} | ALWAYS
    content = {MEDIA_TYPE: {"schema": _ref(Problem)}}
    found: dict[str, Any] = {str(each.status): made}
    for status, words in sorted(problems.items()):
        found[str(status)] = {"description": words, "content": content}
    return found


def _parameters(each: Operation) -> Sequence[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(each)}
        for name in re.findall(r"{(\w+)}", each.path)
    ]
    if each.query is not None:
        schema = each.query.model_json_schema()
        for name, value in schema["properties"].items():
            found.append({"name": name, "in": "query", "schema": _inlined(value, schema)})
    if each.creates:
        words = "makes a request that is sent again find what the first one created"
        found.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": words,
                "schema": {"type": "string", "maxLength": 255, "pattern": "^[ -~]*$"},
            }
        )
    if each.method in {"PATCH", "DELETE"} and each.path == videos.VIDEO:
        words = "only if the video still has this ETag"
        found.append(
            {
                "name": "If-Match",
                "in": "header",
                "description": words,
                "schema": {"type": "string", "pattern": "^[ -~]*$"},
            }
        )
    return found


def _path_schema(each: Operation) -> dict[str, Any]:
    of_video = each.path.startswith(("/videos", "/uploads"))
    return {"type": "string", "pattern": VIDEO_ID if of_video else "^[A-Za-z0-9_-]{1,200}$"}


def _inlined(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema without references and without null: a query has neither."""
    options = [each for each in value.get("anyOf", [value]) if each.get("type") != "null"]
    (found,) = options
    if "$ref" in found:
        found = schema["$defs"][found["$ref"].rpartition("/")[2]]
    kept = ("type", "enum", "pattern", "minimum", "maximum", "maxLength", "minLength")
    return {name: found[name] for name in kept if name in found}
