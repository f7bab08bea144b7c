"""``penstock worker``: do the work of some pools for servers elsewhere, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket

import click
import uvloop
from rich.console import Console

from penstock.app.app import App, build
from penstock.app.role import Role
from penstock.cli.http_server import ShutdownSignal, bind_socket, create_server, socket_url
from penstock.cli.options import POOLS_IN_ORDER, Setup, load_setup, parse_pools, warn_and_drop_secrets
from penstock.cli.progress_bars import show_model_progress
from penstock.cli.sd_notify import READY, STOPPING, sd_notify
from penstock.cli.sighup import block_sighup, log_level_reloader, on_sighup
from penstock.cli.terminal import stderr_console
from penstock.kernel.allocator import freeze_startup_objects
from penstock.telemetry.logs import configure


@click.command("worker")
@click.option(
    "--pool", "pools", metavar="NAME,…", required=True, help=f"Which pools: {', '.join(POOLS_IN_ORDER)}, or all."
)
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="YAML file with settings.")
@click.option("--data-dir", metavar="DIR", help="Data directory (default: ./.penstock if it exists, else yours).")
@click.option("--host", metavar="ADDRESS", help="Address for /livez, /readyz and /metrics (default 127.0.0.1).")
@click.option("--port", metavar="PORT", help="Port for them (default 0: none).")
def command(config: Path | None, pools: str, data_dir: str | None, host: str | None, port: str | None) -> int:
    """Do the work of some pools for servers elsewhere (BUS_BACKEND=redis or kafka).

    Several workers share the work, which the broker hands out. Ctrl-C or SIGTERM drains: no more work is taken, and
    what was taken is finished. A second Ctrl-C hands it to other workers. SIGHUP reads the log level from the settings
    again.
    """
    role = Role(serves_api=False, pools=parse_pools(pools))
    block_sighup()
    given = {"--data-dir": data_dir, "worker --host": host, "worker --port": port}
    setup = load_setup(config, given)
    warn_and_drop_secrets(setup)
    configure(setup.settings.server.log_level, setup.settings.server.log_format)
    with setup.explain_origin(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_WorkerProcess(setup, role, stderr_console()).run(log_level_reloader(config, given)))
    return 0


class _WorkerProcess:
    """Lifecycle of a worker process, from its start to its end."""

    def __init__(self, setup: Setup, role: Role, console: Console) -> None:
        self._setup = setup
        self._role = role
        self._console = console
        self._stop = ShutdownSignal()

    async def run(self, hangup: Callable[[], None]) -> None:
        """Work until a signal comes.

        Args:
            hangup: Called at each SIGHUP.

        Raises:
            PenstockError: The worker cannot be started.

        Cancellation: What was taken is handed back.
        """
        settings = self._setup.settings
        # Before the model is prepared: a busy port should not be told minutes later.
        bound = bind_socket(settings.worker.host, settings.worker.port, "worker") if settings.worker.port else None
        self._stop.install(asyncio.get_running_loop())
        on_sighup(hangup)
        app = build(settings, self._setup.data_dir, role=self._role)
        asked = asyncio.create_task(self._stop.requested.wait())
        try:
            with show_model_progress(self._console) as progress:
                starting = asyncio.create_task(app.start(progress))
                await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    starting.cancel()
                    await asyncio.wait({starting})
                if starting.cancelled():
                    return
                starting.result()
            freeze_startup_objects()
            names = ", ".join(name for name in POOLS_IN_ORDER if name in self._role.pools)
            async with self._told(app, bound):
                where = f", and tells how it is at {socket_url(bound)}" if bound is not None else ""
                self._console.print(f"Penstock works for {names}, over {settings.bus.backend}{where}", soft_wrap=True)
                sd_notify(READY)
                await asked
                sd_notify(STOPPING)
                app.begin_drain()
                await self._drain(app)
        finally:
            asked.cancel()
            await app.close()
            if bound is not None:
                bound.close()

    @asynccontextmanager
    async def _told(self, app: App, bound: socket | None) -> AsyncIterator[None]:
        """Serve the health checks, where a port is set, until all is drained."""
        if bound is None:
            yield
            return
        server = create_server(app.asgi, self._setup.settings.http)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        listening = asyncio.create_task(server.listening.wait())
        try:
            await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
            yield
        finally:
            listening.cancel()
            server.should_exit = True
            await serving

    async def _drain(self, app: App) -> None:
        """Finish what was taken, unless a second signal comes first."""
        draining = asyncio.create_task(app.drain_bus(self._setup.settings.http.drain_timeout))
        again = asyncio.create_task(self._stop.forced.wait())
        await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, again):
            task.cancel()
        await asyncio.gather(draining, again, return_exceptions=True)
