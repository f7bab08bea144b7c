"""Connection of a command to the app: through the server that runs on the data directory, else in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from penstock.cli.options import Setup
from penstock.cli.progress_bars import show_model_progress
from penstock.cli.terminal import stderr_console
from penstock.client import AsyncClient, CallOptions
from penstock.client.pinning import pinned_context
from penstock.kernel.errors import Unavailable
from penstock.stores.lock import LockHolder, find_lock_holder


@asynccontextmanager
async def connect(setup: Setup, data_dir: Path | None = None) -> AsyncIterator[AsyncClient]:
    """Open the API of a data directory; show on standard error how its model is prepared.

    Args:
        setup: Of this process; a running server keeps its own settings.
        data_dir: Another data directory than the setup's; made if absent. Prepared models stay in the setup's.

    Yields:
        The API.

    Raises:
        Unavailable: Another process that is no server holds the directory (``data_dir_in_use``).

    Cancellation:
        An app of this process is closed; a server is left alone.
    """
    data_dir = data_dir or setup.data_dir
    server = running_server(data_dir)
    async with _in_process(setup, data_dir) if server is None else client_of(server) as api:
        yield api


def client_of(server: LockHolder, attempts_max: int | None = None) -> AsyncClient:
    """Return a client of the server on a data directory, with the key that the directory's owner has."""
    pinned = httpx.AsyncHTTPTransport(verify=pinned_context(server.certificate)) if server.certificate else None
    return AsyncClient(server.url, CallOptions(api_key=server.key, attempts_max=attempts_max), transport=pinned)


def running_server(data_dir: Path) -> LockHolder | None:
    """Return the server on a data directory, ``None`` where no process holds the directory.

    Raises:
        Unavailable: Another process that is no server, or not yet, holds the directory (``data_dir_in_use``).
    """
    held = find_lock_holder(data_dir)
    if held is not None and not held.url:
        who = f"process {held.pid}" if held.pid else "another process"
        message = f"{data_dir} is in use by {who}, which is starting or at work; wait until it is ready"
        raise Unavailable(message, dependency="store", code="data_dir_in_use")
    return held


@asynccontextmanager
async def _in_process(setup: Setup, data_dir: Path) -> AsyncIterator[AsyncClient]:
    # Imported here, since a client of a server needs neither the model's nor the store's libraries.
    from penstock.app.app import build  # noqa: PLC0415

    # The rate limit is for callers from outside; here the only caller is this command.
    unlimited = replace(setup.settings, http=replace(setup.settings.http, rate_limit=0))
    app = build(unlimited, data_dir, setup.data_dir / "models")
    try:
        with show_model_progress(stderr_console()) as progress:
            await app.start(progress)
        transport = httpx.ASGITransport(app=app.asgi, raise_app_exceptions=False)
        options = CallOptions(api_key=app.local_key)
        async with AsyncClient("http://localhost", options, transport=transport, label="the store") as api:
            yield api
    finally:
        await app.close()
