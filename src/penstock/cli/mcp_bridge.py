"""Bridge between an agent's MCP client on standard input and output and a server's ``/mcp``.

A line is a message and becomes a request of its own, in a thread of its own. The bridge knows of the protocol only what
HTTP has in headers, so it serves every revision that the server does. It is one process for each agent, so it imports
little: neither asyncio nor the SDK.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ssl import SSLContext
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

import msgspec

from penstock.kernel.errors import DECODE_ERRORS, Invalid, PenstockError, Unavailable
from penstock.stores.lock import LockHolder

#: The variable with the API key. It is never an argument: everyone on a machine sees those.
KEY_VARIABLE: Final = "PENSTOCK_API_KEY"

#: Bytes of a line at most; the server takes an eighth of it.
LINE_BYTES_MAX: Final = 1_048_576
#: Bytes of an answer, or of an event of it, at most.
ANSWER_BYTES_MAX: Final = 16_777_216
#: Messages that are answered at once.
IN_FLIGHT_MAX: Final = 64
#: Seconds without a byte from the server after which it counts as gone. Its own deadlines are shorter.
SILENCE_S_MAX: Final = 120.0
CONNECT_S_MAX: Final = 5.0
#: Seconds that a message waits for a server that is starting, and between two tries.
START_WAIT_S: Final = 8.0
START_POLL_S: Final = 0.2
#: Seconds that answers have after the end of the input, as long as somebody reads them.
LAST_ANSWERS_S: Final = 60.0

_PROTOCOL_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
#: What names the subject of a request, for its header.
_NAME_MEMBERS: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_VISIBLE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

PARSE_ERROR: Final = -32_700
INVALID_REQUEST: Final = -32_600
SERVER_ERROR: Final = -32_000


class BridgeMessage(msgspec.Struct, frozen=True):
    """The members of a message that the bridge reads."""

    method: str | None = None
    id: int | str | float | msgspec.UnsetType | None = msgspec.UNSET
    params: Any = None

    def param(self, *names: str) -> Any:
        """Return a parameter by the names that lead to it, ``None`` where it is missing."""
        value = self.params
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value


@dataclass(slots=True)
class ServerAddress:
    """Address of a server's ``/mcp``, and the key for it.

    Attributes:
        find: Returns the server, asked for each message: after a restart its address may be another.
        key: API key; empty for the one that the server leaves for agents of its data directory's owner.
    """

    find: Callable[[], LockHolder]
    key: str = ""

    def connect(self) -> tuple[HTTPConnection, str, str]:
        """Return an open connection, the path of MCP there and the key for it; wait for a server that is starting.

        Raises:
            Unavailable: No server answers there (``server_down``).
            Invalid: The URL cannot be used.
        """
        until_s = time.monotonic() + START_WAIT_S
        while True:
            url = ""
            try:
                server = self.find()
                url = server.url
                return *_connected(server), self.key or server.agent_key
            except OSError as error:
                detail = f"no server answers at {url} ({error.strerror or error}); start it with `penstock serve`"
                raise Unavailable(detail, dependency="server", code="server_down") from None
            except Unavailable as error:
                if error.code != "server_starting" or time.monotonic() >= until_s:
                    raise
                time.sleep(START_POLL_S)


def _connected(server: LockHolder) -> tuple[HTTPConnection, str]:
    parts = urlsplit(server.url)
    host, path = parts.hostname or "", parts.path.rstrip("/")
    if parts.scheme == "https":
        context = _pinned_context(server.certificate) if server.certificate else None
        connection: HTTPConnection = HTTPSConnection(host, parts.port, timeout=CONNECT_S_MAX, context=context)
    else:
        connection = HTTPConnection(host, parts.port, timeout=CONNECT_S_MAX)
    connection.connect()
    connection.sock.settimeout(SILENCE_S_MAX)
    return connection, path if path.endswith("/mcp") else f"{path}/mcp"


def _pinned_context(certificate: str) -> SSLContext:
    # Imported here: the client's libraries take 10 MB, and few servers have a certificate that is not known.
    from penstock.client.pinning import pinned_context  # noqa: PLC0415

    return pinned_context(certificate)


def check_url(url: str) -> str:
    """Return a server's URL.

    Raises:
        Invalid: It is none, or has a password in it.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise Invalid(f"{url!r} is no URL of a server, such as http://127.0.0.1:8080", field="url")
    if parts.username is not None or parts.query:
        detail = "a URL is seen by everyone on this machine, so it has no key; set PENSTOCK_API_KEY"
        raise Invalid(detail, field="url")
    return url


def check_key(key: str) -> str:
    """Return an API key without white space around it.

    Raises:
        Invalid: No header can hold it.
    """
    key = key.strip()
    if key and not _VISIBLE.fullmatch(key):
        raise Invalid("PENSTOCK_API_KEY has characters that no key has", field="PENSTOCK_API_KEY")
    return key


@dataclass(slots=True)
class _Exchange:
    """A message that is being answered.

    Attributes:
        message: The message.
        line: Its bytes.
        connection: Connection to the server, once there is one.
        cancelled: Whether the client does not wait for the answer any more.
    """

    message: BridgeMessage
    line: bytes
    connection: HTTPConnection | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        """End the exchange, and with its connection the work on the server."""
        self.cancelled = True
        sock = self.connection.sock if self.connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@dataclass(slots=True)
class StdioBridge:
    """Bridge between lines of messages and a server.

    Attributes:
        server: The server.
        source: Lines of the client.
        sink: Lines to the client.

    Bounds: ``IN_FLIGHT_MAX`` messages, lines of ``LINE_BYTES_MAX``.
    """

    server: ServerAddress
    source: BinaryIO
    sink: BinaryIO
    _version: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: dict[int, tuple[_Exchange, threading.Thread]] = field(default_factory=dict)

    def run(self) -> None:
        """Answer messages until the input ends; then wait for the last answers while somebody reads them.

        Raises:
            BrokenPipeError: The client does not read the answers.
        """
        for line in self._lines():
            self._take(line)
        until_s = time.monotonic() + LAST_ANSWERS_S
        while self._in_flight() and time.monotonic() < until_s and not self._sink_closed():
            time.sleep(0.02)
        self.cancel_all()

    def cancel_all(self) -> None:
        """End everything that is being answered."""
        for exchange in self._in_flight():
            exchange.cancel()

    def _in_flight(self) -> list[_Exchange]:
        with self._lock:
            return [exchange for exchange, _ in self._running.values()]

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines that are not too long; an error is answered for the others."""
        while line := self.source.readline(LINE_BYTES_MAX + 1):
            if len(line) > LINE_BYTES_MAX and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = self.source.readline(LINE_BYTES_MAX)
                self._send_error(None, INVALID_REQUEST, f"a message has {LINE_BYTES_MAX} bytes at most")
            elif line := line.strip():
                yield line

    def _take(self, line: bytes) -> None:
        try:
            message = msgspec.json.decode(line, type=BridgeMessage)
        except msgspec.ValidationError:
            self._send_error(None, INVALID_REQUEST, "a line must be one JSON-RPC message")
            return
        except DECODE_ERRORS:
            self._send_error(None, PARSE_ERROR, "a line must be one JSON-RPC message, and this one is not JSON")
            return
        if message.method == "notifications/cancelled":
            self._cancel(message.param("requestId"))
        # Other notifications change nothing on a server without sessions, and it asks for no responses.
        if message.method is None or message.id is msgspec.UNSET:
            return
        exchange = _Exchange(message, line)
        with self._lock:
            full = len(self._running) >= IN_FLIGHT_MAX
            if not full:
                thread = threading.Thread(target=self._answer, args=(exchange,), daemon=True)
                self._running[id(exchange)] = exchange, thread
        if full:
            detail = f"more than {IN_FLIGHT_MAX} messages at once; wait for some answers"
            self._send_failure(exchange, Unavailable(detail, dependency="server", code="too_many_messages"))
        else:
            thread.start()

    def _cancel(self, request_id: Any) -> None:
        for exchange in self._in_flight():
            if exchange.message.id == request_id:
                exchange.cancel()

    def _answer(self, exchange: _Exchange) -> None:
        try:
            self._forward(exchange)
        except PenstockError as error:
            self._send_failure(exchange, error)
        except (OSError, HTTPException, ValueError) as error:
            detail = f"the server went away before it answered ({error}); ask again"
            self._send_failure(exchange, Unavailable(detail, dependency="server", code="server_lost"))
        finally:
            with self._lock:
                self._running.pop(id(exchange), None)
            if exchange.connection is not None:
                exchange.connection.close()

    def _forward(self, exchange: _Exchange) -> None:
        connection, path, key = self.server.connect()
        exchange.connection = connection
        if exchange.cancelled:
            return
        connection.request("POST", path, exchange.line, self._headers(exchange.message, key))
        answer = connection.getresponse()
        if answer.status == 200 and answer.headers.get_content_type() == "text/event-stream":
            for event in _events(answer):
                self._send(exchange, event)
            return
        body = answer.read(ANSWER_BYTES_MAX)
        if answer.status == 200:
            self._note_version(exchange.message, body)
            self._send(exchange, body)
        else:
            self._send_refusal(exchange, answer.status, body)

    def _headers(self, message: BridgeMessage, key: str = "") -> dict[str, str]:
        """Return the headers of a message's request, which repeat what the body says."""
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        version = message.param("_meta", _PROTOCOL_VERSION)
        if isinstance(version, str):
            headers["Mcp-Method"] = _header_value(message.method or "")
            name = message.param(_NAME_MEMBERS.get(message.method or "", ""))
            if isinstance(name, str):
                headers["Mcp-Name"] = _header_value(name)
        else:
            version = self._version if message.method != "initialize" else ""
        if version:
            headers["MCP-Protocol-Version"] = _header_value(version)
        return headers

    def _note_version(self, message: BridgeMessage, body: bytes) -> None:
        """Remember the version that a handshake has agreed on: later messages say it in a header only."""
        if message.method == "initialize":
            with contextlib.suppress(*DECODE_ERRORS, AttributeError):
                self._version = str(msgspec.json.decode(body)["result"]["protocolVersion"])

    def _send(self, exchange: _Exchange, message: bytes) -> None:
        """Send a message to the client, unless it does not wait any more."""
        if not exchange.cancelled:
            # Only white space between tokens can be a line break.
            self._write(message.replace(b"\r", b" ").replace(b"\n", b" "))

    def _send_refusal(self, exchange: _Exchange, status: int, body: bytes) -> None:
        """Send what the server refused, under the id of the message."""
        try:
            error = msgspec.json.decode(body)["error"]
            code, detail = int(error["code"]), str(error["message"])
        except (*DECODE_ERRORS, KeyError, TypeError, ValueError):
            detail = f"HTTP {status} came instead of an answer; is this the URL of a Penstock server?"
            self._send_failure(exchange, Unavailable(detail, dependency="server", code="not_penstock"))
            return
        data = error.get("data")
        if isinstance(data, dict) and "retry_after_ms" in data and exchange.message.method == "tools/call":
            self._send_tool_error(exchange, str(data.get("code")), detail, data["retry_after_ms"])
        else:
            self._send_json(exchange, {"error": {"code": code, "message": detail, "data": data}})

    def _send_failure(self, exchange: _Exchange, error: PenstockError) -> None:
        """Send that there is no answer; to the call of a tool as its result, which is what a model sees."""
        detail, retry_after_ms = f"{error.code}: {error.detail}", 2_000 if error.retryable else None
        if exchange.message.method == "tools/call":
            self._send_tool_error(exchange, error.code, detail, retry_after_ms)
        else:
            data = {"code": error.code, "retry_after_ms": retry_after_ms}
            self._send_json(exchange, {"error": {"code": SERVER_ERROR, "message": detail, "data": data}})

    def _send_tool_error(self, exchange: _Exchange, code: str, detail: str, retry_after_ms: int | None) -> None:
        told = {
            "code": code,
            "detail": detail,
            "retry_after_ms": retry_after_ms,
            "rung": "",
            "field": "",
            "request_id": "",
        }
        result = {"content": [{"type": "text", "text": detail}], "structuredContent": told, "isError": True}
        self._send_json(exchange, {"result": {**result, "resultType": "complete"}})

    def _send_json(self, exchange: _Exchange, answer: dict[str, Any]) -> None:
        self._send(exchange, msgspec.json.encode({"jsonrpc": "2.0", "id": exchange.message.id, **answer}))

    def _send_error(self, id: None, code: int, message: str) -> None:
        self._write(msgspec.json.encode({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}))

    def _write(self, line: bytes) -> None:
        with self._lock:
            try:
                self.sink.write(line + b"\n")
                self.sink.flush()
            except (BrokenPipeError, ValueError):
                # The client does not read; the thread that reads the input may wait for ever.
                os._exit(0)

    def _sink_closed(self) -> bool:
        """Return whether the other end of the output is closed; what is no pipe has none."""
        poll = select.poll()
        try:
            poll.register(self.sink, 0)
        except (OSError, ValueError):
            return False
        return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def _events(answer: HTTPResponse) -> Iterator[bytes]:
    """Yield the data of a stream's events.

    Raises:
        ValueError: An event is larger than ``ANSWER_BYTES_MAX``.
    """
    data, size = list[bytes](), 0
    while line := answer.readline(ANSWER_BYTES_MAX):
        size += len(line)
        if size > ANSWER_BYTES_MAX:
            raise ValueError("an event is too large")
        line = line.rstrip(b"\r\n")
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line:
            if data and b"".join(data).strip():
                yield b"\n".join(data)
            data, size = [], 0


def _header_value(text: str) -> str:
    """Return a text as MCP puts it into a header: as it is where that is possible, else in base64."""
    if _VISIBLE.fullmatch(text) and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode('utf-8', 'replace')).decode()}?="
