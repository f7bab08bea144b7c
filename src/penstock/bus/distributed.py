"""The bus over a broker: several processes, the same topics, the same promises.

There are two halves, and a bus of one process (:class:`penstock.bus.local.LocalBus`) in each. **Requesting:**
each topic has its bounded buffer here, in its usual order. Its handler is another instance, its slots are a
:class:`penstock.bus.service_registry.RequestWindow` as wide as what the workers take at once. So requests wait at the
requester, under the same rules as in one process, where the gate can see them. **Serving:** a
:class:`penstock.bus.consumer.Consumer` takes for each subscribed topic what can be begun at once and little more.

Instances announce the topics that they serve to each other (:mod:`penstock.bus.membership`).
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

from penstock.bus.broker import BROKER_TIMEOUT_S, Channel, ChannelKind
from penstock.bus.consumer import CHANNEL_SEPARATOR, Consumer, ConsumerConfig
from penstock.bus.contract import Handler, Slots, TopicRefusal
from penstock.bus.counters import BusObserver, OneSideObserver, TopicCounters
from penstock.bus.envelope import draining_error
from penstock.bus.local import LocalBus
from penstock.bus.management import TopicState
from penstock.bus.membership import Membership
from penstock.bus.record_codec import Message
from penstock.bus.rpc_client import BrokerTransport, RpcClient
from penstock.bus.service_registry import RequestWindow, ServiceRegistry, WorkerCapacity
from penstock.kernel.context import Clock, Context, Criticality, enforce_deadline
from penstock.kernel.errors import Expired, Rejected, Unavailable
from penstock.kernel.messages import REQUEST_TOPICS, Topic
from penstock.kernel.settings import BusSettings
from penstock.policies.breaker import BreakerState
from penstock.policies.levels import Level


def merge_topic_state(
    requester: TopicState | None, worker: TopicState | None, subscribers: list[TopicState], undispatched: TopicCounters
) -> TopicState:
    """Return one state of a topic from its parts.

    Where the topic is requested here, the requester counts its messages once, from beginning to end. Of the worker only
    the counts that the requester cannot know are added. ``undispatched`` is what no other part contains.
    """
    parts = [one for one in (requester or worker, *subscribers) if one is not None]
    whole = TopicState.merged(parts)
    counts = whole.counts
    for one in subscribers:  # an event that was not begun in time is lost, and counted as that already
        counts = replace(counts, expired_waiting=counts.expired_waiting - one.counts.expired_waiting)
    if requester is not None and worker is not None:
        counts = replace(
            counts,
            handler_errors=counts.handler_errors + worker.counts.handler_errors,
            late_replies=counts.late_replies + worker.counts.late_replies,
        )
        undispatched = TopicCounters(
            late_replies=undispatched.late_replies, lost=undispatched.lost, offered=undispatched.lost
        )
    capacity = whole.capacity if requester is None else requester.capacity
    return replace(whole, capacity=capacity, counts=counts.plus(undispatched))


log = logging.getLogger(__name__)

#: Requests of one topic under way at most, however many workers there are.
IN_FLIGHT_MAX: Final = 10_000
#: Withdrawn requests remembered, in case they come to be taken only afterwards.
CANCELLED_MAX: Final = 10_000
#: Longer than any limit: the tighter one is the requesting instance's, and travels with the message.
UNLIMITED_S: Final = 86_400.0
#: Topics of facts; all others but ``REQUEST_TOPICS`` may carry both.
EVENT_TOPICS: Final = frozenset(Topic) - frozenset(REQUEST_TOPICS)
#: Without these there is no search.
REQUIRED_TOPICS: Final = (Topic.SEARCH_REQUEST, Topic.ML_EMBED)


class BrokerBus:
    """Bus over a broker. Made inside the running loop, for it sends heartbeats and reads its mailbox at once.

    Args:
        transport: The broker, the codec and the breaker.
        settings: Bounds, limits and which mechanisms are on.
        capacities: Buffers that differ from ``settings.buffer_size``, by topic.
        clock: The loop's clock.
        observer: Is told of waits, service times and levels.
        compatibility_keys: By topic, what instances must have in common to share its requests: the name of a model.
            They meet on a channel that bears its digest, so others never get it.

    Bounds: each topic's buffer, ``IN_FLIGHT_MAX`` requests, ``CANCELLED_MAX`` withdrawn ones, and those of its parts.
    """

    def __init__(
        self,
        transport: BrokerTransport,
        settings: BusSettings,
        capacities: Mapping[str, int],
        clock: Clock,
        observer: BusObserver | None = None,
        compatibility_keys: Mapping[str, str] | None = None,
    ) -> None:
        self._broker, self._codec, self._breaker = transport.broker, transport.codec, transport.breaker
        self.breakers = (transport.breaker,)
        self._settings = settings
        self._channel_suffixes = {
            topic: CHANNEL_SEPARATOR + compatibility_digest(mark) for topic, mark in (compatibility_keys or {}).items()
        }
        self._clock = clock
        self._windows: dict[str, RequestWindow] = {}
        self._slots: dict[str, list[Slots]] = {}
        self._consumers: list[Consumer] = []
        self._cancelled: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._rpc = RpcClient(transport, clock, settings.publish_timeout, ServiceRegistry())
        self._membership = Membership(transport, clock, self._rpc, settings.ahead, self._concurrency_by_channel)
        asks = self._worker_observer = observer
        if observer is not None:
            asks = OneSideObserver(observer, ends_elsewhere=self._slots)
            self._worker_observer = OneSideObserver(observer, starts_elsewhere=self._windows)
        limits = replace(settings, handler_timeout=UNLIMITED_S, handlers_per_topic=IN_FLIGHT_MAX)
        self._requester_bus = LocalBus(limits, capacities, clock, asks)
        limits = replace(settings, request_timeout=UNLIMITED_S, client_share=1.0, buffer_size=IN_FLIGHT_MAX)
        self._worker_bus = LocalBus(limits, {}, clock, self._worker_observer)
        self._consumer_config = ConsumerConfig(
            transport, clock, settings.tries, settings.ahead, self._cancelled.__contains__, self._remember_cancelled
        )
        self._closed = False
        self._breaker.on_open = self._rpc.fail_all
        self._membership.on_capacities = self._resize_windows
        self._membership.on_cancelled = self._on_cancelled
        self._membership.on_request = self._on_request
        self._membership.start()

    def __repr__(self) -> str:
        return f"<BrokerBus {self._breaker!r} {self._membership.registry!r}>"

    def instance_counts(self) -> dict[str, int]:
        """Return how many living instances serve each topic, this one included."""
        found = self._membership.registry.instance_counts(self._clock.now())
        topics = {channel: channel.partition(CHANNEL_SEPARATOR)[0] for channel in found}
        return {
            topic: found[channel] for channel, topic in topics.items() if self._request_channel(topic).topic == channel
        }

    def unready_reasons(self) -> list[str]:
        """See :meth:`penstock.bus.management.BusManagement.unready_reasons`."""
        if not self._rpc.mailbox_ready.is_set() or self._breaker.state is not BreakerState.CLOSED:
            return [f"{self._broker.name} does not answer"]
        serving = self.instance_counts()
        return [self._unserved(topic) for topic in REQUIRED_TOPICS if topic not in serving]

    # --- Called by users of the bus

    def subscribe(self, topic: str, handler: Handler, slots: Slots) -> None:
        """See :meth:`penstock.bus.contract.Bus.subscribe`."""
        self._slots.setdefault(topic, []).append(slots)
        if topic not in EVENT_TOPICS:
            self._worker_bus.subscribe(topic, handler, slots)
            queue = self._request_channel(topic)
            consumer = next((one for one in self._consumers if one.channel == queue), None)
            self._wake_on_free_slot(
                consumer or self._consume(queue, self._worker_bus, partial(self._topic_concurrency, topic)), slots
            )
            self._membership.register_self()
        if topic not in REQUEST_TOPICS:
            limits = replace(self._settings, discipline="fifo", discard=False, refuse_hopeless=False)
            limits = replace(limits, request_timeout=UNLIMITED_S, buffer_size=IN_FLIGHT_MAX)
            inner = LocalBus(limits, {}, self._clock, self._worker_observer)
            inner.subscribe(topic, handler, slots)
            self._wake_on_free_slot(
                self._consume(Channel(topic, ChannelKind.PUBSUB), inner, partial(self._slot_limit, slots)), slots
            )

    async def publish(self, topic: str, message: Any, ctx: Context) -> None:
        """See :meth:`penstock.bus.contract.Bus.publish`; the broker is the only subscriber that is waited for.

        Raises:
            Rejected: The channel stayed full for the publish timeout (B2), or the bus is closed.
            Expired: The context's deadline passed first.
            Unavailable: The broker is not reachable.
        """
        if self._closed:
            raise draining_error()
        now_s, deadline = self._clock.now(), ctx.deadline
        if deadline.passed(now_s):
            raise Expired(deadline.operation)
        within_s = min(self._settings.publish_timeout, deadline.remaining_s(now_s))
        if not self._rpc.mailbox_ready.is_set():
            self._breaker.check()
            async with enforce_deadline(deadline.within(within_s, "publish", now_s)):
                await self._rpc.mailbox_ready.wait()
        record = self._codec.encode_message(0, "", topic, message, (ctx, now_s))
        try:
            await self._rpc.send(Channel(topic, ChannelKind.PUBSUB), record, self._broker.address, within_s)
        except Rejected:
            if deadline.passed(self._clock.now()):
                raise Expired(deadline.operation) from None
            raise

    async def request(self, topic: str, message: Any, ctx: Context) -> Any:
        """See :meth:`penstock.bus.contract.Bus.request`.

        Raises:
            Unavailable: No instance serves the topic, or the broker is not reachable.
        """
        if self._closed:
            raise draining_error()
        if topic not in self._windows and not self._open_window(topic):
            raise Unavailable(self._unserved(topic), dependency=topic)
        if self._request_channel(topic).topic not in self._membership.capacities:
            raise Unavailable(f"no worker serves {topic} any more", dependency=topic)
        self._breaker.check()
        return await self._requester_bus.request(topic, message, ctx)

    def fill_ratio(self, topic: str) -> float:
        """See :meth:`penstock.bus.contract.Bus.fill_ratio`."""
        return max(self._requester_bus.fill_ratio(topic), self._worker_bus.fill_ratio(topic))

    def check_admission(self, topic: str, ctx: Context, level: Level = Level.CRITICAL) -> TopicRefusal | None:
        """See :meth:`penstock.bus.contract.Bus.check_admission`."""
        return self._requester_bus.check_admission(topic, ctx, level)

    def congested(self, topic: str) -> bool:
        """See :meth:`penstock.bus.contract.Bus.congested`."""
        return (self._requester_bus if topic in self._windows else self._worker_bus).congested(topic)

    def pressure(self, topic: str, criticality: Criticality) -> float:
        """See :meth:`penstock.bus.contract.Bus.pressure`."""
        return (self._requester_bus if topic in self._windows else self._worker_bus).pressure(topic, criticality)

    def state(self) -> list[TopicState]:
        """Return every topic's state: as requester where it is requested here, else as worker."""
        asked = {one.name: one for one in self._requester_bus.state()}
        served = {one.name: one for one in self._worker_bus.state()}
        told: dict[str, list[TopicState]] = {}
        for consumer in self._consumers:
            if consumer.channel.kind is ChannelKind.PUBSUB:
                told.setdefault(consumer.topic, []).extend(consumer.inner.state())
        names = [*asked, *(name for name in (served | told) if name not in asked)]
        return [
            merge_topic_state(asked.get(name), served.get(name), told.get(name, []), self._undispatched(name))
            for name in names
        ]

    async def wait_joined(self) -> bool:
        """See :meth:`penstock.bus.management.BusManagement.wait_joined`.

        Bounds: ``BROKER_TIMEOUT_S``; a broker that has gone in between is joined when it is back.
        """
        everyone = False
        with suppress(TimeoutError):
            async with asyncio.timeout(BROKER_TIMEOUT_S):
                await asyncio.gather(*(consumer.wait_joined() for consumer in self._consumers))
                everyone = True
        await self._membership.announce()
        return everyone

    async def drain(self) -> None:
        """See :meth:`penstock.bus.management.BusManagement.drain`."""
        self._membership.leaving = True
        await self._membership.announce()
        await asyncio.gather(*(consumer.drain() for consumer in self._consumers))

    async def close(self) -> None:
        """Refuse new messages, requeue what others can handle, cancel what waits and what runs, wait for its end."""
        if self._closed:
            return
        self._closed = self._membership.leaving = True
        await self._requester_bus.close()
        for consumer in self._consumers:
            consumer.begin_close()
        inner = {id(bus): bus for bus in (self._worker_bus, *(one.inner for one in self._consumers))}
        await asyncio.gather(*(bus.close() for bus in inner.values()))
        await asyncio.gather(*(consumer.close(BROKER_TIMEOUT_S) for consumer in self._consumers))
        await self._membership.announce()
        await self._rpc.close()
        await self._membership.close()
        await self._broker.close()

    def _unserved(self, topic: str) -> str:
        """Return the error text for a topic that no instance serves, or that others serve with other models only."""
        found = self._membership.registry.instance_counts(self._clock.now())
        others = any(channel.partition(CHANNEL_SEPARATOR)[0] == topic for channel in found)
        with_others = " with the models used here; others do, with other ones" if others else ""
        return f"no worker serves {topic}{with_others}"

    def _request_channel(self, topic: str) -> Channel:
        return Channel(topic + self._channel_suffixes.get(topic, ""), ChannelKind.QUEUE)

    # --- Requesting

    def _open_window(self, topic: str) -> bool:
        """Open the request window of a topic; return whether any instance serves it."""
        room = self._membership.capacities.get(self._request_channel(topic).topic)
        if room is None:
            return False
        window = self._windows[topic] = RequestWindow()
        window.resize(room)
        call = partial(self._rpc.call, topic, self._request_channel(topic))
        self._requester_bus.subscribe(topic, call, window)
        return True

    def _resize_windows(self) -> None:
        """Set each topic's window to the capacity of its workers."""
        for topic, window in self._windows.items():
            window.resize(self._membership.capacities.get(self._request_channel(topic).topic, WorkerCapacity()))

    # --- Serving

    def _consume(self, channel: Channel, inner: LocalBus, at_once: Callable[[], int]) -> Consumer:
        consumer = Consumer(channel, inner, at_once, self._consumer_config)
        self._consumers.append(consumer)
        return consumer

    def _wake_on_free_slot(self, consumer: Consumer, slots: Slots) -> None:
        slots.on_free(consumer.wake)
        consumer.wake()

    def _slot_limit(self, slots: Slots) -> int:
        """Return how many handlers the slots allow, at most ``handlers_per_topic``."""
        return min(getattr(slots, "limit", self._settings.handlers_per_topic), self._settings.handlers_per_topic)

    def _topic_concurrency(self, topic: str) -> int:
        return sum(self._slot_limit(slots) for slots in self._slots[topic])

    # --- Among the instances

    def _concurrency_by_channel(self) -> dict[str, int]:
        """Return the channels that this instance serves, and how many handlers of each may run."""
        return {
            self._request_channel(one).topic: self._topic_concurrency(one)
            for one in self._slots
            if one not in EVENT_TOPICS
        }

    def _remember_cancelled(self, asked: tuple[str, int]) -> None:
        self._cancelled[asked] = None
        if len(self._cancelled) > CANCELLED_MAX:
            self._cancelled.popitem(last=False)

    def _on_cancelled(self, asked: tuple[str, int]) -> None:
        self._remember_cancelled(asked)
        for consumer in self._consumers:
            consumer.cancel(asked)

    def _on_request(self, note: Message, record: bytes) -> None:
        """Have a request handled that was handed over since its worker is missed."""
        queue = self._request_channel(note.topic)
        for consumer in self._consumers:
            if consumer.channel == queue:
                consumer.take_over(note, record)

    def _undispatched(self, topic: str) -> TopicCounters:
        """Return the counts of a topic's records that no handler has seen, and of its late replies."""
        found = reduce(
            TopicCounters.plus, (one.undispatched for one in self._consumers if one.topic == topic), TopicCounters()
        )
        return found.plus(TopicCounters(late_replies=self._rpc.late_replies.get(topic, 0)))


def compatibility_digest(key: str) -> str:
    """Return eight hexadecimal digits that stand for a compatibility key in a channel's name."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]
