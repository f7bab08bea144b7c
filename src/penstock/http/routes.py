"""The router over the endpoints, the JSON of their answers, the pages beside them, and what the gate asks of a path."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route, Router

from penstock.bus.contract import TopicRefusal
from penstock.core.core import Core
from penstock.http import responses
from penstock.http.authentication import audited_act
from penstock.http.decoding import JSON, NDJSON, check_media_type, decode_body, decode_query
from penstock.http.endpoints import ApiEndpoint
from penstock.http.error_formats import JSON_RPC
from penstock.http.mcp.endpoint import PATH as MCP_PATH
from penstock.http.mcp.endpoint import McpEndpoint
from penstock.http.openapi import openapi_document
from penstock.http.operations import ENDPOINTS, Operations
from penstock.http.page_files import ASSETS_ROUTE, VIEWS, page_file
from penstock.http.probes import CachedValue
from penstock.http.problem import PROBLEM_DETAILS, ErrorFormat, MethodNotAllowed
from penstock.http.request_context import AdmissionContext, read_context_headers, request_state
from penstock.http.task_operations import TaskOperations
from penstock.http.vendor_records import TeiVector
from penstock.indexing.document_records import DocumentStatus
from penstock.kernel.access import ANYONE, UNAUTHENTICATED, Scope
from penstock.kernel.context import Context, Criticality
from penstock.kernel.errors import Invalid, PenstockError
from penstock.kernel.messages import Topic
from penstock.policies.levels import Level
from penstock.tasks.records import TaskKind
from penstock.telemetry.audit_log import AuditTrail
from penstock.telemetry.metrics import CONTENT_TYPE, Metrics

#: Bytes of JSON after which the event loop runs other tasks. Numbers are the slowest: this much of them takes 2 ms.
SLICE_BYTES: Final = 262_144

#: Lists of at most so many items are written with the rest of the record.
SLICED_ITEMS_MIN: Final = 32


def _encode_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, TeiVector):
        return value.terms()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_encode_array)


def to_json(record: Any) -> bytes:
    """Return a small record as JSON."""
    return _ENCODER.encode(record)


async def encode_in_slices(record: msgspec.Struct | list[Any]) -> bytes:
    """Return a record or a list as JSON, long lists item by item, with pauses after each ``SLICE_BYTES``.

    An array stands for the list of its numbers, and a vector of :class:`TeiVector` for that of its terms.
    """
    if isinstance(record, list):
        return _ENCODER.encode(await _items(record))
    written: dict[str, list[msgspec.Raw]] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, list) and len(value) > SLICED_ITEMS_MIN:
            written[name] = await _items(value)
    # A record's fields are not checked when it is made: bytes that are JSON already stand for any of them.
    return _ENCODER.encode(msgspec.structs.replace(record, **written) if written else record)


async def _items(values: list[Any]) -> list[msgspec.Raw]:
    written, size = [], 0
    for value in values:
        item = _ENCODER.encode(value)
        written.append(msgspec.Raw(item))
        size += len(item)
        if size >= SLICE_BYTES:
            size = 0
            await asyncio.sleep(0)
    return written


def _csp_hashes(element: str, html: bytes) -> str:
    """Return the sources of a policy that allow exactly these elements (CSP Level 3 §2.3.1)."""
    parts = html.split(f"<{element}>".encode())[1:]
    digests = (hashlib.sha256(part.partition(f"</{element}>".encode())[0]).digest() for part in parts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


#: The page that shows the API; read once, when the module is imported: never on the event loop.
_DOCS_PAGE: Final = (Path(__file__).parent / "docs.html").read_bytes()

#: Its headers, with a policy that allows exactly its own script and style.
_DOCS_HEADERS: Final = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": (
        f"default-src 'none'; script-src {_csp_hashes('script', _DOCS_PAGE)};"
        f" style-src {_csp_hashes('style', _DOCS_PAGE)}; connect-src 'self'; img-src data:; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

log = logging.getLogger(__name__)

#: Parameters of paths that take the rest of the path.
_WITH_SLASHES: Final = re.compile("{(id|model)}")

#: Methods that at least one path takes.
_ALLOW: Final = ", ".join(sorted({"GET", "HEAD", "OPTIONS", *(endpoint.method for endpoint in ENDPOINTS)}))

#: Health checks and metrics, which every process serves.
HEALTH_PATHS: Final = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})


#: Accepts an operation as a task, and answers that it has.
SubmitTask = Callable[[TaskKind, Request], Awaitable[Response]]


class Api:
    """ASGI application behind the gate: routes requests, and raises Penstock's errors instead of Starlette's.

    Args:
        core: The core that does the work. If it does not serve the API, only :data:`HEALTH_PATHS` are served.
    """

    def __init__(self, core: Core) -> None:
        metrics, self.serves_api = core.metrics, core.deps.serves_api
        owners = {owner: owner(core) for owner in dict.fromkeys(endpoint.owner for endpoint in ENDPOINTS)}
        submit = owners[TaskOperations].submit
        routes = [_route(endpoint, owners[endpoint.owner], submit, metrics, core.deps.audit) for endpoint in ENDPOINTS]
        routes += _plain_routes(owners[Operations], metrics)
        routes.append(Route(MCP_PATH, McpEndpoint(core, owners[Operations]), methods=["POST"]))
        if not self.serves_api:
            routes = [route for route in routes if route.path in HEALTH_PATHS]
        self._routes = routes
        self._router = Router(routes, default=_not_found, redirect_slashes=False)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request.

        Raises:
            Invalid: No such path (``not_found``) or method (``method_not_allowed``).
            ConnectionAbortedError: The caller hung up while its body was read.
        """
        scope["app"] = self
        if scope["path"] == "*":
            # The server as a whole (RFC 9110 §9.3.7).
            await Response(status_code=204, headers={"allow": _ALLOW})(scope, receive, send)
            return
        try:
            await self._router(scope, receive, send)
        except HTTPException:
            # The router raises one for a wrong method only.
            allow = ", ".join(sorted(self._methods(scope)))
            if scope["method"] == "OPTIONS":
                await Response(status_code=204, headers={"allow": allow})(scope, receive, send)
                return
            raise MethodNotAllowed(f"{scope['path']} takes {allow}, not {scope['method']}", allow) from None
        except ClientDisconnect:
            raise ConnectionAbortedError("the caller hung up") from None

    def _methods(self, scope: Any) -> set[str]:
        there = [route for route in self._routes if route.matches(scope)[0] is not Match.NONE]
        return {"OPTIONS"}.union(*(route.methods or () for route in there))


def _route(endpoint: ApiEndpoint, owner: object, submit: SubmitTask, metrics: Metrics, audit: AuditTrail) -> Route:
    operation: Callable[..., Awaitable[Any]] = getattr(owner, endpoint.operation)
    latency = metrics.latency_s.labels(endpoint.path)
    # An empty body stands for a record without fields, unless there must be one.
    bodies, empty = endpoint.bodies, b"" if endpoint.body_required else b"{}"
    # Also where there is no use for a body: a page may not send that either. No page can send one with GET.
    taken = () if endpoint.method == "GET" else (JSON, NDJSON) if endpoint.ndjson else (JSON,)

    headers = {"cache-control": endpoint.cache_control} if endpoint.cache_control else None
    count = _response_counter(endpoint, metrics, audit)

    async def answer(request: Request) -> Response:
        state = request_state(request.scope)
        try:
            if state.principal is not ANYONE:
                # Before the body is read.
                endpoint.check_access(state.principal, request.path_params)
            if taken:
                check_media_type(request.headers, taken)
            # Whole before the work begins, for every route: only then can the gate see a caller hang up.
            data = await request.body()
            read_context_headers(request, endpoint.criticality)
            state.query = decode_query(request.scope["query_string"], endpoint.query)
            with latency.time():
                if endpoint.task is not None and state.query.wait == "false":
                    record = await submit(endpoint.task, request)
                elif endpoint.takes_body:
                    record = await operation(request, await decode_body(data if data.strip() else empty, *bodies))
                else:
                    record = await operation(request)
        except PenstockError as error:
            count(request, endpoint.error_format.status_of(error), error.code)
            raise
        if isinstance(record, Response):
            count(request, record.status_code, "begun")
            return record
        if isinstance(record, responses.IndexResponse):
            _count_documents(metrics, record)
        status = 207 if isinstance(record, responses.IndexResponse) and record.failed else 200
        count(request, status, "done")
        return Response(await encode_in_slices(record), status, headers, JSON)

    # An id and a model's name may hold slashes, encoded or not.
    return Route(
        _WITH_SLASHES.sub(r"{\1:path}", endpoint.path), answer, methods=[endpoint.method], name=endpoint.operation
    )


def _response_counter(
    endpoint: ApiEndpoint, metrics: Metrics, audit: AuditTrail
) -> Callable[[Request, int, str], None]:
    """Return what counts an answer by its status, and writes to the audit log that an administrative act was done."""
    audited = endpoint.method == "DELETE" or (endpoint.scope is Scope.ADMIN and endpoint.method != "GET")

    def count(request: Request, status: int, outcome: str) -> None:
        metrics.requests.labels(endpoint.path, endpoint.method, str(status)).inc()
        # What a key may not do was no act, and is written as a refused attempt.
        if audited and status != 403:
            state = request_state(request.scope)
            act = audited_act(request.scope)
            audit.act(act, **state.who, outcome=outcome, request_id=state.request_id)

    return count


def _count_documents(metrics: Metrics, response: responses.IndexResponse) -> None:
    metrics.chunks.inc(response.chunks)
    for status, count in (
        (DocumentStatus.INDEXED, response.indexed),
        (DocumentStatus.UNCHANGED, response.unchanged),
        (DocumentStatus.FAILED, response.failed),
    ):
        metrics.documents.labels(status.value).inc(count)


def _plain_routes(operations: Operations, metrics: Metrics) -> list[Route]:
    async def ready(request: Request) -> Response:
        readiness = await operations.readiness()
        if request_state(request.scope).principal is UNAUTHENTICATED:
            # Reasons and warnings name collections and directories.
            told = [] if readiness.ready else ["a request with a key is told why"]
            readiness = responses.Readiness(readiness.ready, told, [])
        return Response(to_json(readiness), 200 if readiness.ready else 503, media_type=JSON)

    async def expose() -> bytes:
        return metrics.exposition()

    scrape = CachedValue(expose)

    async def exposition(request: Request) -> Response:
        principal = request_state(request.scope).principal
        if principal is not UNAUTHENTICATED:
            # They name collections. Without a key one comes here only where they are open.
            principal.require_every_collection()
        return Response(await scrape.get(), headers={"content-type": CONTENT_TYPE})

    def always(make: Callable[[], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_: Request) -> Response:
            return make()

        return answer

    openapi, live = openapi_document(), to_json(responses.Liveness())
    plain: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/livez": always(lambda: Response(live, media_type=JSON)),
        "/readyz": ready,
        "/healthz": ready,
        "/metrics": exposition,
        "/openapi.json": always(lambda: Response(openapi, media_type=JSON)),
        "/docs": always(lambda: Response(_DOCS_PAGE, headers=_DOCS_HEADERS)),
        **dict.fromkeys((*VIEWS, ASSETS_ROUTE), page_file),
    }
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in plain.items()]


async def _not_found(scope: Any, _receive: Any, _send: Any) -> None:
    serves_api = scope["app"].serves_api
    hint = "; see /docs" if serves_api else f": a worker serves only {', '.join(sorted(HEALTH_PATHS))}"
    raise Invalid(f"there is nothing at {scope['path']}{hint}", field="path", code="not_found")


_ENDPOINTS_WITH_TOPICS: Final = tuple(endpoint for endpoint in ENDPOINTS if endpoint.topics)
_PARAMETER: Final = re.compile(r"{\w+}")
#: One group for each endpoint with topics.
_ROUTE_PATTERN: Final = re.compile(
    "|".join(f"({e.method} {_PARAMETER.sub('[^/]+', e.path)})" for e in _ENDPOINTS_WITH_TOPICS)
)


#: Formats of errors by the parts of paths before their parameters, without those of problem details.
_FORMATS_BY_PATH: Final = {
    endpoint.path.partition("/{")[0]: endpoint.error_format
    for endpoint in ENDPOINTS
    if endpoint.error_format is not PROBLEM_DETAILS
} | {MCP_PATH: JSON_RPC}
_FORMAT_PREFIXES: Final = tuple(_FORMATS_BY_PATH)
_FORMAT_PATTERN: Final = re.compile(rf"({'|'.join(map(re.escape, _FORMATS_BY_PATH))})(?:/|\Z)")


def error_format_of(path: str) -> ErrorFormat:
    """Return the format of errors at a path and below it."""
    # Most paths are ours, and a refusal is to cost next to nothing.
    if not path.startswith(_FORMAT_PREFIXES):
        return PROBLEM_DETAILS
    found = _FORMAT_PATTERN.match(path)
    return PROBLEM_DETAILS if found is None else _FORMATS_BY_PATH[found[1]]


def backpressure_check(
    refuses: Callable[[Topic, Context, Level], TopicRefusal | None],
    on_overload: Callable[[Criticality], None] = lambda _: None,
) -> Callable[[str, str, AdmissionContext], TopicRefusal | None]:
    """Return the gate's check of the topics behind a method and a path (D2).

    A request that its caller lowers to ``X-Criticality: bulk`` is refused from 80 % fill on, and so is a retry of a
    client that counts its retries. The rest of the buffer is kept for requests that cannot wait (D1: producers that can
    slow down do) and have not been refused before: retries make overload last.

    Args:
        refuses: Returns why a topic refuses work of a context at a fill level, ``None`` if it admits it
            (:meth:`penstock.bus.contract.Bus.check_admission`).
        on_overload: Called with the class of each search that is refused because there are too many of it.
    """

    def pressed(method: str, path: str, head: AdmissionContext) -> TopicRefusal | None:
        found = _ROUTE_PATTERN.fullmatch(f"{method} {path}")
        if found is None or found.lastindex is None:
            return None
        endpoint = _ENDPOINTS_WITH_TOPICS[found.lastindex - 1]
        asked = head.criticality if head.criticality is not None else endpoint.criticality
        ctx = Context(head.deadline, max(asked, endpoint.criticality), head.client)
        lowered = ctx.criticality > max(endpoint.criticality, Criticality.STANDARD)
        level = Level.HIGH if lowered or head.is_retry else Level.CRITICAL
        for topic in endpoint.topics:
            refusal = refuses(topic, ctx, level)
            if refusal is not None:
                if topic is Topic.SEARCH_REQUEST and not (head.is_retry or refusal.by_client):
                    on_overload(ctx.criticality)
                return refusal
        return None

    return pressed
