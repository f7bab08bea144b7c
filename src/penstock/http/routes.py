"""The router over the endpoints, and the few pages beside them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route, Router

from penstock.http import answers, encoding
from penstock.http.endpoints import API, Endpoint
from penstock.http.labels import check_headers
from penstock.http.media import JSON, NDJSON, check_media
from penstock.http.operations import Operations
from penstock.http.page import PAGE
from penstock.http.problem import MethodNotAllowed, status_of
from penstock.http.queries import decode_query
from penstock.http.recent import Recent
from penstock.indexing.records import Status
from penstock.kernel.errors import Invalid, PenstockError
from penstock.search.records import SearchResult
from penstock.telemetry.metrics import CONTENT_TYPE, Metrics

log = logging.getLogger(__name__)

#: What some path takes.
_ALLOW: Final = ", ".join(sorted({"GET", "HEAD", "OPTIONS", *(endpoint.method for endpoint in API)}))

#: What tells how a process is, whatever it does.
TELLING: Final = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})


class Routes:
    """The ASGI application behind the gate: it routes, and speaks our errors instead of Starlette's.

    Args:
        operations: What the routes do.
        metrics: Where answers are counted.
        openapi: The document served at ``/openapi.json``.
        works: Whether there is anything to be asked for; else only how the process is (:data:`TELLING`).
    """

    def __init__(self, operations: Operations, metrics: Metrics, openapi: bytes, *, works: bool = True) -> None:
        routes = [_route(endpoint, operations, metrics) for endpoint in API]
        routes += _plain_routes(operations, metrics, openapi)
        if not works:
            routes = [route for route in routes if route.path in TELLING]
        self._routes = routes
        self._router = Router(routes, default=_not_found if works else _nothing_to_ask, redirect_slashes=False)

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
        """Return the methods that the path takes."""
        there = [route for route in self._routes if route.matches(scope)[0] is not Match.NONE]
        return {"OPTIONS"}.union(*(route.methods or () for route in there))


def _route(endpoint: Endpoint, operations: Operations, metrics: Metrics) -> Route:
    operation: Callable[[Request], Awaitable[Any]] = getattr(operations, endpoint.operation)
    latency = metrics.latency_s.labels(endpoint.path)
    # Also where there is no use for a body: a page may not send that either. No page can send one with GET.
    taken = () if endpoint.method == "GET" else (JSON, NDJSON) if endpoint.ndjson else (JSON,)

    def count(status: int) -> None:
        metrics.requests.labels(endpoint.path, endpoint.method, str(status)).inc()

    async def answer(request: Request) -> Response:
        try:
            if taken:
                check_media(request.headers, taken)
            # Whole before the work begins, for every route: only then can the gate see a caller hang up.
            await request.body()
            request.scope["penstock.criticality"] = endpoint.criticality
            check_headers(request)
            request.scope["penstock.query"] = decode_query(request.scope["query_string"], endpoint.query)
            with latency.time():
                record = await operation(request)
        except PenstockError as error:
            count(status_of(error))
            raise
        _count(metrics, record)
        status = 207 if isinstance(record, answers.IndexAnswer) and record.failed else 200
        count(status)
        return Response(await encoding.in_slices(record), status, media_type=JSON)

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
        return Response(encoding.to_json(answers.Liveness()), media_type=JSON)

    async def ready(_: Request) -> Response:
        readiness = await operations.readiness()
        status = 200 if readiness.ready else 503
        return Response(encoding.to_json(readiness), status, media_type=JSON)

    async def expose() -> bytes:
        return metrics.exposition()

    scrape = Recent(expose)

    async def exposition(_: Request) -> Response:
        return Response(await scrape.get(), headers={"content-type": CONTENT_TYPE})

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


async def _nothing_to_ask(scope: Any, _receive: Any, _send: Any) -> None:
    detail = f"there is nothing at {scope['path']}: a worker only tells how it is, at {', '.join(sorted(TELLING))}"
    raise Invalid(detail, field="path", code="not_found")
