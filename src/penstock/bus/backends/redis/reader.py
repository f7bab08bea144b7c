"""Redis reader of a channel: a consumer in the consumer group of a stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio.connection import ConnectionPool
from redis.exceptions import ResponseError

from penstock.bus.backends.redis import scripts
from penstock.bus.backends.redis.multiplexer import Command, CommandMultiplexer, first_error, unavailable
from penstock.bus.broker import (
    BROKER_TIMEOUT_S,
    DEAD_LETTERS_MAX,
    Channel,
    ChannelKind,
    DeadLetter,
    Delivery,
    ReplyMessage,
)
from penstock.kernel.errors import Unavailable

#: The consumer that holds requeued entries; no instance has this name.
UNOWNED: Final = "~"
#: How often a reader looks for entries that no living instance holds.
CLAIM_INTERVAL_S: Final = 1.0
#: Pending entries of one reader that are looked at; it takes far fewer.
PENDING_MAX: Final = 10_000
#: Records in one mailbox at most: far more than one instance has requests under way.
MAILBOX_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class RedisKeys:
    """The keys of one installation; they begin with its prefix."""

    prefix: str

    def stream(self, channel: Channel) -> str:
        """Return the key of a channel."""
        return f"{self.prefix}:{channel.kind}:{channel.topic}"

    def mailbox(self, address: str) -> str:
        """Return the key of a mailbox."""
        return f"{self.prefix}:mail:{address}"

    def alive(self, address: str) -> str:
        """Return the key that is there while an instance lives."""
        return f"{self.prefix}:alive:{address}"

    @property
    def broadcasts(self) -> str:
        """The stream of broadcasts."""
        return f"{self.prefix}:notes"

    @property
    def dead_letters(self) -> str:
        """The stream of dead letters."""
        return f"{self.prefix}:dead"


@dataclass(slots=True)
class InstanceLease:
    """Lease of this instance, as its readers need it.

    Attributes:
        address: Its mailbox.
        duration_s: How long it counts as living after a heartbeat.
        healthy_since_s: Since when each heartbeat has been answered; none yet: ``inf``.
    """

    address: str
    duration_s: float
    healthy_since_s: float


class RedisReader:
    """See :class:`penstock.bus.broker.Reader`.

    The readers of a queue share the stream's consumer group; one of pub/sub has a group of its own, without
    acknowledgements. Blocking reads use a connection of its own; all other commands use the broker's.
    """

    def __init__(
        self,
        channel: Channel,
        number: int,
        keys: RedisKeys,
        lease: InstanceLease,
        commands: CommandMultiplexer,
        pool: ConnectionPool,
    ) -> None:
        self._channel = channel
        self._shared = channel.kind is ChannelKind.QUEUE
        self._group = "group:" if self._shared else f"own:{lease.address}:{number}"
        self._consumer = f"{lease.address}/{number}"
        self._stream = keys.stream(channel)
        self._keys = keys
        self._lease = lease
        self._commands = commands
        self._blocking = CommandMultiplexer(pool)
        self._held: set[bytes] = set()
        self._pending_read: asyncio.Future[list[Any]] | None = None
        self._may_have_lost = False
        self._claimed_s = 0.0

    def __repr__(self) -> str:
        return f"<RedisReader {self._stream} {self._group} {len(self._held)} held>"

    async def wait_joined(self) -> None:
        """See :class:`penstock.bus.broker.Reader`."""

    async def poll(self, count: int, wait_s: float) -> list[Delivery]:
        """See :meth:`penstock.bus.broker.Reader.poll`."""
        if self._shared:
            if self._may_have_lost:
                found = await self._recover_lost(count)
                if found:
                    return found
                self._may_have_lost = False
            now_s = asyncio.get_running_loop().time()
            if now_s - self._claimed_s >= CLAIM_INTERVAL_S and self._pending_read is None:
                self._claimed_s = now_s
                found = await self._claim_unowned(count)
                if found:
                    self._claimed_s = 0.0  # there may be more
                    return found
        if self._pending_read is None:
            self._pending_read = self._blocking.execute(self._read_command(count, wait_s), ("TIME",), wait_s=wait_s)
        try:
            answers = await asyncio.shield(self._pending_read)
        except asyncio.CancelledError:
            raise  # the read is still under way, and the next call gets its answer
        except Unavailable:
            self._pending_read, self._may_have_lost = None, True
            raise
        self._pending_read = None
        error = first_error(answers)
        if error is not None:
            await self._recreate_group(error)
            return []
        streams, time = answers
        entries = streams[0][1] if streams else []
        return [self._delivery(id, fields[1], 1, time) for id, fields in entries if fields]

    async def ack(self, delivery: Delivery, reply: ReplyMessage | None = None) -> None:
        """See :meth:`penstock.bus.broker.Reader.ack`."""
        commands: list[Command] = []
        if reply is not None:
            mail = self._keys.mailbox(reply.address)
            commands.append(("XADD", mail, "NOMKSTREAM", "MAXLEN", "~", MAILBOX_MAX, "*", "r", reply.record))
        await self._finish(delivery, commands + self._ack_commands(delivery))

    async def requeue(self, delivery: Delivery) -> None:
        """See :meth:`penstock.bus.broker.Reader.requeue`; the attempt does not count."""
        await self._finish(delivery, [self._release_command(delivery.handle, delivery.attempts - 1)])

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """See :meth:`penstock.bus.broker.Reader.dead_letter`."""
        one = DeadLetter.of("", self._channel, "" if self._shared else self._group, delivery, reason)
        fields: list[str | bytes | int] = ["t", one.topic, "k", str(one.channel.kind), "g", one.group, "w", reason]
        fields += ["n", one.attempts, "s", one.size, "r", one.record]
        added: Command = ("XADD", self._keys.dead_letters, "MAXLEN", "~", DEAD_LETTERS_MAX, "*", *fields)
        await self._finish(delivery, [added, *self._ack_commands(delivery)])

    async def pause(self) -> None:
        """See :meth:`penstock.bus.broker.Reader.pause`. Records on their way here are released as well.

        An abandoned read may still be answered, with records that would be assigned to us and never handled.
        """
        if not self._shared:
            return
        with contextlib.suppress(Unavailable):
            asked, self._pending_read = self._pending_read, None
            if asked is not None:
                await asked
            rows = await self._pending()
            untaken = [row for row in rows if row[0] not in self._held]
            if untaken:
                await self._commands.execute(*(self._release_command(row[0], row[3] - 1) for row in untaken))

    async def close(self) -> None:
        """See :meth:`penstock.bus.broker.Reader.close`."""
        if self._pending_read is not None:
            self._pending_read.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
            self._pending_read = None
        await self._blocking.close()
        leave: Command = ("EVAL", scripts.LEAVE_GROUP, 1, self._stream, self._group, self._consumer)
        if not self._shared:
            leave = ("XGROUP", "DESTROY", self._stream, self._group)
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(BROKER_TIMEOUT_S / 2):
                await self._commands.execute(leave)

    async def create_group(self) -> None:
        """Create the group: for a queue from the beginning, for pub/sub from now on."""
        start = "0" if self._shared else "$"
        (answer,) = await self._commands.execute(("XGROUP", "CREATE", self._stream, self._group, start, "MKSTREAM"))
        if isinstance(answer, ResponseError) and "BUSYGROUP" not in str(answer):
            raise unavailable(answer)

    # --- Inside

    def _read_command(self, count: int, wait_s: float) -> Command:
        command: list[str | int] = ["XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", count]
        if wait_s > 0:
            command += ["BLOCK", max(1, int(wait_s * 1000))]
        if not self._shared:
            command.append("NOACK")
        return [*command, "STREAMS", self._stream, ">"]

    def _delivery(self, id: bytes, record: bytes, attempts: int, time: Sequence[bytes]) -> Delivery:
        """Return an entry's delivery; ``time`` is Redis's own, in seconds and microseconds."""
        self._held.add(id)
        age_ms = int(time[0]) * 1000 + int(time[1]) // 1000 - int(id.partition(b"-")[0])
        return Delivery(record, attempts, max(0, age_ms) / 1000, id)

    def _ack_commands(self, delivery: Delivery) -> list[Command]:
        if not self._shared:
            return []
        return [("XACK", self._stream, self._group, delivery.handle), ("XDEL", self._stream, delivery.handle)]

    async def _finish(self, delivery: Delivery, commands: list[Command]) -> None:
        if commands:
            error = first_error(await self._commands.execute(*commands))
            if error is not None and "NOGROUP" not in str(error):
                raise unavailable(error)
        self._held.discard(delivery.handle)

    def _release_command(self, id: bytes, attempts: int) -> Command:
        """Return the command that releases an entry, for any member to claim."""
        return ("XCLAIM", self._stream, self._group, UNOWNED, 0, id, "RETRYCOUNT", attempts, "JUSTID")

    async def _claim_unowned(self, count: int) -> list[Delivery]:
        """Claim released entries; those of dead instances only once all living ones had time for a heartbeat."""
        sure = asyncio.get_running_loop().time() - self._lease.healthy_since_s >= self._lease.duration_s
        owner, alive = (self._group, self._consumer), self._keys.alive("")
        script: Command = ("EVAL", scripts.CLAIM_UNOWNED, 1, self._stream, *owner, count, alive, int(sure))
        rows, time = await self._commands.execute(script, ("TIME",))
        if isinstance(rows, ResponseError):
            await self._recreate_group(rows)
            return []
        return [self._delivery(id, record, attempts, time) for id, record, attempts in rows]

    async def _recover_lost(self, count: int) -> list[Delivery]:
        """Claim again the entries that Redis has assigned to us and that a broken connection lost."""
        lost = [row for row in await self._pending() if row[0] not in self._held][:count]
        claims: list[Command] = [("XCLAIM", self._stream, self._group, self._consumer, 0, row[0]) for row in lost]
        if not claims:
            return []
        *answers, time = await self._commands.execute(*claims, ("TIME",))
        found = zip(lost, answers, strict=True)
        return [self._delivery(row[0], got[0][1][1], row[3] + 1, time) for row, got in found if got and got[0]]

    async def _pending(self) -> list[Any]:
        """Return the entries that Redis has assigned to us: id, holder, milliseconds since delivery, deliveries."""
        (rows,) = await self._commands.execute(
            ("XPENDING", self._stream, self._group, "-", "+", PENDING_MAX, self._consumer)
        )
        if isinstance(rows, ResponseError):
            await self._recreate_group(rows)
            return []
        found: list[Any] = rows
        return found

    async def _recreate_group(self, error: ResponseError) -> None:
        """Create the group again where Redis has lost it.

        Raises:
            Unavailable: The error is another one.
        """
        if "NOGROUP" not in str(error) and "no such key" not in str(error):
            raise unavailable(error)
        self._held.clear()
        await self.create_group()
