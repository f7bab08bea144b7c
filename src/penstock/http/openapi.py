"""The OpenAPI 3.1 document, made from the table of routes and the records themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

import msgspec

from penstock import __version__
from penstock.http import request_bodies, responses, vendor_records
from penstock.http.authentication import OPEN_PATHS
from penstock.http.decoding import JSON, DeleteQuery
from penstock.http.endpoints import ApiEndpoint, record_types
from penstock.http.exchange import RETRY_AFTER_STATUSES
from penstock.http.flow_operations import FlowFrame
from penstock.http.json_schema import Schema, component_schemas, schema_ref, schema_with_descriptions
from penstock.http.operations import ENDPOINTS
from penstock.http.page_files import PAGE_FILES
from penstock.http.problem import PROBLEM_DETAILS, TITLES, ErrorFormat
from penstock.http.request_context import CRITICALITIES
from penstock.http.task_operations import TaskInfo
from penstock.indexing.document_records import Document
from penstock.kernel.access import Scope
from penstock.kernel.records import TIMEOUT_MS_MAX
from penstock.search.request import SearchBody
from penstock.stores.data_model import COLLECTION_NAME, ID_CHARACTERS_MAX
from penstock.stores.sources import SOURCE_NAME
from penstock.tasks.records import TASK_ID
from penstock.telemetry.metrics import CONTENT_TYPE

_NON_WORD: Final = re.compile(r"\W+")
_PATH_PARAMETER: Final = re.compile(r"{(\w+)}")

_INTRODUCTION: Final = (
    "Hybrid search over code and documents. Every error is a problem detail (RFC 9457) with"
    " `code`, `request_id` and `retryable`, except on the routes of other vendors' clients, which have the vendor's"
    " form. `X-Request-Id` and `traceparent` are accepted and"
    " echoed; `X-Request-Timeout-Ms` asks for a tighter deadline, `X-Criticality` for a lower class."
    " 429 and 503 say in `Retry-After` when to try again; `RateLimit` tells what is left of the caller's rate."
)

_TAGS: Final = {
    "search": "Ask a collection.",
    "documents": "Put documents in, list them, take them out.",
    "collections": "Make, describe and delete collections.",
    "sources": "Named trees whose documents are kept up to date.",
    "keys": "Who may ask, and what.",
    "snapshots": "Keep everything in one file, and get it back.",
    "tasks": "Operations that go on when their request has been answered.",
    "models": "The models by themselves.",
    "compatible": "What clients of OpenAI, Cohere, Jina and text-embeddings-inference ask.",
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
    SearchBody: {
        "query": "parse a JSON string",
        "limit": 5,
        "filter": {"path_prefix": "src/"},
        "explain": True,
    },
    request_bodies.DocumentsBody: {"documents": _DOCUMENTS},
    request_bodies.DeleteBody: {"ids": ["notes"]},
    request_bodies.CollectionBody: {},
    request_bodies.RestoreBody: {"force": False},
    request_bodies.KeyBody: {"name": "ci", "scope": "write", "collections": ["team-*"]},
    request_bodies.RotateBody: {"grace_s": 3600},
    request_bodies.SourceBody: {"root": {"host": "laptop", "path": "/home/me/src/penstock"}},
    request_bodies.TextsBody: {"texts": ["parse a JSON string"], "kind": "query"},
    vendor_records.OpenAiEmbeddingsBody: {"model": "penstock", "input": ["parse a JSON string"]},
    vendor_records.CohereRerankBody: {
        "model": "penstock",
        "query": "parse a JSON string",
        "documents": ["json.loads(text)", "open(path).read()"],
        "top_n": 1,
    },
    vendor_records.TeiEmbedBody: {"inputs": ["parse a JSON string"]},
    vendor_records.TeiSparseBody: {"inputs": ["parse a JSON string"]},
    vendor_records.TeiRerankBody: {"query": "parse a JSON string", "texts": ["json.loads(text)", "open(path).read()"]},
    request_bodies.RerankBody: {"query": "parse a JSON string", "texts": ["json.loads(text)", "open(path).read()"]},
}

_NDJSON_EXAMPLE: Final = "".join(msgspec.json.encode(document).decode() + "\n" for document in _DOCUMENTS)

#: Problems that only some endpoints have; each says which. Any request may meet with the others.
_ENDPOINT_STATUSES: Final = frozenset({404, 409, 507})
_COMMON_STATUSES: Final = tuple(status for status in TITLES if status not in _ENDPOINT_STATUSES)

#: Problems of a request's head, before its route is known: always or sometimes.
_HEAD_STATUSES: Final = frozenset({414, 431, 501, 505})
_HEAD_OR_BODY_STATUSES: Final = frozenset({400, 408})

_TIMEOUT: Final = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "description": "A tighter deadline; `timeout_ms` in the body goes before it",
    "schema": {"type": "integer", "minimum": 1, "maximum": TIMEOUT_MS_MAX, "examples": [10_000]},
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

_DOCUMENT_ID: Final[Schema] = {
    "description": "The document's id, percent-encoded",
    "schema": {"type": "string", "minLength": 1, "maxLength": ID_CHARACTERS_MAX},
    "example": "notes",
}

_SOURCE: Final[Schema] = {
    "description": "The source's name: no `/`, `\\`, `:` and control characters; 128 at most",
    "schema": {"type": "string", "pattern": f"^{SOURCE_NAME}$"},
    "example": "penstock",
}

_SNAPSHOT: Final[Schema] = {"description": "The snapshot's name", "schema": {"type": "string"}}

_MODEL: Final[Schema] = {
    "description": "The model's name, percent-encoded",
    "schema": {"type": "string", "minLength": 1},
    "example": "penstock",
}

_TASK: Final[Schema] = {"description": "The task's id", "schema": {"type": "string", "pattern": f"^{TASK_ID}$"}}
_KEY: Final[Schema] = {"description": "The key's id", "schema": {"type": "string", "minLength": 1, "maxLength": 64}}

#: Parameters of paths, by the path's second part.
_PATH_PARAMETERS: Final = {
    "collections": _COLLECTION,
    "snapshots": _SNAPSHOT,
    "sources": _SOURCE,
    "models": _MODEL,
    "tasks": _TASK,
    "keys": _KEY,
}

#: An event of a stream, as OpenAPI 3.2 reads a sequence.


def _event(name: str, record: type) -> Schema:
    """Return the schema of a stream's events."""
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": schema_ref(record)}
    return {
        "type": "object",
        "description": "Each event; its data is a record, as JSON.",
        "properties": {"event": {"type": "string", "enum": [name]}, "data": data},
    }


#: Events of the streams, by path.
_EVENTS: Final = {
    "/v1/tasks/{task}/events": _event("task", TaskInfo),
    "/v1/flow": _event("flow", FlowFrame),
}

#: The ways to send a key.
_SECURITY_SCHEMES: Final[dict[str, Schema]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of a server that has keys."},
    "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "The same in another header."},
}

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
    "X-Should-Retry": {
        "description": "Whether the same request may succeed later",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "Allow": {
        "description": "The methods that the path takes",
        "required": True,
        "schema": {"type": "string"},
    },
    "WWW-Authenticate": {
        "description": "How to send a key, and what is wrong with the one that was sent",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {"description": "Where it is", "required": True, "schema": {"type": "string"}},
}


@cache
def openapi_document() -> bytes:
    """Return the document as JSON."""
    asked = [record for endpoint in ENDPOINTS for record in endpoint.bodies]
    formats = {PROBLEM_DETAILS: None, **dict.fromkeys(endpoint.error_format for endpoint in ENDPOINTS)}
    errors = {
        _error_name(one, status): _error(one, status)
        for one in reversed(formats)
        for status in sorted(_statuses(one, TITLES))
    }
    answered: list[type] = [
        *(one.record for one in formats),
        *(responses.Readiness, responses.Liveness, FlowFrame),
        *(
            record
            for endpoint in ENDPOINTS
            if endpoint.media_type == JSON
            for record in record_types(endpoint.response)
        ),
    ]
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
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
            "paths": {**paths, **_plain_paths()},
            "components": {
                "schemas": component_schemas(asked, answered),
                "headers": _HEADERS,
                "responses": errors,
                "securitySchemes": _SECURITY_SCHEMES,
            },
        }
    )


def _operation(endpoint: ApiEndpoint) -> dict[str, Any]:
    answer = _EVENTS.get(endpoint.path) or schema_ref(endpoint.response)
    responses = {"200": _response("The answer", answer, endpoint.media_type)}
    if endpoint.task is not None:
        accepted = _response("A task was accepted, with `wait=false`", schema_ref(TaskInfo))
        responses["202"] = {**accepted, "headers": _headers("X-Request-Id", "Location", "Retry-After")}
    if endpoint.ndjson:
        responses["207"] = _response("Some documents failed; each tells its outcome", schema_ref(endpoint.response))
    summary, _, description = inspect.cleandoc(endpoint.description).replace("``", "`").partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": _operation_id(f"{endpoint.method} {endpoint.path}".lower()),
        "summary": summary.rstrip("."),
        **({"description": description} if description else {}),
        "tags": [_tag(endpoint.path) if endpoint.error_format is PROBLEM_DETAILS else "compatible"],
        "parameters": [
            *_path_parameters(endpoint.path),
            # Where a query may stand for the body, OpenAPI cannot say that it is one of the two: the description does.
            *(_query_parameters(endpoint.query) if endpoint.query is not DeleteQuery else ()),
            _TIMEOUT,
            _CRITICALITY,
        ],
        "security": _security(endpoint.scope),
        "responses": {**responses, **_errors(endpoint.error_format, *_COMMON_STATUSES, *endpoint.error_statuses)},
    }
    if endpoint.body is not None:
        content = {JSON: {"schema": schema_ref(endpoint.body), "example": _EXAMPLES[endpoint.bodies[0]]}}
        if endpoint.ndjson:
            content["application/x-ndjson"] = {
                # As OpenAPI 3.2 reads a sequence: the list of what stands on its lines.
                "schema": {
                    "type": "array",
                    "items": schema_ref(Document),
                    "description": "One document a line.",
                },
                "example": _NDJSON_EXAMPLE,
            }
        operation["requestBody"] = {"required": endpoint.body_required, "content": content}
    return operation


def _security(scope: Scope) -> list[dict[str, list[str]]]:
    """Return the ways to be let in: none where the server has no keys, else a key of a scope."""
    return [{}, *({name: [scope.label]} for name in _SECURITY_SCHEMES)]


def _operation_id(text: str) -> str:
    return _NON_WORD.sub("_", text).strip("_")


#: Group that a route is shown in, by a part of its path; the first that is there.
_TAG_BY_PART: Final = {
    "/document": "documents",
    "/tasks": "tasks",
    "/search": "search",
    "/snapshots": "snapshots",
    "/sources": "sources",
    "/collections": "collections",
    "/keys": "keys",
    "/status": "server",
    "/flow": "server",
    "/": "models",
}


def _tag(path: str) -> str:
    """Return the group a route is shown in: what its path is about."""
    return next(tag for part, tag in _TAG_BY_PART.items() if part in path)


def _response(text: str, schema: Schema, media_type: str = JSON) -> dict[str, Any]:
    return {"description": text, "headers": _headers("X-Request-Id"), "content": {media_type: {"schema": schema}}}


def _errors(form: ErrorFormat, *statuses: int) -> dict[str, Any]:
    return {
        str(status): {"$ref": f"#/components/responses/{_error_name(form, status)}"}
        for status in sorted(_statuses(form, statuses))
    }


def _statuses(form: ErrorFormat, statuses: Iterable[int]) -> set[int]:
    """Return what statuses of ours are in a format of errors."""
    return {form.statuses.get(status, status) for status in statuses}


def _error_name(form: ErrorFormat, status: int) -> str:
    prefix = "" if status in _HEAD_STATUSES else form.name
    return prefix + TITLES[status].title().replace(" ", "")


def _error(form: ErrorFormat, status: int) -> dict[str, Any]:
    headers = ["X-Request-Id"]
    if status in RETRY_AFTER_STATUSES:
        headers.append("Retry-After")
    if form.should_retry:
        headers.append("X-Should-Retry")
    if status == 405:
        headers.append("Allow")
    if status == 401:
        headers.append("WWW-Authenticate")
    answered = (form, PROBLEM_DETAILS) if status in _HEAD_OR_BODY_STATUSES else (form,)
    return {
        "description": TITLES[status],
        "headers": _headers(*headers),
        "content": {one.media_type: {"schema": schema_ref(one.record)} for one in answered},
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _path_parameters(path: str) -> Iterable[dict[str, Any]]:
    for name in _PATH_PARAMETER.findall(path):
        said = _DOCUMENT_ID if name == "id" else _PATH_PARAMETERS[path.split("/")[2]]
        yield {"name": name, "in": "path", "required": True, **said}


def _query_parameters(record: type[msgspec.Struct]) -> Iterable[dict[str, Any]]:
    (_,), schemas = msgspec.json.schema_components([record])
    described = schema_with_descriptions(schemas[record.__name__], record)
    for name, schema in described["properties"].items():
        required = {"required": True} if name in described.get("required", ()) else {}
        text = schema.pop("description").rstrip(".")
        yield {"name": name, "in": "query", "description": text, **required, "schema": _inlined(schema, schemas)}


def _inlined(node: Any, schemas: dict[str, Any]) -> Any:
    """Return a schema with the words of an enumeration in the place of a reference to it."""
    if isinstance(node, list):
        return [_inlined(inner, schemas) for inner in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return {"enum": schemas[node["$ref"].rpartition("/")[2]]["enum"]}
    return {key: _inlined(value, schemas) for key, value in node.items()}


_SAME_PAGE: Final = {"description": "The caller's copy is still right", "headers": _headers("X-Request-Id")}


def _plain_paths() -> dict[str, Any]:
    """Return the paths beside the API: what monitoring asks, and what describes it."""
    whether = {
        "200": _response("It can", schema_ref(responses.Readiness)),
        "503": _response("It cannot", schema_ref(responses.Readiness)),
    }
    text = {"type": "string"}
    told: dict[str, tuple[str, dict[str, Any]]] = {
        "/livez": ("Whether the process answers at all", {"200": _response("It does", schema_ref(responses.Liveness))}),
        "/readyz": ("Whether the server can do its work, with reasons if not", whether),
        "/healthz": ("The same as /readyz", whether),
        "/metrics": ("Prometheus metrics", {"200": _response("Metrics", text, CONTENT_TYPE)}),
        "/openapi.json": ("This document", {"200": _response("It", {"type": "object"})}),
        "/docs": ("This API as a page", {"200": _response("The page", text, "text/html")}),
        "/": ("The page for people", {"200": _response("The page", text, "text/html"), "304": _SAME_PAGE}),
    }
    return {
        path: {
            "get": {
                "operationId": _operation_id(path) or "home",
                "summary": summary,
                "tags": ["server"],
                "security": [] if path in OPEN_PATHS or path in PAGE_FILES else _security(Scope.SEARCH),
                "responses": {**_errors(PROBLEM_DETAILS, *_COMMON_STATUSES), **responses},
            },
        }
        for path, (summary, responses) in told.items()
    }
