"""The connections to a Qdrant server: a request goes out as JSON, its result comes back, or one of our errors.

Requests and answers are plain values, not the client's models: measured here, the models cost the event loop 7 ms for a
segment of 32 chunks against 5 ms, and 1.9 ms for a question to both arms against 1.1 ms.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import ceil, isinf
from typing import Any, Final

import httpx
import msgspec
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from penstock.kernel.context import Clock, Context, enforce_deadline
from penstock.kernel.errors import Expired, PenstockError, Rejected, Unavailable
from penstock.kernel.settings import QdrantSettings
from penstock.stores.backends.layout import check_name
from penstock.stores.backends.qdrant.error_mapping import (
    STORE_DEPENDENCY,
    error_of_exception,
    error_of_status,
    rate_limit_error,
)
from penstock.stores.backends.qdrant.nodes import Node, NodeSet, is_node_fault
from penstock.stores.backends.qdrant.probe import ask, check_identity, read_version, server_urls, tls_verification

log = logging.getLogger(__name__)

#: A connection that is not there after so long is not coming, whatever the deadline.
CONNECT_TIMEOUT_S: Final = 3.0

#: A node that has not answered a request for so long is asked for its health, where there are others.
SUSPECT_S: Final = 0.5

#: A node that has not told its health within so long is left alone.
CHECK_TIMEOUT_S: Final = 0.5

#: Version from which on a server matches prefixes of keywords; a server that has not been asked counts as such a one.
PREFIX_VERSION: Final = (1, 19)

#: Not compressed: a Qdrant server sends compressed answers in small pieces, which wait for delayed acknowledgements:
#: 44 ms a call, as measured on 1.18.
HEADERS: Final = {"content-type": "application/json", "accept-encoding": "identity"}


@dataclass(frozen=True, slots=True)
class QdrantRequest:
    """Request to a Qdrant server.

    Attributes:
        method: HTTP's.
        path: The path below the server's address; ``{collection}`` stands for the collection.
        collection: Which one; empty for none.
        body: What msgspec encodes, or ``None``.
        params: Further parameters.
        accepts_timeout: Whether the operation takes a time limit, so that the server stops in time with the client.
        repeatable: Whether another node may be sent it after one may have done it. So it is with what is read, and with
            points that are written whole. A deletion by a filter would also delete what was written in between.
    """

    method: str
    path: str
    collection: str = ""
    body: Any = None
    params: Mapping[str, str] | None = None
    accepts_timeout: bool = True
    repeatable: bool = True


class QdrantConnection:
    """A Qdrant server, of one node or several, and the connections to it.

    A request goes to the nodes in turn. What is a node's own fault goes to another one within the deadline and a budget
    (:class:`penstock.stores.backends.qdrant.nodes.NodeSet`). A request without an answer for ``SUSPECT_S`` has the node
    asked for its health. Where that fails too, all that waits for the node goes elsewhere.

    Attributes:
        url: Where it is, for people.
        prefix: What stands in front of the names of our collections there.
        nodes: Its nodes.
        on_return: Called when a node is there again after all had been lost.

    Bounds: ``pool_size`` connections, kept for the next requests; a request beyond waits for one until its deadline.
        Two for the health of each node.

    Raises:
        Invalid: The address, the key or the certificates cannot be used.
    """

    def __init__(
        self, settings: QdrantSettings, clock: Clock, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        urls = server_urls(settings)
        self.url = ", ".join(urls)
        if settings.prefix:
            check_name(settings.prefix)
        self._clock = clock
        self.prefix = settings.prefix
        most = settings.pool_size
        self.nodes = NodeSet(urls, PREFIX_VERSION, most, clock, random.random)
        self.on_return: Callable[[], None] = lambda: None
        self._scopes: dict[Node, set[asyncio.Timeout]] = {node: set() for node in self.nodes.nodes}
        self._checks: dict[Node, asyncio.Task[None]] = {}
        headers = {"api-key": settings.api_key} if settings.api_key else {}
        verify = tls_verification(settings, urls)
        # Connections of its own: health has to be told where all others are taken.
        self._health = httpx.AsyncClient(
            headers={**HEADERS, **headers},
            limits=httpx.Limits(max_connections=2 * len(urls), max_keepalive_connections=len(urls)),
            timeout=CHECK_TIMEOUT_S,
            transport=transport,
            verify=verify,
            trust_env=False,
        )
        self._client = AsyncQdrantClient(
            url=urls[0],
            # The client would warn of a key without TLS on every start, and check versions in a thread of its own.
            metadata=headers,
            check_compatibility=False,
            # Not ``pool_size``, which the client leaves aside for an address of this machine.
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
            transport=transport,
            verify=verify,
            trust_env=False,
        )
        self._http = self._client.http.client
        self._http.add_middleware(_without_client_timeout)

    def __repr__(self) -> str:
        return f"<QdrantConnection {self.url}>"

    @property
    def connections(self) -> int:
        """Number of open connections; 0 if another transport than the network carries the requests."""
        # The client of the client has no name for them in public.
        pool = getattr(self._http._async_client._transport, "_pool", None)  # noqa: SLF001
        return sum(not one.is_closed() for one in pool.connections) if pool is not None else 0

    @property
    def knows_prefixes(self) -> bool:
        """True where every node matches prefixes of keywords."""
        return all(node.version >= PREFIX_VERSION for node in self.nodes.nodes)

    async def close(self) -> None:
        """Close every connection."""
        for check in self._checks.values():
            check.cancel()
        await asyncio.gather(*self._checks.values(), return_exceptions=True)
        await self._health.aclose()
        await self._client.close()

    async def send(self, request: QdrantRequest, ctx: Context) -> Any:
        """Send a request and return its result.

        Args:
            request: The request.
            ctx: Request context. The time left is the call's limit, and the server's, in whole seconds.

        Raises:
            Expired: The deadline in ``ctx`` passed.
            PenstockError: See :mod:`penstock.stores.backends.qdrant.error_mapping`.

        Cancellation: The connection is closed; a write may still be done.
        """
        node, ticket = self.nodes.first(self._clock.now())
        tried = {node}
        while True:
            try:
                answer = await self._ask(node, request, ctx)
            except BaseException as error:
                self.nodes.report(node, ticket, error, self._clock.now())
                if not isinstance(error, PenstockError) or not is_node_fault(error):
                    raise
                following = None
                if request.repeatable or _is_unsent(error):
                    following = self.nodes.next(tried, self._clock.now())
                if following is None:
                    raise
                node, ticket = following
                tried.add(node)
            else:
                self.nodes.report(node, ticket, None, self._clock.now())
                return answer

    async def _ask(self, node: Node, request: QdrantRequest, ctx: Context) -> Any:
        """Send a request to a node and return its result."""
        left_s = ctx.deadline.remaining_s(self._clock.now())
        if left_s <= 0.0:
            raise Expired(ctx.deadline.operation)
        params = dict(request.params or {})
        if request.accepts_timeout and not isinf(left_s):
            params["timeout"] = str(ceil(left_s))
        loop, scope = asyncio.get_running_loop(), asyncio.timeout(None)
        suspicion = loop.call_later(SUSPECT_S, self.check, node) if len(self._scopes) > 1 else None
        self._scopes[node].add(scope)
        try:
            async with scope, enforce_deadline(ctx.deadline):
                answer = await self._exchange(node, request, params)
        except TimeoutError:
            raise _unanswered(node) from None
        finally:
            self._scopes[node].discard(scope)
            if suspicion is not None:
                suspicion.cancel()
        return answer["result"] if isinstance(answer, dict) and "result" in answer else answer

    async def _exchange(self, node: Node, request: QdrantRequest, params: Mapping[str, str]) -> Any:
        try:
            return await self._http.request(
                type_=Any,
                method=request.method,
                url=node.url + request.path,
                path_params={"collection": self.prefix + request.collection} if request.collection else {},
                params=params,
                headers=HEADERS,
                content=None if request.body is None else msgspec.json.encode(request.body),
            )
        except Exception as error:
            raise _translated(error, request.collection) from error

    def check(self, node: Node) -> None:
        """Begin to ask a node for its health, unless that is under way. Call it inside the running loop."""
        known = self._checks.get(node)
        if known is None or known.done():
            self._checks[node] = asyncio.get_running_loop().create_task(self._check(node), name="qdrant node")

    async def _check(self, node: Node) -> None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                told = await ask(self._health, f"{node.url}/")
                check_identity(told)
                is_ready = (await self._health.get(f"{node.url}/readyz")).status_code != 503
        except Rejected:
            return
        except httpx.TransportError:
            # It was there a moment ago; the next check tells.
            return
        except (PenstockError, TimeoutError) as error:
            detail = error.detail if isinstance(error, PenstockError) else _unanswered(node).detail
            if not node.is_lost:
                log.warning("the Qdrant server at %s is left alone: %s", node.url, detail)
            self.nodes.lose(node, detail, self._clock.now())
            for scope in self._scopes[node]:
                scope.reschedule(asyncio.get_running_loop().time())
            return
        if node.is_lost:
            log.info("the Qdrant server at %s is there again", node.url)
        if self.nodes.found(node, read_version(told), is_ready=is_ready):
            self.on_return()


def _unanswered(node: Node) -> Unavailable:
    return Unavailable(
        f"the Qdrant server at {node.url} does not answer any more",
        dependency=STORE_DEPENDENCY,
        code="store_unreachable",
    )


def _is_unsent(error: PenstockError) -> bool:
    """Return whether a request has not reached the node that failed."""
    source = getattr(error.__cause__, "source", None)
    return isinstance(source, httpx.ConnectError | httpx.ConnectTimeout)


async def _without_client_timeout(
    request: httpx.Request, send: Callable[[httpx.Request], Awaitable[httpx.Response]]
) -> httpx.Response:
    """Leave the limit of a whole request to its deadline: the client knows whole seconds only."""
    request.extensions["timeout"] = {"connect": CONNECT_TIMEOUT_S, "read": None, "write": None, "pool": None}
    return await send(request)


def _translated(error: Exception, collection: str) -> PenstockError:
    """Return one of our errors for what the client raised."""
    if isinstance(error, UnexpectedResponse):
        return error_of_status(error.status_code or 0, error.content, error.headers, collection)
    if isinstance(error, ResourceExhaustedResponse):
        return rate_limit_error(str(error), float(error.retry_after_s))
    if isinstance(error, QdrantException):
        # Its other cause is a ``Retry-After`` that is no number.
        return rate_limit_error("it asks to come back later", None)
    if isinstance(error, ResponseHandlingException):
        return error_of_exception(error.source)
    return error_of_exception(error)
