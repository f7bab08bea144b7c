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
from penstock.app.role import ALL, Role
from penstock.cli.hangup import hear_hangups, hold_hangups, log_level_reader
from penstock.cli.listening import Listener, Stop, bind, end, listener, url_of
from penstock.cli.notify import READY, STOPPING, notify
from penstock.cli.options import Setup, set_up, settle
from penstock.cli.preparation import preparing
from penstock.cli.roles import chosen
from penstock.cli.terminal import notices
from penstock.kernel.errors import PenstockError, Unavailable
from penstock.kernel.garbage import keep_what_is_there
from penstock.stores.lock import holder
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
    part = ALL if role == "all" else Role(pools=chosen(pools) if pools is not None else frozenset())
    hold_hangups()
    given = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
    setup = set_up(config, given)
    settle(setup)
    configure(setup.settings.server.log_level)
    with setup.blamed(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Service(setup, part, index_self, notices()).run(log_level_reader(config, given)))
    return 0


class _Service:
    """One server from its socket to its end."""

    def __init__(self, setup: Setup, role: Role, index_self: Path | None, console: Console) -> None:
        self._setup = setup
        self._role = role
        self._index_self = index_self
        self._console = console
        self._stop = Stop()

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
        held = holder(data_dir)
        if held is not None and held.url:
            message = f"a server (process {held.pid}) runs on {data_dir} already, at {held.url}"
            raise Unavailable(message, dependency="data directory", code="directory_locked")
        # Before the model is prepared: a busy port should not be told minutes later.
        with contextlib.closing(bind(settings.server.host, settings.server.port)) as bound:
            self._stop.heed(asyncio.get_running_loop())
            hear_hangups(hangup)
            app = build(settings, data_dir, role=self._role)
            try:
                if await self._started(app):
                    await self._serve(app, bound)
            finally:
                await app.close()

    async def _started(self, app: App) -> bool:
        """Start the app; return false when a signal came first."""
        with preparing(self._console) as progress:
            starting = asyncio.create_task(app.start(progress))
            await self._first(starting)
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
        if starting.cancelled():
            return False
        starting.result()
        keep_what_is_there()
        return True

    async def _serve(self, app: App, bound: socket) -> None:
        server = listener(app.asgi, self._setup.settings.http)
        url = url_of(bound)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        listening = asyncio.create_task(server.listening.wait())
        await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            listening.cancel()
            await serving
            return
        app.announce(url)
        self._console.print(f"Penstock listens on {url} (data in {self._setup.data_dir})", soft_wrap=True)
        notify(READY)
        greeting = asyncio.create_task(self._greet(url))
        try:
            await self._first(serving)
        finally:
            greeting.cancel()
            await asyncio.gather(greeting, return_exceptions=True)
        if self._stop.asked.is_set():
            await self._end(app, server)
        await serving

    async def _first(self, task: asyncio.Task[None]) -> None:
        """Wait until the task has ended or a signal came."""
        asked = asyncio.create_task(self._stop.asked.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()

    async def _end(self, app: App, server: Listener) -> None:
        notify(STOPPING)
        drain_s = self._setup.settings.http.drain_timeout
        if self._console.is_terminal:
            self._console.print("\nStopping: running requests may finish; Ctrl-C again to stop at once.")
        if not await end(app, server, self._stop, drain_s):
            self._console.print("Stopped before all requests had finished.")

    async def _greet(self, url: str) -> None:
        """Index what was asked for, then show how to search it."""
        if self._index_self is None:
            return
        # What indexes takes a while to import, which a server that is only started need not wait for.
        from penstock.cli.first_index import first_index  # noqa: PLC0415

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
