"""The bus over a broker: several processes, the same topics, the same promises.

There are two halves, and a bus of one process (:class:`penstock.bus.backends.memory.MemoryBus`) in each. **Asking:**
each topic has its bounded buffer here, in its usual order; its handler is another instance, its slots are a
:class:`penstock.bus.window.Window` as wide as what the workers take at once. So what has to wait waits where it was
asked, under the same rules as in one process, and the gate can look at it. **Serving:** a
:class:`penstock.bus.consumer.Consumer` takes for each subscribed topic what can be begun at once and little more.

Who serves what is told from instance to instance (:mod:`penstock.bus.presence`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial, reduce
from typing import Any, Final

from penstock.bus.backends.memory import MemoryBus
from penstock.bus.books import UNOBSERVED, BusObserver, Counts
from penstock.bus.broker import PATIENCE_S, Channel, Kind
from penstock.bus.consumer import MARK, Consumer, Terms
from penstock.bus.contract import Features, Handler, Refusal, Slots, TopicState
from penstock.bus.desk import Desk, Transport
from penstock.bus.directory import Room
from penstock.bus.ends import draining
from penstock.bus.link import Link
from penstock.bus.merging import merged
from penstock.bus.presence import Presence
from penstock.bus.sides import Asking, Serving
from penstock.bus.window import Window
from penstock.kernel.clock import Clock
from penstock.kernel.context import Context, Criticality
from penstock.kernel.deadline import limit
from penstock.kernel.errors import Expired, Rejected, Unavailable
from penstock.kernel.messages import REQUEST_TOPICS, Topic
from penstock.kernel.settings import BusSettings
from penstock.policies.breaker import State
from penstock.policies.levels import Level

log = logging.getLogger(__name__)

#: Requests of one topic under way at most, however many workers there are.
UNDER_WAY_MAX: Final = 10_000
#: Withdrawn requests remembered, in case they come to be taken only afterwards.
CANCELLED_MAX: Final = 10_000
#: Longer than any limit: the tighter one is the asking instance's, and travels with the message.
UNLIMITED_S: Final = 86_400.0
#: Topics of facts; all others but ``REQUEST_TOPICS`` may carry both.
EVENT_TOPICS: Final = frozenset(Topic) - frozenset(REQUEST_TOPICS)
#: Without these there is no search.
NEEDED_TOPICS: Final = (Topic.SEARCH_REQUEST, Topic.ML_EMBED)


class BrokerBus:
    """Topics over a broker. Made inside the running loop, for it begins to beat and to listen at once.

    Args:
        transport: What carries it.
        settings: Bounds, limits and which mechanisms are on.
        capacities: Buffers that differ from ``settings.buffer_size``, by topic.
        clock: The loop's clock.
        observer: Is told of waits, service times and levels.
        marks: By topic, what the instances must have in common to share its work: the name of a model. They meet on a
            channel that bears its digest, so others never get it.

    Bounds: each topic's buffer, ``UNDER_WAY_MAX`` requests, ``CANCELLED_MAX`` withdrawn ones, and those of its parts.
    """

    def __init__(
        self,
        transport: Transport,
        settings: BusSettings,
        capacities: Mapping[str, int],
        clock: Clock,
        observer: BusObserver = UNOBSERVED,
        marks: Mapping[str, str] | None = None,
    ) -> None:
        self._broker, self._wire, self._link = transport.broker, transport.wire, transport.link
        self._settings = settings
        self._marks = {topic: MARK + digest(mark) for topic, mark in (marks or {}).items()}
        self._clock = clock
        self._windows: dict[str, Window] = {}
        self._slots: dict[str, list[Slots]] = {}
        self._kinds: dict[str, Callable[[Any], str]] = {}
        self._consumers: list[Consumer] = []
        self._cancelled: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._desk = Desk(transport, clock, settings.publish_timeout)
        self._presence = Presence(transport, clock, self._desk, settings.ahead, self._serves_now)
        self._serves = Serving(observer, self._windows) if observer is not UNOBSERVED else UNOBSERVED
        asks = Asking(observer, self._slots) if observer is not UNOBSERVED else UNOBSERVED
        limits = replace(settings, handler_timeout=UNLIMITED_S, handlers_per_topic=UNDER_WAY_MAX)
        self._asking = MemoryBus(limits, capacities, clock, asks)
        limits = replace(settings, request_timeout=UNLIMITED_S, client_share=1.0, buffer_size=UNDER_WAY_MAX)
        self._serving = MemoryBus(limits, {}, clock, self._serves)
        self._terms = Terms(transport, clock, settings.tries, settings.ahead, self._cancelled.__contains__)
        self._closed = False
        self._link.on_open = self._desk.fail
        self._presence.on_rooms = self._resize
        self._presence.on_withdrawn = self._withdrawn
        self._presence.start()

    def __repr__(self) -> str:
        return f"<BrokerBus {self._link!r} {self._presence.directory!r}>"

    @property
    def features(self) -> Features:
        """What the broker can do."""
        return self._broker.features

    @property
    def links(self) -> tuple[Link]:
        """The broker's circuit breaker."""
        return (self._link,)

    def serving(self) -> dict[str, int]:
        """Return how many living instances serve each topic, this one included."""
        found = self._presence.directory.serving(self._clock.now())
        topics = {channel: channel.partition(MARK)[0] for channel in found}
        return {topic: found[channel] for channel, topic in topics.items() if self._work(topic).topic == channel}

    def missing(self) -> list[str]:
        """See :meth:`penstock.bus.contract.Bus.missing`."""
        if not self._desk.ready.is_set() or self._link.state is not State.CLOSED:
            return [f"{self._broker.name} does not answer"]
        serving = self.serving()
        return [self._nobody(topic) for topic in NEEDED_TOPICS if topic not in serving]

    def describe(self, topic: str, kind_of: Callable[[Any], str] | None) -> None:
        """See :meth:`penstock.bus.contract.Bus.describe`."""
        if kind_of is not None:
            self._kinds[topic] = kind_of

    # --- What the rooms above do

    def subscribe(
        self,
        topic: str,
        handler: Handler,
        slots: Slots,
        kind_of: Callable[[Any], str] | None = None,
        group: str = "",
    ) -> None:
        """See :meth:`penstock.bus.contract.Bus.subscribe`.

        Args:
            topic: The topic.
            handler: What is done with a message.
            slots: Permission to run one more.
            kind_of: Names a message's kind.
            group: For events that must not be lost: the subscribers of this name share them, whichever instance they
                belong to; each is tried again where its handler fails, and buried after ``settings.tries``.
        """
        self._slots.setdefault(topic, []).append(slots)
        if kind_of is not None:
            self._kinds[topic] = kind_of
        if topic not in EVENT_TOPICS:
            self._serving.subscribe(topic, handler, slots, kind_of)
            queue = self._work(topic)
            consumer = next((one for one in self._consumers if one.channel == queue), None)
            self._feed(consumer or self._consume(queue, "", self._serving, partial(self._at_once, topic)), slots)
            self._presence.greet()
        if topic not in REQUEST_TOPICS:
            limits = replace(self._settings, discipline="fifo", discard=False, refuse_hopeless=False)
            limits = replace(limits, request_timeout=UNLIMITED_S, buffer_size=UNDER_WAY_MAX)
            inner = MemoryBus(limits, {}, self._clock, self._serves)
            inner.subscribe(topic, handler, slots, kind_of)
            self._feed(self._consume(Channel(topic, Kind.NEWS), group, inner, partial(self._count, slots)), slots)

    async def publish(self, topic: str, message: Any, ctx: Context) -> None:
        """See :meth:`penstock.bus.contract.Bus.publish`; the broker is the only subscriber that is waited for.

        Raises:
            Rejected: The channel stayed full for the publish timeout (B2), or the bus is closed.
            Expired: The work's deadline passed first.
            Unavailable: The broker is not reachable.
        """
        if self._closed:
            raise draining()
        now_s, deadline = self._clock.now(), ctx.deadline
        if deadline.passed(now_s):
            raise Expired(deadline.operation)
        within_s = min(self._settings.publish_timeout, deadline.remaining_s(now_s))
        if not self._desk.ready.is_set():
            self._link.check()
            async with limit(deadline.within(within_s, "publish", now_s)):
                await self._desk.ready.wait()
        record = self._wire.message(0, "", topic, message, (ctx, now_s))
        try:
            await self._desk.send(Channel(topic, Kind.NEWS), record, self._broker.address, within_s)
        except Rejected:
            if deadline.passed(self._clock.now()):
                raise Expired(deadline.operation) from None
            raise

    async def request(self, topic: str, message: Any, ctx: Context) -> Any:
        """See :meth:`penstock.bus.contract.Bus.request`.

        Raises:
            Unavailable: Nobody serves the topic, or the broker is not reachable.
        """
        if self._closed:
            raise draining()
        if topic not in self._windows and not self._ask(topic):
            raise Unavailable(self._nobody(topic), dependency=topic)
        if self._work(topic).topic not in self._presence.rooms:
            raise Unavailable(f"nobody serves {topic} any more", dependency=topic)
        self._link.check()
        return await self._asking.request(topic, message, ctx)

    def used(self, topic: str) -> float:
        """See :meth:`penstock.bus.contract.Bus.used`."""
        return max(self._asking.used(topic), self._serving.used(topic))

    def refuses(self, topic: str, ctx: Context, at: Level = Level.CRITICAL) -> Refusal | None:
        """See :meth:`penstock.bus.contract.Bus.refuses`."""
        return self._asking.refuses(topic, ctx, at)

    def congested(self, topic: str, criticality: Criticality | None = None) -> bool:
        """See :meth:`penstock.bus.contract.Bus.congested`."""
        return (self._asking if topic in self._windows else self._serving).congested(topic, criticality)

    def state(self) -> list[TopicState]:
        """Return every topic's state: where it is asked, as it waits here; else as it is served here."""
        asked = {one.name: one for one in self._asking.state()}
        served = {one.name: one for one in self._serving.state()}
        told: dict[str, list[TopicState]] = {}
        for consumer in self._consumers:
            if consumer.channel.kind is Kind.NEWS:
                told.setdefault(consumer.topic, []).extend(consumer.inner.state())
        names = [*asked, *(name for name in (served | told) if name not in asked)]
        return [merged(asked.get(name), served.get(name), told.get(name, []), self._extra(name)) for name in names]

    async def joined(self) -> bool:
        """See :meth:`penstock.bus.contract.Bus.joined`.

        Bounds: ``PATIENCE_S``; a broker that has gone meanwhile is joined when it is back.
        """
        everyone = False
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(consumer.joined() for consumer in self._consumers))
                everyone = True
        await self._presence.say_hello()
        return everyone

    async def drain(self) -> None:
        """See :meth:`penstock.bus.contract.Bus.drain`."""
        self._presence.leaving = True
        await self._presence.say_hello()
        await asyncio.gather(*(consumer.drain() for consumer in self._consumers))

    async def close(self) -> None:
        """Refuse new messages, hand back what others can do, cancel what waits and what runs, and wait for its end."""
        if self._closed:
            return
        self._closed = self._presence.leaving = True
        await self._asking.close()
        for consumer in self._consumers:
            consumer.begin_close()
        inner = {id(bus): bus for bus in (self._serving, *(one.inner for one in self._consumers))}
        await asyncio.gather(*(bus.close() for bus in inner.values()))
        await asyncio.gather(*(consumer.close(PATIENCE_S) for consumer in self._consumers))
        await self._presence.say_hello()
        await self._desk.close()
        await self._presence.close()
        await self._broker.close()

    def _nobody(self, topic: str) -> str:
        """Say that nobody serves a topic, and whether others would, had they our models."""
        found = self._presence.directory.serving(self._clock.now())
        others = any(channel.partition(MARK)[0] == topic for channel in found)
        return f"nobody serves {topic}" + (" with the models used here; others do, with other ones" if others else "")

    def _work(self, topic: str) -> Channel:
        """Return the channel of a topic's requests."""
        return Channel(topic + self._marks.get(topic, ""), Kind.WORK)

    # --- Asking

    def _ask(self, topic: str) -> bool:
        """Begin to ask a topic that somebody serves; return whether somebody does."""
        room = self._presence.rooms.get(self._work(topic).topic)
        if room is None:
            return False
        window = self._windows[topic] = Window()
        window.resize(room)
        self._asking.subscribe(topic, self._desk.handler(topic, self._work(topic)), window, self._kinds.get(topic))
        return True

    def _resize(self) -> None:
        """Let as much of each topic be under way as those take who serve it."""
        for topic, window in self._windows.items():
            window.resize(self._presence.rooms.get(self._work(topic).topic, Room()))

    # --- Serving

    def _consume(self, channel: Channel, group: str, inner: MemoryBus, at_once: Callable[[], int]) -> Consumer:
        consumer = Consumer(channel, group, inner, at_once, self._terms)
        self._consumers.append(consumer)
        return consumer

    def _feed(self, consumer: Consumer, slots: Slots) -> None:
        slots.on_free(consumer.free)
        consumer.free()

    def _count(self, slots: Slots) -> int:
        """Return how many handlers slots allow, as far as they tell."""
        return min(getattr(slots, "limit", self._settings.handlers_per_topic), self._settings.handlers_per_topic)

    def _at_once(self, topic: str) -> int:
        return sum(self._count(slots) for slots in self._slots[topic])

    # --- Among the instances

    def _serves_now(self) -> dict[str, int]:
        """Return the channels that this instance serves, and how many handlers of each may run."""
        return {self._work(one).topic: self._at_once(one) for one in self._slots if one not in EVENT_TOPICS}

    def _withdrawn(self, asked: tuple[str, int]) -> None:
        self._cancelled[asked] = None
        if len(self._cancelled) > CANCELLED_MAX:
            self._cancelled.popitem(last=False)
        for consumer in self._consumers:
            consumer.withdraw(asked)

    def _extra(self, topic: str) -> Counts:
        """Return what became of records of a topic that no handler has seen, and of replies that came too late."""
        found = reduce(Counts.plus, (one.extra for one in self._consumers if one.topic == topic), Counts())
        return found.plus(Counts(late=self._desk.late.get(topic, 0)))


def digest(mark: str) -> str:
    """Return eight hexadecimal digits that stand for a mark in a channel's name."""
    return hashlib.sha256(mark.encode()).hexdigest()[:8]
