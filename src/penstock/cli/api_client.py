"""Typed client of the HTTP API: retries refused requests, and raises problems as errors."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from penstock.cli.api_errors import error_from, retry_after_s
from penstock.cli.api_types import ApiCollection, ApiDocumentPage, ApiIndexResponse, ApiSearchResponse
from penstock.kernel.errors import DECODE_ERRORS, Broken, Expired, Invalid, Unavailable

FIRST_DELAY_S: Final = 0.5
DELAY_S_MAX: Final = 15.0


@dataclass(frozen=True, slots=True)
class RequestRetryPolicy:
    """Retry policy of one request.

    Attributes:
        attempts_max: Attempts in all, the first one included.
    """

    attempts_max: int

    def delay_s(self, attempt: int, retry_after_s: float | None, jitter: float) -> float | None:
        """Return how long to wait before the next attempt, ``None`` to give up.

        The delay is the server's ``Retry-After`` or an exponential one, whichever is longer, plus up to half of it:
        clients that were refused together should not come back together.

        Args:
            attempt: Attempts made so far, from 1.
            retry_after_s: The ``Retry-After`` of the refusal, if it had one.
            jitter: Uniform in [0, 1).
        """
        if attempt >= self.attempts_max:
            return None
        delay_s = max(retry_after_s or 0.0, FIRST_DELAY_S * 2.0 ** min(attempt - 1, 10))
        return min(delay_s, DELAY_S_MAX) * (1 + jitter / 2)


PAGE_DOCUMENTS: Final = 1000
SHORT_RETRY: Final = RequestRetryPolicy(attempts_max=4)
LONG_RETRY: Final = RequestRetryPolicy(attempts_max=12)
READ_TIMEOUT_S: Final = 60.0
#: A single file of a megabyte is more than a thousand chunks, some twenty seconds of two cores.
INDEX_READ_TIMEOUT_S: Final = 600.0
#: Gigabytes take a while to be copied and packed.
SNAPSHOT_READ_TIMEOUT_S: Final = 3600.0
_JSON: Final = {"content-type": "application/json"}

T = TypeVar("T")


class ApiClient:
    """Calls to one server, over the network or inside this process.

    Bounds:
        Each call is attempted at most ``RequestRetryPolicy.attempts_max`` times.
    """

    def __init__(
        self, client: httpx.AsyncClient, server_label: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.server_label = server_label
        self._client = client
        self._sleep = sleep

    async def create_collection(self, name: str) -> None:
        """Create the collection; nothing happens where it exists."""
        await self._call("PUT", _collection(name), content=b"{}")

    async def collections(self) -> list[ApiCollection]:
        """Return every collection."""
        body = await self._call("GET", "/v1/collections")
        return _decode(body, dict[str, list[ApiCollection]]).get("collections", [])

    async def documents(self, collection: str) -> AsyncIterator[ApiDocumentPage]:
        """Yield the pages of the collection's listing."""
        after: str | None = None
        while True:
            query = {"limit": str(PAGE_DOCUMENTS), **({"after": after} if after is not None else {})}
            body = await self._call("GET", f"{_collection(collection)}/documents", params=query)
            page = _decode(body, ApiDocumentPage)
            yield page
            if page.next is None or page.next == after:
                return
            after = page.next

    async def index_batch(self, collection: str, batch: bytes) -> ApiIndexResponse:
        """Index a batch.

        Args:
            collection: Its name.
            batch: ``{"documents": [...]}`` as JSON.

        Returns:
            The outcome of each document.

        Cancellation:
            Documents that the server has finished stay; the others are written again the next time.
        """
        path = f"{_collection(collection)}/documents"
        return _decode(
            await self._call("POST", path, LONG_RETRY, content=batch, timeout=INDEX_READ_TIMEOUT_S), ApiIndexResponse
        )

    async def delete_documents(self, collection: str, ids: Sequence[str]) -> int:
        """Delete documents by id and return how many there were."""
        body = await self._call(
            "DELETE", f"{_collection(collection)}/documents", LONG_RETRY, content=msgspec.json.encode({"ids": ids})
        )
        deleted = _decode(body, dict[str, Any]).get("deleted")
        return deleted if isinstance(deleted, int) else len(ids)

    async def search(self, collection: str, request: dict[str, Any]) -> tuple[ApiSearchResponse, dict[str, Any]]:
        """Search, and return the answer both typed and as it came."""
        content = msgspec.json.encode(request)
        body = await self._call("POST", f"{_collection(collection)}/search", content=content)
        return _decode(body, ApiSearchResponse), _decode(body, dict[str, Any])

    async def status(self, retry_policy: RequestRetryPolicy = SHORT_RETRY) -> dict[str, Any]:
        """Return ``/v1/status`` as it came."""
        return _decode(await self._call("GET", "/v1/status", retry_policy), dict[str, Any])

    async def snapshot(self) -> dict[str, Any]:
        """Make a snapshot in the data directory, and return its description."""
        return _decode(await self._call("POST", "/v1/snapshots", timeout=SNAPSHOT_READ_TIMEOUT_S), dict[str, Any])

    async def snapshots(self) -> list[dict[str, Any]]:
        """Return the description of each snapshot in the data directory."""
        body = await self._call("GET", "/v1/snapshots")
        return _decode(body, dict[str, list[dict[str, Any]]]).get("snapshots", [])

    async def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot in the data directory."""
        await self._call("DELETE", f"/v1/snapshots/{quote(name, safe='')}")

    async def restore(self, name: str, *, force: bool) -> list[ApiCollection]:
        """Restore a snapshot in the data directory, and return its collections."""
        path = f"/v1/snapshots/{quote(name, safe='')}/restore"
        content = msgspec.json.encode({"force": force})
        body = await self._call("POST", path, content=content, timeout=SNAPSHOT_READ_TIMEOUT_S)
        return _decode(body, dict[str, list[ApiCollection]]).get("collections", [])

    async def _call(
        self,
        method: str,
        path: str,
        patience: RequestRetryPolicy = SHORT_RETRY,
        content: bytes | None = None,
        params: dict[str, str] | None = None,
        timeout: float = READ_TIMEOUT_S,  # noqa: ASYNC109 - httpx's own limit on one read, not one on this call
    ) -> bytes:
        request = self._client.build_request(
            method,
            path,
            content=content,
            params=params,
            headers=_JSON if content is not None else None,
            timeout=httpx.Timeout(timeout, connect=5.0),
        )
        attempt = 0
        while True:
            attempt += 1
            answer = await self._send(request)
            if answer.status_code < 400:
                return answer.content
            if answer.status_code in {429, 503}:
                delay_s = patience.delay_s(attempt, retry_after_s(answer.headers), random.random())  # noqa: S311
                if delay_s is not None:
                    await self._sleep(delay_s)
                    continue
            raise error_from(answer.status_code, answer.headers, answer.content)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._client.send(request)
        except httpx.TimeoutException as error:
            raise Expired("request", f"no answer from {self.server_label} in time") from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"lost {self.server_label}: {reason}", dependency="server", code="server_lost") from error


def _collection(name: str) -> str:
    # Quoted or not, these become other paths on the way: a search of `..` would ask the default collection.
    if "/" in name or name in (".", ".."):
        detail = f"{name!r} cannot be a collection's name, which has no '/' and begins with a letter or a digit"
        raise Invalid(detail, field="collection", code="invalid_name")
    return f"/v1/collections/{quote(name, safe='')}"


def _decode(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except DECODE_ERRORS as error:
        raise Broken(f"the server's answer cannot be read: {error}") from error
