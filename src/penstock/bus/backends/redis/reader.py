"""One member of a stream's consumer group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio.connection import ConnectionPool
from redis.exceptions import ResponseError

from penstock.bus.backends.redis import scripts
from penstock.bus.backends.redis.lane import Command, Lane, first_error, unavailable
from penstock.bus.broker import LETTER_BYTES_MAX, LETTERS_MAX, PATIENCE_S, Answer, Channel, Delivery, Kind
from penstock.kernel.clock import Clock
from penstock.kernel.errors import Unavailable

log = logging.getLogger(__name__)

#: Who holds what was handed back: nobody alive.
LIMBO: Final = "~"
#: How often a reader looks for what nobody alive holds.
ADOPT_S: Final = 1.0
#: Entries looked at that one reader has and is not done with; it takes far fewer.
PENDING_MAX: Final = 10_000
#: Notes in one mailbox at most: far more than one instance can have asked.
MAIL_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Names:
    """The keys of one installation.

    Attributes:
        prefix: What all of them begin with.
    """

    prefix: str

    def stream(self, channel: Channel) -> str:
        """Return the key of a channel."""
        return f"{self.prefix}:{channel.kind}:{channel.topic}"

    def mail(self, address: str) -> str:
        """Return the key of a mailbox."""
        return f"{self.prefix}:mail:{address}"

    def alive(self, address: str) -> str:
        """Return the key that is there while an instance lives."""
        return f"{self.prefix}:alive:{address}"

    @property
    def notes(self) -> str:
        """The stream of what is told to all."""
        return f"{self.prefix}:notes"

    @property
    def dead(self) -> str:
        """The stream of dead letters."""
        return f"{self.prefix}:dead"


@dataclass(slots=True)
class Pulse:
    """What readers have to know of their instance.

    Attributes:
        address: Its mailbox.
        lease_s: How long it counts as living after a beat.
        well_since_s: Since when each beat has been answered; none yet: ``inf``.
    """

    address: str
    lease_s: float
    well_since_s: float


@dataclass(frozen=True, slots=True)
class Membership:
    """Which part a reader takes.

    Attributes:
        channel: What it reads.
        group: Its group's name in the stream.
        consumer: Its own.
        own: Whether the group is the reader's alone.
    """

    channel: Channel
    group: str
    consumer: str
    own: bool


class RedisReader:
    """See :class:`penstock.bus.broker.Reader`.

    It asks on a connection of its own, for there it waits; everything else goes by way of the broker's.

    Args:
        membership: Which part it takes.
        names: The keys.
        pulse: What is known of the instance.
        lane: The broker's connection.
        pool: Where its own comes from.
        clock: The loop's clock.
    """

    def __init__(
        self, membership: Membership, names: Names, pulse: Pulse, lane: Lane, pool: ConnectionPool, clock: Clock
    ) -> None:
        self._part = membership
        self._stream = names.stream(membership.channel)
        self._names = names
        self._pulse = pulse
        self._lane = lane
        self._ears = Lane(pool)
        self._clock = clock
        self._held: set[bytes] = set()
        self._asked: asyncio.Future[list[Any]] | None = None
        self._stray = False
        self._adopted_s = 0.0
        self._later: dict[asyncio.Task[None], Delivery] = {}

    def __repr__(self) -> str:
        return f"<RedisReader {self._stream} {self._part.group} {len(self._held)} held>"

    async def joined(self) -> None:
        """See :class:`penstock.bus.broker.Reader`."""

    async def take(self, count: int, wait_s: float) -> list[Delivery]:
        """See :meth:`penstock.bus.broker.Reader.take`."""
        if not self._part.own:
            if self._stray:
                found = await self._strays(count)
                if found:
                    return found
                self._stray = False
            now_s = self._clock.now()
            if now_s - self._adopted_s >= ADOPT_S and self._asked is None:
                self._adopted_s = now_s
                found = await self._adopt(count)
                if found:
                    self._adopted_s = 0.0  # there may be more
                    return found
        if self._asked is None:
            self._asked = self._ears.ask(self._reading(count, wait_s), ("TIME",), wait_s=wait_s)
        try:
            answers = await asyncio.shield(self._asked)
        except asyncio.CancelledError:
            raise  # it is still under way, and the next one to ask gets its answer
        except Unavailable:
            self._asked, self._stray = None, True
            raise
        self._asked = None
        error = first_error(answers)
        if error is not None:
            await self._mend(error)
            return []
        streams, (seconds, micros) = answers
        entries = streams[0][1] if streams else []
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        return [self._delivery(id, fields[1], 1, now_ms) for id, fields in entries if fields]

    async def done(self, delivery: Delivery, answer: Answer | None = None) -> None:
        """See :meth:`penstock.bus.broker.Reader.done`."""
        commands: list[Command] = []
        if answer is not None:
            mail = self._names.mail(answer.address)
            commands.append(("XADD", mail, "NOMKSTREAM", "MAXLEN", "~", MAIL_MAX, "*", "r", answer.record))
        await self._settle(delivery, commands + self._acknowledging(delivery))

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        """See :meth:`penstock.bus.broker.Reader.retry`. It stays ours meanwhile; if we die, it comes earlier."""
        task = asyncio.get_running_loop().create_task(self._give_up_later(delivery, delay_s), name="retry")
        self._later[task] = delivery
        task.add_done_callback(lambda task: self._later.pop(task, None))

    async def hand_back(self, delivery: Delivery) -> None:
        """See :meth:`penstock.bus.broker.Reader.hand_back`; the attempt does not count."""
        await self._let_go(delivery, delivery.attempts - 1)

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """See :meth:`penstock.bus.broker.Reader.bury`."""
        record, channel = delivery.record, self._part.channel
        kept = record[:LETTER_BYTES_MAX] if reason == "too_large" else record
        group = "" if channel.kind is Kind.WORK else self._part.group
        letter: list[str | bytes | int] = ["t", channel.topic, "k", str(channel.kind), "g", group, "w", reason]
        letter += ["n", delivery.attempts, "s", len(record), "r", kept]
        burying: list[Command] = [("XADD", self._names.dead, "MAXLEN", "~", LETTERS_MAX, "*", *letter)]
        await self._settle(delivery, burying + self._acknowledging(delivery))

    async def pause(self) -> None:
        """See :meth:`penstock.bus.broker.Reader.pause`. What waits is everybody's; what was on its way here, too.

        A question that was given up may still be answered: with records that would be ours, and that nobody would take.
        """
        if self._part.own:
            return
        with contextlib.suppress(Unavailable):
            asked, self._asked = self._asked, None
            if asked is not None:
                await asked
            rows = await self._pending()
            untaken = [row for row in rows if row[0] not in self._held]
            if untaken:
                await self._lane.ask(*(self._claim(row[0], row[3] - 1) for row in untaken))

    async def close(self) -> None:
        """See :meth:`penstock.bus.broker.Reader.close`."""
        later = list(self._later)
        for _ in range(2):  # the first asks for the last word with Redis, the second ends even that
            for task in later:
                task.cancel()
            if later:
                await asyncio.wait(later, timeout=PATIENCE_S / 4)
        if self._asked is not None:
            self._asked.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
            self._asked = None
        await self._ears.close()
        part = self._part
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(PATIENCE_S / 2):
                if part.own:
                    await self._lane.ask(("XGROUP", "DESTROY", self._stream, part.group))
                else:
                    await self._lane.ask(("EVAL", scripts.LEAVE, 1, self._stream, part.group, part.consumer))

    async def join(self) -> None:
        """Make the group; work from the beginning, news from now on."""
        start = "0" if self._part.channel.kind is Kind.WORK else "$"
        (answer,) = await self._lane.ask(("XGROUP", "CREATE", self._stream, self._part.group, start, "MKSTREAM"))
        if isinstance(answer, ResponseError) and "BUSYGROUP" not in str(answer):
            raise unavailable(answer)

    # --- Inside

    def _reading(self, count: int, wait_s: float) -> Command:
        part = self._part
        command: list[str | int] = ["XREADGROUP", "GROUP", part.group, part.consumer, "COUNT", count]
        if wait_s > 0:
            command += ["BLOCK", max(1, int(wait_s * 1000))]
        if part.own:
            command.append("NOACK")
        return [*command, "STREAMS", self._stream, ">"]

    def _delivery(self, id: bytes, record: bytes, attempts: int, now_ms: int) -> Delivery:
        self._held.add(id)
        return Delivery(record, attempts, max(0, now_ms - int(id.partition(b"-")[0])) / 1000, id)

    def _acknowledging(self, delivery: Delivery) -> list[Command]:
        part, id = self._part, delivery.handle
        if part.own:
            return []
        commands: list[Command] = [("XACK", self._stream, part.group, id)]
        if part.channel.kind is Kind.WORK:
            commands.append(("XDEL", self._stream, id))
        return commands

    async def _settle(self, delivery: Delivery, commands: list[Command]) -> None:
        if commands:
            error = first_error(await self._lane.ask(*commands))
            if error is not None and "NOGROUP" not in str(error):
                raise unavailable(error)
        self._held.discard(delivery.handle)

    async def _give_up_later(self, delivery: Delivery, delay_s: float) -> None:
        try:
            await asyncio.sleep(delay_s)
        finally:
            while True:
                try:
                    await self._let_go(delivery, delivery.attempts)
                except Unavailable as error:
                    log.debug("%s: a retry waits: %s", self, error)
                    await asyncio.sleep(ADOPT_S)
                else:
                    break

    async def _let_go(self, delivery: Delivery, attempts: int) -> None:
        await self._settle(delivery, [] if self._part.own else [self._claim(delivery.handle, attempts)])

    def _claim(self, id: bytes, attempts: int) -> Command:
        """Return what gives an entry to nobody, for anybody to adopt."""
        return ("XCLAIM", self._stream, self._part.group, LIMBO, 0, id, "RETRYCOUNT", attempts, "JUSTID")

    async def _adopt(self, count: int) -> list[Delivery]:
        """Take what nobody alive holds. The dead's only once everybody has had the time to say that he lives."""
        part, pulse = self._part, self._pulse
        sure = self._clock.now() - pulse.well_since_s >= pulse.lease_s
        alive = self._names.alive("")
        script = ("EVAL", scripts.ADOPT, 1, self._stream, part.group, part.consumer, count, alive, int(sure))
        return await self._taken(script)

    async def _strays(self, count: int) -> list[Delivery]:
        """Take what Redis believes that we have, and what was lost on its way with a connection."""
        part, rows = self._part, await self._pending()
        lost = [row for row in rows if row[0] not in self._held][:count]
        claims: list[Command] = [("XCLAIM", self._stream, part.group, part.consumer, 0, row[0]) for row in lost]
        if not claims:
            return []
        *answers, (seconds, micros) = await self._lane.ask(*claims, ("TIME",))
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        found = zip(lost, answers, strict=True)
        return [self._delivery(row[0], got[0][1][1], row[3] + 1, now_ms) for row, got in found if got and got[0]]

    async def _pending(self) -> list[Any]:
        """Return what Redis believes that we have: id, holder, milliseconds since its delivery, deliveries."""
        part = self._part
        (rows,) = await self._lane.ask(("XPENDING", self._stream, part.group, "-", "+", PENDING_MAX, part.consumer))
        if isinstance(rows, ResponseError):
            await self._mend(rows)
            return []
        found: list[Any] = rows
        return found

    async def _taken(self, script: Command) -> list[Delivery]:
        rows, (seconds, micros) = await self._lane.ask(script, ("TIME",))
        if isinstance(rows, ResponseError):
            await self._mend(rows)
            return []
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        return [self._delivery(id, record, attempts, now_ms) for id, record, attempts in rows]

    async def _mend(self, error: ResponseError) -> None:
        """Join anew where Redis has forgotten the group.

        Raises:
            Unavailable: It is something else.
        """
        if "NOGROUP" not in str(error) and "no such key" not in str(error):
            raise unavailable(error)
        self._held.clear()
        await self.join()
