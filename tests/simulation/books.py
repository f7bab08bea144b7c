"""What must hold in a whole server between any two steps of the loop, and what when all is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from penstock.bus.topic_queue import BLOCKED_MAX
from penstock.core.callback_metrics import TOPIC_BY_POOL
from penstock.core.core import ALERTS_IN_FLIGHT_MAX
from penstock.policies.breaker import BreakerState
from penstock.policies.ladder import Rung

if TYPE_CHECKING:
    from tests.simulation.world import World


class Books:
    """The books of a world.

    Args:
        world: Whose they are.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: dict[str, int] = {}

    def check(self) -> None:
        """Hold what must hold at every moment."""
        world, core = self._world, self._world.core
        assert world.sent == world.ends.total() + world.asking, (world.sent, world.ends, world.asking)
        assert core.traffic.in_flight <= world.asking
        for name, intakes in core.bus._dispatchers.items():
            for intake in intakes:
                self._check_topic(name, intake)
        self._check_pools()
        for guard in core.guards.values():
            if guard.state is not BreakerState.CLOSED:
                self._check_breaker(guard._breaker)
        assert all(Rung.FULL <= rung <= Rung.REFUSE for rung in core.ladder.state().values())
        assert all(len(cache._entries) <= cache._entries_max for cache in core.caches.values())
        assert len(core.alert_publisher) <= ALERTS_IN_FLIGHT_MAX

    def check_at_rest(self) -> None:
        """Hold what must hold when all is over: everything is back where it was."""
        self.check()
        world, core = self._world, self._world.core
        assert world.asking == world.working() == core.traffic.in_flight == 0
        assert all(s.waiting == s.running == s.blocked == 0 for s in core.bus.state()), core.bus.state()
        assert all(s.counts.offered == s.counts.ended for s in core.bus.state()), core.bus.state()
        assert [alert for alert in core.alert_monitor.alerts() if alert.active] == []
        terms = world.gate._state
        assert [len(line) for line in (terms.reading, terms.writing, terms.unwatched)] == [0, 0, 0]
        zeros: Mapping[str, tuple[str, Iterable[str]]] = {
            "worker_pool_active": ("pool", TOPIC_BY_POOL),
            "worker_pool_queued": ("pool", TOPIC_BY_POOL),
            "event_bus_buffer_used": ("topic", TOPIC_BY_POOL.values()),
            "circuit_breaker_state": ("dependency", core.guards),
            "degradation_level": ("criticality", ("interactive", "standard", "bulk")),
            "alerts_active": ("severity", ("warning", "critical")),
        }
        for name, (label, values) in zeros.items():
            for value in values:
                assert world.metric(name, **{label: value}) == 0.0, (name, value)
        assert world.metric("http_concurrent_requests") == world.metric("memory_level") == 0.0

    def _check_topic(self, name: str, intake: Any) -> None:
        """Hold a topic's books and bounds; one that rests, and has been seen to, is passed over."""
        topic, running, stopping = intake.topic, intake.running, intake.state().stopping
        in_flight = len(topic) + topic.blocked + running - stopping
        if not running and not in_flight:
            if self._seen.get(name) == topic.counts.offered:
                return
            self._seen[name] = topic.counts.offered
        assert topic.counts.offered == topic.counts.ended + in_flight, (name, topic.counts, in_flight)
        assert len(topic) <= topic.capacity, topic
        assert topic.blocked <= BLOCKED_MAX
        assert 0 <= stopping <= running, intake
        assert all(held <= topic._client_max for held in topic._client_requests.values()), (
            name,
            topic._client_requests,
        )

    def _check_pools(self) -> None:
        """Hold that permits are out for running handlers only, and for every call at work."""
        pools, workers = self._world.core.pools, self._world.workers()
        for pool in pools.all():
            (intake,) = self._world.core.bus._dispatchers[TOPIC_BY_POOL[pool.name]]
            # A limit that has just shrunk lets what is out come back first.
            remote = self._world.core.remotes.get(pool.name)
            most = pool.limit if remote is None else remote._limit._settings.ceiling
            assert pool.active == intake.running <= most, (pool, intake)
            assert pool.name not in workers or workers[pool.name].running <= pool.active, (pool, workers[pool.name])
        budget = pools.embed._budget
        assert budget.used == pools.embed.active + pools.sparse.active + pools.rerank.active <= budget.total, budget

    def _check_breaker(self, breaker: Any) -> None:
        assert breaker.state in (BreakerState.HALF_OPEN, BreakerState.OPEN)
        if breaker.state is BreakerState.HALF_OPEN:
            assert len(breaker._state.leases) <= breaker._settings.probes, breaker
