"""One among many: this instance tells that it lives and what it serves, and hears what the others tell.

The mailbox is read here; replies go on to the :class:`penstock.bus.desk.Desk`, withdrawals to the consumers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from penstock.bus.broker import BEAT_S
from penstock.bus.desk import Desk, Transport
from penstock.bus.directory import Directory, Room
from penstock.bus.rounds import rounds
from penstock.bus.wire import Cancel, Failure, Hello, Reply, Unreadable
from penstock.kernel.clock import Clock
from penstock.kernel.errors import PenstockError, Unavailable
from penstock.policies.breaker import State

log = logging.getLogger(__name__)

#: An instance says hello with every so many beats.
HELLO_BEATS: Final = 3
#: How long one look into the mailbox may wait for a note, in seconds.
MAIL_S: Final = 1.0


class Presence:
    """This instance among the others.

    Args:
        transport: What carries notes.
        clock: The loop's clock.
        desk: Where replies go; it is made ready by the first beat that the broker answers.
        ahead: Messages that are taken in advance.
        serves: The channels that this instance serves, and how many handlers of each may run.

    Attributes:
        directory: What is known of the instances, this one included.
        rooms: How much of each channel that is served may be under way.
        leaving: Whether the others are told that this instance takes no more.
        on_rooms: Called when the rooms have been looked at anew.
        on_withdrawn: Called with the mailbox and number of a request that was withdrawn.

    Bounds: one hello to all every ``HELLO_BEATS`` beats, and one whenever what it says has changed; the notes of one
        look into the mailbox.
    """

    def __init__(
        self, transport: Transport, clock: Clock, desk: Desk, ahead: int, serves: Callable[[], dict[str, int]]
    ) -> None:
        self.directory = Directory()
        self.rooms: dict[str, Room] = {}
        self.leaving = False
        self.on_rooms: Callable[[], None] = lambda: None
        self.on_withdrawn: Callable[[tuple[str, int]], None] = lambda _: None
        self._broker, self._wire, self._link = transport.broker, transport.wire, transport.link
        self._clock = clock
        self._desk = desk
        self._ahead = ahead
        self._serves = serves
        self._beats = 0
        self._mail: deque[bytes] = deque()
        self._told: Hello | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to beat and to listen; call it inside the running loop."""
        loop = asyncio.get_running_loop()
        lives = ((self._beat, "beat", "telling that we live"), (self._listen, "listen", "reading mail"))
        self._tasks = [loop.create_task(rounds(once, what), name=name) for once, name, what in lives]

    def greet(self) -> None:
        """Know oneself, without the broker."""
        self.directory.hear(self._hello(), self._clock.now())
        self._refresh()

    async def say_hello(self, *, asks: bool = False) -> None:
        """Tell all others what this instance serves, if the broker is reachable.

        Args:
            asks: Whether they are asked to tell the same of themselves.
        """
        self.greet()
        if self._link.state is State.CLOSED:
            with suppress(Unavailable):
                await self._broker.tell(self._wire.record(self._hello(asks=asks)))
                self._told = self._hello()

    async def close(self) -> None:
        """Beat and listen no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _hello(self, *, asks: bool = False) -> Hello:
        return Hello(self._broker.address, self._serves(), self._ahead, asks, self.leaving)

    def _refresh(self) -> None:
        """Look anew how much of each topic may be under way."""
        self.rooms = self.directory.rooms(self._clock.now())
        self.on_rooms()

    async def _beat(self) -> None:
        """Say that this instance lives, to the broker and to the others, and notice when the broker does not answer."""
        began_s, well = self._clock.now(), self._link.state is State.CLOSED and self._desk.ready.is_set()
        try:
            await self._broker.beat()
        except PenstockError as error:
            log.debug("%s does not answer: %s", self._broker.name, error)
            self._link.failed(self._clock.now() - began_s)
        else:
            self._desk.ready.set()
            self._link.beaten()
        if self._beats % HELLO_BEATS == 0 or not well or self._told != self._hello():
            await self.say_hello(asks=not well)
        self._beats += 1
        self.greet()
        await asyncio.sleep(BEAT_S)

    async def _listen(self) -> None:
        """Read the mailbox."""
        await self._desk.ready.wait()
        if not self._mail:
            self._mail.extend(await self._broker.listen(MAIL_S))
        while self._mail:
            await self._hear(self._mail.popleft())

    async def _hear(self, record: bytes) -> None:
        """Take in one note."""
        try:
            note = self._wire.read(record)
        except Unreadable as error:
            log.warning("a note was not understood: %s", error)
            return
        if isinstance(note, Reply | Failure):
            self._desk.settle(note)
        elif isinstance(note, Cancel):
            self.on_withdrawn((note.address, note.id))
        elif isinstance(note, Hello) and note.address != self._broker.address:
            self.directory.hear(note, self._clock.now())
            self._refresh()
            if note.asks:
                with suppress(Unavailable):
                    await self._broker.reply(note.address, self._wire.record(self._hello()))
