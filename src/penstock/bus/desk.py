"""This instance's requests that are under way to others: sent, waited for, answered or given up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from penstock.bus.broker import Broker, Channel
from penstock.bus.link import Link
from penstock.bus.wire import Cancel, Failure, Reply, Unreadable, Wire
from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.errors import Broken, Unavailable

#: Notes of withdrawn requests on their way to the workers; those beyond are not sent, and the worker works for nothing.
CANCELS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Transport:
    """What carries the bus.

    Attributes:
        broker: The broker.
        wire: The form in which messages travel.
        link: The broker's circuit breaker.
    """

    broker: Broker
    wire: Wire
    link: Link


class Desk:
    """Sends requests and hands the replies to those who wait for them.

    Args:
        transport: What carries them.
        clock: The loop's clock.
        send_s: How long to wait for room in a full channel (B2).

    Attributes:
        ready: Set once the broker knows our mailbox; what is asked before waits for it.
        late: Replies that came when nobody waited any more, by topic (B3).

    Bounds: what the windows of the topics let through; ``CANCELS_MAX`` notes.
    """

    def __init__(self, transport: Transport, clock: Clock, send_s: float) -> None:
        self.ready = asyncio.Event()
        self.late: dict[str, int] = {}
        self._transport = transport
        self._clock = clock
        self._send_s = send_s
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Reply | Failure]] = {}
        self._notes: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Desk {len(self._asked)} asked>"

    def handler(self, topic: str, channel: Channel) -> Callable[[Any, Context], Awaitable[Any]]:
        """Return a handler that has a topic's work done by another instance, by way of a channel."""

        async def ask(message: Any, ctx: Context) -> Any:
            return await self._ask(topic, channel, (message, ctx))

        return ask

    async def send(self, channel: Channel, record: bytes, key: str, within_s: float) -> None:
        """Send a record, and tell the breaker how that went.

        Raises:
            Rejected: The channel stayed full.
            Unavailable: The broker is not reachable, or its breaker is open.
        """
        link = self._transport.link
        link.check()
        began_s = self._clock.now()
        try:
            await self._transport.broker.send(channel, record, key, within_s)
        except Unavailable:
            link.failed(self._clock.now() - began_s - within_s)
            raise
        link.sent()

    async def _ask(self, topic: str, channel: Channel, asked: tuple[Any, Context]) -> Any:
        """Send a request and wait for its reply.

        Raises:
            PenstockError: What the handler raised, or why it cannot be asked.

        Cancellation: The worker is told, unless it knows by the deadline.
        """
        transport, number, (message, ctx) = self._transport, next(self._numbers), asked
        await self.ready.wait()
        address = transport.broker.address
        record = transport.wire.message(number, address, topic, message, (ctx, self._clock.now()))
        reply = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            await self.send(channel, record, "", self._send_s)
            note = await reply
        except asyncio.CancelledError:
            if self._clock.now() < ctx.deadline.at_s:
                self._withdraw(Cancel(address, number))
            raise
        finally:
            del self._asked[number]
            if reply.done() and not reply.cancelled():
                reply.exception()  # looked at: it may have failed while the sending did
        if isinstance(note, Failure):
            raise note.error()
        try:
            return transport.wire.result_of(note)
        except Unreadable as error:
            raise Broken(f"the reply of {topic} cannot be read: {error.detail}") from None

    def settle(self, note: Reply | Failure) -> None:
        """Hand a reply to who waits for it."""
        reply = self._asked.get(note.id)
        if reply is None or reply.done():
            self.late[note.topic] = self.late.get(note.topic, 0) + 1
        else:
            reply.set_result(note)

    def fail(self) -> None:
        """Tell all who wait that the broker is not reachable: their replies would have to come by way of it."""
        for reply in self._asked.values():
            if not reply.done():
                reply.set_exception(self._transport.link.unavailable())

    async def close(self) -> None:
        """Send the last notes, if that is done at once."""
        if self._notes:
            await asyncio.wait(self._notes, timeout=0.1)
        for task in self._notes:
            task.cancel()
        await asyncio.gather(*self._notes, return_exceptions=True)

    def _withdraw(self, cancel: Cancel) -> None:
        if len(self._notes) >= CANCELS_MAX:
            return
        task = asyncio.get_running_loop().create_task(self._tell(cancel), name="cancel")
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _tell(self, cancel: Cancel) -> None:
        transport = self._transport
        try:
            await transport.broker.tell(transport.wire.record(cancel))
        except Unavailable:
            return  # it was a courtesy
