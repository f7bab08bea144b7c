"""A gate behind a real socket, in front of toy applications."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvloop

from penstock.cli.http_server import HttpServer, bind_socket, create_server
from penstock.http.gate import Gate, GateInputs
from penstock.kernel.settings import HttpSettings
from penstock.telemetry.metrics import Metrics

LIMIT_S = 0.3
JSON = b"content-type: application/json\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: localhost\r\n" + JSON + b"content-length: %d\r\n\r\n"
GET = b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n"


def real(test: Callable[..., Any]) -> Callable[..., None]:
    """Run a test on the loop that the server runs on."""

    @functools.wraps(test)
    def ordinary(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return ordinary


@dataclass
class Serving:
    gate: Gate
    server: HttpServer
    port: int

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, request: bytes = GET) -> bytes:
        """Return the whole answer; the connection is closed."""
        reader, writer = await self.connect()
        writer.write(request.replace(b"host: localhost", b"host: localhost\r\nconnection: close"))
        answer = await reader.read()
        writer.close()
        return answer

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():  # noqa: ASYNC110 - the server tells nobody when it loses a connection
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serving(app: Any, senses: GateInputs | None = None, **limits: Any) -> Any:
    settings = HttpSettings(**{"rate_limit": 0, **limits})
    gate = Gate(app, settings, Metrics(), senses)
    bound = bind_socket("127.0.0.1", 0)
    # As small as the system allows, and inherited: what a client does not read stays in the process.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    server = create_server(gate, settings, early_refusals=gate.early_refusals)
    server.config.timeout_keep_alive = LIMIT_S
    running = asyncio.create_task(server.serve(sockets=[bound]))
    await server.listening.wait()
    try:
        yield Serving(gate, server, bound.getsockname()[1])
    finally:
        server.force_exit = server.should_exit = True
        await running


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


async def endless(_scope: Any, receive: Any, _send: Any) -> None:
    await receive()
    await asyncio.Event().wait()
