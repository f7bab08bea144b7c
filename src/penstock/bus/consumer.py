"""Consumer of a channel: takes records from the broker only as handlers can start them, and settles each one.

Records go to a bus of this process (:class:`penstock.bus.local.LocalBus`), so slots, order, discard and limits are the
same as where everything runs in one process. A record is acknowledged when its handler has ended and the reply is under
way. A record that cannot be read, or that has killed its workers too often, becomes a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from penstock.bus.broker import Broker, Channel, ChannelKind, Delivery, Reader, ReplyMessage
from penstock.bus.counters import TopicCounters
from penstock.bus.local import LocalBus
from penstock.bus.loops import BACKOFF_S, cancel_all, run_forever
from penstock.bus.record_codec import ControlMessage, HandlerFailure, Message, UnreadableRecord
from penstock.bus.rpc_client import BrokerTransport
from penstock.kernel.context import Clock, Context, current_request_id
from penstock.kernel.errors import Broken, Expired, PenstockError, Rejected, Unavailable
from penstock.kernel.messages import REPEATABLE_TOPICS

log = logging.getLogger(__name__)

#: Separates a topic's name from its channel's suffix; no topic has one in its name.
CHANNEL_SEPARATOR: Final = "-"
#: How long one poll may wait for the first record.
POLL_WAIT_S: Final = 1.0
#: Records under way beyond which a request that is handed over is not taken.
TAKEN_OVER_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class ConsumerConfig:
    """Configuration that all consumers of a bus share.

    Attributes:
        transport: The broker, the codec and the breaker.
        clock: The loop's clock.
        deliveries_max: Deliveries of one record at most; then it is dead-lettered.
        prefetch: Records taken beside those that can be begun at once.
        is_cancelled: Whether a requester has withdrawn its request: mailbox and number.
        on_answered: Called with a request that was handed over and is answered here: its record in the channel need not
            be begun.
    """

    transport: BrokerTransport
    clock: Clock
    deliveries_max: int
    prefetch: int
    is_cancelled: Callable[[tuple[str, int]], bool]
    on_answered: Callable[[tuple[str, int]], None]


class Settlement(Protocol):
    """Part of a reader that settles deliveries; see :class:`penstock.bus.broker.Reader`."""

    async def ack(self, delivery: Delivery, reply: ReplyMessage | None = None) -> None:
        """Acknowledge a delivery, with its reply."""

    async def requeue(self, delivery: Delivery) -> None:
        """Have it delivered to another member."""

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Put it among the dead letters."""


@dataclass(frozen=True, slots=True)
class HandoverSettlement:
    """Settlement of requests that came to this instance's mailbox instead of their channel."""

    broker: Broker
    channel: Channel
    on_answered: Callable[[tuple[str, int]], None]

    async def ack(self, delivery: Delivery, reply: ReplyMessage | None = None) -> None:
        """Send the reply; there is nothing to acknowledge."""
        self.on_answered(delivery.handle)
        if reply is not None:
            await self.broker.reply(reply.address, reply.record)

    async def requeue(self, delivery: Delivery) -> None:
        """Send the request to its channel, unless that is full."""
        with suppress(Rejected):
            await self.broker.send(self.channel, delivery.record, "", 0.0)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Drop the request: its requester has been told."""


class Consumer:
    """Consumer of a channel, for a bus of this process.

    Attributes:
        channel: The channel to read.
        topic: Its topic, as the handlers and messages name it.
        inner: The bus of this process that has the handlers.
        undispatched: Counters of the records that were never handed to ``inner``.

    Bounds: ``concurrency()`` and ``config.prefetch`` records, and with those that are handed over ``TAKEN_OVER_MAX``.
    """

    def __init__(
        self, channel: Channel, inner: LocalBus, concurrency: Callable[[], int], config: ConsumerConfig
    ) -> None:
        self.channel = channel
        self.topic = channel.topic.partition(CHANNEL_SEPARATOR)[0]
        self.inner = inner
        self.undispatched = TopicCounters()
        self._concurrency = concurrency
        self._config = config
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: dict[tuple[str, int], asyncio.Task[Any]] = {}
        self._slot_free = asyncio.Event()
        self._joined = asyncio.Event()
        self._stopped = self._closing = False
        self._reader: Reader | None = None
        self._handover = HandoverSettlement(config.transport.broker, channel, config.on_answered)
        run = run_forever(self._poll, f"taking records of {self.topic}")
        self._task = asyncio.get_running_loop().create_task(run, name=f"consumer {self.topic}")

    def __repr__(self) -> str:
        return f"<Consumer {self.topic} {self.channel.kind} {len(self._tasks)} held>"

    async def wait_joined(self) -> None:
        """Wait until records of the channel come here."""
        await self._joined.wait()
        if self._reader is not None:
            await self._reader.wait_joined()

    def wake(self) -> None:
        """Look again for room: a slot may have become free."""
        self._slot_free.set()

    def cancel(self, request_key: tuple[str, int]) -> None:
        """Cancel a request whose requester does not wait any more."""
        task = self._requests.pop(request_key, None)
        if task is not None:
            task.cancel()

    def take_over(self, note: Message, record: bytes) -> None:
        """Handle a request from this instance's mailbox, unless it is handled here already."""
        key = (note.address, note.id)
        if key not in self._requests and len(self._tasks) < TAKEN_OVER_MAX:
            self._start(Delivery(record, 1, 0.0, key), self._handover)

    async def drain(self) -> None:
        """Take no more records, and wait until those taken have ended."""
        await self._stop()
        if self._reader is not None:
            await self._reader.pause()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def begin_close(self) -> None:
        """Begin to close: from now on records that ``inner`` refuses are requeued."""
        self._closing = True

    async def close(self, patience_s: float) -> None:
        """Take no more records, and end those taken within ``patience_s``. ``inner`` has been closed."""
        await self._stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=patience_s)
            await cancel_all(*late)
        if self._reader is not None:
            await self._reader.close()

    async def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            await cancel_all(self._task)

    # --- From the broker

    async def _poll(self) -> None:
        """Take as many records as there is room for, or wait for room."""
        if self._reader is None:
            self._reader = await self._config.transport.broker.join(self.channel)
            self._joined.set()
        room = self._concurrency() + self._config.prefetch - len(self._tasks)
        if room <= 0:
            self._slot_free.clear()
            await self._slot_free.wait()
            return
        for delivery in await self._reader.poll(room, POLL_WAIT_S):
            self._start(delivery, self._reader)

    def _start(self, delivery: Delivery, reader: Settlement) -> None:
        task = asyncio.get_running_loop().create_task(self._handle(delivery, reader), name=self.topic)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slot_free.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a record of %s was left unacknowledged", self.topic, exc_info=error)

    # --- One record

    async def _handle(self, delivery: Delivery, reader: Settlement) -> None:
        """Decode a record, have it handled, settle it."""
        codec, note = self._config.transport.codec, None
        try:
            note = codec.decode(delivery.record)
            if not isinstance(note, Message) or note.topic != self.topic:
                raise UnreadableRecord("a record that does not belong here", code="foreign")
            if delivery.attempts > self._config.deliveries_max:
                raise UnreadableRecord(f"delivered {delivery.attempts} times", code="tries")
            message = codec.decode_body(note)
        except UnreadableRecord as error:
            await self._fail_unreadable(note, error)
            await self._retry_while_unavailable(partial(reader.dead_letter, delivery, error.code))
            return
        now_s = self._config.clock.now()
        ctx = note.context(delivery.age_s, now_s)
        current_request_id.set(ctx.request_id)
        settle: Callable[[], Awaitable[None]] = partial(reader.ack, delivery)
        if not self._count_if_abandoned(note, ctx, now_s):
            if self.channel.kind is ChannelKind.QUEUE:
                settle = await self._handle_request(delivery, reader, note, (message, ctx))
            else:
                await self._handle_event(message, ctx)
        await self._retry_while_unavailable(settle)

    def _count_if_abandoned(self, note: Message, ctx: Context, now_s: float) -> bool:
        """Return whether a message was withdrawn or has expired; if so, count it."""
        if self._config.is_cancelled((note.address, note.id)):
            self.undispatched.left += 1
        elif ctx.deadline.passed(now_s):
            if self.channel.kind is ChannelKind.PUBSUB:
                self._count_lost_event(Expired(ctx.deadline.operation))
            else:
                self.undispatched.expired_waiting += 1
        else:
            return False
        self.undispatched.offered += 1
        return True

    def _count_lost_event(self, error: PenstockError) -> None:
        self.undispatched.lost += 1
        log.warning("an event on %s was not handled: %s", self.topic, error)

    async def _fail_unreadable(self, note: ControlMessage | None, why: UnreadableRecord) -> None:
        """Count and log a record that becomes a dead letter, and fail its request where the requester can be read."""
        self.undispatched.offered += 1
        self.undispatched.failed += 1
        log.error("a record of %s was put among the dead letters: %s: %s", self.topic, why.code, why.detail)
        if isinstance(note, Message) and note.address:
            transport = self._config.transport
            error = Broken(f"the message could not be handled: {why.detail}", code=why.code)
            record = transport.codec.encode(HandlerFailure.from_error(note.id, note.topic, error))
            await self._retry_while_unavailable(partial(transport.broker.reply, note.address, record))

    async def _handle_request(
        self, delivery: Delivery, reader: Settlement, note: Message, asked: tuple[Any, Context]
    ) -> Callable[[], Awaitable[None]]:
        """Have a request handled; return how to settle it, with its result or its error for the requester (B5)."""
        codec, (message, ctx) = self._config.transport.codec, asked
        here, key = asyncio.current_task(), (note.address, note.id)
        assert here is not None  # noqa: S101 - for the type checker
        if key in self._requests and note.topic in REPEATABLE_TOPICS:
            return partial(reader.ack, delivery)  # it was handed over too, and is at work
        self._requests[key] = here
        record: bytes | None = None
        try:
            record = codec.encode_reply(note.id, note.topic, await self.inner.request(note.topic, message, ctx))
        except PenstockError as error:
            if self._closing and error.code == "draining":
                return partial(reader.requeue, delivery)
            record = codec.encode(HandlerFailure.from_error(note.id, note.topic, error))
        except asyncio.CancelledError:
            if key in self._requests:  # not withdrawn: we shut down
                raise
            here.uncancel()
        finally:
            self._requests.pop(key, None)
        # The requester knows by its own clock when its time is up.
        wanted = record is not None and not ctx.deadline.passed(self._config.clock.now())
        answer = ReplyMessage(note.address, record) if wanted and record is not None else None
        return partial(reader.ack, delivery, answer)

    async def _handle_event(self, message: Any, ctx: Context) -> None:
        """Have an event handled, and log its failure: no publisher waits for it."""
        try:
            await self.inner.request(self.topic, message, ctx)
        except PenstockError as error:
            if isinstance(error, Expired) or (self._closing and error.code == "draining"):
                self._count_lost_event(error)
            elif not isinstance(error, Broken):  # a bug has been logged with its traceback
                log.warning("a subscriber of %s failed: %s", self.topic, error)

    async def _retry_while_unavailable(self, act: Callable[[], Awaitable[None]]) -> None:
        """Call the broker until it answers; while closing, only once."""
        while True:
            try:
                await act()
            except Unavailable:
                if self._closing:
                    return
                await asyncio.sleep(BACKOFF_S)
            else:
                return
