"""The whole: gate → routes → topic → pool → guard → dependency, and what watches over it.

What lies between topics and dependencies is told by :mod:`penstock.core.flow`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial

from penstock import __version__
from penstock.bus.contract import Bus
from penstock.bus.link import Link
from penstock.core import readings, state
from penstock.core.announcing import Announcements
from penstock.core.flow import Flow, Means
from penstock.core.guards import caches, guards, shared_rates
from penstock.core.limits import remote
from penstock.core.parts import Parts
from penstock.core.pulse import Pulse
from penstock.http import answers, openapi
from penstock.http.gate import Gate, Receive, Scope, Send, Senses
from penstock.http.operations import Operations
from penstock.http.pressure import pressure
from penstock.http.routes import Routes
from penstock.http.services import Services
from penstock.kernel.messages import Topic
from penstock.policies.alerts import Measure
from penstock.policies.breaker import State
from penstock.policies.levels import LevelSettings
from penstock.pools.guard import Guard
from penstock.pools.house import Pools
from penstock.search.rungs import Rungs
from penstock.stores.cache import Remembering
from penstock.stores.records import CollectionInfo
from penstock.telemetry.alarms import Alarms, Source
from penstock.telemetry.bus_metrics import BusMetrics
from penstock.telemetry.heartbeat import Heartbeat
from penstock.telemetry.memory import MemoryReturn
from penstock.telemetry.metrics import Metrics, runtime_readings

#: How often the ladder and the topics' fills are looked at, and everything slower.
QUICK_S = 0.1
SLOW_S = 1.0

#: From this share of its buffer on, searches may be answered from memory only, or refused by the ladder (D1).
PRESSED = LevelSettings().high


class Core:
    """A whole Penstock but for its parts. ``start`` it, serve ``gate``, ``close`` it.

    Args:
        parts: What it stands on.

    Attributes:
        metrics: Everything that is counted.
        bus: Where work waits.
        pools: The permits.
        guards: A circuit breaker for each dependency, by its name.
        breakers: Theirs, and that of the broker where there is one.
        rates: Clients' rates, where they are shared with other servers.
        remotes: The limits and retries toward those that are other servers, by the same names.
        rungs: The degradation ladder.
        memory: The watch over memory.
        returning: Has freed memory given back to the system.
        alarms: What is wrong.
        announcements: The alerts on their way to the bus.
        heartbeat: What looks at all of it again and again.
        gate: The ASGI application.
        pulse: What asks the store whether it is there.
        foreign: Collections of another model than the server's, by name: neither searched nor written.
    """

    def __init__(self, parts: Parts) -> None:
        settings, clock = parts.settings, parts.clock
        self._parts = parts
        self.metrics = Metrics()
        self._observer = BusMetrics(clock)
        self.bus: Bus = parts.bus(self._observer)
        self.pools = Pools(settings)
        self.guards = guards(parts)
        self.breakers: list[Guard | Link] = [*self.guards.values(), *self.bus.links]
        self.remotes = {name: remote(name, parts, self.guards[name], self.pools) for name in sorted(parts.remote)}
        self.caches = caches(parts, self.guards)
        self.rungs = Rungs(
            settings.degradation,
            partial(self.bus.congested, Topic.SEARCH_REQUEST),
            lambda: self.bus.used(Topic.SEARCH_REQUEST) >= PRESSED,
            clock,
        )
        self._remembering: tuple[Remembering, ...] = (*self.caches.values(), *parts.remembering)
        self.memory = parts.memory(self._remembering)
        self.returning = MemoryReturn(parts.give_back, clock) if parts.give_back is not None else None
        self.announcements = Announcements(self.bus)
        self.heartbeat = Heartbeat(clock, QUICK_S)
        self.alarms = Alarms(self._sources(), clock)
        senses = Senses(pressure(self.bus.refuses), lambda: self.memory.level, parts.luck)
        self.rates = shared_rates(parts, self.guards)
        limiter = self.rates.limiter if self.rates is not None else None
        listens = (settings.server.host, settings.worker.host)
        self.gate = Gate(self._dispatch, settings.http, self.metrics, senses, limiter, listens)
        self.foreign: dict[str, CollectionInfo] = {}
        self.pulse = None
        if parts.look is not None:
            self.pulse = Pulse(parts.look, self.guards["store"], clock, always="store" in parts.remote)
        self._began_s = clock.now()
        self._routes = self._wire()
        self._watch()
        self._expose()

    def __repr__(self) -> str:
        return f"<Core {self.gate!r} {self.rungs!r}>"

    def start(self) -> None:
        """Begin to watch; call it inside the running loop."""
        self.heartbeat.start()
        if self.rates is not None:
            self.rates.start()
            self.heartbeat.every(SLOW_S, self.rates.look)
        if self.pulse is not None:
            self.heartbeat.every(SLOW_S, self.pulse.feel)

    async def drain(self, timeout_s: float) -> bool:
        """Take no more work from other instances; return whether what was taken has ended in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.bus.drain()
                return True
        return False

    async def close(self) -> None:
        """Stop watching, answer everything that waits with a refusal, stop what runs."""
        await self.heartbeat.close()
        if self.returning is not None:
            await self.returning.close()
        if self.pulse is not None:
            await self.pulse.close()
        if self.rates is not None:
            await self.rates.close()
        await self.bus.close()
        await self.announcements.close()

    def reasons(self) -> list[str]:
        """Return why the server cannot work now; empty when it can."""
        reasons = ["the server is shutting down"] if self.gate.draining else []
        if self.guards["store"].state is not State.CLOSED:
            reasons.append("the vector store does not answer")
        return reasons + self._missing() + self._parts.readiness()

    def warnings(self) -> list[str]:
        """Return what does not work though the server does."""
        return self._parts.warnings()

    def _missing(self) -> list[str]:
        """Return what is missing between instances: who only works needs nobody else to work."""
        if self._parts.answers:
            return self.bus.missing()
        return [f"{one.dependency} does not answer" for one in self.bus.links if one.state is not State.CLOSED]

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._routes(scope, receive, send)

    def _wire(self) -> Routes:
        """Return the routes over the flow from topics to dependencies."""
        parts = self._parts
        flow = Flow(Means(parts, self.bus, self.pools, self.guards, self.remotes, self.caches, self.rungs.rung))
        services = Services(
            settings=parts.settings,
            clock=parts.clock,
            bus=self.bus,
            store=flow.store,
            index=flow.index,
            embedder=flow.embedder,
            sparse=flow.sparse,
            reranker=flow.reranker,
            snapshots=parts.snapshots,
            forget=flow.forget,
            foreign=self.foreign,
            unread=parts.encoders.unread,
            model=parts.encoders.model,
            learned=parts.encoders.learned,
            status=self._status,
            readiness=self.reasons,
            warnings=self.warnings,
            alerts=self._alerts,
        )
        return Routes(Operations(services), self.metrics, openapi.document(), works=parts.answers)

    # --- What watches

    def _watch(self) -> None:
        """Let the heartbeat look at everything that changes without being asked."""
        self._observer.watch(lambda: [(topic.name, topic.used) for topic in self.bus.state()])
        self.heartbeat.every(QUICK_S, self.rungs.observe)
        self.heartbeat.every(QUICK_S, self._observer.look)
        self.heartbeat.every(SLOW_S, self.memory.look)
        self.heartbeat.every(SLOW_S, self._parts.watch)
        if self.returning is not None:
            self.memory.urge = self.returning.urge
            self.heartbeat.every(SLOW_S, self.returning.look)
        self.heartbeat.every(SLOW_S, self.alarms.look)
        self.alarms.on_change = self.announcements.publish
        for breaker in self.breakers:
            breaker.on_turn = lambda _: self.alarms.look()

    def _sources(self) -> Mapping[Measure, Source]:
        """Return what the alarms look at."""
        return {
            Measure.QUEUE: lambda: [(topic.name, topic.used) for topic in self.bus.state()],
            Measure.TASKS: lambda: [("", float(len(asyncio.all_tasks())))],
            Measure.BREAKER: lambda: [(one.dependency, float(one.state)) for one in self.breakers],
            Measure.MEMORY: lambda: [("", self.memory.used / self.memory.limit.bytes)],
            Measure.LOOP_LAG: lambda: [("", self.heartbeat.lag_s())],
            Measure.LADDER: lambda: [(one.name.lower(), float(rung)) for one, rung in self.rungs.state().items()],
        }

    def _expose(self) -> None:
        """Show everything to scrapes (SPEC §10)."""
        metrics = self.metrics
        metrics.read(runtime_readings())
        metrics.read(readings.pool_readings(self.pools, self.bus))
        metrics.read(readings.topic_readings(self.bus))
        metrics.read(readings.guard_readings(self.breakers))
        metrics.read(readings.remote_readings(self.remotes))
        metrics.read(readings.connection_readings(self._parts.connections))
        metrics.read(readings.ladder_readings(self.rungs))
        metrics.read(readings.cache_readings(self._remembering))
        metrics.read(readings.memory_readings(self.memory))
        metrics.read(readings.upkeep_readings(self._parts.upkeep))
        metrics.read(self.gate.readings())
        metrics.read(self.alarms.readings())
        for one in (self._observer, self.heartbeat):
            metrics.read(one.readings())
            metrics.expose(one.histograms())

    # --- What it tells

    def _status(self, collections: list[CollectionInfo]) -> answers.ServerStatus:
        reasons, parts = self.reasons(), self._parts
        return answers.ServerStatus(
            version=__version__,
            uptime_s=round(parts.clock.now() - self._began_s, 1),
            ready=not reasons,
            reasons=reasons,
            data_dir=str(parts.data_dir),
            model=parts.encoders.model,
            dim=parts.encoders.dim,
            in_flight=self.gate.in_flight,
            collections=collections,
            topics=[state.topic_status(topic) for topic in self.bus.state()],
            pools=[answers.PoolStatus(pool.name, pool.active, pool.limit) for pool in self.pools.all()],
            breakers=[state.breaker_status(one) for one in self.breakers],
            ladder=state.ladder_status(self.rungs.state()),
            caches=state.cache_status(self._remembering),
            memory=state.memory_status(self.memory),
            traffic=state.traffic_status(self.gate, self.metrics),
            process=state.process_status(self.heartbeat.lag_s_max()),
            alerts=[alert for alert in self._alerts() if alert.active],
            models=state.model_status(parts.encoders.used),
            warnings=self.warnings(),
        )

    def _alerts(self) -> list[answers.AlertStatus]:
        return [state.alert_status(record) for record in self.alarms.records()]
