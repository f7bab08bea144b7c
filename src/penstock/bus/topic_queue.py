"""Bounded queue of a topic: admission, waiting for room, and order. Synchronous; time is passed in."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any

from penstock.bus.counters import BusObserver, TopicCounters
from penstock.bus.envelope import ENDED, QUEUED, Envelope, MessageStage, ServiceTime
from penstock.bus.fair_queue import SWEEP_MIN, Discipline, FairQueue
from penstock.kernel.context import Context
from penstock.kernel.errors import Rejected
from penstock.policies.congestion import CongestionSettings
from penstock.policies.discard import push_excess_s
from penstock.policies.levels import Level, LevelSettings, LevelTracker

log = logging.getLogger(__name__)

#: Publishers that may wait for room in one topic.
BLOCKED_MAX = 10_000
#: Kinds of messages told apart in one topic; those beyond share one estimate.
KINDS_MAX = 32
#: A queue that has stood for less tells nothing about the pace; one that stands for longer tells by its last part.
STANDING_S_MIN, STANDING_S_MAX = 0.05, 0.5
#: Factor on a pace that is measured over so short a time: what is admitted is to be answered.
CAUTION = 1.5
#: Bounds of the fill levels.
LEVELS = LevelSettings()


class TopicQueue:
    """A bounded buffer in the order of its discipline, and the publishers that wait for room in it.

    Events are facts: they are never refused for their client's share or their deadline, nor overtaken by a
    later one of the same publisher.

    Bounds: ``capacity`` messages, ``BLOCKED_MAX`` publishers, ``KINDS_MAX`` estimates; ``client_share`` of the
    capacity for one client, those that wait for room included.

    Attributes:
        counts: The topic's counters.
        on_admitted: Called with each message that waited for room and has got it.
    """

    def __init__(
        self,
        name: str,
        capacity: int,
        discipline: Discipline | None = None,
        observer: BusObserver | None = None,
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.discipline = discipline or Discipline()
        self.counts = TopicCounters()
        self.on_admitted: Callable[[Envelope], None] = lambda _: None
        self.queue: FairQueue[Envelope] = FairQueue(capacity, self.discipline, CongestionSettings())
        self.blocked = 0
        self._blocked_queue: deque[Envelope] = deque()
        share = self.discipline.client_share
        self._client_max = max(1, math.ceil(capacity * share)) if share < 1.0 else math.inf
        self._client_requests: dict[str, int] = {}
        self._levels = LevelTracker(LEVELS)
        self._set_bounds()
        self._observer = observer
        self._service_times: dict[Any, ServiceTime] = {}
        self._overall = ServiceTime()
        self._standing_since_s = 0.0
        self._taken = 0.0

    def __len__(self) -> int:
        return self.queue.count

    def __repr__(self) -> str:
        return f"<TopicQueue {self.name} {len(self)}/{self.capacity} +{self.blocked} {self.level.name.lower()}>"

    @property
    def level(self) -> Level:
        """Fill level, with hysteresis."""
        return self._levels.level

    def service_time_of(self, envelope: Envelope) -> ServiceTime:
        """Look up what is known about messages of this kind; the message remembers it."""
        message = envelope.message
        service = self._service_times.get(type(message))
        if service is None:  # first of its class, or of a class that tells kinds apart
            kind = getattr(message, "kind", None) or type(message)
            service = self._service_times.get(kind, self._overall)
            if service is self._overall and len(self._service_times) < KINDS_MAX:
                service = self._service_times[kind] = ServiceTime()
        envelope.service_time = service
        return service

    def p50_s(self, envelope: Envelope) -> float:
        """Return the median service time of messages of this kind, 0 while nothing is known."""
        return self.service_time_of(envelope).p50_s

    def observe_duration(self, service: ServiceTime, seconds: float) -> None:
        """Take in how long a message took."""
        service.observe(seconds)
        if service is not self._overall:
            self._overall.observe(seconds)
        self.queue.set_service_time(self._overall.p50_s)

    def enqueue(self, envelope: Envelope, now_s: float, running: int) -> bool:
        """Take the message if there is room and none waits before it, else let it wait for room.

        Returns:
            Whether it is in the buffer.

        Raises:
            Rejected: Its client holds too much (``client_share``), it could not end in time
                (``hopeless``), or too many wait for room (``topic_full``).
        """
        service = self.service_time_of(envelope)
        envelope.cost_s = service.cost_s
        envelope.expected_s = service.expected_s
        if not envelope.ordered:
            self._check_admission(envelope, service, now_s, running)
        if not self.blocked and self.queue.count < self.capacity:
            self._push(envelope, now_s)
            held = True
        elif self.blocked < BLOCKED_MAX:
            envelope.stage = MessageStage.BLOCKED
            self._blocked_queue.append(envelope)
            self.blocked += 1
            held = False
        else:
            self._refuse("topic_full", f"{self.name} is full")
        if not envelope.ordered:
            self._client_requests[envelope.client] = self._client_requests.get(envelope.client, 0) + 1
        return held

    def dequeue(self, now_s: float) -> Envelope | None:
        """Take out the message that is next, ``None`` when there is none."""
        envelope = self.queue.pop(now_s)
        if envelope is not None:
            self._taken += 1.0
            self._admit_blocked(envelope, now_s)
        return envelope

    def remove(self, envelope: Envelope, now_s: float) -> None:
        """Take out a message that waits here, for its turn or for room; it has ended."""
        envelope.stage = ENDED
        if self.queue.remove(envelope, now_s):
            self._admit_blocked(envelope, now_s)
            return
        self.blocked -= 1
        if not envelope.ordered:
            self._release_share(envelope)
        if len(self._blocked_queue) > SWEEP_MIN + 2 * self.blocked:
            self._blocked_queue = deque(waits for waits in self._blocked_queue if waits.stage is MessageStage.BLOCKED)

    def drain(self, now_s: float) -> list[Envelope]:
        """Take out everything that waits, messages without room first."""
        blocked = [envelope for envelope in self._blocked_queue if envelope.stage is MessageStage.BLOCKED]
        self._blocked_queue.clear()
        self.blocked = 0
        for envelope in blocked:
            if not envelope.ordered:
                self._release_share(envelope)
        queued = [envelope for envelope in iter(lambda: self.dequeue(now_s), None) if envelope is not None]
        return blocked + queued

    def deadline_excess_s(self, ctx: Context, now_s: float, running: int) -> float:
        """Return by how much a request of unknown kind would miss its deadline; 0 for not at all, or nothing waits."""
        return self._excess_s(ctx, self._overall, now_s, running) if self.queue.count else 0.0

    def over_share(self, client: str) -> bool:
        """Return whether a client's requests fill its share of the buffer."""
        return self._client_requests.get(client, 0) >= self._client_max

    def _check_admission(self, envelope: Envelope, service: ServiceTime, now_s: float, running: int) -> None:
        """Refuse what its client may not add, and what could not end in time."""
        if self.over_share(envelope.ctx.client):
            self._refuse("client_share", f"too many requests of this client wait in {self.name}", by_client=True)
        excess_s = self._excess_s(envelope.ctx, service, now_s, running)
        if excess_s > 0.0:
            self._refuse("hopeless", f"{self.name} is too busy to end this in time", retry_after_s=excess_s)

    def _excess_s(self, ctx: Context, service: ServiceTime, now_s: float, running: int) -> float:
        """Return by how many seconds a new message would miss its deadline behind what waits; 0: it would not."""
        deadline_s, queue = ctx.deadline.at_s, self.queue
        slowdown = self._slowdown(now_s, running) if queue.count else 1.0
        in_time = now_s + slowdown * (queue.expected_s / (running or 1) + service.p50_s) <= deadline_s
        if in_time or not self.discipline.refuse_hopeless:  # even behind all that waits
            return 0.0
        return push_excess_s(
            deadline_s,
            now_s,
            ahead_s=slowdown * queue.ahead_s(ctx.client, ctx.criticality, service.cost_s),
            capacity=running,
            service_s=slowdown * service.p50_s,
            idle=0,
        )

    def _slowdown(self, now_s: float, running: int) -> float:
        """Return how many times as long as estimated the work takes while messages stand here; 1 for no longer.

        Estimates learn from what has ended. At the onset of a load all that runs is slowed down by the rest, and little
        has ended yet. What was taken out since the queue has stood, and half of what runs, is the work done since.
        """
        elapsed_s = now_s - self._standing_since_s
        if elapsed_s < STANDING_S_MIN:
            return 1.0
        done_s = (self._taken + running / 2.0) * self._overall.expected_s
        slowdown = max(1.0, CAUTION * elapsed_s * running / done_s) if done_s > 0.0 else 1.0
        if elapsed_s > STANDING_S_MAX:
            self._taken /= 2.0
            self._standing_since_s = now_s - elapsed_s / 2.0
        return slowdown

    def _refuse(self, code: str, detail: str, *, retry_after_s: float = 1.0, by_client: bool = False) -> None:
        self.counts.count_refusal(code)
        raise Rejected(detail, code=code, retry_after_s=retry_after_s, by_client=by_client)

    def _push(self, envelope: Envelope, now_s: float) -> None:
        envelope.stage = QUEUED
        self.counts.admitted += 1
        if not self.queue.count:
            self._standing_since_s, self._taken = now_s, 0.0
        self.queue.push(envelope, now_s)
        if self.queue.count >= self._rises_at:
            self._update_level()

    def _admit_blocked(self, envelope: Envelope, now_s: float) -> None:
        """Give a free place to the message that has waited for room longest.

        The message moves here and now, not when its publisher wakes up: none can slip in between, and the
        bound holds at every moment.
        """
        if not envelope.ordered:
            self._release_share(envelope)
        while self.blocked and self.queue.count < self.capacity:
            first = self._blocked_queue.popleft()
            if first.stage is MessageStage.BLOCKED:
                self.blocked -= 1
                self._push(first, now_s)
                self.on_admitted(first)
        if self.queue.count < self._falls_at:
            self._update_level()

    def _release_share(self, envelope: Envelope) -> None:
        client = envelope.client
        held = self._client_requests[client] - 1
        if held:
            self._client_requests[client] = held
        else:
            del self._client_requests[client]

    def _set_bounds(self) -> None:
        """Note between which counts the level stays as it is."""
        levels, capacity = LEVELS, self.capacity
        rises = {Level.CALM: levels.high, Level.HIGH: levels.critical, Level.CRITICAL: math.inf}[self.level]
        falls = {Level.CALM: 0.0, Level.HIGH: levels.high_clear, Level.CRITICAL: levels.critical_clear}[self.level]
        # Half a message of margin: which side of a bound a whole count lies on is for ``LevelTracker`` to say.
        self._rises_at, self._falls_at = rises * capacity - 0.5, falls * capacity + 0.5

    def _update_level(self) -> None:
        """Log and report a level that was crossed (D1)."""
        change = self._levels.observe(self.queue.count / self.capacity)
        if change is None:
            return
        self._set_bounds()
        if change.enters(Level.HIGH):
            log.warning("%s is %.0f %% full", self.name, 100 * self.queue.count / self.capacity)
        if self._observer is not None:
            self._observer.on_level(self.name, change.after)
