"""Lifecycle of a process that serves: settings, signals, start, drain, end. `serve` and `worker` are made of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from socket import AF_UNIX, SOCK_DGRAM, socket
from typing import Any, ClassVar, Final

from penstock.app.app import App, build
from penstock.app.role import Role
from penstock.cli.http_server import HttpServer, ServerLoop, ShutdownSignal, create_server
from penstock.cli.options import SERVER_LOOKUP_SETTINGS, Setup, load_setup, warn_and_drop_secrets
from penstock.cli.progress_bars import show_model_progress
from penstock.cli.terminal import stderr_console
from penstock.kernel.allocator import freeze_startup_objects
from penstock.kernel.errors import PenstockError
from penstock.telemetry.logs import configure

log = logging.getLogger(__name__)

#: Where the service manager listens; unset where there is none.
SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


class ServerProcess(ABC):
    """Process that works until a signal comes.

    Attributes:
        stopping: Printed on a terminal when the drain begins.
        cut_short: Printed when it ended before all had finished.
    """

    stopping: ClassVar[str] = ""
    cut_short: ClassVar[str] = ""

    def __init__(self, setup: Setup, role: Role) -> None:
        self.setup = setup
        self.role = role
        self.console = stderr_console()
        self._stop = ShutdownSignal()

    @abstractmethod
    def bind(self) -> socket | None:
        """Return the socket to serve HTTP on, ``None`` for none."""

    @abstractmethod
    def announce(self, app: App) -> None:
        """Say that it is ready."""

    @abstractmethod
    async def drained(self, app: App) -> bool:
        """Let finish what runs; return whether it did in time."""

    def tls(self) -> ssl.SSLContext | None:
        """Return the context to serve HTTPS with, ``None`` for plain HTTP."""
        return None

    def reload(self, app: App) -> None:  # noqa: B027 - most have nothing to read again
        """Read again what may have changed on the disk; called at SIGHUP."""

    async def follow_up(self) -> None:  # noqa: B027 - most have nothing to do
        """Do what is to be done once it is ready, beside the work."""

    async def run(self, hangup: Callable[[], None]) -> None:
        """Work until a signal comes.

        Args:
            hangup: Called at each SIGHUP.

        Raises:
            PenstockError: The process cannot be started.

        Cancellation:
            The app is closed; what a worker has taken is handed back.
        """
        with contextlib.ExitStack() as stack:
            # Before the model is prepared: a busy port should not be told minutes later.
            if (bound := self.bind()) is not None:
                stack.enter_context(contextlib.closing(bound))
            self._stop.install(asyncio.get_running_loop())
            app = build(self.setup.settings, self.setup.data_dir, role=self.role)

            def reread() -> None:
                hangup()
                self.reload(app)

            on_sighup(reread)
            try:
                if await self._started(app):
                    await self._work(app, bound)
            finally:
                await app.close()

    async def _started(self, app: App) -> bool:
        """Start the app; return false when a signal came first."""
        with show_model_progress(self.console) as progress:
            starting = asyncio.create_task(app.start(progress))
            await _first(starting, self._stop.requested.wait())
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
        if starting.cancelled():
            return False
        starting.result()
        freeze_startup_objects()
        return True

    async def _work(self, app: App, bound: socket | None) -> None:
        server = None
        if bound is None:
            # Nothing but the signal ends it.
            working: asyncio.Task[Any] = asyncio.create_task(self._stop.requested.wait())
        else:
            server = create_server(app.asgi, self.setup.settings.http, self.tls(), app.asgi.early_refusals)
            working = asyncio.create_task(server.serve(sockets=[bound]))
            await _first(working, server.listening.wait())
        if not working.done():
            self.announce(app)
            sd_notify(READY)
            following = asyncio.create_task(self.follow_up())
            try:
                await _first(working, self._stop.requested.wait())
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            if self._stop.requested.is_set():
                sd_notify(STOPPING)
                if self.stopping and self.console.is_terminal:
                    self.console.print(self.stopping)
                if not await shut_down(app, server, self._stop, self.drained(app)) and self.cut_short:
                    self.console.print(self.cut_short)
        await working


async def shut_down(
    app: App, server: HttpServer | None, shutdown: ShutdownSignal, drained: Coroutine[Any, Any, bool]
) -> bool:
    """End a server in order; the socket accepts and answers 503 until what runs has finished.

    Args:
        app: To be drained.
        server: To be ended, if there is one.
        shutdown: Whose second signal cuts the drain short.
        drained: Waits until what runs has finished; returns whether it has.

    Returns:
        Whether everything that ran could finish.
    """
    app.begin_drain()
    draining = asyncio.create_task(drained)
    try:
        await _first(draining, shutdown.forced.wait())
        return draining.done() and draining.result()
    finally:
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        if server is not None:
            server.force_exit = shutdown.forced.is_set()
            server.should_exit = True


async def _first(task: asyncio.Task[Any], other: Coroutine[Any, Any, Any]) -> None:
    """Wait until the task or the other has ended; the other is then cancelled."""
    beside = asyncio.create_task(other)
    try:
        await asyncio.wait({task, beside}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        beside.cancel()


def run_process(
    config: Path | None, flags: Mapping[str, str | None], process: Callable[[Setup], ServerProcess]
) -> None:
    """Read the settings and run a process in a loop of its own."""
    block_sighup()
    setup = load_setup(config, flags)
    warn_and_drop_secrets(setup)
    configure(setup.settings.server.log_level, setup.settings.server.log_format)
    loop = partial(ServerLoop, setup.settings.http.header_timeout)
    with setup.explain_origin(), asyncio.Runner(loop_factory=loop) as runner:
        runner.run(process(setup).run(log_level_reloader(config, flags)))


def block_sighup() -> None:
    """Block SIGHUP, in this thread and in every thread and process started from now on.

    A handler would be gone in a child after its exec, and so would the child at the next SIGHUP to the whole group: a
    terminal that is closed sends one. What is blocked stays blocked.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def on_sighup(heard: Callable[[], None]) -> None:
    """Call ``heard`` in the running loop at each SIGHUP, once they are held.

    Bounds: one thread, until the process ends.
    """
    loop = asyncio.get_running_loop()

    def wait() -> None:
        while True:
            signal.sigwait({signal.SIGHUP})
            try:
                loop.call_soon_threadsafe(heard)
            except RuntimeError:
                # The loop is closed: the process is about to end.
                return

    threading.Thread(target=wait, name="hangup", daemon=True).start()


def log_level_reloader(config: Path | None, flags: Mapping[str, str | None]) -> Callable[[], None]:
    """Return the callback that reads the log level again at SIGHUP."""

    def read() -> None:
        try:
            server = load_setup(config, flags, SERVER_LOOKUP_SETTINGS).settings.server
        except PenstockError as error:
            log.warning("SIGHUP: the settings cannot be read, the log level stays", extra={"why": error.detail})
            return
        configure(server.log_level, server.log_format)
        log.info("SIGHUP: the log level was read again", extra={"level": server.log_level})

    return read


def sd_notify(state: str) -> None:
    """Report a state to the service manager. Without one it does nothing.

    Args:
        state: ``READY`` or ``STOPPING``.

    Bounds: Never waits. A manager that does not read misses it, which at worst makes it give up a start.
    """
    address = os.environ.get(SOCKET_VARIABLE, "")
    if not address.startswith(("/", "@")):
        return
    # A name in the abstract namespace begins with a zero byte, which no variable can hold.
    name = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket(AF_UNIX, SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(state.encode(), name)
