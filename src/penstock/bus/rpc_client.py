"""RPC client: sends this instance's requests to others, and matches the replies to them.

A request goes to its channel, where the broker decides who gets it. The broker takes seconds to notice that a worker
has gone. So while one is missed (:mod:`penstock.bus.service_registry`), requests that may be repeated are handed to the
mailbox of another, those included that may lie with the missed one. The first reply counts.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass
from typing import Any, Final

from penstock.bus.broker import Broker, Channel
from penstock.bus.broker_breaker import BrokerBreaker
from penstock.bus.loops import cancel_all
from penstock.bus.record_codec import Cancel, HandlerFailure, HandlerReply, RecordCodec, UnreadableRecord
from penstock.bus.service_registry import ServiceRegistry
from penstock.kernel.context import Clock, Context
from penstock.kernel.errors import Broken, Unavailable
from penstock.kernel.messages import REPEATABLE_TOPICS

log = logging.getLogger(__name__)

#: Cancellations on their way to the workers; those beyond are not sent, and the worker works for nothing.
CANCELS_MAX: Final = 1000
#: How often a request is handed to another worker. One that kills its workers kills so many more at most.
HANDOVERS_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class BrokerTransport:
    """Broker, codec and breaker that carry the bus."""

    broker: Broker
    codec: RecordCodec
    breaker: BrokerBreaker


@dataclass(slots=True, eq=False)
class PendingRequest:
    """Request whose reply is awaited.

    Attributes:
        topic: Its topic.
        channel: Its channel.
        record: Its record.
        reply: Gets the reply.
        queued: Whether it was sent to the channel.
        worker: The mailbox that it was handed to; empty as long as the channel alone has it.
        handovers: How often it was handed to a mailbox.
    """

    topic: str
    channel: Channel
    record: bytes
    reply: asyncio.Future[HandlerReply | HandlerFailure]
    queued: bool = False
    worker: str = ""
    handovers: int = 0


class RpcClient:
    """Sends requests and hands the replies to their requesters.

    Args:
        transport: The broker, the codec and the breaker.
        clock: The loop's clock.
        send_timeout_s: How long to wait for room in a full channel (B2).
        registry: The known instances.

    Attributes:
        registry: As given.
        mailbox_ready: Set once the broker knows our mailbox; earlier requests wait for it.
        late_replies: Replies that came after their requester had stopped waiting, by topic (B3).

    Bounds: what the windows of the topics let through; ``HANDOVERS_MAX`` handovers of each; ``CANCELS_MAX``
        cancellations.
    """

    def __init__(
        self, transport: BrokerTransport, clock: Clock, send_timeout_s: float, registry: ServiceRegistry
    ) -> None:
        self.registry = registry
        self.mailbox_ready = asyncio.Event()
        self.late_replies: dict[str, int] = {}
        self._transport = transport
        self._clock = clock
        self._send_timeout_s = send_timeout_s
        self._numbers = itertools.count(1)
        self._pending: dict[int, PendingRequest] = {}
        self._cancels: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<RpcClient {len(self._pending)} asked>"

    async def send(self, channel: Channel, record: bytes, key: str, within_s: float) -> None:
        """Send a record, and report the outcome to the breaker.

        Raises:
            Rejected: The channel stayed full.
            Unavailable: The broker is not reachable, or its breaker is open.
        """
        breaker = self._transport.breaker
        breaker.check()
        began_s = self._clock.now()
        try:
            await self._transport.broker.send(channel, record, key, within_s)
        except Unavailable:
            breaker.call_failed(self._clock.now() - began_s - within_s)
            raise
        breaker.send_ok()

    async def call(self, topic: str, channel: Channel, message: Any, ctx: Context) -> Any:
        """Send a request to another instance over a channel, and wait for its reply.

        Raises:
            PenstockError: The handler's error, or the reason why it cannot be called.

        Cancellation: The worker is told, unless it knows by the deadline.
        """
        transport, number = self._transport, next(self._numbers)
        await self.mailbox_ready.wait()
        address = transport.broker.address
        record = transport.codec.encode_message(number, address, topic, message, (ctx, self._clock.now()))
        reply: asyncio.Future[HandlerReply | HandlerFailure] = asyncio.get_running_loop().create_future()
        asked = self._pending[number] = PendingRequest(topic, channel, record, reply)
        try:
            await (self._send_elsewhere(asked) if self._is_lost(asked) else self._enqueue(asked))
            note = await reply
        except asyncio.CancelledError:
            if self._clock.now() < ctx.deadline.at_s:
                self._send_cancel(Cancel(address, number))
            raise
        finally:
            del self._pending[number]
            if reply.done() and not reply.cancelled():
                reply.exception()  # looked at: it may have failed while the sending did
        if asked.queued and asked.handovers:
            self._send_cancel(Cancel(address, number))  # who gets it from the channel need not begin
        if isinstance(note, HandlerFailure):
            raise note.to_error()
        try:
            return transport.codec.decode_body(note)
        except UnreadableRecord as error:
            raise Broken(f"the reply of {topic} cannot be read: {error.detail}") from None

    def on_reply(self, note: HandlerReply | HandlerFailure) -> None:
        """Hand a reply to its requester."""
        asked = self._pending.get(note.id)
        if asked is None or asked.reply.done():
            self.late_replies[note.topic] = self.late_replies.get(note.topic, 0) + 1
        else:
            asked.reply.set_result(note)

    async def rescue(self) -> None:
        """Hand to others the requests that a missed worker may hold.

        A request that another worker has begun may be among them. That worker recognises it, a third one does it twice.
        """
        lost = [asked for asked in self._pending.values() if self._is_lost(asked)]
        if lost:
            log.warning("a worker has not been heard of, and %d requests that it may have go to others", len(lost))
            await asyncio.gather(*(self._send_elsewhere(asked) for asked in lost), return_exceptions=True)

    def _is_lost(self, asked: PendingRequest) -> bool:
        """Return whether a missed worker may hold a request that another may be given."""
        return (
            asked.topic in REPEATABLE_TOPICS
            and (asked.handovers < HANDOVERS_MAX or not asked.queued)
            and not asked.reply.done()
            and self.registry.is_missed(asked.channel.topic, self._clock.now(), asked.worker)
        )

    async def _send_elsewhere(self, asked: PendingRequest) -> None:
        """Hand a request to the mailbox of a living worker, or where there is none leave it to the channel.

        Raises:
            Rejected: The channel stayed full.
            Unavailable: The broker is not reachable, or its breaker is open.
        """
        worker = self.registry.substitute(asked.channel.topic) if asked.handovers < HANDOVERS_MAX else ""
        if worker:
            asked.worker, asked.handovers = worker, asked.handovers + 1
            self._transport.breaker.check()
            await self._transport.broker.reply(worker, asked.record)
        elif not asked.queued:
            await self._enqueue(asked)

    async def _enqueue(self, asked: PendingRequest) -> None:
        asked.queued = True
        await self.send(asked.channel, asked.record, "", self._send_timeout_s)

    def fail_all(self) -> None:
        """Fail all pending requests: their replies would have to come over the broker, which is not reachable."""
        for asked in self._pending.values():
            if not asked.reply.done():
                asked.reply.set_exception(self._transport.breaker.unavailable())

    async def close(self) -> None:
        """Send the last cancellations, if that is done at once."""
        if self._cancels:
            await asyncio.wait(self._cancels, timeout=0.1)
        await cancel_all(*self._cancels)

    def _send_cancel(self, cancel: Cancel) -> None:
        if len(self._cancels) >= CANCELS_MAX:
            return
        task = asyncio.get_running_loop().create_task(self._broadcast_cancel(cancel), name="cancel")
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)

    async def _broadcast_cancel(self, cancel: Cancel) -> None:
        transport = self._transport
        try:
            await transport.broker.broadcast(transport.codec.encode(cancel))
        except Unavailable:
            return  # it was a courtesy
