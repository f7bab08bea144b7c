"""RPC client: sends this instance's requests to others, and matches the replies to them."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any, Final

from penstock.bus.broker import Broker, Channel
from penstock.bus.broker_breaker import BrokerBreaker
from penstock.bus.loops import cancel_all
from penstock.bus.record_codec import Cancel, HandlerFailure, HandlerReply, RecordCodec, UnreadableRecord
from penstock.kernel.context import Clock, Context
from penstock.kernel.errors import Broken, Unavailable

#: Cancellations on their way to the workers; those beyond are not sent, and the worker works for nothing.
CANCELS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class BrokerTransport:
    """Broker, codec and breaker that carry the bus."""

    broker: Broker
    codec: RecordCodec
    breaker: BrokerBreaker


class RpcClient:
    """Sends requests and hands the replies to their requesters.

    Args:
        transport: The broker, the codec and the breaker.
        clock: The loop's clock.
        send_timeout_s: How long to wait for room in a full channel (B2).

    Attributes:
        mailbox_ready: Set once the broker knows our mailbox; earlier requests wait for it.
        late_replies: Replies that came after their requester had stopped waiting, by topic (B3).

    Bounds: what the windows of the topics let through; ``CANCELS_MAX`` cancellations.
    """

    def __init__(self, transport: BrokerTransport, clock: Clock, send_timeout_s: float) -> None:
        self.mailbox_ready = asyncio.Event()
        self.late_replies: dict[str, int] = {}
        self._transport = transport
        self._clock = clock
        self._send_timeout_s = send_timeout_s
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[HandlerReply | HandlerFailure]] = {}
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
        reply = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            await self.send(channel, record, "", self._send_timeout_s)
            note = await reply
        except asyncio.CancelledError:
            if self._clock.now() < ctx.deadline.at_s:
                self._send_cancel(Cancel(address, number))
            raise
        finally:
            del self._pending[number]
            if reply.done() and not reply.cancelled():
                reply.exception()  # looked at: it may have failed while the sending did
        if isinstance(note, HandlerFailure):
            raise note.to_error()
        try:
            return transport.codec.decode_body(note)
        except UnreadableRecord as error:
            raise Broken(f"the reply of {topic} cannot be read: {error.detail}") from None

    def on_reply(self, note: HandlerReply | HandlerFailure) -> None:
        """Hand a reply to its requester."""
        reply = self._pending.get(note.id)
        if reply is None or reply.done():
            self.late_replies[note.topic] = self.late_replies.get(note.topic, 0) + 1
        else:
            reply.set_result(note)

    def fail_all(self) -> None:
        """Fail all pending requests: their replies would have to come over the broker, which is not reachable."""
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(self._transport.breaker.unavailable())

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
