"""A storm over a whole server: random requests of random callers, while what it depends on comes and goes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from penstock.kernel.settings import Settings
from tests.clock import quiet, who_waits
from tests.fakes.api import Caller
from tests.fakes.faults import Mood
from tests.simulation.world import CROWD, SMALL, WORDS, World, changed

#: Requests in one storm.
REQUESTS = 220
#: Nobody waits longer than this for an answer, whatever happens.
PATIENCE_S = 30.0

JSON = {"content-type": "application/json"}


class Storm:
    """One storm.

    Args:
        seed: Everything random follows from it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.world = World(seed, self._settings(), steady=False)
        self._tasks: list[asyncio.Task[Any]] = []

    async def through(self) -> None:
        """Live through the storm, and through the calm after it."""
        async with self.world as world:
            weather = asyncio.create_task(self._weather())
            await self._rage(REQUESTS)
            weather.cancel()
            await self._all_ended(PATIENCE_S)
            await self._clear_up()
            world.books.check_at_rest()
            self._check_books()
            # The storm was one that tells something.
            assert set(world.ends) >= {"answered", "refused", "gone"}, world.ends
            assert world.ends["answered"] >= REQUESTS / 10, world.ends

    async def into_the_drain(self) -> None:
        """Drain and close the server while the storm rages."""
        async with self.world as world:
            weather = asyncio.create_task(self._weather())
            await self._rage(REQUESTS // 3)
            drain = asyncio.create_task(self._drain())
            await self._rage(REQUESTS // 6)
            weather.cancel()
            await asyncio.gather(weather, return_exceptions=True)
            await drain
            late = await world.search()
            assert late.code in ("draining", "rate_limited"), late
        await self._all_ended(0.1)
        assert world.gate.traffic.in_flight == world.working() == 0
        assert all(state.counts.offered == state.counts.ended for state in world.core.bus.state())

    # --- Requests

    async def _rage(self, count: int) -> None:
        sent = 0
        while sent < count:
            burst = self.random.choice([1, 1, 2, 3, 8, 40])
            for _ in range(burst):
                self._tasks.append(asyncio.create_task(self._request()))
            sent += burst
            for _ in range(self.random.randint(0, 5)):
                await asyncio.sleep(0)
            await asyncio.sleep(self._moment(0.06 * burst))

    async def _request(self) -> None:
        """Send one request of a random kind as a random caller."""
        method, path, body = self._what()
        headers = {"x-api-key": "hog" if self._happens(0.3) else self.random.choice(CROWD)}
        if self._happens(0.4):
            headers["x-criticality"] = self.random.choice(["interactive", "standard", "bulk"])
        if self._happens(0.1):
            headers["x-stainless-retry-count"] = "1"
        if self._happens(0.1):
            headers["x-request-timeout-ms"] = str(self.random.choice([1, 40, 300]))
        caller = self._caller()
        if self._happens(0.12):
            asyncio.get_running_loop().call_later(self._moment(0.1), caller.gone.set)
        reply = await self.world.ask(method, path, body, headers, caller=caller)
        if reply.status >= 300:
            assert reply.code, "an error without a code"
        if reply.status in (429, 503) and reply.code:
            assert int(reply.headers["retry-after"]) >= 1

    def _what(self) -> tuple[str, str, Any]:
        documents = "/v1/collections/default/documents"
        text = self._text()
        kinds: Mapping[str, tuple[int, tuple[str, str, Any]]] = {
            "search": (60, ("POST", "/v1/search", self._search())),
            "index": (10, ("POST", documents, self._documents())),
            "large": (1, ("POST", documents, {"documents": [{"id": "large", "text": "x" * 300_000}]})),
            "embed": (6, ("POST", "/v1/embed", {"texts": [text, self._text()]})),
            "sparse": (3, ("POST", "/v1/sparse", {"texts": [text]})),
            "rerank": (6, ("POST", "/v1/rerank", {"query": text, "texts": [self._text(), self._text()]})),
            "openai": (3, ("POST", "/v1/embeddings", {"model": "penstock", "input": [text]})),
            "cohere": (3, ("POST", "/v2/rerank", self._cohere())),
            "tei": (3, ("POST", "/embed", {"inputs": [text]})),
            "status": (3, ("GET", "/v1/status", None)),
            "alerts": (1, ("GET", "/v1/alerts", None)),
            "metrics": (1, ("GET", "/metrics", None)),
            "list": (2, ("GET", documents, None)),
            "delete": (1, ("DELETE", documents, {"ids": [self.random.choice(WORDS)]})),
            "create": (1, ("PUT", f"/v1/collections/{self.random.choice(WORDS)}", None)),
            "drop": (1, ("DELETE", f"/v1/collections/{self.random.choice(WORDS)}", None)),
            "nonsense": (2, ("POST", "/v1/search", "{")),
            "nowhere": (1, ("GET", "/v1/nowhere", None)),
        }
        weights = [weight for weight, _ in kinds.values()]
        return kinds[self.random.choices(list(kinds), weights)[0]][1]

    def _search(self) -> dict[str, Any]:
        body: dict[str, Any] = {"query": self._text(), "strict": self._happens(0.1), "rerank": self._happens(0.9)}
        if self._happens(0.3):
            body["timeout_ms"] = self.random.choice([20, 100, 300, 1000])
        if self._happens(0.1):
            body["weights"] = {"dense": self.random.choice([0, 1]), "sparse": 1}
        return body

    def _cohere(self) -> dict[str, Any]:
        documents = [self._text(), self._text()]
        return {"model": "penstock", "query": self._text(), "documents": documents, "priority": self._happens(0.3) * 5}

    def _documents(self) -> dict[str, Any]:
        count = self.random.randint(1, 4)
        return {
            "documents": [
                {"id": f"doc-{self.random.randint(0, 9)}-{number}", "text": "\n".join(self._text() for _ in range(6))}
                for number in range(count)
            ]
        }

    def _text(self) -> str:
        return f"{self.random.choice(WORDS)} {self.random.randint(0, 60)}"

    def _caller(self) -> Caller:
        """Return a caller: most are well-behaved."""
        kind = self.random.random()
        if kind < 0.03:
            return Caller(None, reads=False)
        if kind < 0.05:
            return Caller(None, pause_s=float("inf"))
        return Caller(None, pause_s=self._moment(0.3) if kind < 0.1 else 0.0)

    # --- Weather

    async def _weather(self) -> None:
        """Let things fail, hang, come back; let memory rise and fall; let the loop stall."""
        world = self.world
        while True:
            await asyncio.sleep(self._moment(0.4))
            kind = self.random.random()
            if kind < 0.55:
                one = self.random.choice(world.dependencies())
                one.turn(self.random.choice([Mood.WELL, Mood.WELL, Mood.SLOW, Mood.HANGS, Mood.RAISES, Mood.DEAD]))
            elif kind < 0.7:
                for one in world.dependencies():
                    one.turn(Mood.WELL)
            elif kind < 0.85:
                world.memory_share = self.random.choice([0.3, 0.85, 0.95])
            else:
                world.loop.spend(self._moment(0.3))

    async def _clear_up(self) -> None:
        """Let everything be well again, and ask now and then until the server has noticed."""
        world = self.world
        world.memory_share = 0.3
        for one in world.dependencies():
            one.turn(Mood.WELL)
        for number in range(8):
            await asyncio.sleep(10)
            for path, body in (
                ("/v1/search", {"query": f"calm {number}"}),
                ("/v1/rerank", {"query": "calm", "texts": ["calm"]}),
            ):
                await world.ask("POST", path, body)
        assert (await world.search("calm at last")).json["degraded"] == []

    async def _drain(self) -> None:
        gate = self.world.gate
        gate.traffic.draining = True
        await gate.wait_drained(self._moment(1.0))
        assert gate.traffic.in_flight <= self.world.asking

    # --- What must have become of it

    async def _all_ended(self, within_s: float) -> None:
        """Wait for every caller's end, and look at it."""
        _, waiting = await asyncio.wait(self._tasks, timeout=within_s)
        assert not waiting, who_waits(waiting)
        for task in self._tasks:
            task.result()
        await quiet()

    def _check_books(self) -> None:
        """Hold what the server counted against what its callers saw."""
        world, gate = self.world, self.world.gate
        assert gate.traffic.client_gone + gate.traffic.cut_off == world.ends["gone"], (gate.traffic, world.ends)
        assert gate.traffic.in_time + gate.traffic.too_late <= world.sent - world.ends["gone"]
        refused = sum(world.core.metrics.counts_by_label(world.core.metrics.refused).values())
        assert refused >= world.ends["refused"], (refused, world.ends)

    def _moment(self, mean_s: float) -> float:
        """Return a random time in whole hundredths: most things happen at the same moment as others."""
        return round(self.random.expovariate(1 / mean_s), 2)

    def _happens(self, share: float) -> bool:
        return self.random.random() < share

    def _settings(self) -> Settings:
        """Return a small server's settings, some of them drawn."""
        choice = self.random.choice
        return changed(
            SMALL,
            search={"workers": choice([1, 2, 4]), "queue_size": choice([8, 20, 40])},
            bus={
                "buffer_size": choice([4, 16, 40]),
                "client_share": choice([0.25, 0.5, 1.0]),
                "discipline": choice(["fair", "fair", "fair", "fifo"]),
            },
            http={"rate_limit": choice([0, 30, 100]), "rate_burst": 30, "max_concurrent": choice([10, 60])},
            ml={"max_inflight": choice([2, 3, 5])},
        )
