"""HTTP server: the socket, uvicorn around the app, and the signals that end it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import resource
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

import uvicorn
import uvloop

from penstock.http.connection_tracker import ConnectionTracker
from penstock.http.early_refusals import EarlyRefusals
from penstock.http.protocol import BoundedHttpProtocol
from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.settings import HttpSettings

#: Connections that the kernel keeps until they are accepted. In a storm of new connections a client
#: that comes out of a longer queue has timed out already, and all work is for clients who have left.
BACKLOG: Final = 512
KEEP_ALIVE_S: Final = 30
#: Connections that are accepted at a time, beside the one that the loop accepts.
ACCEPTS_MAX: Final = 64
#: Files that the store, the models and the log may need beside connections.
RESERVED_FILES: Final = 512
#: Seconds for open connections after the drain. Those still open are idle, or have had their time.
CLOSE_TIMEOUT_S: Final = 2


class ServerLoop(uvloop.Loop):
    """Event loop whose servers give up a TLS handshake that takes too long: it holds a connection that nothing tracks.

    Args:
        handshake_timeout_s: Seconds for a handshake; 60 by asyncio's own default.
    """

    def __init__(self, handshake_timeout_s: float) -> None:
        super().__init__()
        self._handshake_timeout_s = handshake_timeout_s

    async def create_server(self, *args: Any, **options: Any) -> Any:
        """Listen as asyncio's loops do."""
        if options.get("ssl") is not None:
            options.setdefault("ssl_handshake_timeout", self._handshake_timeout_s)
        return await super().create_server(*args, **options)


class AcceptQueue:
    """Connections that the kernel has taken and the loop has not.

    The loop accepts one connection in each of its turns (libuv, since 1.46). That is enough while turns are short. In a
    storm a turn takes tens of milliseconds, and the queue fills up while the server has time to refuse: so whoever is
    accepted brings in those who wait.

    Args:
        sockets: Listening sockets.
        protocol: Makes the protocol of a connection.
        tls: Context to serve HTTPS with.

    Bounds: ``ACCEPTS_MAX`` connections at a time.
    """

    def __init__(
        self, sockets: Iterable[socket.socket], protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        self._sockets = tuple(sockets)
        self._protocol = protocol
        self._tls = tls
        self._opening: set[asyncio.Task[Any]] = set()

    def drain(self) -> None:
        """Accept what waits."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            while len(self._opening) < ACCEPTS_MAX:
                try:
                    accepted, _ = listening.accept()
                except OSError:  # nothing waits, or there are no more files; the loop tries again
                    break
                accepted.setblocking(False)
                opening = loop.create_task(loop.connect_accepted_socket(self._protocol, accepted, ssl=self._tls))
                self._opening.add(opening)
                opening.add_done_callback(self._on_opened)

    def _on_opened(self, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled():
            opening.exception()  # a handshake that failed concerns its client alone


class HttpServer(uvicorn.Server):
    """Uvicorn without its own signal handling. :class:`ShutdownSignal` decides when to end."""

    def __init__(self, config: uvicorn.Config, connections: ConnectionTracker) -> None:
        super().__init__(config)
        self.server_state = connections
        self.connections = connections
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.connections.accept_waiting = AcceptQueue(sockets or (), self._connection, self.config.ssl).drain
        self.listening.set()

    def _connection(self) -> asyncio.Protocol:
        return BoundedHttpProtocol(self.config, self.server_state, self.lifespan.state)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class ShutdownSignal:
    """SIGINT and SIGTERM as two events: the first asks for an orderly end, the second for an end at once."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take over both signals for the rest of the process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.request)

    def request(self) -> None:
        """Ask for an end; a second time, for an end at once."""
        (self.forced if self.requested.is_set() else self.requested).set()


def bind_socket(host: str, port: int, section: str = "server") -> socket.socket:
    """Return a bound socket that does not listen yet.

    Args:
        host: A host of this machine, or its address.
        port: The port; 0 for any.
        section: Where both are set, for errors.

    Raises:
        Unavailable: The port is taken (``port_in_use``) or may not be used.
        Invalid: The host is no address of this machine.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise Invalid(f"{host!r} is not a host name or address: {error}", field=f"{section}.host") from error
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _bind_error(error, host, port, section) from error
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Return whether only this machine reaches the socket."""
    address = ipaddress.ip_address(bound.getsockname()[0].partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def socket_url(bound: socket.socket, scheme: str = "http") -> str:
    """Return the URL under which this machine reaches the socket."""
    host, port = bound.getsockname()[:2]
    # A server on all addresses is not at 0.0.0.0.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def create_server(
    app: Callable[..., Awaitable[None]],
    settings: HttpSettings | None = None,
    tls: ssl.SSLContext | None = None,
    early_refusals: EarlyRefusals | None = None,
) -> HttpServer:
    """Return uvicorn around the app; nothing listens yet.

    Args:
        app: The ASGI application.
        settings: Of the gate; its header and write timeouts hold for connections too.
        tls: Context to serve HTTPS with, ``None`` for plain HTTP.
        early_refusals: The gate's, to refuse requests before they are parsed.
    """
    settings = settings or HttpSettings()
    config = uvicorn.Config(
        app,
        loop="none",
        http=BoundedHttpProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
        ssl_context_factory=(lambda *_: tls) if tls is not None else None,
    )
    connections = ConnectionTracker(settings.header_timeout, settings.write_timeout, connections_max())
    connections.early_refusals = early_refusals
    return HttpServer(config, connections)


def connections_max() -> int:
    """Return how many connections the process may hold, its limit of open files raised as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(soft // 2, soft - RESERVED_FILES) if soft != resource.RLIM_INFINITY else 1_000_000


def _bind_error(error: OSError, host: str, port: int, section: str) -> Unavailable | Invalid:
    if error.errno == errno.EADDRINUSE:
        message = f"port {port} on {host} is in use by another program; choose one with --port, or 0 for any free one"
        return Unavailable(message, dependency="network", code="port_in_use")
    if error.errno == errno.EACCES:
        message = f"port {port} may not be used by this user; choose one above 1023 with --port"
        return Unavailable(message, dependency="network", code="port_forbidden")
    detail = f"cannot listen on {host} port {port}: {error.strerror}"
    return Invalid(detail, field=f"{section}.host", code="host_unusable")
