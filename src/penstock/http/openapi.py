"""The OpenAPI 3.1 document, made from the table of routes and the records themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from penstock import __version__
from penstock.http import answers, bodies
from penstock.http.endpoints import API, Endpoint, Parameter
from penstock.http.head import CRITICALITIES
from penstock.http.media import JSON
from penstock.http.operations import Operations
from penstock.http.problem import MEDIA_TYPE, Problem

_SIGNS: Final = re.compile(r"\W+")
_PATH_PARAMETER: Final = re.compile(r"{(\w+)}")
_REF: Final = "#/components/schemas/{name}"

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

#: One line of a docstring's ``Attributes``; a longer description goes on, further indented.
_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.*)$")

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


def document() -> bytes:
    """Return the document as JSON."""
    kinds: list[type] = [Problem, answers.Readiness, answers.Liveness]
    for endpoint in API:
        kinds.extend(k for k in (endpoint.answer, endpoint.body) if k is not None)
    distinct = list(dict.fromkeys(kinds))
    schemas, components = msgspec.json.schema_components(distinct, ref_template=_REF)
    by_kind = dict(zip(distinct, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in API:
        operation = _operation(endpoint, by_kind)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    paths.update(_probes(by_kind))
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
            "paths": paths,
            "components": {"schemas": {name: _described(schema) for name, schema in components.items()}},
        }
    )


def _operation(endpoint: Endpoint, schemas: Mapping[type, Any]) -> dict[str, Any]:
    identity = _SIGNS.sub("_", f"{endpoint.method} {endpoint.path}".lower()).strip("_")
    responses = {"200": _content("The answer", schemas[endpoint.answer])}
    if endpoint.ndjson:
        responses["207"] = _content("Some documents failed; each tells its outcome", schemas[endpoint.answer])
    responses["default"] = _content("A problem", schemas[Problem], MEDIA_TYPE)
    operation: dict[str, Any] = {
        "operationId": identity,
        "summary": endpoint.summary,
        "description": inspect.getdoc(getattr(Operations, endpoint.operation)),
        "tags": [_tag(endpoint.path)],
        "parameters": [
            *_path_parameters(endpoint.path),
            *map(_query_parameter, endpoint.query),
            _TIMEOUT,
            _CRITICALITY,
        ],
        "responses": responses,
    }
    if endpoint.body is not None:
        content = {JSON: {"schema": schemas[endpoint.body], "example": _EXAMPLES[endpoint.body]}}
        if endpoint.ndjson:
            line = "One document a line."
            content["application/x-ndjson"] = {
                "schema": {"type": "string", "description": line},
                "example": _NDJSON_EXAMPLE,
            }
        operation["requestBody"] = {"required": endpoint.body_required, "content": content}
    return operation


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


def _content(text: str, schema: object, media_type: str = JSON) -> dict[str, Any]:
    return {"description": text, "content": {media_type: {"schema": schema}}}


_TIMEOUT: Final = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "description": "A tighter deadline; `timeout_ms` in the body goes before it",
    "schema": {"type": "integer", "minimum": 1, "maximum": bodies.TIMEOUT_MS_MAX},
}

_CRITICALITY: Final = {
    "name": "X-Criticality",
    "in": "header",
    "description": "How urgent it is; it can be lowered below what the route has by itself, not raised",
    "schema": {"type": "string", "enum": list(CRITICALITIES)},
}

_HEADERS: Final = (_TIMEOUT, _CRITICALITY)


def _path_parameters(path: str) -> Iterable[dict[str, Any]]:
    for name in _PATH_PARAMETER.findall(path):
        text = "The collection's name: letters, digits, `-`, `_`, `.`; 64 at most"
        schema = {"type": "string"}
        yield {"name": name, "in": "path", "required": True, "description": text, "schema": schema}


def _query_parameter(parameter: Parameter) -> dict[str, Any]:
    schema = msgspec.json.schema(parameter.kind)
    if parameter.default is not None:
        schema["default"] = parameter.default
    return {"name": parameter.name, "in": "query", "description": parameter.text, "schema": schema}


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    """Move what a docstring says of each attribute to the property itself."""
    text = inspect.cleandoc(schema.get("description", "")).replace("``", "`")
    head, _, attributes = text.partition("Attributes:\n")
    if not attributes:
        return {**schema, "description": text}
    # A property that is a $ref may have a description beside it: JSON Schema 2020-12 allows that.
    told = dict(_attributes(attributes))
    properties = {
        name: {**property, "description": told[name]} if name in told else property
        for name, property in schema.get("properties", {}).items()
    }
    return {**schema, "description": head.strip(), "properties": properties}


def _attributes(text: str) -> Iterator[tuple[str, str]]:
    """Yield each attribute's name and description, its lines joined."""
    name, words = "", [""]
    for line in text.splitlines():
        begins = _ATTRIBUTE.match(line)
        if begins is None:
            words.append(line.strip())
            continue
        if name:
            yield name, " ".join(words).strip()
        name, words = begins.group(1), [begins.group(2)]
    yield name, " ".join(words).strip()


def _probes(schemas: Mapping[type, Any]) -> dict[str, Any]:
    """Return the paths that monitoring asks."""
    ready = {
        "200": _content("It can", schemas[answers.Readiness]),
        "503": _content("It cannot", schemas[answers.Readiness]),
    }
    told: dict[str, tuple[str, dict[str, Any]]] = {
        "/livez": ("Whether the process answers at all", {"200": _content("It does", schemas[answers.Liveness])}),
        "/readyz": ("Whether the server can do its work, with reasons if not", ready),
        "/healthz": ("The same as /readyz", ready),
        "/metrics": ("Prometheus metrics", {"200": _content("Metrics", {"type": "string"}, "text/plain")}),
    }
    return {
        path: {
            "get": {"operationId": path.strip("/"), "summary": text, "tags": ["server"], "responses": responses},
        }
        for path, (text, responses) in told.items()
    }
