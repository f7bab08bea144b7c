"""One reader's way from the broker to handlers: takes only what can be begun, and sees each record to its end.

What is taken goes to a bus of this process (:class:`penstock.bus.backends.memory.MemoryBus`), so slots, order, discard
and limits are the same as where everything runs in one process. A record is acknowledged when its handler has ended and
the answer is under way; a record that cannot be read, or that has killed its workers too often, is buried.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from penstock.bus.backends.memory import MemoryBus
from penstock.bus.books import Counts
from penstock.bus.broker import Answer, Channel, Delivery, Kind, Reader
from penstock.bus.desk import Transport
from penstock.bus.rounds import BACKOFF_S, rounds
from penstock.bus.wire import Failure, Message, Unreadable
from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.errors import Broken, Expired, PenstockError, Unavailable

log = logging.getLogger(__name__)

#: Stands between a topic and what tells its channels apart; no topic has one in its name.
MARK: Final = "-"
#: How long one question for records may wait for the first.
WAIT_S: Final = 1.0
#: How long an event whose subscriber failed waits for its next try, for each time it has been tried.
RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every consumer of a bus.

    Attributes:
        transport: What carries the records.
        clock: The loop's clock.
        tries: Deliveries of one record at most; then it is buried.
        ahead: Records taken beside those that can be begun at once.
        cancelled: Whether a requester has withdrawn its request: mailbox and number.
    """

    transport: Transport
    clock: Clock
    tries: int
    ahead: int
    cancelled: Callable[[tuple[str, int]], bool]


class Consumer:
    """Takes the records of a channel for a bus of this process.

    Args:
        channel: What is read.
        group: Whose news that is; empty for work, and for news of one's own.
        inner: The bus of this process that has the handlers.
        at_once: How many handlers may run.
        terms: What holds for all.

    Attributes:
        channel: As given.
        topic: Its topic, as the handlers and messages name it.
        inner: As given.
        extra: What became of records that were never handed to ``inner``.

    Bounds: ``at_once()`` and ``terms.ahead`` records.
    """

    def __init__(
        self, channel: Channel, group: str, inner: MemoryBus, at_once: Callable[[], int], terms: Terms
    ) -> None:
        self.channel = channel
        self.topic = channel.topic.partition(MARK)[0]
        self.inner = inner
        self.extra = Counts()
        self._group = group
        self._at_once = at_once
        self._terms = terms
        self._served: set[asyncio.Task[None]] = set()
        self._asked: dict[tuple[str, int], asyncio.Task[Any]] = {}
        self._freed = asyncio.Event()
        self._joined = asyncio.Event()
        self._stopped = self._closing = False
        self._reader: Reader | None = None
        run = rounds(self._take, f"taking records of {self.topic}")
        self._task = asyncio.get_running_loop().create_task(run, name=f"consumer {self.topic}")

    def __repr__(self) -> str:
        return f"<Consumer {self.topic} {self.channel.kind} {len(self._served)} held>"

    async def joined(self) -> None:
        """Wait until records of the channel come here."""
        await self._joined.wait()
        if self._reader is not None:
            await self._reader.joined()

    def free(self) -> None:
        """A slot may have become free."""
        self._freed.set()

    def withdraw(self, asked: tuple[str, int]) -> None:
        """Stop working on a request that nobody waits for any more."""
        task = self._asked.pop(asked, None)
        if task is not None:
            task.cancel()

    async def drain(self) -> None:
        """Take nothing more, and wait until what was taken has ended."""
        await self._stop()
        if self._reader is not None:
            await self._reader.pause()
        if self._served:
            await asyncio.wait(self._served)

    def begin_close(self) -> None:
        """From now on what ``inner`` refuses to do is handed back."""
        self._closing = True

    async def close(self, patience_s: float) -> None:
        """Take nothing more; see to it that what was taken ends. ``inner`` has been closed."""
        await self._stop()
        if self._served:
            _, late = await asyncio.wait(self._served, timeout=patience_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._reader is not None:
            await self._reader.close()

    async def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- From the broker

    async def _take(self) -> None:
        """Take what there is room for, or wait until there is some."""
        if self._reader is None:
            self._reader = await self._terms.transport.broker.join(self.channel, self._group)
            self._joined.set()
        room = self._at_once() + self._terms.ahead - len(self._served)
        if room <= 0:
            self._freed.clear()
            await self._freed.wait()
            return
        for delivery in await self._reader.take(room, WAIT_S):
            self._begin(delivery, self._reader)

    def _begin(self, delivery: Delivery, reader: Reader) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(delivery, reader), name=self.topic)
        self._served.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._served.discard(task)
        self._freed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a record of %s was left unacknowledged", self.topic, exc_info=error)

    # --- One record

    async def _serve(self, delivery: Delivery, reader: Reader) -> None:
        """Read a record, have it handled, acknowledge it."""
        wire, note = self._terms.transport.wire, None
        try:
            note = wire.read(delivery.record)
            if not isinstance(note, Message) or note.topic != self.topic:
                raise Unreadable("a record that does not belong here", code="foreign")
            if delivery.attempts > self._terms.tries:
                raise Unreadable(f"delivered {delivery.attempts} times", code="tries")
            message = wire.message_of(note)
        except Unreadable as error:
            await self._bury(delivery, reader, error, note if isinstance(note, Message) else None)
            return
        now_s = self._terms.clock.now()
        ctx = note.context(delivery.age_s, now_s)
        if self._gone(note, ctx, now_s):
            await self._settled(lambda: reader.done(delivery))
        elif self.channel.kind is Kind.WORK:
            await self._answer(delivery, reader, note, (message, ctx))
        else:
            await self._tell(delivery, reader, (message, ctx))

    def _gone(self, note: Message, ctx: Context, now_s: float) -> bool:
        """Return whether nobody wants it any more; it is counted."""
        if self._terms.cancelled((note.address, note.id)):
            self.extra.left += 1
        elif ctx.deadline.passed(now_s):
            if self.channel.kind is Kind.NEWS:
                self._lost(Expired(ctx.deadline.operation))
            else:
                self.extra.expired_waiting += 1
        else:
            return False
        self.extra.offered += 1
        return True

    def _lost(self, error: PenstockError) -> None:
        self.extra.lost += 1
        log.warning("an event on %s was not handled: %s", self.topic, error)

    async def _bury(self, delivery: Delivery, reader: Reader, why: Unreadable, note: Message | None) -> None:
        """Put a record where a person looks for it, and tell its requester, if that can be read."""
        self.extra.offered += 1
        self.extra.failed += 1
        log.error("a record of %s was buried: %s: %s", self.topic, why.code, why.detail)
        if note is not None and note.address:
            transport = self._terms.transport
            error = Broken(f"the message could not be handled: {why.detail}", code=why.code)
            record = transport.wire.record(Failure.of(note.id, note.topic, error))
            await self._settled(lambda: transport.broker.reply(note.address, record))
        await self._settled(lambda: reader.bury(delivery, why.code))

    async def _answer(self, delivery: Delivery, reader: Reader, note: Message, asked: tuple[Any, Context]) -> None:
        """Have a request handled; its end is its requester's business, whatever it is (B5)."""
        wire, (message, ctx) = self._terms.transport.wire, asked
        here, key = asyncio.current_task(), (note.address, note.id)
        assert here is not None  # noqa: S101 - for the type checker
        self._asked[key] = here
        record: bytes | None = None
        try:
            record = wire.reply(note.id, note.topic, await self.inner.request(note.topic, message, ctx))
        except PenstockError as error:
            if self._closing and error.code == "draining":
                await self._settled(lambda: reader.hand_back(delivery))
                return
            record = wire.record(Failure.of(note.id, note.topic, error))
        except asyncio.CancelledError:
            if key in self._asked:  # not withdrawn: it is we who end
                raise
            here.uncancel()
        finally:
            self._asked.pop(key, None)
        # Who has asked knows by its own clock when its time is up.
        wanted = record is not None and not ctx.deadline.passed(self._terms.clock.now())
        answer = Answer(note.address, record) if wanted and record is not None else None
        await self._settled(lambda: reader.done(delivery, answer))

    async def _tell(self, delivery: Delivery, reader: Reader, told: tuple[Any, Context]) -> None:
        """Have an event handled; where it is shared by a group, again if that fails."""
        message, ctx = told
        topic, failure = self.topic, None
        try:
            await self.inner.request(topic, message, ctx)
        except Expired as error:
            self._lost(error)
        except PenstockError as error:
            failure = error
        if failure is None:
            await self._settled(lambda: reader.done(delivery))
        elif self._closing and failure.code == "draining":
            await self._let_go(delivery, reader, failure)
        elif not self._group:
            if not isinstance(failure, Broken):  # a bug has been logged with its traceback
                log.warning("a subscriber of %s failed: %s", topic, failure)
            await self._settled(lambda: reader.done(delivery))
        elif delivery.attempts < self._terms.tries:
            log.warning("a subscriber of %s failed and will be told again: %s", topic, failure)
            await self._settled(lambda: reader.retry(delivery, RETRY_S * delivery.attempts))
        else:
            log.error("a subscriber of %s failed %d times; its event is buried", topic, delivery.attempts)
            await self._settled(lambda: reader.bury(delivery, "raised"))

    async def _let_go(self, delivery: Delivery, reader: Reader, error: PenstockError) -> None:
        """We end before its handler did: another has it, if there is another."""
        if self._group:
            await self._settled(lambda: reader.hand_back(delivery))
        else:
            self._lost(error)

    async def _settled(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do something at the broker, again and again while it is away; when we end, once."""
        while True:
            try:
                await act()
            except Unavailable:
                if self._closing:
                    return
                await asyncio.sleep(BACKOFF_S)
            else:
                return
