"""The bus and the pools under random load, on virtual time, with requesters that leave at any moment.

Searches ask ``ml.embed`` and ``ml.sparse`` at once, as the real pipeline does; ML pools share one
budget; handlers are quick, slow, stuck or broken; requesters are of three classes and several
clients, patient, hurried or gone; events go to subscribers of their own and to the pools' topics.
Between all steps of the event loop the books are checked. A failure names its seed:
``PENSTOCK_SEED=17 pytest tests/simulation/test_bus_under_load.py`` runs that one alone,
``PENSTOCK_SEEDS=500`` runs as many.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil

import pytest

from penstock.bus.local import LocalBus
from penstock.kernel.context import Context, Criticality, Deadline, run_all
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected
from penstock.kernel.messages import Topic
from penstock.kernel.settings import BusSettings
from penstock.pools.permits import Budget, Permits
from tests.clock import VirtualLoop, quiet, run
from tests.fakes.loop_clock import LoopClock

_ONE, _MANY = os.environ.get("PENSTOCK_SEED"), os.environ.get("PENSTOCK_SEEDS", "12")
SEEDS = [int(_ONE)] if _ONE else range(int(_MANY))
LEAF_TOPICS = (Topic.ML_EMBED, Topic.ML_SPARSE, Topic.ML_RERANK)
CLIENTS = ("alice", "bob", "nightly")
LIMITS = BusSettings(buffer_size=4, publish_timeout=0.1, request_timeout=3.0, handler_timeout=2.0, client_share=0.5)


class World:
    """One bus, its pools, and the books about everything asked of it.

    Args:
        seed: Everything random follows from it.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.bus = LocalBus(LIMITS, {Topic.SEARCH_REQUEST: 10}, LoopClock())
        self.budget = Budget(self.random.randint(2, 4))
        self.pools = {
            Topic.ML_EMBED: Permits("embed", 2, self.budget),
            Topic.ML_SPARSE: Permits("sparse", 2, self.budget),
            Topic.ML_RERANK: Permits("rerank", 1, self.budget, weight=2),
            Topic.SEARCH_REQUEST: Permits("search", 4),
            Topic.INDEX_PROGRESS: Permits("progress", 1),
        }
        self.handling: Counter[str] = Counter()
        self.admitted: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()
        self.ended: dict[str, Counter[str]] = {topic: Counter() for topic in self.pools}
        for topic in LEAF_TOPICS:
            self.bus.subscribe(topic, self._leaf(topic), self.pools[topic])
        self.bus.subscribe(Topic.SEARCH_REQUEST, self._search, self.pools[Topic.SEARCH_REQUEST])
        self.bus.subscribe(Topic.INDEX_PROGRESS, self._leaf(Topic.INDEX_PROGRESS), self.pools[Topic.INDEX_PROGRESS])

    def moment(self, mean_s: float) -> float:
        """Return a random time in whole hundredths, so that most things happen at the same moment as others."""
        return round(self.random.expovariate(1 / mean_s), 2)

    # --- Handlers

    @contextmanager
    def _at_work(self, topic: str) -> Iterator[None]:
        self.handling[topic] += 1
        try:
            yield
        finally:
            self.handling[topic] -= 1

    def _leaf(self, topic: str):
        async def handle(message: int, _ctx: Context) -> int:
            with self._at_work(topic):
                fate = self.random.random()
                if fate < 0.08:
                    raise Invalid("not this one")
                if fate < 0.12:
                    raise ZeroDivisionError
                if fate < 0.2:
                    return message
                try:
                    await asyncio.sleep(60 if fate > 0.98 else self.moment(0.05))
                except asyncio.CancelledError:
                    if fate < 0.4:  # like a thread that cannot be stopped at once
                        await asyncio.sleep(self.moment(0.1))
                    raise
                return message

        return handle

    async def _search(self, message: int, ctx: Context) -> int:
        with self._at_work(Topic.SEARCH_REQUEST):
            await run_all([self.ask(topic, message, ctx) for topic in (Topic.ML_EMBED, Topic.ML_SPARSE)])
            if message % 3 == 0:
                await self.ask(Topic.ML_RERANK, message, ctx)
            return message

    # --- Requesters

    async def ask(self, topic: str, message: int, ctx: Context) -> None:
        """Ask, and enter in the books how it ended."""
        self.admitted[topic] += 1
        self.in_flight[topic] += 1
        try:
            assert await self.bus.request(topic, message, ctx) == message, "somebody else's reply"
            end = "answered"
        except Rejected:
            end = "refused"
            raise
        except Expired:
            end = "expired"
            raise
        except asyncio.CancelledError:
            end = "left"
            raise
        except (Invalid, Broken):
            end = "failed"
            raise
        finally:
            self.in_flight[topic] -= 1
            self.ended[topic][end] += 1

    async def tell(self, topic: str, message: int, ctx: Context) -> None:
        """Announce an event; nobody waits for its end."""
        with suppress(Rejected, Expired):
            await self.bus.publish(topic, message, ctx)

    def arrive(self, message: int) -> asyncio.Task[None]:
        limit_s = self.random.choice([0.01, 0.05, 0.3, 1.0, 10.0])
        deadline = Deadline(asyncio.get_running_loop().time() + limit_s, "search")
        ctx = Context(deadline, self.random.choice(list(Criticality)), self.random.choice(CLIENTS))
        if self.random.random() < 0.2:
            event_topic = self.random.choice([Topic.INDEX_PROGRESS, Topic.INDEX_PROGRESS, *LEAF_TOPICS])
            task = asyncio.create_task(self.tell(event_topic, message, ctx))
        else:
            topic = self.random.choice([Topic.SEARCH_REQUEST, Topic.SEARCH_REQUEST, *LEAF_TOPICS])
            task = asyncio.create_task(self.ask(topic, message, ctx))
        if self.random.random() < 0.15:
            asyncio.get_running_loop().call_later(self.moment(0.1), task.cancel)
        return task

    async def load(self, count: int) -> list[asyncio.Task[None]]:
        """Send requests in bursts; some of their senders leave."""
        tasks: list[asyncio.Task[None]] = []
        while len(tasks) < count:
            tasks.extend(self.arrive(len(tasks) + n) for n in range(self.random.choice([1, 1, 2, 5, 30])))
            for _ in range(self.random.randint(0, 6)):
                await asyncio.sleep(0)
            if self.random.random() < 0.5:
                self.random.choice(tasks).cancel()
            if self.random.random() < 0.6:
                await asyncio.sleep(self.moment(0.05))
        return tasks

    # --- The books

    def check(self) -> None:
        """Hold what must hold between any two steps."""
        for topic in self.pools:
            ends = self.ended[topic].total()
            assert self.admitted[topic] == ends + self.in_flight[topic], f"{topic}: {self.ended[topic]}"
        for state in self.bus.state():
            pool = self.pools[Topic(state.name)]
            assert state.waiting <= state.capacity, state
            going = state.waiting + state.blocked + state.running - state.stopping
            assert state.counts.offered == state.counts.ended + going, state
            topic = self.bus._dispatchers[state.name][0].topic
            for client in CLIENTS:
                assert topic._client_requests.get(client, 0) <= ceil(state.capacity * LIMITS.client_share), (
                    client,
                    state,
                )
            assert state.running == pool.active <= pool.limit, (state, pool)
            assert self.handling[state.name] <= pool.active, (state, pool)
        used = sum(self.pools[topic].active * (2 if topic is Topic.ML_RERANK else 1) for topic in LEAF_TOPICS)
        assert self.budget.used == used <= self.budget.total

    def check_idle(self) -> None:
        """Hold what must hold when all is over."""
        self.check()
        assert self.in_flight.total() == self.handling.total() == self.budget.used == 0
        assert all(state.waiting == state.running == state.blocked == 0 for state in self.bus.state()), self.bus.state()
        assert all(state.counts.offered == state.counts.ended for state in self.bus.state()), self.bus.state()


@contextmanager
def watched(world: World, seed: int) -> Iterator[None]:
    """Check the books between all steps; name the seed when anything fails."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.watch(world.check)
    try:
        yield
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    finally:
        loop.watch(lambda: None)


@pytest.fixture(autouse=True)
def print_seed(request: pytest.FixtureRequest) -> None:
    print(f"PENSTOCK_SEED={request.node.callspec.params['seed']}")  # noqa: T201 - shown when the test fails


@pytest.mark.parametrize("seed", SEEDS)
def test_every_request_ends_exactly_once_and_nothing_leaks(seed: int) -> None:
    world = World(seed)

    async def main() -> None:
        with watched(world, seed):
            tasks = await world.load(300)
            await asyncio.gather(*tasks, return_exceptions=True)
            await quiet()
            await asyncio.sleep(10)  # the last cancelled handlers end
            world.check_idle()
            # The load was one that tells something.
            ends = sum(world.ended.values(), Counter())
            assert set(ends) >= {"answered", "refused", "expired", "left"}, ends
            await world.bus.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_close_in_the_middle_answers_everybody(seed: int) -> None:
    world = World(seed)

    async def main() -> None:
        with watched(world, seed):
            tasks = await world.load(60)
            for _ in range(world.random.randint(0, 20)):
                await asyncio.sleep(0)
            tasks.extend(world.arrive(1000 + n) for n in range(20))
            for _ in range(world.random.randint(0, 4)):
                await asyncio.sleep(0)
            closed_s = asyncio.get_running_loop().time()
            await world.bus.close()
            await quiet()
            # Nobody waits for an answer longer than handlers take to hear that it is over.
            assert all(task.done() for task in tasks)
            await asyncio.gather(*tasks, return_exceptions=True)
            assert asyncio.get_running_loop().time() - closed_s < LIMITS.handler_timeout
            world.check_idle()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
