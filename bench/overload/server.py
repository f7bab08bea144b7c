"""The server's process: one system on one core, until its standard input ends.

``python -m bench.overload.server``: the setup on stdin; the port and, at the end, what was served on stdout.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop

from bench.overload.house import House
from bench.overload.peers import Asgi, PeerApp, Receive, Scope, Send, peer_server, respond
from bench.overload.records import Served, Setup
from bench.overload.trial import settle
from bench.overload.work import Dependency, Workshop
from penstock.cli.http_server import bind_socket, create_server

BEGIN = "/bench/begin/"


class Ledger:
    """The clocks of this process since the scenario's beginning.

    Args:
        app: The system, asked for everything but the beginning.
        workshop: Is told of the beginning.
    """

    def __init__(self, app: Asgi, workshop: Workshop) -> None:
        self._app = app
        self._workshop = workshop
        self._before = (0.0, 0.0, 0.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http" and scope["path"].startswith(BEGIN):
            self._workshop.begin(float(scope["path"][len(BEGIN) :]))
            self._before = _clocks()
            await respond(send, 200, b"{}")
        else:
            await self._app(scope, receive, send)

    def served(self, counts: dict[str, int]) -> Served:
        """Return what was served since the beginning."""
        cpu_s, waited_s, wall_s = (after - before for after, before in zip(_clocks(), self._before, strict=True))
        return Served(list(self._workshop.held), cpu_s, waited_s, wall_s, counts)


def _clocks() -> tuple[float, float, float]:
    """Return the process's CPU time, the main thread's time in line for its core, and the time of day, in seconds."""
    waited_s = int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    return time.process_time(), waited_s, time.monotonic()


async def _serve(setup: Setup) -> bytes:
    """Serve until standard input ends; return what was served."""
    workshop = Workshop(setup.load, Dependency(setup.phases))
    house = House(setup.variant, workshop, setup.load) if setup.variant is not None else None
    bound = bind_socket("127.0.0.1", 0)
    server: uvicorn.Server
    if house is not None:
        ledger = Ledger(house.gate, workshop)
        server = create_server(ledger)
    elif setup.peer is not None:
        ledger = Ledger(PeerApp(setup.peer, workshop, setup.load), workshop)
        server = peer_server(ledger, setup.peer)
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(server.serve(sockets=[bound]))]
    if house is not None:
        tasks.append(asyncio.create_task(house.observe()))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    print(bound.getsockname()[1], flush=True)
    gc.freeze()
    await asyncio.to_thread(sys.stdin.buffer.read)
    return msgspec.msgpack.encode(ledger.served(house.counts() if house is not None else {}))


def main() -> None:
    """Read the setup, serve, tell."""
    logging.disable(logging.CRITICAL)
    setup = msgspec.json.decode(sys.stdin.buffer.readline(), type=Setup)
    settle(setup.core)
    served = uvloop.new_event_loop().run_until_complete(_serve(setup))
    sys.stdout.buffer.write(served)
    sys.stdout.buffer.flush()
    os._exit(0)  # what hangs, hangs


if __name__ == "__main__":
    main()
