"""The whole server on virtual time with its dense model on another server: well, slow, full, dead, talking nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx

from penstock.core.dependencies import Dependencies
from penstock.kernel.context import Context
from penstock.kernel.messages import EmbedBatch
from penstock.models.remote_endpoint import ModelEndpoint, ModelEndpointSettings
from penstock.models.remote_formats import DENSE_FORMATS
from penstock.models.remote_models import RemoteEmbedder
from penstock.policies.breaker import BreakerState
from tests.clock import virtual
from tests.fakes.endpoint import KEY, FakeEndpoint, always, dead, well
from tests.fakes.loop_clock import LoopClock
from tests.fakes.models import DIM
from tests.simulation.replies import Reply, ends, words
from tests.simulation.world import SMALL, World, changed

#: Room for many calls at once: what holds them back is to be the limit.
ROOMY = changed(SMALL, ml={"embed_workers": 16, "max_inflight": 32}, search={"workers": 16})
#: A server that works on two calls at once, 20 ms each.
AT_ONCE = 2
TAKES_S = 0.02


class RemoteWorld(World):
    """A world whose dense model is behind an endpoint.

    Attributes:
        endpoint: The endpoint.
    """

    def __init__(self) -> None:
        super().__init__(settings=ROOMY)
        self.endpoint = FakeEndpoint(TAKES_S, AT_ONCE)

    def limit(self) -> int:
        """Return how many calls may be out, as a scrape sees it."""
        return int(self.metric("worker_pool_limit", pool="embed"))

    def calls(self, outcome: str) -> int:
        """Return what became of calls so far."""
        return int(self.metric("dependency_calls_total", dependency="embed", outcome=outcome))

    def _parts(self) -> Dependencies:
        settings = ModelEndpointSettings("embed", "models.dense", "http://models.test", KEY, 16)
        endpoint = ModelEndpoint(settings, "/v1/embeddings", LoopClock(), self.endpoint)
        self._model = RemoteEmbedder(endpoint, DENSE_FORMATS["openai"], 32, "tiny", dim=DIM)
        parts = super()._parts()
        return replace(parts, remote_dependencies=frozenset({"embed"}), models=replace(parts.models, late=0))

    async def _embed(self, batch: EmbedBatch, ctx: Context) -> Any:
        return await self._model.embed(batch.texts, batch.kind, ctx)


async def flooded(world: RemoteWorld, seconds: float, look: Callable[[], int], rate: float = 40) -> list[int]:
    """Flood the server and return what ``look`` saw, every tenth of a second."""
    task = asyncio.create_task(world.flood(rate, seconds))
    seen = []
    while not task.done():
        await asyncio.sleep(0.1)
        seen.append(look())
    await task
    return seen


def in_full(replies: list[Reply]) -> float:
    """Return the share of searches that were answered and lacked nothing."""
    return words(replies)["none"] / len(replies)


@virtual
async def test_a_remote_model_that_is_well_is_used_up_to_what_it_can_take():
    async with RemoteWorld() as world:
        await world.flood(40, 3)
        assert in_full(await world.flood(80, 4)) > 0.95
        assert world.endpoint.most <= 8
        assert world.calls("refused") == 0


@virtual
async def test_a_slow_remote_model_is_asked_less_at_once_and_searches_go_on():
    async with RemoteWorld() as world:
        limits = await flooded(world, 5, world.limit)
        before = limits[-1]
        assert before >= AT_ONCE
        world.endpoint.takes_s = 25 * TAKES_S  # four calls a second, where ten times as many are wanted
        world.endpoint.most = 0
        replies = await world.flood(40, 6)
        assert world.limit() <= 2
        await world.flood(40, 6)
        assert world.endpoint.running <= 4
        # What the model cannot do now waits in its topic; searches come to their answer without it.
        assert ends(replies)["answered"] > 0.9 * len(replies), ends(replies)
        assert words(replies)["no_dense"] + words(replies)["one_arm"] > 0.3 * len(replies), words(replies)
        assert world.calls("refused") == 0
        world.endpoint.takes_s = TAKES_S
        await world.flood(20, 20)
        assert in_full(await world.flood(40, 5)) > 0.95
        assert world.limit() >= AT_ONCE


@virtual
async def test_a_remote_model_at_its_rate_is_left_alone_as_long_as_it_asks():
    async with RemoteWorld() as world:
        await world.flood(40, 2)
        asked = len(world.endpoint.asked)
        world.endpoint.behave = always(429, headers={"retry-after": "2"})
        replies = await world.flood(40, 10)
        assert len(world.endpoint.asked) - asked <= 12, "it is asked again and again"
        assert ends(replies)["answered"] == len(replies)
        assert words(replies)["no_dense"] > 0.9 * len(replies)
        assert world.calls("retries") == 0
        assert world.core.guards["embed"].state is BreakerState.CLOSED, "it answers: that is no failure"
        world.endpoint.behave = well
        await asyncio.sleep(3)
        assert in_full(await world.flood(20, 2)) > 0.9


@virtual
async def test_a_storm_of_refusals_without_a_time_is_held_by_the_limit_and_never_retried():
    async with RemoteWorld() as world:
        await world.flood(40, 2)
        asked = len(world.endpoint.asked)
        world.endpoint.behave = always(429)
        replies = await world.flood(40, 5)
        assert len(world.endpoint.asked) - asked <= len(replies)
        assert world.limit() == 1
        assert world.calls("retries") == 0
        assert ends(replies)["answered"] == len(replies)


@virtual
async def test_a_dead_remote_model_is_asked_a_few_times_and_found_again():
    async with RemoteWorld() as world:
        await world.flood(40, 2)
        asked, calls = len(world.endpoint.asked), world.calls("calls")
        world.endpoint.behave = dead
        replies = await world.flood(40, 5)
        assert ends(replies)["answered"] == len(replies)
        assert len(world.endpoint.asked) - asked <= 20
        assert world.calls("retries") <= 0.1 * (world.calls("calls") - calls) + 20
        assert world.core.guards["embed"].state is not BreakerState.CLOSED
        world.endpoint.behave = well
        await world.flood(20, 8)
        assert world.core.guards["embed"].state is BreakerState.CLOSED
        assert in_full(await world.flood(20, 2)) > 0.9


@virtual
async def test_a_remote_model_that_talks_nonsense_is_broken_and_its_arm_left_out():
    async with RemoteWorld() as world:
        for nonsense in ({"json": {"data": []}}, {"content": b"<html>"}, {"json": {"data": [{"embedding": [1.0]}]}}):
            world.endpoint.behave = always(200, **nonsense)
            (reply,) = await world.flood(1, 1)
            assert (reply.status, reply.json["degraded"]) == (200, ["no_dense"])


@virtual
async def test_a_remote_model_that_dies_in_the_middle_of_an_answer_is_asked_again():
    async with RemoteWorld() as world:
        await world.flood(40, 2)  # savings of the retry budget
        left = [1]

        async def once(_request: httpx.Request) -> None:
            left[0] -= 1
            if left[0] >= 0:
                raise httpx.RemoteProtocolError("peer closed connection")

        world.endpoint.behave = once
        (reply,) = await world.flood(1, 1)
        assert (reply.status, reply.json["degraded"], world.calls("retries")) == (200, [], 1)


@virtual
async def test_the_key_is_in_nothing_that_the_server_tells():
    async with RemoteWorld() as world:
        for status in (401, 400, 500):
            world.endpoint.behave = always(status, json={"error": KEY})
            told = [await world.search(), await world.ask("POST", "/v1/embed", {"texts": ["new"]})]
            told += [await world.ask("GET", path) for path in ("/v1/status", "/metrics", "/v1/alerts")]
            assert not [one for one in told if KEY in str(one.json)]
