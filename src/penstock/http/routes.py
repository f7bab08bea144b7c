"""One table of routes: it makes the router and the OpenAPI document."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route, Router

from penstock.bus.contract import Refusal
from penstock.http import answers, bodies
from penstock.http.head import Head
from penstock.http.operations import PAGE_MAX, Operations
from penstock.http.page import PAGE
from penstock.http.problem import MethodNotAllowed, status_of
from penstock.indexing.records import Status
from penstock.kernel.errors import Invalid, PenstockError
from penstock.kernel.messages import Topic
from penstock.kernel.work import Criticality, Work
from penstock.policies.levels import Level
from penstock.search.records import SearchResult
from penstock.stores.contract import CollectionInfo, Snapshot
from penstock.telemetry.metrics import CONTENT_TYPE, Metrics

log = logging.getLogger(__name__)

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter: its name, what it means, its type, and its default if it has one."""

    name: str
    text: str
    kind: Any
    default: object = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route of the API.

    Attributes:
        method: HTTP method.
        path: Path with ``{parameters}``.
        operation: Name of the method of :class:`Operations`.
        summary: One line for the documentation.
        answer: Record of a 200.
        body: Record of the request's body, if it has one.
        body_required: Whether it must have one.
        ndjson: Whether the body may also be NDJSON.
        query: Its query parameters.
        topics: Where its work waits; when one of them is nearly full, the gate refuses (D2).
        criticality: The class of its work; callers may ask for a lower one.
    """

    method: str
    path: str
    operation: str
    summary: str
    answer: type
    body: type | None = None
    body_required: bool = True
    ndjson: bool = False
    query: tuple[Parameter, ...] = ()
    topics: tuple[Topic, ...] = ()
    criticality: Criticality = Criticality.STANDARD


_PAGING: Final = (
    Parameter("after", "The `next` of the page before", str),
    Parameter("limit", "Documents on a page", Annotated[int, Meta(ge=1, le=PAGE_MAX)], 1000),
    Parameter("path_prefix", "Only documents whose path begins so", str),
)
_DOCUMENTS: Final = "/v1/collections/{name}/documents"
_COLLECTION: Final = "/v1/collections/{name}"

_FILTERS: Final = (
    Parameter("ids", "An id; may be given again", list[str]),
    Parameter("path_prefix", "The beginning of their paths", str),
)

API: Final = (
    Endpoint(
        "POST",
        "/v1/search",
        "search",
        "Search the collection `default`",
        SearchResult,
        body=bodies.SearchBody,
        topics=(Topic.SEARCH_REQUEST,),
        criticality=Criticality.INTERACTIVE,
    ),
    Endpoint(
        "POST",
        f"{_COLLECTION}/search",
        "search",
        "Search a collection",
        SearchResult,
        body=bodies.SearchBody,
        topics=(Topic.SEARCH_REQUEST,),
        criticality=Criticality.INTERACTIVE,
    ),
    Endpoint("GET", "/v1/collections", "list_collections", "List collections", answers.Collections),
    Endpoint(
        "PUT",
        _COLLECTION,
        "create_collection",
        "Create a collection, or return the one that is there",
        CollectionInfo,
        body=bodies.CollectionBody,
        body_required=False,
    ),
    Endpoint("GET", _COLLECTION, "get_collection", "Describe a collection", CollectionInfo),
    Endpoint("DELETE", _COLLECTION, "delete_collection", "Delete a collection", answers.Deleted),
    Endpoint(
        "POST",
        _DOCUMENTS,
        "index_documents",
        "Index documents",
        answers.IndexAnswer,
        body=bodies.DocumentsBody,
        ndjson=True,
        topics=(Topic.INDEX_CHUNK, Topic.INDEX_REQUEST),
        criticality=Criticality.BULK,
    ),
    Endpoint("GET", _DOCUMENTS, "list_documents", "List documents, a page at a time", answers.Heads, query=_PAGING),
    Endpoint(
        "DELETE",
        _DOCUMENTS,
        "delete_documents",
        "Delete documents by ids or by path prefix",
        answers.Deleted,
        body=bodies.DeleteBody,
        body_required=False,
        query=_FILTERS,
    ),
    Endpoint(
        "POST",
        "/v1/embed",
        "embed",
        "Embed texts",
        answers.Embeddings,
        body=bodies.EmbedBody,
        topics=(Topic.ML_EMBED,),
    ),
    Endpoint(
        "POST",
        "/v1/sparse",
        "sparse",
        "Encode texts as sparse vectors",
        answers.SparseVectors,
        body=bodies.SparseBody,
        topics=(Topic.ML_SPARSE,),
    ),
    Endpoint(
        "POST",
        "/v1/rerank",
        "rerank",
        "Order texts by relevance to a query",
        answers.Ranking,
        body=bodies.RerankBody,
        topics=(Topic.ML_RERANK,),
    ),
    Endpoint("POST", "/v1/snapshots", "make_snapshot", "Make a snapshot of every collection", Snapshot),
    Endpoint(
        "POST",
        "/v1/snapshots/{name}/restore",
        "restore_snapshot",
        "Take in what a snapshot holds",
        answers.Collections,
        body=bodies.RestoreBody,
        body_required=False,
    ),
    Endpoint("GET", "/v1/status", "status", "The server at a glance", answers.ServerStatus),
    Endpoint("GET", "/v1/alerts", "alerts", "Alerts, those active now first", answers.Alerts),
)


class Routes:
    """The ASGI application behind the gate: it routes, and speaks our errors instead of Starlette's.

    Args:
        operations: What the routes do.
        metrics: Where answers are counted.
        openapi: The document served at ``/openapi.json``.
    """

    def __init__(self, operations: Operations, metrics: Metrics, openapi: bytes) -> None:
        routes = [_route(endpoint, operations, metrics) for endpoint in API]
        routes += _plain_routes(operations, metrics, openapi)
        self._routes = routes
        self._router = Router(routes, default=_not_found, redirect_slashes=False)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request.

        Raises:
            Invalid: No such path (``not_found``) or method (``method_not_allowed``).
            ConnectionAbortedError: The caller hung up while its body was read.
        """
        scope["app"] = self
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
        """Return the methods that the path takes."""
        there = [route for route in self._routes if route.matches(scope)[0] is not Match.NONE]
        return {"OPTIONS"}.union(*(route.methods or () for route in there))


_WITH_TOPICS: Final = tuple(endpoint for endpoint in API if endpoint.topics)
#: One group for each of them.
_LEADS: Final = re.compile(
    "|".join("({} {})".format(e.method, re.sub(r"{\w+}", "[^/]+", e.path)) for e in _WITH_TOPICS)
)


def pressure(
    refuses: Callable[[Topic, Work, Level], Refusal | None],
) -> Callable[[str, str, Head], Refusal | None]:
    """Return what the gate asks of the topics that a method and a path lead to (D2).

    A request that says of itself that it can wait (``X-Criticality: bulk``) is refused from 80 % on: the rest of
    the buffer is for those that cannot, however many the others are (D1: producers that can slow down do).

    Args:
        refuses: Why a topic takes no more of such work, given the fill from which it takes none
            (:meth:`penstock.bus.contract.Bus.refuses`).
    """

    def pressed(method: str, path: str, head: Head) -> Refusal | None:
        found = _LEADS.fullmatch(f"{method} {path}")
        if found is None or found.lastindex is None:
            return None
        endpoint = _WITH_TOPICS[found.lastindex - 1]
        asked = head.criticality if head.criticality is not None else endpoint.criticality
        work = Work(head.deadline, max(asked, endpoint.criticality), head.client)
        level = Level.HIGH if work.criticality > max(endpoint.criticality, Criticality.STANDARD) else Level.CRITICAL
        for topic in endpoint.topics:
            refusal = refuses(topic, work, level)
            if refusal is not None:
                return refusal
        return None

    return pressed


def _route(endpoint: Endpoint, operations: Operations, metrics: Metrics) -> Route:
    operation: Callable[[Request], Awaitable[Any]] = getattr(operations, endpoint.operation)
    latency = metrics.latency_s.labels(endpoint.path)

    def count(status: int) -> None:
        metrics.requests.labels(endpoint.path, endpoint.method, str(status)).inc()

    async def answer(request: Request) -> Response:
        try:
            # Whole before the work begins, for every route: only then can the gate see a caller hang up.
            await request.body()
            request.scope["penstock.criticality"] = endpoint.criticality
            with latency.time():
                record = await operation(request)
        except PenstockError as error:
            count(status_of(error))
            raise
        _count(metrics, record)
        status = 207 if isinstance(record, answers.IndexAnswer) and record.failed else 200
        count(status)
        return Response(answers.to_json(record), status, media_type=JSON)

    return Route(endpoint.path, answer, methods=[endpoint.method], name=endpoint.operation)


def _count(metrics: Metrics, record: object) -> None:
    """Count what an answer tells."""
    if isinstance(record, SearchResult):
        metrics.searches.labels(str(bool(record.degraded)).lower()).inc()
        for what in record.degraded or ("none",):
            metrics.degraded.labels(what).inc()
        for stage, took_ms in record.stages.items():
            metrics.stage_s.labels(stage).observe(took_ms / 1000)
    elif isinstance(record, answers.IndexAnswer):
        metrics.chunks.inc(record.chunks)
        for status, count in (
            (Status.INDEXED, record.indexed),
            (Status.UNCHANGED, record.unchanged),
            (Status.FAILED, record.failed),
        ):
            metrics.documents.labels(status.value).inc(count)


def _plain_routes(operations: Operations, metrics: Metrics, openapi: bytes) -> list[Route]:
    async def live(_: Request) -> Response:
        return Response(answers.to_json(answers.Liveness()), media_type=JSON)

    async def ready(_: Request) -> Response:
        readiness = operations.readiness()
        status = 200 if readiness.ready else 503
        return Response(answers.to_json(readiness), status, media_type=JSON)

    async def exposition(_: Request) -> Response:
        return Response(metrics.exposition(), headers={"content-type": CONTENT_TYPE})

    async def describe(_: Request) -> Response:
        return Response(openapi, media_type=JSON)

    async def docs(_: Request) -> Response:
        return Response(PAGE.html, headers=PAGE.headers)

    async def home(_: Request) -> Response:
        return RedirectResponse("/docs", 307)

    plain = {
        "/livez": live,
        "/readyz": ready,
        "/healthz": ready,
        "/metrics": exposition,
        "/openapi.json": describe,
        "/docs": docs,
        "/": home,
    }
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in plain.items()]


async def _not_found(scope: Any, _receive: Any, _send: Any) -> None:
    raise Invalid(f"there is nothing at {scope['path']}; see /docs", field="path", code="not_found")
