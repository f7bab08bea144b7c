"""``penstock mcp``: MCP on standard input and output, for agents that start a command."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from penstock.cli.data_directory import default_data_dir
from penstock.cli.mcp_bridge import KEY_VARIABLE, ServerAddress, StdioBridge, check_key, check_url
from penstock.kernel.errors import Unavailable
from penstock.stores.lock import LockHolder, find_lock_holder


@click.command("mcp")
@click.option("--url", metavar="URL", help="URL of the server, such as http://127.0.0.1:8080.")
@click.option("--data-dir", metavar="DIR", help="Data directory of a server on this machine, if not the usual one.")
def command(url: str | None, data_dir: str | None) -> int:
    """Serve MCP on standard input and output, through a running server.

    Agents start this command themselves; `penstock agents install` writes their configuration. It has no model and no
    index of its own. Without --url it finds the server on the data directory as other commands do, and finds it again
    after a restart. It starts also where no server runs yet, and tells so in its answers. The API key comes from
    PENSTOCK_API_KEY; on the server's own data directory it needs none to read.
    """
    if url is not None and data_dir is not None:
        raise click.UsageError("say either --url or --data-dir")
    key = check_key(os.environ.pop(KEY_VARIABLE, ""))
    if url is not None:
        fixed = LockHolder(0, check_url(url), agent_key=key)
        server = ServerAddress(lambda: fixed)
    else:
        directory = default_data_dir(data_dir or "")
        server = ServerAddress(lambda: server_of(directory), key)
    bridge = StdioBridge(server, sys.stdin.buffer, sys.stdout.buffer)

    def end(*_: Any) -> None:
        bridge.cancel_all()
        os._exit(0)

    ends = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in ends:
        signal.signal(number, end)
    # An agent may have started this with a signal blocked, which its children would never hear.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
    bridge.run()
    return 0


def server_of(directory: Path) -> LockHolder:
    """Return the server on a data directory.

    Raises:
        Unavailable: None runs there (``server_down``), or it is starting (``server_starting``).
    """
    held = find_lock_holder(directory)
    if held is None:
        detail = f"no server runs on {directory}; start one with `penstock serve --data-dir {directory}`"
        raise Unavailable(detail, dependency="server", code="server_down")
    if not held.url:
        detail = f"the server on {directory} is starting, or another command is at work there; try again in a moment"
        raise Unavailable(detail, dependency="server", code="server_starting")
    return held
