"""Readiness of the whole server on virtual time: what makes it unready, what does not, and how it is ready again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from penstock.core.dependencies import Dependencies
from penstock.kernel.context import Context
from penstock.kernel.errors import Unavailable
from penstock.policies.breaker import BreakerState
from penstock.stores.commands import StoreCommand
from penstock.stores.contract import CollectionDamaged
from tests.clock import virtual
from tests.simulation.world import World


class LocalWorld(World):
    """A world whose store is processes of its own machine, and tells what does not work of it."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []
        self.looks = 0
        self.store_is_gone = False

    def _parts(self) -> Dependencies:
        return replace(super()._parts(), probe_store=self._look_at_store, warnings=lambda: self.warnings)

    async def _look_at_store(self, _ctx: Context) -> None:
        self.looks += 1
        if self.store_is_gone:
            raise Unavailable("gone", dependency="store")

    async def _gone(self, _command: StoreCommand[Any]) -> None:
        if self.store_is_gone:
            raise Unavailable("gone", dependency="store")


@virtual
async def test_an_open_breaker_of_the_store_is_unready_and_ends_though_nobody_asks_anything():
    async with LocalWorld() as world:
        world.store.hook = world._gone
        await asyncio.sleep(5)
        assert world.looks == 0, "a store that does well is not asked"
        world.store_is_gone = True
        for n in range(8):
            await world.search(client=f"client-{n}")
        assert world.core.guards["store"].state is BreakerState.OPEN
        answer = await world.ask("GET", "/readyz")
        assert (answer.status, answer.json["reasons"]) == (503, ["the vector store does not answer"])
        world.store_is_gone = False
        await asyncio.sleep(60)
        assert (await world.ask("GET", "/readyz")).status == 200
        assert world.looks > 0


@virtual
async def test_a_damaged_collection_costs_its_own_requests_only():
    async with LocalWorld() as world:
        world.warnings.append("collection 'bad' is damaged: why")

        async def damaged(command: StoreCommand[Any]) -> None:
            if getattr(command, "collection", "") == "bad":
                raise CollectionDamaged("bad", "why")

        world.store.hook = damaged
        for _ in range(20):
            answer = await world.ask("GET", "/v1/collections/bad")
            assert (answer.status, answer.json["code"], answer.json["retryable"]) == (503, "collection_damaged", False)
            assert "retry-after" not in answer.headers
        assert (await world.search(client="other")).status == 200
        assert world.core.guards["store"].state is BreakerState.CLOSED
        ready = await world.ask("GET", "/readyz")
        assert (ready.status, ready.json["warnings"]) == (200, ["collection 'bad' is damaged: why"])
        status = await world.ask("GET", "/v1/status")
        assert (status.json["ready"], status.json["warnings"]) == (True, ["collection 'bad' is damaged: why"])
