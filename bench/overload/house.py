"""Penstock in this harness: its own gate, bus, permits, ladder and breaker around the same handler."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec

from bench.overload.peers import Receive, Scope, Send, respond, whole
from bench.overload.records import Variant
from bench.overload.work import Answer, Order, Workshop
from bench.overload.workload import DEADLINE_S, Load
from penstock.bus.local import LocalBus
from penstock.http.gate import Gate, GateInputs
from penstock.http.request_context import CRITICALITIES, request_state
from penstock.http.routes import backpressure_check
from penstock.kernel.context import Context, Deadline, MonotonicClock
from penstock.kernel.errors import Rejected
from penstock.kernel.messages import Topic
from penstock.kernel.settings import BusSettings, DegradationSettings, GuardSettings, HttpSettings
from penstock.policies.ladder import Rung
from penstock.policies.limit import LimitSettings
from penstock.policies.retry import RetrySettings
from penstock.pools.guard import Guard
from penstock.pools.permits import Permits
from penstock.pools.remote_dependency import RemoteDependency
from penstock.search.degradation import RETRY_AFTER_S, LadderController
from penstock.telemetry.bus_metrics import BusMetrics
from penstock.telemetry.metrics import Metrics

#: What a search costs on each rung, as a share of its full work.
COSTS: Final = {Rung.FULL: 1.0, Rung.FEWER_CANDIDATES: 0.8, Rung.NO_RERANK: 0.6, Rung.ONE_ARM: 0.35}
#: Share of the searches whose answer is remembered, for the rung that has nothing else.
REMEMBERED: Final = 0.1
#: The breaker stays open for this long at first: the default of 30 s outlasts the scenario.
BREAKER_S: Final = 1.0
OBSERVE_S: Final = 0.1


class House:
    """The real parts, put together as the composition root does.

    Args:
        variant: Which mechanisms are on.
        workshop: The handler.
        load: What the work is made of.

    Attributes:
        gate: The ASGI application.
    """

    def __init__(self, variant: Variant, workshop: Workshop, load: Load) -> None:
        clock = MonotonicClock()
        self._workshop = workshop
        self._now = clock.now
        self._luck = random.Random(1)
        queues = {Topic.SEARCH_REQUEST: variant.queue_size}
        self._bus = LocalBus(BusSettings(**variant.bus), queues, clock, BusMetrics(clock))
        self._bus.subscribe(Topic.SEARCH_REQUEST, self._search, Permits("search", load.permits), _kind)
        self._rungs = LadderController(
            DegradationSettings(highest=variant.highest),
            partial(self._bus.pressure, Topic.SEARCH_REQUEST),
            lambda: 1.0 if variant.always_pressed else self._bus.fill_ratio(Topic.SEARCH_REQUEST),
            clock,
        )
        self._patience_s = DEADLINE_S * variant.patience
        self._dependency = _dependency(variant, workshop, load, clock, self._luck)
        senses = (
            GateInputs(backpressure=backpressure_check(self._bus.check_admission)) if variant.pressure else GateInputs()
        )
        self.gate = Gate(self._answer, HttpSettings(rate_limit=0), Metrics(), senses)

    async def observe(self) -> None:
        """Tell the ladder of the queue, also while no search asks."""
        while True:
            self._rungs.observe_all()
            await asyncio.sleep(OBSERVE_S)

    def counts(self) -> dict[str, int]:
        """Return what the bus and the ladder have counted."""
        counts = self._bus.state()[0].counts
        named = {name: value for name, value in msgspec.to_builtins(counts).items() if isinstance(value, int)}
        moves = {f"{place.name} {rung.name}".lower(): times for (place, rung), times in self._rungs.transitions.items()}
        return named | {f"refused {code}": value for code, value in counts.refused.items()} | moves

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do what the search route does: label the work, ask the topic, send the reply."""
        order = msgspec.json.decode(await whole(receive), type=Order)
        headers = dict(scope["headers"])
        limit_s = int(headers[b"x-request-timeout-ms"]) / 1000
        state = request_state(scope)
        ctx = Context(
            Deadline.never().within(limit_s, "request", state.arrived_s),
            CRITICALITIES[headers[b"x-criticality"].decode()],
            state.client,
            state.request_id,
            state.traceparent,
        )
        state.deadline_s = ctx.deadline.at_s
        answer = await self._bus.request(Topic.SEARCH_REQUEST, order, ctx)
        await respond(send, 200, msgspec.json.encode(answer))

    async def _search(self, order: Order, ctx: Context) -> Answer:
        """Do what the search pipeline does on each rung."""
        rung = self._rungs.rung(ctx.criticality)
        if rung >= Rung.CACHED_ONLY:
            if rung is Rung.CACHED_ONLY and self._luck.random() < REMEMBERED:
                return Answer(order.id, ["cached"])
            raise Rejected("the server has more searches than it can answer", retry_after_s=RETRY_AFTER_S)
        hurried = ctx.within(self._patience_s, "dependency", self._now())
        return await self._workshop.work(order, COSTS[rung], rung.label, lambda: self._dependency(hurried))


def _dependency(
    variant: Variant, workshop: Workshop, load: Load, clock: MonotonicClock, luck: random.Random
) -> Callable[[Context], Awaitable[None]]:
    """Return how the dependency is asked: bare, behind a breaker, or behind a limit as well."""
    if not variant.breaker:
        return lambda _ctx: workshop.ask()
    guard = Guard("dependency", GuardSettings(timeout=BREAKER_S), clock, patience_s=DEADLINE_S / 2, random=luck.random)
    if not variant.limited:
        return lambda _ctx: guard.call("ask", workshop.ask)
    most = max(1, int(load.permits * variant.share))
    limits = LimitSettings(initial=min(LimitSettings().initial, most), ceiling=most)
    remote = RemoteDependency(guard, clock, limits=limits, retries=RetrySettings(), random=luck.random)
    return lambda ctx: remote.call("ask", workshop.ask, ctx)


def _kind(order: Order) -> str:
    return f"{order.kind}{'+' * order.asks}"
