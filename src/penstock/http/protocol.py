"""Connections bounded in time and size: uvicorn's protocol, fed one request at a time.

By itself uvicorn lets a client take as long as it likes for the head of a request, send as much of it as it
likes, and queue requests without end. It loses the body of a request that offers an upgrade, and resets the
connection of a client whose upload it refuses. The gate sees none of that: it begins where the head is complete.

What a client sends beyond its current request stays unparsed until that one is answered. So a connection never
holds more than one request, and whatever follows a good request cannot harm its answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
import urllib.parse
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from penstock.http.connection_tracker import ConnectionTracker
from penstock.http.head_validation import (
    CHECKED_HEADERS,
    HeadTimeout,
    check_headers,
    check_version,
    parse_target,
    parser_error,
)
from penstock.http.problem import PreparedRefusal
from penstock.http.request_context import SENT_KEY, client_network
from penstock.http.response_transport import ParserFlowControl, ResponseTransport
from penstock.http.socket_age import unread_s
from penstock.kernel.context import new_id
from penstock.kernel.errors import Invalid, PenstockError

log = logging.getLogger(__name__)

#: Bytes of a request's head at most; and of a chunked body's framing, beyond :data:`FRAMING_PER_BYTE`.
HEAD_BYTES_MAX: Final = 65_536
#: Fields of a request's head at most: each costs some two hundred bytes, however short it is.
FIELDS_MAX: Final = 256
#: Bytes of framing that each byte of a chunked body may bring: a chunk of one byte has five.
FRAMING_PER_BYTE: Final = 8
#: Bytes of a chunked body that are parsed at a time: its framing is counted in between.
PIECE_BYTES_MAX: Final = 16_384
#: Pieces, and bytes of them, that are parsed before other connections have their turn: each chunk is a call or two.
SLICE_PIECES_MAX: Final = 256
SLICE_BYTES_MAX: Final = 65_536

#: Bytes that a client may go on to send when it has been answered
#: (:data:`penstock.http.connection_tracker.LINGER_TIMEOUT_S`).
LINGER_BYTES_MAX: Final = 128_000_000

_HEAD_END: Final = b"\r\n\r\n"

_HEAD_TIMEOUT: Final = HeadTimeout()
_HEAD_TOO_LARGE: Final = Invalid(
    f"a request's head has at most {FIELDS_MAX} fields and {HEAD_BYTES_MAX} bytes, and so has a body's framing",
    field="head",
    code="head_too_large",
)
_TARGET_TOO_LONG: Final = Invalid(
    f"a request's target and fields have at most {HEAD_BYTES_MAX} bytes", field="target", code="target_too_long"
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 connection bounded in time and size.

    Its parameters are uvicorn's. ``server_state`` is a :class:`ConnectionTracker`.

    Bounds: one read of the transport, unparsed; one head of at most ``HEAD_BYTES_MAX``; a body up to uvicorn's high
    water mark, beyond which nothing is read until the application takes it.

    Attributes:
        address: The peer's address, or its network where that has one
            (:func:`penstock.http.request_context.client_network`).
    """

    server_state: ConnectionTracker
    flow: ParserFlowControl

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.address = ""
        self.parser = self._new_parser()
        self._data = b""
        self._offset = 0
        self._piece: bytes | memoryview = b""
        self._tail = b""
        self._in_head = False
        self._in_message = False
        self._upgrading = False
        self._parsing = False
        self._checked_headers: list[tuple[bytes, bytes]] = []
        self._body_left = 0
        self._piece_body_bytes = 0
        self._framing_bytes = 0
        self._lingered_bytes: int | None = None
        self._sent_s = 0.0
        self._socket: Any = None

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Nothing of the next request is parsed before this one is answered, so data after a close does no harm.
        # Versions are checked here, to answer 505.
        parser.set_dangerous_leniencies(lenient_data_after_close=True, lenient_version=True)
        return parser

    # --- The transport's events

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self.flow = ParserFlowControl(transport, self)
        self._response_transport = ResponseTransport(transport, self)
        self._socket = transport.get_extra_info("socket")
        self.address = client_network(self.client[0]) if self.client else ""
        self.server_state.awaiting_head.add(self)
        self.server_state.mark_idle(self)
        self.server_state.enforce_limit(self)
        self.server_state.accept_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave every timeout queue."""
        tracker = self.server_state
        for line in (tracker.awaiting_head, tracker.closing, tracker.lingering):
            line.discard(self)
        tracker.mark_busy(self)
        self._data = b""
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what the client sent; parse as much of it as belongs to one request."""
        if self.parser is None:
            return
        if self._lingered_bytes is not None:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > LINGER_BYTES_MAX:
                self.close()
            return
        self._unset_keepalive_if_required()
        if self._in_head or not self._in_message:
            now_s = time.monotonic()
            self._sent_s = now_s - unread_s(self._socket)
            idle = not (self._data or self._in_message) and self._response_done()
            if idle and self._refuse_early(data, now_s):
                return
        self._data = self._data[self._offset :] + data if self._data else data
        self._offset = 0
        self._parse()

    def _refuse_early(self, data: bytes, now_s: float) -> bool:
        """Refuse a whole request without parsing it; return whether that is done."""
        tracker = self.server_state
        if tracker.early_refusals is None:
            return False
        refusal = tracker.early_refusals.refuse(data, self.address, self._sent_s, now_s, tracker.default_headers)
        if refusal is None:
            return False
        tracker.awaiting_head.discard(self)
        tracker.total_requests += 1
        self.transport.write(refusal.response)
        if refusal.closes:
            self.finish()
        else:
            self._await_next_request()
        return True

    # --- Parsing

    def resume_parsing(self) -> None:
        """Parse what was left unparsed; when that is used up, let the transport deliver more."""
        if self._data:
            self._parse()
        if not self._data and self.parser is not None:
            self.flow.resume_transport()

    def _parse(self) -> None:
        """Parse up to the end of the current request; what is left keeps the transport from reading."""
        if self._parsing:
            return
        self._parsing = True
        pieces, turn_ends = 0, self._offset + SLICE_BYTES_MAX
        try:
            while self._offset < len(self._data) and not self._parsing_blocked():
                if pieces == SLICE_PIECES_MAX or self._offset >= turn_ends:
                    self.loop.call_soon(self.resume_parsing)
                    break
                self._feed()
                pieces += 1
        except httptools.HttpParserError as error:
            said = error.__context__
            self._refuse(said if isinstance(said, PenstockError) else parser_error(self._piece, error))
        except PenstockError as error:
            self._refuse(error)
        finally:
            self._parsing = False
        if self._offset < len(self._data):
            self.flow.pause_reading()
        else:
            self._data, self._offset = b"", 0
        self._piece = b""
        if self._lingered_bytes is None and (self._in_message or self._framing_bytes) and self._response_done():
            # A head that has begun, or the rest of a body that was not wanted: it has its time too.
            self.server_state.awaiting_head.add(self)

    def _parsing_blocked(self) -> bool:
        """Return whether parsing must pause: a request is at work, or its body has not been taken."""
        if self._lingered_bytes is not None or self.transport.is_closing():
            self._data, self._offset = b"", 0
            return True
        if self._in_head or self._response_done():
            return False
        return not self._in_message or len(self.cycle.body) > HIGH_WATER_LIMIT

    def _response_done(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _feed(self) -> None:
        """Give the parser its next piece, which ends no later than the request does.

        Raises:
            HttpParserError: It is not HTTP.
            PenstockError: It is, but no request that can be answered.
        """
        data, first = self._data, self._offset
        if self._body_left:
            self._offset = min(len(data), first + self._body_left, first + HIGH_WATER_LIMIT)
            self.parser.feed_data(data if self._offset - first == len(data) else memoryview(data)[first : self._offset])
            return
        self._offset = end = self._line_end(data, first)
        self._framing_bytes += end - first
        if self._framing_bytes > HEAD_BYTES_MAX:
            raise _HEAD_TOO_LARGE if self.headers or b"\r\n" in data[:HEAD_BYTES_MAX] else _TARGET_TOO_LONG
        self._piece = piece = data if end - first == len(data) else memoryview(data)[first:end]
        self._piece_body_bytes = 0
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._offset = first + upgrade.args[0]
            self._ignore_upgrade()
        if self._framing_bytes:
            self._framing_bytes = max(0, self._framing_bytes - (FRAMING_PER_BYTE + 1) * self._piece_body_bytes)

    def _line_end(self, data: bytes, first: int) -> int:
        """Return where a piece of a head or of a chunked body ends: behind the next empty line, if there is one.

        Every head and every chunked body ends with an empty line, so no piece reaches into the next request.
        """
        tail, self._tail = self._tail, b""
        if tail:
            found = (tail + data[first : first + 3]).find(_HEAD_END)
            if found >= 0:
                return first + found + len(_HEAD_END) - len(tail)
        last = len(data)
        if self._in_message and not self._in_head:
            last = min(last, first + PIECE_BYTES_MAX)
        found = data.find(_HEAD_END, first, last)
        if found >= 0:
            return found + len(_HEAD_END)
        self._tail = (tail + data[max(first, last - 3) : last])[-3:]
        return last

    def _ignore_upgrade(self) -> None:
        """Read on in HTTP/1.1 (RFC 9110 §7.8): a parser without the offer gets the same framing."""
        self.parser = self._new_parser()
        framing = b"".join(b"%s: %s\r\n" % field for field in self._checked_headers if field[0] in _FRAMING_HEADERS)
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
        self._upgrading = False

    # --- The parser's events

    def on_message_begin(self) -> None:
        """A head begins."""
        if self._upgrading:
            return
        super().on_message_begin()
        self._in_head = self._in_message = True
        self._checked_headers = []
        self.scope["penstock.abort"] = self.abort  # type: ignore[typeddict-unknown-key]

    def on_url(self, url: bytes) -> None:
        """A part of the target has come."""
        if not self._upgrading:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field is complete; trailers are passed over, nothing here asks for any.

        Raises:
            Invalid: There are too many (``head_too_large``).
        """
        if not self._in_head:
            return
        if len(self.headers) >= FIELDS_MAX:
            raise _HEAD_TOO_LARGE
        name = name.lower()
        self.headers.append((name, value))
        if name in CHECKED_HEADERS:
            self._checked_headers.append((name, value))

    def on_headers_complete(self) -> None:
        """A head is complete: check it, and let the application begin.

        Raises:
            PenstockError: It is no request that can be answered.
        """
        if self._upgrading:
            return
        version, method = self.parser.get_http_version(), self.parser.get_method().decode("ascii")
        if version != "1.1":
            check_version(version)
        length = check_headers(version, self._checked_headers)
        target = parse_target(self.url, method, self.headers)
        path = target.path.decode("ascii")
        self.scope["method"] = method
        self.scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        self.scope["raw_path"] = target.path
        self.scope["query_string"] = target.query
        if version == "1.0":
            self.scope["http_version"] = version
        self.scope[SENT_KEY] = self._sent_s  # type: ignore[typeddict-unknown-key]
        self._upgrading = self.parser.should_upgrade()
        self._in_head = False
        self._framing_bytes = 0
        self._body_left = length
        self.server_state.awaiting_head.discard(self)
        self.server_state.mark_busy(self)
        self._begin(keep_alive=version != "1.0" and self.parser.should_keep_alive())

    def _begin(self, *, keep_alive: bool) -> None:
        self.cycle = RequestResponseCycle(
            scope=self.scope,
            transport=self._response_transport,  # type: ignore[arg-type]  # all of a transport that a response uses
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=_expects_continue(self._checked_headers) and self.scope["http_version"] != "1.0",
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        self._start_asgi_task(self.cycle, self.app)

    def on_body(self, body: bytes) -> None:
        """A part of the body has come."""
        self._piece_body_bytes += len(body)
        if self._body_left:
            self._body_left -= len(body)
        if self.cycle.response_complete:
            return
        self.cycle.body += body
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """A request is complete, unless it offers an upgrade: the parser ends that before its body."""
        if self._upgrading and self.parser.should_upgrade():
            return
        self._in_message = False
        self._framing_bytes = 0
        if self.cycle.response_complete:
            self.server_state.awaiting_head.discard(self)
            if self._lingered_bytes is None and not self.transport.is_closing():
                self._await_next_request()
            return
        self.cycle.more_body = False
        self.cycle.message_event.set()

    # --- The response's events

    def on_response_complete(self) -> None:
        """Go on with what the client sent while its response was written to the transport."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            if self.transport.get_write_buffer_size():
                self.server_state.closing.add(self)
        elif self._lingered_bytes is None:
            if self._in_message:
                self.server_state.awaiting_head.add(self)
            else:
                self._await_next_request()
            # What waited behind it has its turn only now, whenever it came.
            self._sent_s = time.monotonic()
            self.resume_parsing()

    def _await_next_request(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        self.server_state.mark_idle(self)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one with an unread response is not idle but stuck."""
        if self.transport.get_write_buffer_size():
            self.abort()
        else:
            super().timeout_keep_alive_handler()

    # --- The end

    def finish(self) -> None:
        """End the connection behind its last response, in stages: what a client may still send is drained.

        TLS cannot be closed one way; there the connection lingers only if the client is known to be sending.
        """
        if self.transport.can_write_eof() or self._in_message or self._data or self.flow.read_paused:
            self._linger()
        else:
            self.close()

    def _linger(self) -> None:
        """Say that nothing more comes, and discard what the client sends until it hangs up (RFC 9112 §9.6)."""
        if self._lingered_bytes is not None or self.transport.is_closing():
            return
        self._lingered_bytes = 0
        self._data, self._offset = b"", 0
        self.server_state.awaiting_head.discard(self)
        self.server_state.mark_busy(self)
        self.server_state.lingering.add(self)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_transport()

    def close(self) -> None:
        """Close the connection once all is sent, within the write timeout."""
        self.server_state.lingering.discard(self)
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self.server_state.closing.add(self)

    def abort(self) -> None:
        """End the connection at once, unsent bytes and all."""
        self.transport.abort()

    def on_head_timeout(self) -> None:
        """End a connection whose head has not come in time; quietly, if nothing of it came."""
        if self.transport.is_closing():
            self.abort()
        elif self._framing_bytes or self._in_message:
            self._refuse(_HEAD_TIMEOUT)
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """End the connection with the server: at once if nothing is at work on it."""
        if self._lingered_bytes is not None:
            self.close()
        else:
            super().shutdown()

    def _refuse(self, error: PenstockError) -> None:
        """Answer what cannot reach the gate, and close."""
        self._data, self._offset = b"", 0
        if self.transport.is_closing() or self._lingered_bytes is not None:
            return
        self.server_state.dropped += 1
        cycle = self.cycle
        in_body = self._in_message and not self._in_head
        if in_body and not cycle.response_complete:
            # The application waits for a body that will not come: to it the client has hung up.
            cycle.disconnected = True
            cycle.message_event.set()
        if not in_body or not cycle.response_started:
            self.transport.write(_error_response(error))
        self._linger()


#: Fields that say where a message ends.
_FRAMING_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding"})


def _expects_continue(checked: list[tuple[bytes, bytes]]) -> bool:
    """Return whether the client waits to be told to send its body (RFC 9110 §10.1.1)."""
    return any(name == b"expect" and value.lower() == b"100-continue" for name, value in checked)


def _error_response(error: PenstockError) -> bytes:
    """Return a whole error response, which ends its connection."""
    refusal, request_id = PreparedRefusal(error), new_id().encode()
    status, body, headers = refusal.render(request_id, 0)
    fields = [*headers, (b"x-request-id", request_id), (b"connection", b"close")]
    return STATUS_LINE[status] + b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n" + body
