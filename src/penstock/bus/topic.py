"""One bounded buffer: who may enter, who waits for room, who is next. Synchronous; time is passed in."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from penstock.bus.books import UNOBSERVED, BusObserver, Counts
from penstock.bus.discipline import SWEEP_MIN, Discipline, FairQueue
from penstock.bus.envelope import ENDED, QUEUED, Envelope, Stage
from penstock.bus.service import Service
from penstock.kernel.context import Context
from penstock.kernel.errors import Rejected
from penstock.kernel.settings import BusSettings
from penstock.policies.congestion import CongestionSettings
from penstock.policies.discard import DiscardSettings, push_excess_s
from penstock.policies.estimate import EstimateSettings
from penstock.policies.levels import Level, Levels, LevelSettings

log = logging.getLogger(__name__)

#: Publishers that may wait for room in one topic.
BLOCKED_MAX = 10_000
#: Kinds of messages told apart in one topic; those beyond share one estimate.
KINDS_MAX = 32


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds in a topic.

    Attributes:
        discipline: The order.
        discard: Whether what can no longer end in time is not begun.
        refuse_hopeless: Whether what could not end in time is refused.
        congestion: What counts as congested.
        estimate: How service times are learnt.
        doubt: When estimates are doubted.
        levels: When it counts as full.
    """

    discipline: Discipline = field(default_factory=Discipline)
    discard: bool = True
    refuse_hopeless: bool = True
    congestion: CongestionSettings = field(default_factory=CongestionSettings)
    estimate: EstimateSettings = field(default_factory=EstimateSettings)
    doubt: DiscardSettings = field(default_factory=DiscardSettings)
    levels: LevelSettings = field(default_factory=LevelSettings)

    @classmethod
    def of(cls, settings: BusSettings) -> Rules:
        """Return the rules that the settings ask for."""
        order = Discipline(
            settings.classes,
            settings.class_floor,
            settings.fair_clients,
            settings.client_share,
            settings.newest_first,
        )
        if settings.discipline == "fifo":
            order = Discipline.fifo()
        return cls(order, settings.discard, settings.refuse_hopeless)


class Topic:
    """A bounded buffer in the order of its discipline, and the publishers that wait for room in it.

    Events are facts: they are never refused for their client's share or their deadline, nor overtaken by a
    later one of the same publisher.

    Args:
        name: Its name.
        capacity: How many messages it holds.
        rules: What holds in it.
        observer: Is told of levels.
        kind_of: Names a message's kind, for the estimates; its class by default.

    Bounds: ``capacity`` messages, ``BLOCKED_MAX`` publishers, ``KINDS_MAX`` estimates; ``client_share`` of the
    capacity for one client, those that wait for room included.

    Attributes:
        counts: What became of everything.
        on_room: Called with each message that waited for room and has got it.
    """

    def __init__(
        self,
        name: str,
        capacity: int,
        rules: Rules | None = None,
        observer: BusObserver = UNOBSERVED,
        kind_of: Callable[[Any], str] | None = None,
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.rules = rules or Rules()
        self.counts = Counts()
        self.on_room: Callable[[Envelope], None] = lambda _: None
        self.queue: FairQueue[Envelope] = FairQueue(capacity, self.rules.discipline, self.rules.congestion)
        self.blocked = 0
        self._line: deque[Envelope] = deque()
        share = self.rules.discipline.client_share
        self._client_max = max(1, math.ceil(capacity * share)) if share < 1.0 else math.inf
        self._held: dict[str, int] = {}
        self._levels = Levels(self.rules.levels)
        self._set_bounds()
        self._observer = observer
        self._kind_of: Callable[[Any], Any] = kind_of or type
        self._services: dict[Any, Service] = {}
        self._whole = Service(self.rules.estimate, self.rules.doubt)

    def __len__(self) -> int:
        return self.queue.count

    def __repr__(self) -> str:
        return f"<Topic {self.name} {len(self)}/{self.capacity} +{self.blocked} {self.level.name.lower()}>"

    @property
    def level(self) -> Level:
        """How full it is, with hysteresis."""
        return self._levels.level

    def held(self, client: str) -> int:
        """Return how many requests of a client wait, those that wait for room included."""
        return self._held.get(client, 0)

    def service(self, envelope: Envelope) -> Service:
        """Look up what is known about messages of this kind; the message remembers it."""
        kind = self._kind_of(envelope.message)
        service = self._services.get(kind)
        if service is None:
            service = self._whole
            if len(self._services) < KINDS_MAX:
                service = self._services[kind] = Service(self.rules.estimate, self.rules.doubt)
        envelope.service = service
        return service

    def typical_s(self, envelope: Envelope) -> float:
        """Return the median service time of messages of this kind, 0 while nothing is known."""
        return self.service(envelope).typical_s

    def learn(self, service: Service, seconds: float) -> None:
        """Take in how long a message took."""
        service.observe(seconds)
        if service is not self._whole:
            self._whole.observe(seconds)
        self.queue.retarget(self._whole.typical_s)

    def enter(self, envelope: Envelope, now_s: float, working: int) -> bool:
        """Take the message if there is room and nobody waits before it, else put it in the line for room.

        Args:
            envelope: A new one.
            now_s: On the loop's clock.
            working: Handlers at work on this topic, all busy.

        Returns:
            Whether it is in the buffer.

        Raises:
            Rejected: Its client holds too much (``client_share``), it could not end in time
                (``hopeless``), or too many wait for room (``queue_full``).
        """
        service = self.service(envelope)
        envelope.cost_s = service.cost_s
        envelope.expected_s = service.expected_s
        if not envelope.ordered:
            self._look(envelope, service, now_s, working)
        if not self.blocked and self.queue.count < self.capacity:
            self._take(envelope, now_s)
            held = True
        elif self.blocked < BLOCKED_MAX:
            envelope.stage = Stage.BLOCKED
            self._line.append(envelope)
            self.blocked += 1
            held = False
        else:
            self._refuse("queue_full", f"{self.name} is full")
        if not envelope.ordered:
            self._held[envelope.client] = self._held.get(envelope.client, 0) + 1
        return held

    def next(self, now_s: float) -> Envelope | None:
        """Take out the message that is next, ``None`` when there is none."""
        envelope = self.queue.pop(now_s)
        if envelope is not None:
            self._gone(envelope, now_s)
        return envelope

    def remove(self, envelope: Envelope, now_s: float) -> None:
        """Take out a message that waits here, for its turn or for room; it has ended."""
        envelope.stage = ENDED
        if self.queue.remove(envelope, now_s):
            self._gone(envelope, now_s)
            return
        self.blocked -= 1
        if not envelope.ordered:
            self._drop_share(envelope)
        if len(self._line) > SWEEP_MIN + 2 * self.blocked:
            self._line = deque(waits for waits in self._line if waits.stage is Stage.BLOCKED)

    def drain(self, now_s: float) -> list[Envelope]:
        """Take out everything that waits, the line for room first."""
        blocked = [envelope for envelope in self._line if envelope.stage is Stage.BLOCKED]
        self._line.clear()
        self.blocked = 0
        for envelope in blocked:
            if not envelope.ordered:
                self._drop_share(envelope)
        queued = [envelope for envelope in iter(lambda: self.next(now_s), None) if envelope is not None]
        return blocked + queued

    def hopeless_s(self, ctx: Context, now_s: float, working: int) -> float:
        """Return by how much a request of unknown kind would miss its deadline; 0 for not at all, or nothing waits.

        Args:
            ctx: The request's label.
            now_s: On the loop's clock.
            working: Handlers at work on this topic.
        """
        return self._excess_s(ctx, self._whole, now_s, working) if self.queue.count else 0.0

    def over_share(self, client: str) -> bool:
        """Return whether a client's requests fill its share of the buffer."""
        return self._held.get(client, 0) >= self._client_max

    def _look(self, envelope: Envelope, service: Service, now_s: float, working: int) -> None:
        """Refuse what its client may not add, and what could not end in time."""
        if self.over_share(envelope.ctx.client):
            self._refuse("client_share", f"too many requests of this client wait in {self.name}", by_client=True)
        excess_s = self._excess_s(envelope.ctx, service, now_s, working)
        if excess_s > 0.0:
            self._refuse("hopeless", f"{self.name} is too busy to end this in time", retry_after_s=excess_s)

    def _excess_s(self, ctx: Context, service: Service, now_s: float, working: int) -> float:
        """Return by how many seconds new work would miss its deadline behind what waits; 0: it would not."""
        deadline_s, queue = ctx.deadline.at_s, self.queue
        in_time = now_s + queue.expected_s / (working or 1) + service.typical_s <= deadline_s
        if in_time or not self.rules.refuse_hopeless:  # even behind all that waits
            return 0.0
        return push_excess_s(
            deadline_s,
            now_s,
            ahead_s=queue.ahead_s(ctx.client, ctx.criticality, service.cost_s),
            capacity=working,
            service_s=service.typical_s,
            idle=0,
        )

    def _refuse(self, code: str, detail: str, *, retry_after_s: float = 1.0, by_client: bool = False) -> None:
        self.counts.refuse(code)
        raise Rejected(detail, code=code, retry_after_s=retry_after_s, by_client=by_client)

    def _take(self, envelope: Envelope, now_s: float) -> None:
        envelope.stage = QUEUED
        self.counts.admitted += 1
        self.queue.push(envelope, now_s)
        if self.queue.count >= self._rises_at:
            self._weigh()

    def _gone(self, envelope: Envelope, now_s: float) -> None:
        """A place is free: the publisher that waits longest has it.

        The message moves here and now, not when its publisher wakes up: nobody can slip in between, and the
        bound holds at every moment.
        """
        if not envelope.ordered:
            self._drop_share(envelope)
        while self.blocked and self.queue.count < self.capacity:
            first = self._line.popleft()
            if first.stage is Stage.BLOCKED:
                self.blocked -= 1
                self._take(first, now_s)
                self.on_room(first)
        if self.queue.count < self._falls_at:
            self._weigh()

    def _drop_share(self, envelope: Envelope) -> None:
        client = envelope.client
        held = self._held[client] - 1
        if held:
            self._held[client] = held
        else:
            del self._held[client]

    def _set_bounds(self) -> None:
        """Note between which counts the level stays as it is."""
        levels, capacity = self.rules.levels, self.capacity
        rises = {Level.CALM: levels.high, Level.HIGH: levels.critical, Level.CRITICAL: math.inf}[self.level]
        falls = {Level.CALM: 0.0, Level.HIGH: levels.high_clear, Level.CRITICAL: levels.critical_clear}[self.level]
        # Half a message of margin: which side of a bound a whole count lies on is for ``Levels`` to say.
        self._rises_at, self._falls_at = rises * capacity - 0.5, falls * capacity + 0.5

    def _weigh(self) -> None:
        """Tell of levels crossed (D1)."""
        change = self._levels.observe(self.queue.count / self.capacity)
        if change is None:
            return
        self._set_bounds()
        if change.enters(Level.HIGH):
            log.warning("%s is %.0f %% full", self.name, 100 * self.queue.count / self.capacity)
        self._observer.on_level(self.name, change.after)
