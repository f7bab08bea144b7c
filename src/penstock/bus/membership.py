"""Membership: announces this instance and its topics, and tracks the others.

The mailbox is read here. Replies go on to the :class:`penstock.bus.rpc_client.RpcClient`, cancellations to the
consumers.
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
from penstock.bus.record_codec import Cancel, HandlerFailure, HandlerReply, Hello, UnreadableRecord
from penstock.bus.rpc_client import BrokerTransport, RpcClient
from penstock.bus.service_registry import ServiceRegistry, WorkerCapacity
from penstock.kernel.context import Clock
from penstock.kernel.errors import PenstockError, Unavailable
from penstock.policies.breaker import BreakerState

log = logging.getLogger(__name__)

#: An instance says hello with every so many heartbeats.
HEARTBEATS_PER_HELLO: Final = 3
#: How long one read of the mailbox may wait for a record, in seconds.
RECEIVE_WAIT_S: Final = 1.0


class Membership:
    """Membership of this instance: heartbeats, announcements and the mailbox.

    Args:
        transport: The broker, the codec and the breaker.
        clock: The loop's clock.
        rpc: Takes the replies; it is made ready by the first heartbeat that the broker answers.
        prefetch: Messages that are taken in advance.
        concurrency_by_channel: The channels that this instance serves, and how many handlers of each may run.

    Attributes:
        registry: The known instances, this one included.
        capacities: How much of each channel that is served may be under way.
        leaving: Whether the others are told that this instance takes no more.
        on_capacities: Called when the capacities have been refreshed.
        on_cancelled: Called with the mailbox and number of a request that was withdrawn.

    Bounds: one hello to all every ``HEARTBEATS_PER_HELLO`` heartbeats, and one whenever what it says has changed; the
        records of one read of the mailbox.
    """

    def __init__(
        self,
        transport: BrokerTransport,
        clock: Clock,
        rpc: RpcClient,
        prefetch: int,
        concurrency_by_channel: Callable[[], dict[str, int]],
    ) -> None:
        self.registry = ServiceRegistry()
        self.capacities: dict[str, WorkerCapacity] = {}
        self.leaving = False
        self.on_capacities: Callable[[], None] = lambda: None
        self.on_cancelled: Callable[[tuple[str, int]], None] = lambda _: None
        self._broker, self._codec, self._breaker = transport.broker, transport.codec, transport.breaker
        self._clock = clock
        self._rpc = rpc
        self._prefetch = prefetch
        self._concurrency_by_channel = concurrency_by_channel
        self._heartbeats = 0
        self._received: deque[bytes] = deque()
        self._announced: Hello | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to send heartbeats and to read the mailbox; call it inside the running loop."""
        loop = asyncio.get_running_loop()
        lives = ((self._heartbeat, "beat", "sending heartbeats"), (self._receive, "listen", "reading the mailbox"))
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
                self._announced = self._hello()

    async def close(self) -> None:
        """Stop the heartbeats and the reading of the mailbox."""
        await cancel_all(*self._tasks)

    def _hello(self, *, wants_reply: bool = False) -> Hello:
        return Hello(self._broker.address, self._concurrency_by_channel(), self._prefetch, wants_reply, self.leaving)

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
        if self._heartbeats % HEARTBEATS_PER_HELLO == 0 or not well or self._announced != self._hello():
            await self.announce(wants_reply=not well)
        self._heartbeats += 1
        self.register_self()
        await asyncio.sleep(HEARTBEAT_S)

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
        elif isinstance(message, Hello) and message.address != self._broker.address:
            self.registry.update(message, self._clock.now())
            self._refresh_capacities()
            if message.wants_reply:
                with suppress(Unavailable):
                    await self._broker.reply(message.address, self._codec.encode(self._hello()))
