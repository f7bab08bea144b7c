"""``penstock serve``: run the server until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from socket import socket
from typing import Any

import click
import uvloop
from rich.console import Console

from penstock.app.app import App, build
from penstock.app.role import ALL_IN_ONE, Role
from penstock.cli.http_server import HttpServer, ShutdownSignal, bind_socket, create_server, shut_down, socket_url
from penstock.cli.options import Setup, load_setup, parse_pools, warn_and_drop_secrets
from penstock.cli.progress_bars import show_model_progress
from penstock.cli.sd_notify import READY, STOPPING, sd_notify
from penstock.cli.sighup import block_sighup, log_level_reloader, on_sighup
from penstock.cli.terminal import stderr_console
from penstock.kernel.allocator import freeze_startup_objects
from penstock.kernel.errors import PenstockError, Unavailable
from penstock.stores.lock import find_lock_holder
from penstock.telemetry.logs import configure


@click.command("serve")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="YAML file with settings.")
@click.option("--host", metavar="ADDRESS", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", metavar="PORT", help="Port to listen on (default 8080); 0: any free one.")
@click.option("--data-dir", metavar="DIR", help="Data directory (default: ./.penstock if it exists, else yours).")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option(
    "--role",
    type=click.Choice(["all", "api"]),
    default="all",
    show_default=True,
    help="api: answer HTTP, and leave the work to `penstock worker`.",
)
@click.option("--pool", "pools", metavar="NAME,…", help="With --role api: pools that work here all the same.")
@click.option("--index-self", type=click.Path(path_type=Path, exists=True), hidden=True)
def command(config: Path | None, role: str, pools: str | None, index_self: Path | None, **flags: Any) -> int:
    """Run the server.

    Prepares the model at the first start. Ctrl-C or SIGTERM drains: new requests get 503, running ones finish; a
    second Ctrl-C ends at once. SIGHUP reads the log level from the settings again.
    """
    if pools is not None and role == "all":
        raise click.UsageError("--pool goes with --role api; without, all pools work here")
    part = ALL_IN_ONE if role == "all" else Role(pools=parse_pools(pools) if pools is not None else frozenset())
    block_sighup()
    given = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
    setup = load_setup(config, given)
    warn_and_drop_secrets(setup)
    configure(setup.settings.server.log_level, setup.settings.server.log_format)
    with setup.explain_origin(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_ServerProcess(setup, part, index_self, stderr_console()).run(log_level_reloader(config, given)))
    return 0


class _ServerProcess:
    """Lifecycle of a server process, from its socket to its end."""

    def __init__(self, setup: Setup, role: Role, index_self: Path | None, console: Console) -> None:
        self._setup = setup
        self._role = role
        self._index_self = index_self
        self._console = console
        self._stop = ShutdownSignal()

    async def run(self, hangup: Callable[[], None]) -> None:
        """Serve until a signal comes.

        Args:
            hangup: Called at each SIGHUP.

        Raises:
            PenstockError: The server cannot be started.

        Cancellation:
            Before it listens: the app is closed, nothing is left behind.
        """
        settings, data_dir = self._setup.settings, self._setup.data_dir
        held = find_lock_holder(data_dir)
        if held is not None and held.url:
            message = f"a server (process {held.pid}) runs on {data_dir} already, at {held.url}"
            raise Unavailable(message, dependency="data directory", code="directory_locked")
        # Before the model is prepared: a busy port should not be told minutes later.
        with contextlib.closing(bind_socket(settings.server.host, settings.server.port)) as bound:
            self._stop.install(asyncio.get_running_loop())
            on_sighup(hangup)
            app = build(settings, data_dir, role=self._role)
            try:
                if await self._started(app):
                    await self._serve(app, bound)
            finally:
                await app.close()

    async def _started(self, app: App) -> bool:
        """Start the app; return false when a signal came first."""
        with show_model_progress(self._console) as progress:
            starting = asyncio.create_task(app.start(progress))
            await self._first(starting)
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
        if starting.cancelled():
            return False
        starting.result()
        freeze_startup_objects()
        return True

    async def _serve(self, app: App, bound: socket) -> None:
        server = create_server(app.asgi, self._setup.settings.http)
        url = socket_url(bound)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        listening = asyncio.create_task(server.listening.wait())
        await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            listening.cancel()
            await serving
            return
        app.publish_url(url)
        self._console.print(f"Penstock listens on {url} (data in {self._setup.data_dir})", soft_wrap=True)
        sd_notify(READY)
        greeting = asyncio.create_task(self._greet(url))
        try:
            await self._first(serving)
        finally:
            greeting.cancel()
            await asyncio.gather(greeting, return_exceptions=True)
        if self._stop.requested.is_set():
            await self._end(app, server)
        await serving

    async def _first(self, task: asyncio.Task[None]) -> None:
        """Wait until the task has ended or a signal came."""
        asked = asyncio.create_task(self._stop.requested.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()

    async def _end(self, app: App, server: HttpServer) -> None:
        sd_notify(STOPPING)
        drain_s = self._setup.settings.http.drain_timeout
        if self._console.is_terminal:
            self._console.print("\nStopping: running requests may finish; Ctrl-C again to stop at once.")
        if not await shut_down(app, server, self._stop, drain_s):
            self._console.print("Stopped before all requests had finished.")

    async def _greet(self, url: str) -> None:
        """Index what was asked for, then show how to search it."""
        if self._index_self is None:
            return
        # What indexes takes a while to import, which a server that is only started need not wait for.
        from penstock.cli.index import first_index  # noqa: PLC0415

        try:
            await first_index(url, self._setup.settings, self._setup.data_dir, self._index_self, self._console)
        except PenstockError as error:
            self._console.print(f"error: {self._index_self} could not be indexed: {error.detail}", soft_wrap=True)
            return
        name = os.environ.get("PENSTOCK_COMMAND") or "penstock"
        self._console.print(examples(url, name, self._setup.data_dir), soft_wrap=True)


def examples(url: str, command_name: str, data_dir: Path) -> str:
    """Return the lines that say how to go on."""
    # Where the directory is the one chosen anyway, naming it would only be noise.
    flag = "" if data_dir == Path.cwd() / ".penstock" else f" --data-dir {data_dir}"
    body = '{"query": "how are search results fused", "limit": 3}'
    return (
        f"\nPenstock is ready: {url}\n\n"
        f"  {command_name} search 'how are search results fused'{flag}\n"
        f"  curl -s {url}/v1/search -H 'content-type: application/json' -d '{body}'\n"
    )
