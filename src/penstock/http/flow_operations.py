"""Flow of the server's work, as a stream of frames: one a second, made once for everyone who watches."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
from starlette.requests import Request

from penstock.core.core import Core
from penstock.core.traffic import RequestCount
from penstock.http import responses
from penstock.http.endpoints import ApiEndpoint
from penstock.http.event_streams import (
    EVENT_STREAM,
    FIRST,
    KEEPALIVE_S,
    NOTHING_NEW,
    STREAM_S_MAX,
    STREAMS_MAX,
    EventStream,
    OpenStreams,
)
from penstock.http.request_context import RequestState, build_context, request_state
from penstock.http.responses import Rfc3339, Seconds
from penstock.http.status_report import rfc3339, server_status
from penstock.kernel.access import Principal, Scope
from penstock.models.contract import ModelInfo
from penstock.stores.key_value_cache import CacheState, Count

#: Seconds between two frames.
PERIOD_S: Final = 1.0

#: Clients that a frame names.
CLIENTS_SHOWN_MAX: Final = 20

#: Part of a client's recent requests that still counts a second later: half is forgotten in about 5 s.
RECENT_DECAY: Final = 0.87

#: Streams take this part of the requests in flight at most, since the gate lets them in when it is full.
IN_FLIGHT_DIVISOR: Final = 4

#: Seconds after a frame is due. A timer may ring a little too early.
LATE_S: Final = 0.002


class ClientFlow(msgspec.Struct, frozen=True):
    """Requests of a client so far.

    Attributes:
        client: `key:` with the id of a key, or an address.
        requests: Answers of any status.
        refused: Those of 429 and 503.
        name: The key's name; empty for an address.
    """

    client: str
    requests: Count
    refused: Count
    name: str = ""


class FlowFrame(msgspec.Struct, frozen=True):
    """The server at one moment, as `/v1/status` describes it, without its collections. Counts are since its start.

    Attributes:
        at: The moment, by the server's clock.
        version: Version of the server.
        uptime_s: Seconds since its start.
        ready: Whether it can work.
        draining: Whether it shuts down.
        reasons: Why it is not ready. Empty for a key that is for some collections only.
        viewers: Streams of this kind that are open. Each is a request in flight.
        loop_lag_ms: How late the event loop was at most, of about the last second.
        topics: Topics.
        pools: Pools.
        breakers: Circuit breakers.
        ladder: Rung of each class.
        caches: Caches.
        memory: Memory against its limit.
        traffic: HTTP requests.
        process: The server's main process.
        alerts: Alerts that are active.
        models: Models in use.
        clients: The 20 busiest clients of late, the busiest first. Only an administrator sees others than itself.
        requests: Requests of all clients, without those about the server itself.
        requests_refused: Those among them that were answered 429 or 503.
    """

    at: Rfc3339
    version: str
    uptime_s: Seconds
    ready: bool
    draining: bool
    reasons: list[str]
    viewers: Count
    loop_lag_ms: Seconds
    topics: list[responses.TopicStatus]
    pools: list[responses.PoolStatus]
    breakers: list[responses.BreakerStatus]
    ladder: list[responses.RungStatus]
    caches: list[CacheState]
    memory: responses.MemoryStatus | None
    traffic: responses.TrafficStatus
    process: responses.ProcessStatus
    alerts: list[responses.AlertStatus]
    models: list[ModelInfo]
    clients: list[ClientFlow]
    requests: Count
    requests_refused: Count


class BusiestClients:
    """The clients with the most requests of late.

    Bounds: the clients that the server counts.
    """

    __slots__ = ("_recent", "_seen")

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._recent: dict[str, float] = {}

    def observe(self, counts: Mapping[str, RequestCount]) -> list[str]:
        """Take in the counts of a moment, and return the busiest clients, the busiest first.

        At first nothing is known of what is recent, so all that was counted decides.
        """
        first = not self._seen
        recent = {
            client: self._recent.get(client, 0.0) * RECENT_DECAY
            # One that was forgotten in between has begun at 0 again.
            + (0 if first else max(0, count.requests - self._seen.get(client, 0)))
            for client, count in counts.items()
        }
        self._recent, self._seen = recent, {client: count.requests for client, count in counts.items()}
        return heapq.nlargest(CLIENTS_SHOWN_MAX, counts, key=lambda one: (recent[one], counts[one].requests))


class FlowFeed:
    """Makes each frame when its first viewer asks for it, and hands the same bytes to the others.

    Without viewers nothing is made.

    Bounds: the frame of one moment, in one form for administrators and one for each other client.
    """

    def __init__(self, core: Core, streams: OpenStreams) -> None:
        self._core = core
        self._streams = streams
        self._busiest = BusiestClients()
        self._second = -1
        self._frame: FlowFrame | None = None
        self._events: dict[str, bytes] = {}

    def event(self, second: int, state: RequestState) -> bytes:
        """Return the event of a second for the one who asks."""
        if second != self._second or self._frame is None:
            self._second, self._frame, self._events = second, self._make(), {}
        sees_all = _sees_every_client(state.principal)
        form = "" if sees_all else state.client
        event = self._events.get(form)
        if event is None:
            frame = self._frame if sees_all else self._restricted(self._frame, state)
            event = self._events[form] = b"event: flow\ndata: %b\n\n" % msgspec.json.encode(frame)
        return event

    def _make(self) -> FlowFrame:
        core = self._core
        status, clients = server_status(core, []), core.traffic.clients
        return FlowFrame(
            at=rfc3339(datetime.now(UTC)),
            version=status.version,
            uptime_s=status.uptime_s,
            ready=status.ready,
            draining=core.traffic.draining,
            reasons=status.reasons,
            viewers=len(self._streams),
            loop_lag_ms=round(core.heartbeat.lag_s() * 1000, 3),
            topics=status.topics,
            pools=status.pools,
            breakers=status.breakers,
            ladder=status.ladder,
            caches=status.caches,
            memory=status.memory,
            traffic=status.traffic,
            process=status.process,
            alerts=status.alerts,
            models=status.models,
            clients=[self._client_flow(client) for client in self._busiest.observe(clients.by_client)],
            requests=clients.total.requests,
            requests_refused=clients.total.refused,
        )

    def _restricted(self, frame: FlowFrame, state: RequestState) -> FlowFrame:
        """Return a frame without other clients, and for a key of some collections without reasons, which may name any.

        Alerts are about topics, dependencies, classes and the process, and name no collection.
        """
        reasons = [] if state.principal.collections else frame.reasons
        own = [self._client_flow(state.client)] if state.client in self._core.traffic.clients.by_client else []
        return msgspec.structs.replace(frame, reasons=reasons, clients=own)

    def _client_flow(self, client: str) -> ClientFlow:
        count, ring = self._core.traffic.clients.by_client[client], self._core.deps.keys.active.ring
        name = ring.name_of(client.removeprefix("key:")) if ring is not None else ""
        return ClientFlow(client, count.requests, count.refused, name)


class FlowOperations:
    """The operation that shows the server at work."""

    def __init__(self, core: Core) -> None:
        http = core.deps.settings.http
        self._clock = core.deps.clock
        self._traffic = core.traffic
        self._streams = OpenStreams(max(1, min(STREAMS_MAX, http.max_concurrent // IN_FLIGHT_DIVISOR)))
        self._feed = FlowFeed(core, self._streams)
        self._keepalive_s = min(KEEPALIVE_S, http.write_timeout / 3)

    @ApiEndpoint("GET", "/v1/flow", media_type=EVENT_STREAM, scope=Scope.SEARCH)
    async def follow_flow(self, request: Request) -> EventStream:
        """Follow the server's work as server-sent events: each has the event `flow`, and a frame as its data.

        There is one a second, the first at once. The stream ends when the server shuts down, or after ten minutes.
        Ask again to go on.
        """
        state = request_state(request.scope)
        build_context(request, self._clock)
        self._streams.check(state.client)
        return EventStream(self._events(state), self._streams)

    async def _events(self, state: RequestState) -> AsyncGenerator[bytes, None]:
        """Yield the frame of each second, as it is then: a slow reader misses what was in between."""
        ends_s = min(self._clock.now() + STREAM_S_MAX, state.deadline_s)
        yield FIRST
        shown = -1
        while (now_s := self._clock.now()) < ends_s:
            second = int(now_s / PERIOD_S)
            yield self._feed.event(second, state) if second != shown else NOTHING_NEW
            shown = second
            if self._traffic.draining:
                return
            now_s = self._clock.now()
            # All viewers wake at once, so that one frame is made for all of them.
            due_s = (int(now_s / PERIOD_S) + 1) * PERIOD_S + LATE_S
            await asyncio.sleep(min(due_s - now_s, self._keepalive_s, ends_s - now_s))


def _sees_every_client(principal: Principal) -> bool:
    return principal.allows(Scope.ADMIN) and not principal.collections
