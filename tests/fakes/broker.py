"""A broker in memory: what :mod:`penstock.bus.broker` promises, on the loop's clock, with faults to be had.

One ``Server`` stands for the broker itself; each ``FakeBroker`` on it for one instance's connection. A killed
instance is one that nobody closes: ``crash`` it, and its lease runs out.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.bus.broker import (
    BROKER_TIMEOUT_S,
    Channel,
    ChannelKind,
    DeadLetter,
    Delivery,
    ReplyMessage,
)
from penstock.kernel.errors import Invalid, Rejected, Unavailable

#: How often a waiting sender looks whether there is room.
LOOK_S = 0.01


@dataclass(eq=False)
class Item:
    """A record in a line."""

    record: bytes
    sent_s: float
    attempts: int = 0
    holder: FakeBroker | None = None


@dataclass
class Line:
    """One group's records of a channel, in order."""

    items: list[Item] = field(default_factory=list)


@dataclass
class Server:
    """The broker itself.

    Attributes:
        capacity: Records a channel holds, where ``capacities`` says nothing else.
        lease_s: An instance that has not beaten for so long is dead.
        down: It refuses connections.
        silent: It accepts everything and answers nothing.
        wrong_password: It lets nobody in.
    """

    capacity: int = 1000
    capacities: Mapping[str, int] = field(default_factory=dict)
    lease_s: float = 5.0
    down: bool = False
    silent: bool = False
    wrong_password: bool = False
    lines: dict[tuple[Channel, str], Line] = field(default_factory=dict)
    mailboxes: dict[str, deque[bytes]] = field(default_factory=dict)
    heartbeat_s: dict[FakeBroker, float] = field(default_factory=dict)
    dead_letters: dict[str, DeadLetter] = field(default_factory=dict)
    numbers: Any = field(default_factory=itertools.count)
    waiting: set[asyncio.Future[None]] = field(default_factory=set)

    def forget(self) -> None:
        """Restart without having kept anything."""
        self.lines.clear()
        self.mailboxes.clear()
        self.heartbeat_s.clear()
        self.dead_letters.clear()

    def changed(self) -> None:
        for waits in self.waiting:
            if not waits.done():
                waits.set_result(None)
        self.waiting.clear()

    async def until(self, found: Callable[[], Any], wait_s: float) -> Any:
        """Return what ``found`` returns as soon as it is true, or last."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while not (result := found()) and loop.time() < until_s:
            change = loop.create_future()
            self.waiting.add(change)
            try:
                await asyncio.wait([change], timeout=min(until_s - loop.time(), self.lease_s / 4))
            finally:
                self.waiting.discard(change)
        return result

    async def answers(self) -> None:
        """Raise as a broker in trouble does."""
        if self.silent:
            await asyncio.sleep(BROKER_TIMEOUT_S)
        if self.silent or self.down:
            raise Unavailable("the broker does not answer", dependency="fake")
        await asyncio.sleep(0)


class FakeReader:
    def __init__(self, broker: FakeBroker, channel: Channel, group: str, *, own: bool) -> None:
        self.broker = broker
        self.channel = channel
        self.group = group
        self.own = own
        self.closed = False

    @property
    def _line(self) -> Line:
        return self.broker.server.lines.setdefault((self.channel, self.group), Line())

    async def wait_joined(self) -> None:
        """Joined since it was made."""

    async def poll(self, count: int, wait_s: float) -> list[Delivery]:
        server = self.broker.server
        await self.broker.answers()
        found = await server.until(lambda: self._due(count), wait_s)
        now_s = asyncio.get_running_loop().time()
        taken = []
        for item in found:
            item.holder = self.broker
            item.attempts += 1
            taken.append(Delivery(item.record, item.attempts, now_s - item.sent_s, item))
        return taken

    def _due(self, count: int) -> list[Item]:
        free = [item for item in self._line.items if not self.broker.server_holds(item)]
        return free[:count]

    async def ack(self, delivery: Delivery, reply: ReplyMessage | None = None) -> None:
        await self.broker.answers()
        if reply is not None:
            self.broker.put(reply.address, reply.record)
        self._remove(delivery)

    async def requeue(self, delivery: Delivery) -> None:
        await self.broker.answers()
        delivery.handle.holder = None
        delivery.handle.attempts -= 1
        self.broker.server.changed()

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        server = self.broker.server
        await self.broker.answers()
        number = str(next(server.numbers))
        server.dead_letters[number] = DeadLetter.of(number, self.channel, self.group, delivery, reason)
        self._remove(delivery)

    async def pause(self) -> None:
        """What waits is everybody's."""

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.own:
            self.broker.server.lines.pop((self.channel, self.group), None)
        for item in self._line.items if not self.own else ():
            if item.holder is self.broker:
                item.holder = None
        self.broker.server.changed()

    def _remove(self, delivery: Delivery) -> None:
        if delivery.handle in self._line.items:
            self._line.items.remove(delivery.handle)
        self.broker.server.changed()


class FakeBroker:
    name = "fake"
    connections = 0

    def __init__(self, server: Server) -> None:
        self.server = server
        self.address = f"fake-{next(server.numbers)}"
        self.readers: list[FakeReader] = []
        self.crashed = False

    def server_holds(self, item: Item) -> bool:
        """Return whether a living instance holds it."""
        holder, server = item.holder, self.server
        if holder is None:
            return False
        return asyncio.get_running_loop().time() - server.heartbeat_s.get(holder, -1e9) < server.lease_s

    async def answers(self) -> None:
        if self.crashed:
            raise Unavailable("this instance is gone", dependency="fake")
        await self.server.answers()

    def crash(self) -> None:
        """Be gone without a word."""
        self.crashed = True

    async def start(self) -> None:
        if self.server.wrong_password:
            raise Invalid("the broker does not let us in", field="FAKE_URL")
        await self.heartbeat()

    async def heartbeat(self) -> None:
        await self.answers()
        if not self.crashed:
            self.server.heartbeat_s[self] = asyncio.get_running_loop().time()
            self.server.mailboxes.setdefault(self.address, deque())

    async def close(self) -> None:
        if self.crashed:
            return
        for reader in self.readers:
            await reader.close()
        self.server.mailboxes.pop(self.address, None)
        self.server.heartbeat_s.pop(self, None)

    async def join(self, channel: Channel) -> FakeReader:
        await self.answers()
        own = channel.kind is ChannelKind.PUBSUB
        name = f"own-{next(self.server.numbers)}" if own else ""
        self.server.lines.setdefault((channel, name), Line())
        reader = FakeReader(self, channel, name, own=own)
        self.readers.append(reader)
        return reader

    async def send(self, channel: Channel, record: bytes, key: str, within_s: float) -> None:
        await self.answers()
        capacity = self.server.capacities.get(channel.topic, self.server.capacity)

        def room() -> bool:
            return all(len(line.items) < capacity for line in self._lines(channel))

        if not await self.server.until(room, within_s):
            raise Rejected(f"{channel.topic} is full", code="topic_full")
        for line in self._lines(channel):
            line.items.append(Item(record, asyncio.get_running_loop().time()))
        self.server.changed()

    def _lines(self, channel: Channel) -> list[Line]:
        lines = self.server.lines
        if channel.kind is ChannelKind.QUEUE:
            return [lines.setdefault((channel, ""), Line())]
        now_s = asyncio.get_running_loop().time()
        for broker in [one for one, at_s in self.server.heartbeat_s.items() if now_s - at_s > self.server.lease_s]:
            for reader in broker.readers if broker.crashed else ():
                lines.pop((reader.channel, reader.group), None) if reader.own else None
        return [line for (one, _), line in lines.items() if one == channel]

    async def depth(self, channel: Channel) -> int:
        await self.answers()
        return max((len(line.items) for line in self._lines(channel)), default=0)

    async def reply(self, address: str, record: bytes) -> None:
        await self.answers()
        self.put(address, record)

    async def broadcast(self, record: bytes) -> None:
        await self.answers()
        for address in self.server.mailboxes:
            self.put(address, record)

    def put(self, address: str, record: bytes) -> None:
        mailbox = self.server.mailboxes.get(address)
        if mailbox is not None:
            mailbox.append(record)
            self.server.changed()

    async def receive(self, wait_s: float) -> list[bytes]:
        await self.answers()
        mailbox = self.server.mailboxes.setdefault(self.address, deque())
        await self.server.until(lambda: mailbox, wait_s)
        notes = list(mailbox)
        mailbox.clear()
        return notes

    async def dead_letters(self, count: int) -> list[DeadLetter]:
        await self.answers()
        return list(self.server.dead_letters.values())[:count]

    async def requeue_dead_letter(self, letter_id: str) -> bool:
        await self.answers()
        found = self.server.dead_letters.get(letter_id)
        if found is None or not found.whole:
            return False
        await self.send(found.channel, found.record, "", 0.0)
        del self.server.dead_letters[letter_id]
        return True

    async def delete_dead_letter(self, letter_id: str) -> bool:
        await self.answers()
        return self.server.dead_letters.pop(letter_id, None) is not None
