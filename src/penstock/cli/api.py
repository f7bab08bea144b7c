"""The HTTP API as typed calls; refusals are repeated politely, problems become errors."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from penstock.cli.patience import Patience
from penstock.cli.problems import error_from, retry_after_s
from penstock.cli.records import Answer, Collection, Indexed, Page
from penstock.kernel.errors import UNREADABLE, Broken, Expired, Invalid, Unavailable

PAGE_DOCUMENTS: Final = 1000
SHORT: Final = Patience(attempts_max=4)
LONG: Final = Patience(attempts_max=12)
READ_S: Final = 60.0
#: A single file of a megabyte is more than a thousand chunks, some twenty seconds of two cores.
INDEX_READ_S: Final = 600.0
#: Gigabytes take a while to be copied and packed.
SNAPSHOT_READ_S: Final = 3600.0
_JSON: Final = {"content-type": "application/json"}

T = TypeVar("T")


class Api:
    """Calls to one server, over the network or inside this process.

    Bounds:
        Each call is attempted at most ``Patience.attempts_max`` times.
    """

    def __init__(
        self, client: httpx.AsyncClient, where: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.where = where
        self._client = client
        self._sleep = sleep

    async def create_collection(self, name: str) -> None:
        """Create the collection; nothing happens where it exists."""
        await self._call("PUT", _collection(name), content=b"{}")

    async def collections(self) -> list[Collection]:
        """Return every collection."""
        body = await self._call("GET", "/v1/collections")
        return _decode(body, dict[str, list[Collection]]).get("collections", [])

    async def documents(self, collection: str) -> AsyncIterator[Page]:
        """Yield the pages of the collection's listing."""
        after: str | None = None
        while True:
            query = {"limit": str(PAGE_DOCUMENTS), **({"after": after} if after is not None else {})}
            body = await self._call("GET", f"{_collection(collection)}/documents", params=query)
            page = _decode(body, Page)
            yield page
            if page.next is None or page.next == after:
                return
            after = page.next

    async def add(self, collection: str, batch: bytes) -> Indexed:
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
        return _decode(await self._call("POST", path, LONG, content=batch, timeout=INDEX_READ_S), Indexed)

    async def remove(self, collection: str, ids: Sequence[str]) -> int:
        """Delete documents by id and return how many there were."""
        body = await self._call(
            "DELETE", f"{_collection(collection)}/documents", LONG, content=msgspec.json.encode({"ids": ids})
        )
        deleted = _decode(body, dict[str, Any]).get("deleted")
        return deleted if isinstance(deleted, int) else len(ids)

    async def search(self, collection: str, request: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
        """Search, and return the answer both typed and as it came."""
        content = msgspec.json.encode(request)
        body = await self._call("POST", f"{_collection(collection)}/search", content=content)
        return _decode(body, Answer), _decode(body, dict[str, Any])

    async def status(self, patience: Patience = SHORT) -> dict[str, Any]:
        """Return ``/v1/status`` as it came."""
        return _decode(await self._call("GET", "/v1/status", patience), dict[str, Any])

    async def snapshot(self) -> dict[str, Any]:
        """Make a snapshot in the data directory and return what is told of it."""
        return _decode(await self._call("POST", "/v1/snapshots", timeout=SNAPSHOT_READ_S), dict[str, Any])

    async def snapshots(self) -> list[dict[str, Any]]:
        """Return what is told of each snapshot in the data directory."""
        body = await self._call("GET", "/v1/snapshots")
        return _decode(body, dict[str, list[dict[str, Any]]]).get("snapshots", [])

    async def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot in the data directory."""
        await self._call("DELETE", f"/v1/snapshots/{quote(name, safe='')}")

    async def restore(self, name: str, *, force: bool) -> list[Collection]:
        """Take in a snapshot that lies in the data directory; return its collections."""
        path = f"/v1/snapshots/{quote(name, safe='')}/restore"
        content = msgspec.json.encode({"force": force})
        body = await self._call("POST", path, content=content, timeout=SNAPSHOT_READ_S)
        return _decode(body, dict[str, list[Collection]]).get("collections", [])

    async def _call(
        self,
        method: str,
        path: str,
        patience: Patience = SHORT,
        content: bytes | None = None,
        params: dict[str, str] | None = None,
        timeout: float = READ_S,  # noqa: ASYNC109 - httpx's own limit on one read, not one on this call
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
            raise Expired("request", f"no answer from {self.where} in time") from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"lost {self.where}: {reason}", dependency="server", code="server_lost") from error


def _collection(name: str) -> str:
    # Quoted or not, these become other paths on the way: a search of `..` would ask the default collection.
    if "/" in name or name in (".", ".."):
        detail = f"{name!r} cannot be a collection's name, which has no '/' and begins with a letter or a digit"
        raise Invalid(detail, field="collection", code="invalid_name")
    return f"/v1/collections/{quote(name, safe='')}"


def _decode(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except UNREADABLE as error:
        raise Broken(f"the server's answer cannot be read: {error}") from error
