"""The route ``/mcp``: reads one message, imports the SDK when the first one comes, and lets it answer."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.requests import Request

from penstock.core.core import Core
from penstock.http.decoding import JSON, check_media_type, exceeds_values
from penstock.http.exchange import body_too_large_error
from penstock.http.operations import Operations
from penstock.http.problem import status_of
from penstock.http.request_context import read_context_headers, request_state
from penstock.kernel.access import Scope
from penstock.kernel.context import Criticality
from penstock.kernel.errors import DECODE_ERRORS, Invalid, PenstockError

if TYPE_CHECKING:
    from penstock.http.mcp.sdk_server import McpServer

PATH: Final = "/mcp"

#: Bytes of a message at most. The longest arguments are a query of 16 384 characters.
MESSAGE_BYTES_MAX: Final = 131_072
#: Values of a message at most. The SDK reads JSON on the event loop, and an empty list takes it 2 µs.
MESSAGE_VALUES_MAX: Final = 4_096

#: Tools whose calls may be answered by a stream of events, for their progress.
STREAMED: Final = frozenset({"index_source"})

Message = MutableMapping[str, Any]


class _Meta(msgspec.Struct, frozen=True):
    progress: msgspec.Raw = msgspec.field(name="progressToken", default=msgspec.Raw())


class _Params(msgspec.Struct, frozen=True):
    name: str = ""
    meta: _Meta = msgspec.field(name="_meta", default=_Meta())


class _ToolMessage(msgspec.Struct, frozen=True):
    """The members of a message that decide about the form of its answer."""

    method: str = ""
    params: _Params = _Params()


class McpEndpoint:
    """ASGI application of ``/mcp``.

    Args:
        core: The core that does the work.
        operations: Operations of the API.
    """

    def __init__(self, core: Core, operations: Operations) -> None:
        self._core, self._operations = core, operations
        self._importing: asyncio.Task[McpServer] | None = None
        self._requests, self._latency = core.metrics.requests, core.metrics.latency_s.labels(PATH)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one message.

        Raises:
            AccessDenied: The key lacks a scope.
            Invalid: The body is not JSON or too large, a header is malformed, or the SDK is not installed
                (``mcp_not_installed``).
        """
        request = Request(scope, receive)
        body: bytes | None
        try:
            # Every tool reads; those that write ask for more.
            request_state(scope).principal.require(Scope.SEARCH)
            check_media_type(request.headers, (JSON,))
            read_context_headers(request, Criticality.INTERACTIVE)
            # Whole before the work begins: only then can the gate see a caller hang up.
            body = await _read_message(request)
            if await exceeds_values(body, MESSAGE_VALUES_MAX):
                raise Invalid(f"a message has {MESSAGE_VALUES_MAX} values at most", field="body")
            server = await self._server()
        except PenstockError as error:
            self._requests.labels(PATH, "POST", str(status_of(error))).inc()
            raise

        async def replay() -> Message:
            nonlocal body
            if body is None:
                disconnect: Message = await receive()
                return disconnect
            whole, body = body, None
            return {"type": "http.request", "body": whole, "more_body": False}

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._requests.labels(PATH, "POST", str(message["status"])).inc()
            await send(message)

        streams = _wants_progress(body)
        # Each event then has the time of a response to be read.
        request_state(scope).streams = streams
        with self._latency.time():
            await server.handle(scope, replay, counted, stream=streams)

    async def _server(self) -> McpServer:
        """Return the SDK's server, imported in a thread by the first request; the others wait with it.

        Cancellation: The import goes on.
        """
        if self._importing is None:
            if importlib.util.find_spec("mcp") is None:
                detail = (
                    "this server cannot speak MCP yet; install it with: pip install 'penstock[mcp]', and start again"
                )
                raise Invalid(detail, code="mcp_not_installed")
            self._importing = asyncio.create_task(self._import(), name="import mcp")
        try:
            return await asyncio.shield(self._importing)
        except ImportError as error:
            self._importing = None
            detail = f"the MCP library cannot be imported ({error}); install it with: pip install 'penstock[mcp]'"
            raise Invalid(detail, code="mcp_not_installed") from None

    async def _import(self) -> McpServer:
        made: Callable[[Core, Operations], McpServer] = await asyncio.to_thread(_import_server)
        return made(self._core, self._operations)


def _import_server() -> type[McpServer]:
    from penstock.http.mcp.sdk_server import McpServer  # noqa: PLC0415 - half a second, and 35 MB

    return McpServer


async def _read_message(request: Request) -> bytes:
    """Return the whole body.

    Raises:
        Invalid: It is larger than ``MESSAGE_BYTES_MAX`` (``body_too_large``).
        ConnectionAbortedError: The caller hung up.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and (len(announced) > 18 or int(announced) > MESSAGE_BYTES_MAX):
        raise body_too_large_error(MESSAGE_BYTES_MAX)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MESSAGE_BYTES_MAX:
            raise body_too_large_error(MESSAGE_BYTES_MAX)
    return bytes(body)


def _wants_progress(body: bytes | None) -> bool:
    """Return whether a message calls a tool that reports progress, and asks for it."""
    try:
        message = msgspec.json.decode(body or b"", type=_ToolMessage)
    except DECODE_ERRORS:
        return False
    asked = message.method == "tools/call" and message.params.name in STREAMED
    return asked and bool(bytes(message.params.meta.progress))
