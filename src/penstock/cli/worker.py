"""``penstock worker``: do the work of some pools for servers elsewhere, until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from socket import socket

import click

from penstock.app.app import App
from penstock.app.role import Role
from penstock.cli.http_server import bind_socket, socket_url
from penstock.cli.options import POOLS_IN_ORDER, parse_pools
from penstock.cli.server_process import ServerProcess, run_process


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
    given = {"--data-dir": data_dir, "worker --host": host, "worker --port": port}
    run_process(config, given, lambda setup: _Worker(setup, role))
    return 0


class _Worker(ServerProcess):
    def bind(self) -> socket | None:
        worker = self.setup.settings.worker
        self._bound = bind_socket(worker.host, worker.port, "worker") if worker.port else None
        return self._bound

    def announce(self, app: App) -> None:  # noqa: ARG002 - the server's signature
        names = ", ".join(name for name in POOLS_IN_ORDER if name in self.role.pools)
        where = f", and tells how it is at {socket_url(self._bound)}" if self._bound is not None else ""
        backend = self.setup.settings.bus.backend
        self.console.print(f"Penstock works for {names}, over {backend}{where}", soft_wrap=True)

    async def drained(self, app: App) -> bool:
        return await app.drain_bus(self.setup.settings.http.drain_timeout)
