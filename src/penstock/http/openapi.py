"""The OpenAPI 3.1 document, made from the table of routes and the records themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from penstock import __version__
from penstock.http import answers, bodies
from penstock.http.conversation import RETRY_AFTER
from penstock.http.endpoints import API, Endpoint
from penstock.http.head import CRITICALITIES
from penstock.http.media import JSON
from penstock.http.operations import Operations
from penstock.http.problem import MEDIA_TYPE, TITLES, Problem
from penstock.http.schemas import Schema, components_of, described, reference
from penstock.stores.records import COLLECTION_NAME
from penstock.telemetry.metrics import CONTENT_TYPE

_SIGNS: Final = re.compile(r"\W+")
_PATH_PARAMETER: Final = re.compile(r"{(\w+)}")

_INTRODUCTION: Final = (
    "Hybrid search over code and documents. Every error is a problem detail (RFC 9457) with"
    " `code`, `request_id` and `retryable`. `X-Request-Id` and `traceparent` are accepted and"
    " echoed; `X-Request-Timeout-Ms` asks for a tighter deadline, `X-Criticality` for a lower class."
    " 429 and 503 say in `Retry-After` when to try again; `RateLimit` tells what is left of the caller's rate."
)

_TAGS: Final = {
    "search": "Ask a collection.",
    "documents": "Put documents in, list them, take them out.",
    "collections": "Make, describe and delete collections.",
    "snapshots": "Keep everything in one file, and get it back.",
    "models": "The models by themselves.",
    "server": "How the server is, for people and for monitoring.",
}

_DOCUMENTS: Final = [
    {
        "id": "src/json/decoder.py",
        "text": "def decode(text):\n    return parse(text)\n",
        "path": "src/json/decoder.py",
        "metadata": {"team": "core", "year": 2024},
    },
    {"id": "notes", "text": "How we parse JSON, and why."},
]

_EXAMPLES: Final[dict[type, Any]] = {
    bodies.SearchBody: {"query": "parse a JSON string", "limit": 5, "filter": {"path_prefix": "src/"}, "explain": True},
    bodies.DocumentsBody: {"documents": _DOCUMENTS},
    bodies.DeleteBody: {"ids": ["notes"]},
    bodies.CollectionBody: {},
    bodies.RestoreBody: {"force": False},
    bodies.EmbedBody: {"texts": ["parse a JSON string"], "kind": "query"},
    bodies.SparseBody: {"texts": ["parse a JSON string"], "kind": "query"},
    bodies.RerankBody: {"query": "parse a JSON string", "texts": ["json.loads(text)", "open(path).read()"]},
}

_NDJSON_EXAMPLE: Final = "".join(msgspec.json.encode(document).decode() + "\n" for document in _DOCUMENTS)

#: Problems that only some endpoints have; each says which. Any request may meet with the others.
_OWN: Final = frozenset({404, 409, 507})
_COMMON: Final = tuple(status for status in TITLES if status not in _OWN)

_TIMEOUT: Final = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "description": "A tighter deadline; `timeout_ms` in the body goes before it",
    "schema": {"type": "integer", "minimum": 1, "maximum": bodies.TIMEOUT_MS_MAX, "examples": [10_000]},
}

_CRITICALITY: Final = {
    "name": "X-Criticality",
    "in": "header",
    "description": "How urgent it is; it can be lowered below what the route has by itself, not raised",
    "schema": {"type": "string", "enum": list(CRITICALITIES)},
}

_COLLECTION: Final[Schema] = {
    "description": "The collection's name: letters, digits, `-`, `_`, `.`; 64 at most",
    "schema": {"type": "string", "pattern": f"^{COLLECTION_NAME}$"},
    "example": "default",
}

_SNAPSHOT: Final[Schema] = {"description": "The snapshot's name", "schema": {"type": "string"}}

#: Headers of answers, by the name under which the document's components have them.
_HEADERS: Final[dict[str, Schema]] = {
    "X-Request-Id": {
        "description": "The request's id: the caller's own, if it sent one",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    },
    "Retry-After": {
        "description": "Seconds until another try makes sense",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "Allow": {
        "description": "The methods that the path takes",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {"description": "Where it is", "required": True, "schema": {"type": "string"}},
}


def document() -> bytes:
    """Return the document as JSON."""
    asked = [endpoint.body for endpoint in API if endpoint.body is not None]
    answered = [Problem, answers.Readiness, answers.Liveness, *(endpoint.answer for endpoint in API)]
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in API:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Penstock",
                "version": __version__,
                "description": _INTRODUCTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
            "paths": {**paths, **_pages()},
            "components": {
                "schemas": components_of(asked, answered),
                "headers": _HEADERS,
                "responses": {_problem_name(status): _problem(status) for status in TITLES},
            },
        }
    )


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    responses = {"200": _answer("The answer", reference(endpoint.answer))}
    if endpoint.ndjson:
        responses["207"] = _answer("Some documents failed; each tells its outcome", reference(endpoint.answer))
    operation: dict[str, Any] = {
        "operationId": _identity(f"{endpoint.method} {endpoint.path}".lower()),
        "summary": endpoint.summary,
        "description": (inspect.getdoc(getattr(Operations, endpoint.operation)) or "").replace("``", "`"),
        "tags": [_tag(endpoint.path)],
        "parameters": [
            *_path_parameters(endpoint.path),
            # Where a query may stand for the body, OpenAPI cannot say that it is one of the two: the description does.
            *(_query_parameters(endpoint.query) if endpoint.body is None else ()),
            _TIMEOUT,
            _CRITICALITY,
        ],
        "responses": {**responses, **_problems(*_COMMON, *endpoint.problems)},
    }
    if endpoint.body is not None:
        content = {JSON: {"schema": reference(endpoint.body), "example": _EXAMPLES[endpoint.body]}}
        if endpoint.ndjson:
            content["application/x-ndjson"] = {
                # As OpenAPI 3.2 reads a sequence: the list of what stands on its lines.
                "schema": {
                    "type": "array",
                    "items": reference(bodies.DocumentBody),
                    "description": "One document a line.",
                },
                "example": _NDJSON_EXAMPLE,
            }
        operation["requestBody"] = {"required": endpoint.body_required, "content": content}
    return operation


def _identity(text: str) -> str:
    return _SIGNS.sub("_", text).strip("_")


def _tag(path: str) -> str:
    """Return the group a route is shown in: what its path is about."""
    if "documents" in path:
        return "documents"
    if path.endswith("/search"):
        return "search"
    if "snapshots" in path:
        return "snapshots"
    if "collections" in path:
        return "collections"
    return "server" if path.endswith("status") else "models"


def _answer(text: str, schema: Schema, media_type: str = JSON) -> dict[str, Any]:
    return {"description": text, "headers": _headers("X-Request-Id"), "content": {media_type: {"schema": schema}}}


def _problems(*statuses: int) -> dict[str, Any]:
    """Return the answers that refuse a request, by status."""
    return {str(status): {"$ref": f"#/components/responses/{_problem_name(status)}"} for status in sorted(statuses)}


def _problem_name(status: int) -> str:
    return TITLES[status].title().replace(" ", "")


def _problem(status: int) -> dict[str, Any]:
    headers = ["X-Request-Id"]
    if status in RETRY_AFTER:
        headers.append("Retry-After")
    if status == 405:
        headers.append("Allow")
    return {
        "description": TITLES[status],
        "headers": _headers(*headers),
        "content": {MEDIA_TYPE: {"schema": reference(Problem)}},
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _path_parameters(path: str) -> Iterable[dict[str, Any]]:
    for name in _PATH_PARAMETER.findall(path):
        said = _COLLECTION if path.startswith("/v1/collections/") else _SNAPSHOT
        yield {"name": name, "in": "path", "required": True, **said}


def _query_parameters(record: type[msgspec.Struct]) -> Iterable[dict[str, Any]]:
    (_,), schemas = msgspec.json.schema_components([record])
    for name, schema in described(schemas[record.__name__])["properties"].items():
        yield {"name": name, "in": "query", "description": schema.pop("description").rstrip("."), "schema": schema}


def _pages() -> dict[str, Any]:
    """Return the paths beside the API: what monitoring asks, and what describes it."""
    whether = {
        "200": _answer("It can", reference(answers.Readiness)),
        "503": _answer("It cannot", reference(answers.Readiness)),
    }
    moved = {"description": "To the page", "headers": _headers("X-Request-Id", "Location")}
    text = {"type": "string"}
    told: dict[str, tuple[str, dict[str, Any]]] = {
        "/livez": ("Whether the process answers at all", {"200": _answer("It does", reference(answers.Liveness))}),
        "/readyz": ("Whether the server can do its work, with reasons if not", whether),
        "/healthz": ("The same as /readyz", whether),
        "/metrics": ("Prometheus metrics", {"200": _answer("Metrics", text, CONTENT_TYPE)}),
        "/openapi.json": ("This document", {"200": _answer("It", {"type": "object"})}),
        "/docs": ("This API as a page", {"200": _answer("The page", text, "text/html")}),
        "/": ("The way to the page", {"307": moved}),
    }
    return {
        path: {
            "get": {
                "operationId": _identity(path) or "home",
                "summary": summary,
                "tags": ["server"],
                "responses": {**_problems(*_COMMON), **responses},
            },
        }
        for path, (summary, responses) in told.items()
    }
