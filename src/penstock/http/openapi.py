"""The OpenAPI 3.1 document, made from the table of routes and the records themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from penstock import __version__
from penstock.http.problem import MEDIA_TYPE, Problem
from penstock.http.routes import API, Endpoint

_PARAMETER: Final = re.compile(r"{(\w+)}")
_REF: Final = "#/components/schemas/{name}"

_INTRODUCTION: Final = (
    "Hybrid search over code and documents. Every error is a problem detail (RFC 9457) with"
    " `code`, `request_id` and `retryable`. `X-Request-Id` and `traceparent` are accepted and"
    " echoed; `X-Request-Timeout-Ms` asks for a tighter deadline."
)


def document() -> bytes:
    """Return the document as JSON."""
    kinds: list[type] = [Problem]
    for endpoint in API:
        kinds.extend(k for k in (endpoint.answer, endpoint.body) if k is not None)
    distinct = list(dict.fromkeys(kinds))
    schemas, components = msgspec.json.schema_components(distinct, ref_template=_REF)
    by_kind = dict(zip(distinct, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in API:
        operation = _operation(endpoint, by_kind)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    paths.update(_probes())
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Penstock", "version": __version__, "description": _INTRODUCTION},
            "paths": paths,
            "components": {"schemas": components},
        }
    )


def _operation(endpoint: Endpoint, schemas: dict[type, Any]) -> dict[str, Any]:
    identity = re.sub(r"\W+", "_", f"{endpoint.method} {endpoint.path}".lower()).strip("_")
    operation: dict[str, Any] = {
        "operationId": identity,
        "summary": endpoint.summary,
        "tags": [_tag(endpoint.path)],
        "parameters": [*_path_parameters(endpoint.path), *_query_parameters(endpoint.query)],
        "responses": {
            "200": _content("The answer", schemas[endpoint.answer]),
            "default": _content("A problem", schemas[Problem], MEDIA_TYPE),
        },
    }
    if endpoint.ndjson:
        operation["responses"]["207"] = _content("Some of it failed", schemas[endpoint.answer])
    if endpoint.body is not None:
        content = {"application/json": {"schema": schemas[endpoint.body]}}
        if endpoint.ndjson:
            content["application/x-ndjson"] = {"schema": {"type": "string"}}
        operation["requestBody"] = {"required": endpoint.body_required, "content": content}
    return operation


def _tag(path: str) -> str:
    """Return the group a route is shown in: what its path is about."""
    if "documents" in path:
        return "documents"
    if path.endswith("/search"):
        return "search"
    if "collections" in path:
        return "collections"
    return "server" if path.endswith("status") else "models"


def _content(text: str, schema: object, media_type: str = "application/json") -> dict[str, Any]:
    return {"description": text, "content": {media_type: {"schema": schema}}}


def _path_parameters(path: str) -> Iterable[dict[str, Any]]:
    for name in _PARAMETER.findall(path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameters(query: Iterable[tuple[str, str]]) -> Iterable[dict[str, Any]]:
    for name, text in query:
        yield {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}


def _probes() -> dict[str, Any]:
    """Return the paths that monitoring asks."""
    told = {
        "/livez": "Whether the process answers at all",
        "/readyz": "Whether the server can do its work, with reasons if not",
        "/healthz": "The same as /readyz",
        "/metrics": "Prometheus metrics",
    }
    return {
        path: {
            "get": {
                "operationId": path.strip("/"),
                "summary": text,
                "tags": ["server"],
                "responses": {"200": {"description": "Yes"}, "503": {"description": "No"}},
            }
        }
        for path, text in told.items()
    }
