"""The connections to a Qdrant server: a request goes out as JSON, its result comes back, or one of our errors.

Requests and answers are plain values, not the client's models: measured here, the models cost the event loop 7 ms for a
segment of 32 chunks against 5 ms, and 1.9 ms for a question to both arms against 1.1 ms.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import ceil, isinf
from typing import Any, Final

import httpx
import msgspec
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.deadline import limit
from penstock.kernel.errors import Expired, PenstockError
from penstock.kernel.settings import QdrantSettings
from penstock.stores.backends.layout import check_name
from penstock.stores.backends.qdrant.errors import busy, refusal, trouble
from penstock.stores.backends.qdrant.look import address, certificates

#: A connection that is not there after so long is not coming, whatever the deadline.
CONNECT_S: Final = 3.0

_JSON: Final = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        method: HTTP's.
        path: The path below the server's address; ``{collection}`` stands for the collection.
        collection: Which one; empty for none.
        body: What msgspec encodes, or ``None``.
        params: Further parameters.
        timed: Whether the operation takes a time limit, so that the server stops when nobody waits any more.
    """

    method: str
    path: str
    collection: str = ""
    body: Any = None
    params: Mapping[str, str] | None = None
    timed: bool = True


class Connection:
    """A Qdrant server and the connections to it.

    Args:
        settings: Where it is.
        clock: The loop's clock.
        transport: Carries the requests; the network by default.

    Attributes:
        url: Where it is, for people.
        prefix: What stands in front of the names of our collections there.

    Bounds: ``pool_size`` connections, kept for the next requests; a request beyond waits for one until its deadline.

    Raises:
        Invalid: The address, the key or the certificates cannot be used.
    """

    def __init__(
        self, settings: QdrantSettings, clock: Clock, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = address(settings)
        if settings.prefix:
            check_name(settings.prefix)
        self._clock = clock
        self.prefix = settings.prefix
        most = settings.pool_size
        self._client = AsyncQdrantClient(
            url=self.url,
            # The client would warn of a key without TLS on every start, and check versions in a thread of its own.
            metadata={"api-key": settings.api_key} if settings.api_key else {},
            check_compatibility=False,
            # Not ``pool_size``, which the client leaves aside for an address of this machine.
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
            transport=transport,
            verify=certificates(settings, self.url),
            trust_env=False,
        )
        self._http = self._client.http.client
        self._http.add_middleware(_unhurried)

    def __repr__(self) -> str:
        return f"<Connection {self.url}>"

    @property
    def connections(self) -> int:
        """How many connections are open; 0 where something else than the network carries the requests."""
        # The client of the client has no name for them in public.
        pool = getattr(self._http._async_client._transport, "_pool", None)  # noqa: SLF001
        return sum(not one.is_closed() for one in pool.connections) if pool is not None else 0

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def ask(self, call: Call, ctx: Context) -> Any:
        """Send a request and return its result.

        Args:
            call: The request.
            ctx: Whose it is. What is left of its time is the call's limit, and the server's, in whole seconds.

        Raises:
            Expired: At the work's deadline.
            PenstockError: See :mod:`penstock.stores.backends.qdrant.errors`.

        Cancellation: The connection is closed; a write may still be done.
        """
        left_s = ctx.deadline.remaining_s(self._clock.now())
        if left_s <= 0.0:
            raise Expired(ctx.deadline.operation)
        params = dict(call.params or {})
        if call.timed and not isinf(left_s):
            params["timeout"] = str(ceil(left_s))
        async with limit(ctx.deadline):
            try:
                answer = await self._http.request(
                    type_=Any,
                    method=call.method,
                    url=call.path,
                    path_params={"collection": self.prefix + call.collection} if call.collection else {},
                    params=params,
                    headers=_JSON,
                    content=None if call.body is None else msgspec.json.encode(call.body),
                )
            except Exception as error:
                raise _translated(error, call.collection) from error
        return answer["result"] if isinstance(answer, dict) and "result" in answer else answer


async def _unhurried(
    request: httpx.Request, send: Callable[[httpx.Request], Awaitable[httpx.Response]]
) -> httpx.Response:
    """Leave the limit of a whole request to the work's deadline: the client knows whole seconds only."""
    request.extensions["timeout"] = {"connect": CONNECT_S, "read": None, "write": None, "pool": None}
    return await send(request)


def _translated(error: Exception, collection: str) -> PenstockError:
    """Return one of our errors for what the client raised.

    Args:
        error: What it raised.
        collection: The collection that was asked for; empty for none.
    """
    if isinstance(error, UnexpectedResponse):
        return refusal(error.status_code or 0, error.content, error.headers, collection)
    if isinstance(error, ResourceExhaustedResponse):
        return busy(str(error), float(error.retry_after_s))
    if isinstance(error, QdrantException):
        # Its other cause is a ``Retry-After`` that is no number.
        return busy("it asks to come back later", None)
    if isinstance(error, ResponseHandlingException):
        return trouble(error.source)
    return trouble(error)
