"""One Penstock over several hosts: an API host, two worker hosts, a broker host, and a host with points."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from bench.faults.brokers import Broker, Kafka, Redis
from bench.faults.hosts import Host, Network
from bench.faults.parts import POLL_S, START_S_MAX, Part
from bench.workbench import MODELS
from penstock.models.model_source import find_source
from penstock.models.prepare import prepare_model

API_PORT: Final = 8080
POINTS_PORT: Final = 6333
BROKERS: Final = {"redis": Redis, "kafka": Kafka}
#: The worker whose link can be cut and made slow, and that is killed.
VICTIM: Final = "worker1"
WORKERS: Final = (VICTIM, "worker2")


@dataclass(frozen=True, slots=True)
class Layout:
    """What runs where.

    Attributes:
        broker: What carries the bus.
        points: ``edge``: the embedded engine on the API host, where search and index run too; ``qdrant``: a host with
            points, and every pool on the worker hosts.
    """

    broker: str
    points: str

    @property
    def name(self) -> str:
        """How it is called: ``redis/qdrant``."""
        return f"{self.broker}/{self.points}"

    @property
    def at_api(self) -> tuple[str, ...]:
        """What the API host is told of pools."""
        return ("--pool", "search,index") if self.points == "edge" else ()

    @property
    def at_workers(self) -> str:
        """The worker hosts' pools."""
        return "chunk,embed,sparse,rerank" if self.points == "edge" else "all"


LAYOUTS: Final = {
    one.name: one for one in (Layout("redis", "qdrant"), Layout("kafka", "qdrant"), Layout("redis", "edge"))
}


class Plant:
    """The hosts and what runs on them.

    Args:
        network: The network; a new one.
        layout: What runs where.
        directory: Where data and logs go; new.

    Attributes:
        network: As given.
        broker: The broker.
        workers: By host.
        api: The server.
    """

    def __init__(self, network: Network, layout: Layout, directory: Path) -> None:
        self.network, self._directory = network, directory
        api, store = network.add("api"), network.add("points")
        self.broker: Broker = BROKERS[layout.broker](network.add("broker"), directory / "broker")
        self._common = {"PENSTOCK_RATE_LIMIT": "0", "PENSTOCK_LOG_LEVEL": "warning"}
        if layout.points == "qdrant":
            self._common |= {"STORE_BACKEND": "qdrant", "QDRANT_URL": f"http://{store.address}:{POINTS_PORT}"}
        serve = ("-m", "penstock", "serve", "--role", "api", *layout.at_api, "--host", api.address, "--insecure")
        self.api = self._part(api, (*serve, "--port", str(API_PORT)), "Penstock listens")
        work = ("-m", "penstock", "worker", "--pool", layout.at_workers)
        hosts = {name: network.add(name, wired=name == VICTIM) for name in WORKERS}
        self.workers = {name: self._part(host, work, "Penstock works for") for name, host in hosts.items()}
        listen = ("-m", "bench.faults.points", store.address, str(POINTS_PORT))
        self._points = Part("points", store, listen, {}, directory / "points.log", "Points are at hand")
        self._keeps = layout.points == "qdrant"

    @property
    def url(self) -> str:
        """Where the server is."""
        return f"http://{self.api.host.address}:{API_PORT}"

    def _part(self, host: Host, arguments: tuple[str, ...], sign: str) -> Part:
        data_dir = self._directory / host.name
        data_dir.mkdir(parents=True)
        (data_dir / "models").symlink_to(MODELS)
        log = self._directory / f"{host.name}.log"
        return Part(host.name, host, (*arguments, "--data-dir", str(data_dir)), self._common, log, sign)

    async def start(self) -> None:
        """Start everything and wait until the server is ready."""
        await asyncio.to_thread(prepare_model, find_source(), MODELS)
        await self.broker.start()
        self._common |= self.broker.settings
        if self._keeps:
            await self._points.start()
        parts = [*self.workers.values(), self.api]
        for part in parts:
            part.launch()
        for part in parts:
            await part.ready()
        await self.ready()

    async def ready(self) -> None:
        """Wait until the server says that it is ready.

        Raises:
            RuntimeError: It does not.
        """
        until_s = time.monotonic() + START_S_MAX
        async with httpx.AsyncClient(timeout=2.0) as client:
            while time.monotonic() < until_s:
                try:
                    if (await client.get(f"{self.url}/readyz")).status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(POLL_S)
        raise RuntimeError(f"the server did not become ready, see {self._directory}")

    def close(self) -> None:
        """End everything."""
        for part in (self.api, *self.workers.values(), self._points):
            part.kill()
        self.broker.close()


@asynccontextmanager
async def running(network: Network, layout: Layout, directory: Path) -> AsyncIterator[Plant]:
    """Run a layout; everything has ended afterwards, however that comes about."""
    plant = Plant(network, layout, directory)
    try:
        await plant.start()
        yield plant
    finally:
        plant.close()
