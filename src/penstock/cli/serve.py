"""``penstock serve``: run the server until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path
from socket import socket
from typing import Any

import click

from penstock.app.app import App
from penstock.app.key_watch import requires_keys
from penstock.app.role import ALL_IN_ONE, Role
from penstock.cli.certificate import ServerCertificate
from penstock.cli.http_server import bind_socket, is_loopback, socket_url
from penstock.cli.options import Setup, parse_pools
from penstock.cli.server_process import ServerProcess, run_process
from penstock.kernel.errors import Invalid, PenstockError, Unavailable
from penstock.stores.lock import LockHolder, find_lock_holder

log = logging.getLogger(__name__)


@click.command("serve")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="YAML file with settings.")
@click.option("--host", metavar="ADDRESS", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", metavar="PORT", help="Port to listen on (default 8080); 0: any free one.")
@click.option(
    "--insecure", flag_value="true", help="Listen beyond loopback, where anyone who reaches it may do everything."
)
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
    second Ctrl-C ends at once. SIGHUP reads keys, certificate and log level again.
    """
    if pools is not None and role == "all":
        raise click.UsageError("--pool goes with --role api; without, all pools work here")
    part = ALL_IN_ONE if role == "all" else Role(pools=parse_pools(pools) if pools is not None else frozenset())
    given = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
    run_process(config, given, lambda setup: _Server(setup, part, index_self))
    return 0


class _Server(ServerProcess):
    stopping = "\nStopping: running requests may finish; Ctrl-C again to stop at once."
    cut_short = "Stopped before all requests had finished."

    def __init__(self, setup: Setup, role: Role, index_self: Path | None) -> None:
        super().__init__(setup, role)
        self._index_self = index_self
        server = setup.settings.server
        self._certificate = ServerCertificate(server.tls_cert, server.tls_key) if server.tls_cert else None
        self._reloading: set[asyncio.Task[None]] = set()

    def bind(self) -> socket:
        data_dir, server = self.setup.data_dir, self.setup.settings.server
        held = find_lock_holder(data_dir)
        if held is not None and held.url:
            message = f"a server (process {held.pid}) runs on {data_dir} already, at {held.url}"
            raise Unavailable(message, dependency="data directory", code="directory_locked")
        self._bound = bind_socket(server.host, server.port)
        if not is_loopback(self._bound):
            self._check_exposed(server.host)
        return self._bound

    def _check_exposed(self, host: str) -> None:
        """Say what it means that other machines reach the server.

        Raises:
            Invalid: There are no keys, and that has not been allowed (``not_loopback``).
        """
        if requires_keys(self.setup.settings, self.setup.data_dir):
            if self._certificate is None:
                log.warning("%s is not loopback, and keys travel unencrypted: set PENSTOCK_TLS_CERT", host)
            return
        risk = f"{host} is not loopback: anyone who reaches it may read, change and delete everything"
        if not self.setup.settings.server.insecure:
            self._bound.close()
            way = "make a key with `penstock keys create NAME`, or allow it with --insecure"
            raise Invalid(f"{risk}; {way}", field="server.host", code="not_loopback")
        log.warning("%s (--insecure)", risk)

    def announce(self, app: App) -> None:
        url = self._url
        app.publish(url, self._certificate.pem if self._certificate is not None else "")
        self.console.print(f"Penstock listens on {url} (data in {self.setup.data_dir})", soft_wrap=True)

    @property
    def _url(self) -> str:
        return socket_url(self._bound, "http" if self._certificate is None else "https")

    def tls(self) -> ssl.SSLContext | None:
        return None if self._certificate is None else self._certificate.context

    def reload(self, app: App) -> None:
        if self._certificate is not None:
            self._certificate.reload()
            app.renew_certificate(self._url, self._certificate.pem)
        task = asyncio.get_running_loop().create_task(app.reload_keys(), name="keys")
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def drained(self, app: App) -> bool:
        return await app.wait_drained(self.setup.settings.http.drain_timeout)

    async def follow_up(self) -> None:
        """Index what was asked for, then show how to search it."""
        if self._index_self is None:
            return
        # What indexes takes a while to import, which a server that is only started need not wait for.
        from penstock.cli.index import first_index  # noqa: PLC0415

        url, data_dir = self._url, self.setup.data_dir
        server = find_lock_holder(data_dir) or LockHolder(os.getpid(), url)
        try:
            await first_index(server, self.setup.settings, data_dir, self._index_self, self.console)
        except PenstockError as error:
            self.console.print(f"error: {self._index_self} could not be indexed: {error.detail}", soft_wrap=True)
            return
        name = os.environ.get("PENSTOCK_COMMAND") or "penstock"
        self.console.print(examples(url, name, data_dir), soft_wrap=True)


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
