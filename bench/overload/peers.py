"""The peers: the same handler behind what people put in front of it. Plain ASGI, no framework's cost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec
import uvicorn

from bench.overload.records import Peer
from bench.overload.work import Order, Workshop
from bench.overload.workload import DEADLINE_S, Load

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Waits of 16 mean services over two permits are 190 ms of a deadline of 500 ms. A good choice needs the
#: service time, which is known here and seldom elsewhere.
TUNED: Final = 16
#: The customary one.
LONG: Final = 1_000
#: Uvicorn counts connections, idle ones included.
CONCURRENCY: Final = 32

PEERS: Final = {
    "bare": Peer("uvicorn and a semaphore, any number waits"),
    "limit-concurrency": Peer(f"the same, uvicorn --limit-concurrency {CONCURRENCY}", limit_concurrency=CONCURRENCY),
    "timeout": Peer("the same as bare, given up at the deadline", times_out=True),
    "fifo-1000": Peer(f"a queue of {LONG}, 503 when it is full", waiting_max=LONG),
    "fifo-16": Peer(f"a queue of {TUNED}, 503 when it is full: tuned to this work", waiting_max=TUNED),
}


class PeerApp:
    """A peer as an ASGI application.

    Args:
        peer: What it is.
        workshop: The handler.
        load: What the work is made of.
    """

    def __init__(self, peer: Peer, workshop: Workshop, load: Load) -> None:
        self._workshop = workshop
        self._deadline_s = DEADLINE_S if peer.times_out else None
        self._permits = asyncio.Semaphore(load.permits)
        self._inside = 0
        self._inside_max = None if peer.waiting_max is None else peer.waiting_max + load.permits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if self._inside_max is not None and self._inside >= self._inside_max:
            await respond(send, 503, b'{"code":"full"}')
            return
        self._inside += 1
        try:
            order = msgspec.json.decode(await whole(receive), type=Order)
            async with asyncio.timeout(self._deadline_s), self._permits:
                answer = await self._workshop.work(order)
            await respond(send, 200, msgspec.json.encode(answer))
        except TimeoutError:
            await respond(send, 503, b'{"code":"timeout"}')
        finally:
            self._inside -= 1


def peer_server(app: Asgi, peer: Peer) -> uvicorn.Server:
    """Return uvicorn as its users run it, without its log."""
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",
        access_log=False,
        limit_concurrency=peer.limit_concurrency,
        timeout_keep_alive=30,
    )
    return uvicorn.Server(config)


async def whole(receive: Receive) -> bytes:
    """Return a request's body."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def respond(send: Send, status: int, body: bytes) -> None:
    """Send a whole response."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
