"""OpenAI's own client on virtual time, against a server that is asked for more than it can do: it waits as told."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from typing import Any

import httpx2
import openai

from penstock.kernel.settings import Settings
from tests.clock import virtual
from tests.simulation.replies import Reply
from tests.simulation.world import SMALL, World, changed

#: Callers at once: several times as many as the server has places for.
CROWD = 200


class Line(httpx2.AsyncBaseTransport):
    """Carries a client's requests into a world.

    Attributes:
        tries: When each text was asked for, whether as a retry, and what came of it.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.tries: dict[bytes, list[tuple[float, bool, Reply]]] = defaultdict(list)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        at_s = self._world.loop.time()
        headers = {name: value for name, value in request.headers.items() if name != "host"}
        reply = await self._world.ask(request.method, request.url.path, request.content, headers)
        self.tries[request.content].append((at_s, headers["x-stainless-retry-count"] != "0", reply))
        told = {name: reply.headers[name] for name in ("retry-after", "x-should-retry") if name in reply.headers}
        return httpx2.Response(reply.status, headers=told, json=reply.json)


async def ask_all(world: World, retries: int) -> tuple[Line, list[Any]]:
    """Let a crowd of clients embed a text each at once; return what was asked, and vectors or errors."""
    line = Line(world)
    http = httpx2.AsyncClient(transport=line)
    client = openai.AsyncOpenAI(base_url="http://penstock/v1", api_key="any", http_client=http, max_retries=retries)
    client._platform = "Linux"  # it would ask a thread, and there are none on virtual time

    async def ask(number: int) -> Any:
        return await client.embeddings.create(model="penstock", input=f"text {number}", encoding_format="float")

    return line, await asyncio.gather(*map(ask, range(CROWD)), return_exceptions=True)


def settings(**http: int) -> Settings:
    """Return a small server whose topics take what its places in flight do."""
    return changed(SMALL, http={"max_concurrent": 40, **http}, bus={"buffer_size": 80})


@virtual
async def test_a_crowd_comes_back_as_it_is_told_and_is_answered():
    async with World(settings=settings()) as world:
        line, got = await ask_all(world, retries=20)
        assert {type(one) for one in got} == {openai.types.CreateEmbeddingResponse}, got
        assert world.ends["refused"] > CROWD / 2, world.ends
        for tries in line.tries.values():
            for (before_s, _, reply), (at_s, again, _) in itertools.pairwise(tries):
                assert reply.status in (429, 503)
                assert reply.headers["x-should-retry"] == "true"
                assert at_s >= before_s + int(reply.headers["retry-after"])
                assert again


@virtual
async def test_what_is_never_answered_ends_after_the_client_s_own_retries():
    async with World(settings=settings(rate_limit=1, rate_burst=1)) as world:
        line, got = await ask_all(world, retries=1)
        refused = [one for one in got if isinstance(one, openai.RateLimitError)]
        assert len(refused) > CROWD / 2
        assert {one.code for one in refused} == {"rate_limited"}
        assert max(map(len, line.tries.values())) == 2
