"""Membership: announces this instance and its topics, and tracks the others.

The mailbox is read here. Replies go on to the :class:`penstock.bus.rpc_client.RpcClient`, cancellations and requests
that were handed over to the consumers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from penstock.bus.broker import HEARTBEAT_S
from penstock.bus.loops import cancel_all, run_forever
from penstock.bus.record_codec import Cancel, HandlerFailure, HandlerReply, Hello, Message, UnreadableRecord
from penstock.bus.rpc_client import BrokerTransport, RpcClient
from penstock.bus.service_registry import WorkerCapacity
from penstock.kernel.context import Clock
from penstock.kernel.errors import PenstockError, Unavailable
from penstock.policies.breaker import BreakerState

log = logging.getLogger(__name__)

#: How long one read of the mailbox may wait for a record, in seconds.
RECEIVE_WAIT_S: Final = 1.0


class Membership:
    """Membership of this instance: heartbeats, announcements and the mailbox.

    Args:
        transport: The broker, the codec and the breaker.
        clock: The loop's clock.
        rpc: Takes the replies, and has the registry; it is made ready by the first heartbeat that the broker answers.
        prefetch: Messages that are taken in advance.
        concurrency_by_channel: The channels that this instance serves, and how many handlers of each may run.

    Attributes:
        registry: The known instances, this one included.
        capacities: How much of each channel that is served may be under way.
        leaving: Whether the others are told that this instance takes no more.
        on_capacities: Called when the capacities have been refreshed.
        on_cancelled: Called with the mailbox and number of a request that was withdrawn.
        on_request: Called with a request that was handed over, and its record.

    Bounds: one hello to all in the registry's ``presence_s``, and one after each trouble of the broker; the records of
        one read of the mailbox.
    """

    def __init__(
        self,
        transport: BrokerTransport,
        clock: Clock,
        rpc: RpcClient,
        prefetch: int,
        concurrency_by_channel: Callable[[], dict[str, int]],
    ) -> None:
        self.registry = rpc.registry
        self.capacities: dict[str, WorkerCapacity] = {}
        self.leaving = False
        self.on_capacities: Callable[[], None] = lambda: None
        self.on_cancelled: Callable[[tuple[str, int]], None] = lambda _: None
        self.on_request: Callable[[Message, bytes], None] = lambda _note, _record: None
        self._broker, self._codec, self._breaker = transport.broker, transport.codec, transport.breaker
        self._clock = clock
        self._rpc = rpc
        self._prefetch = prefetch
        self._concurrency_by_channel = concurrency_by_channel
        self._received: deque[bytes] = deque()
        self._echoed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to send heartbeats and to read the mailbox; call it inside the running loop."""
        loop = asyncio.get_running_loop()
        lives = (
            (self._heartbeat, "beat", "sending heartbeats"),
            (self._say_hello, "hello", "announcing this instance"),
            (self._receive, "listen", "reading the mailbox"),
            (self._rescue, "rescue", "handing over requests"),
        )
        self._tasks = [loop.create_task(run_forever(once, what), name=name) for once, name, what in lives]

    def register_self(self) -> None:
        """Enter this instance into its own registry, without the broker."""
        self.registry.update(self._hello(), self._clock.now())
        self._refresh_capacities()

    async def announce(self, *, wants_reply: bool = False) -> None:
        """Announce to the others what this instance serves, if the broker is reachable; ask for theirs if wanted."""
        self.register_self()
        if self._breaker.state is BreakerState.CLOSED:
            with suppress(Unavailable):
                await self._broker.broadcast(self._codec.encode(self._hello(wants_reply=wants_reply)))

    async def close(self) -> None:
        """Stop the heartbeats and the reading of the mailbox."""
        await cancel_all(*self._tasks)

    def _hello(self, *, wants_reply: bool = False) -> Hello:
        channels = self._concurrency_by_channel()
        return Hello(self._broker.address, channels, self._prefetch, wants_reply, self.leaving, takes_requests=True)

    def _refresh_capacities(self) -> None:
        self.capacities = self.registry.capacities(self._clock.now())
        self.on_capacities()

    async def _heartbeat(self) -> None:
        """Send a heartbeat to the broker and the others, and report a silent broker to the breaker."""
        began_s, well = (
            self._clock.now(),
            self._breaker.state is BreakerState.CLOSED and self._rpc.mailbox_ready.is_set(),
        )
        try:
            await self._broker.heartbeat()
        except PenstockError as error:
            log.debug("%s does not answer: %s", self._broker.name, error)
            self._breaker.call_failed(self._clock.now() - began_s)
        else:
            self._rpc.mailbox_ready.set()
            self._breaker.heartbeat_ok()
        if not well:
            await self.announce(wants_reply=True)
        await asyncio.sleep(HEARTBEAT_S)

    async def _say_hello(self) -> None:
        """Announce this instance, and notice which others have not done so."""
        await self.announce()
        await asyncio.sleep(self.registry.presence_s)

    async def _rescue(self) -> None:
        """Look for missed workers whenever our own hello has come back."""
        await self._echoed.wait()
        self._echoed.clear()
        self._refresh_capacities()
        await self._rpc.rescue()

    async def _receive(self) -> None:
        await self._rpc.mailbox_ready.wait()
        if not self._received:
            self._received.extend(await self._broker.receive(RECEIVE_WAIT_S))
        while self._received:
            await self._handle(self._received.popleft())

    async def _handle(self, record: bytes) -> None:
        try:
            message = self._codec.decode(record)
        except UnreadableRecord as error:
            log.warning("a record in the mailbox cannot be read and is ignored: %s", error)
            return
        if isinstance(message, HandlerReply | HandlerFailure):
            self._rpc.on_reply(message)
        elif isinstance(message, Cancel):
            self.on_cancelled((message.address, message.id))
        elif isinstance(message, Message):
            self.on_request(message, record)
        elif message.address == self._broker.address:
            self.registry.echo(self._clock.now())
            self._echoed.set()
        else:
            self.registry.update(message, self._clock.now())
            self._refresh_capacities()
            if message.wants_reply:
                with suppress(Unavailable):
                    await self._broker.reply(message.address, self._codec.encode(self._hello()))
