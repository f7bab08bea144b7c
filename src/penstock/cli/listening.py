"""The socket, uvicorn around the app, and the orderly end of both."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Protocol

import uvicorn

from penstock.http.connection import Connection
from penstock.http.crowd import Crowd
from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.settings import HttpSettings

#: Connections that the kernel keeps until they are accepted. A longer queue is no kindness: in a storm of new
#: connections whoever comes out of it has waited longer than it had time, and all work is for callers who have left.
BACKLOG: Final = 512
KEEP_ALIVE_S: Final = 30
#: Files that the store, the models and the log may need beside connections.
FILES_RESERVED: Final = 512
#: After the drain: what is still open then is idle, or has had its time.
CLOSE_S: Final = 2


class Drainable(Protocol):
    """What the end of a server needs of the app."""

    def begin_drain(self) -> None:
        """Answer new requests with 503."""
        ...

    async def drained(self, timeout_s: float) -> bool:
        """Wait until no request is in flight."""
        ...


class Listener(uvicorn.Server):
    """Uvicorn without its own signal handling: :class:`Stop` decides when to end.

    Args:
        config: Uvicorn's.
        crowd: Its connections' limits.

    Attributes:
        crowd: Its connections.
        listening: Set once connections are accepted.
    """

    def __init__(self, config: uvicorn.Config, crowd: Crowd) -> None:
        super().__init__(config)
        self.server_state = crowd
        self.crowd = crowd
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class Stop:
    """SIGINT and SIGTERM as two events: the first asks for an orderly end, the second for an end at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def heed(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take over both signals for the rest of the process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.ask)

    def ask(self) -> None:
        """Ask for an end; a second time, for an end at once."""
        (self.at_once if self.asked.is_set() else self.asked).set()


def bind(host: str, port: int, section: str = "server") -> socket.socket:
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


def url_of(bound: socket.socket) -> str:
    """Return the URL under which this machine reaches the socket."""
    host, port = bound.getsockname()[:2]
    # A server on all addresses is not at 0.0.0.0.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listener(app: Callable[..., Awaitable[None]], settings: HttpSettings | None = None) -> Listener:
    """Return uvicorn around the app; nothing listens yet.

    Args:
        app: The ASGI application.
        settings: Of the gate; its header and write timeouts hold for connections too.
    """
    settings = settings or HttpSettings()
    config = uvicorn.Config(
        app,
        loop="none",
        http=Connection,
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
        timeout_graceful_shutdown=CLOSE_S,
    )
    return Listener(config, Crowd(settings.header_timeout, settings.write_timeout, connections_max()))


def connections_max() -> int:
    """Return how many connections the process may hold, its limit of open files raised as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(soft // 2, soft - FILES_RESERVED) if soft != resource.RLIM_INFINITY else 1_000_000


async def end(app: Drainable, server: Listener, stop: Stop, drain_s: float) -> bool:
    """End a server in order; the socket accepts and answers 503 until what runs has finished.

    Args:
        app: To be drained.
        server: To be ended.
        stop: Whose second signal cuts the drain short.
        drain_s: How long running requests may take.

    Returns:
        Whether everything that ran could finish.
    """
    app.begin_drain()
    drained = asyncio.create_task(app.drained(drain_s))
    hurried = asyncio.create_task(stop.at_once.wait())
    try:
        await asyncio.wait({drained, hurried}, return_when=asyncio.FIRST_COMPLETED)
        finished = drained.done() and drained.result()
    finally:
        for task in (drained, hurried):
            task.cancel()
        server.force_exit = stop.at_once.is_set()
        server.should_exit = True
    return finished


def _bind_error(error: OSError, host: str, port: int, section: str) -> Unavailable | Invalid:
    if error.errno == errno.EADDRINUSE:
        message = f"port {port} on {host} is in use by another program; choose one with --port, or 0 for any free one"
        return Unavailable(message, dependency="network", code="port_in_use")
    if error.errno == errno.EACCES:
        message = f"port {port} may not be used by this user; choose one above 1023 with --port"
        return Unavailable(message, dependency="network", code="port_forbidden")
    detail = f"cannot listen on {host} port {port}: {error.strerror}"
    return Invalid(detail, field=f"{section}.host", code="host_unusable")
