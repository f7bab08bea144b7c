"""Redis Streams as a broker between processes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import secrets
from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, OutOfMemoryError, ResponseError

from penstock.bus.backends.redis import scripts
from penstock.bus.backends.redis.lane import NAME, Command, Lane, first_error, unavailable
from penstock.bus.backends.redis.reader import MAIL_MAX, Membership, Names, Pulse, RedisReader
from penstock.bus.broker import CHECK_S, PATIENCE_S, Channel, Kind, Letter
from penstock.bus.contract import Features
from penstock.kernel.clock import Clock
from penstock.kernel.errors import Invalid, Rejected, Unavailable
from penstock.kernel.redis_address import checked
from penstock.kernel.settings import BusSettings, RedisSettings

log = logging.getLogger(__name__)

#: The ``maxmemory-policy`` of a Redis that throws nothing away.
KEEPING: Final = "noeviction"
#: The oldest Redis that knows all that is asked of it.
VERSION_MIN: Final = (6, 2)
#: Notes to all that are kept for those who read slowly.
NOTES_MAX: Final = 10_000
#: Notes read at once.
LISTEN_MAX: Final = 1000
#: Where the address is set, for people.
_URL: Final = "concurrency.redis.url (REDIS_URL)"
#: How long a mailbox outlives its instance's last beat.
MAILBOX_S: Final = 60.0
#: How long a sender waits at first, and at most, before it looks again whether there is room.
PAUSE_S, PAUSE_S_MAX = 0.005, 0.1


class RedisBroker:
    """See :class:`penstock.bus.broker.Broker`.

    Args:
        bus: Bounds, names and the lease, that hold for all brokers.
        settings: Where Redis is, and how many connections may be made (L4).
        capacities: Records a channel holds at most where that is not ``bus.buffer_size``, by topic.
        clock: The loop's clock.

    Raises:
        Invalid: The URL is none of Redis.

    Bounds: ``settings.pool_size`` connections: one for each reader, one for the mailbox, one for all the rest.
    """

    name = NAME
    features = Features(ordered=True, persistent=True, redelivers=True, blocks=False)

    def __init__(self, bus: BusSettings, settings: RedisSettings, capacities: Mapping[str, int], clock: Clock) -> None:
        self.address = secrets.token_hex(8)
        self._names = Names(bus.prefix)
        self._capacities = capacities
        self._capacity = bus.buffer_size
        self._clock = clock
        self._where = checked(settings.url)
        self._pool = _pool(settings)
        self._lane, self._ears = Lane(self._pool), Lane(self._pool)
        self._pulse = Pulse(self.address, bus.lease, math.inf)
        self._readers: list[RedisReader] = []
        self._numbers = itertools.count(1)
        self._read: list[bytes | str] = ["0-0", "0-0"]
        self._asked: asyncio.Future[list[Any]] | None = None

    def __repr__(self) -> str:
        return f"<RedisBroker {self.address} {len(self._readers)} readers>"

    @property
    def connections(self) -> int:
        """How many connections are open (L4)."""
        pool = self._pool  # it has no name for them in public
        return sum(one.is_connected for one in (*pool._available_connections, *pool._in_use_connections))  # noqa: SLF001

    async def start(self) -> None:
        """See :meth:`penstock.bus.broker.Broker.start`."""
        newest_note: Command = ("XREVRANGE", self._names.notes, "+", "-", "COUNT", 1)
        questions: tuple[Command, ...] = (("INFO", "server"), ("INFO", "memory"), newest_note)
        try:
            async with asyncio.timeout(CHECK_S):
                answers = await self._lane.ask(*questions)
        except TimeoutError:
            raise self._missing(unavailable(None)) from None
        except Unavailable as error:
            if isinstance(error.__cause__, AuthenticationError):
                detail = f"{_URL}: {self._where}: redis does not let us in: {error.__cause__}"
                raise Invalid(detail, field="REDIS_URL") from None
            raise self._missing(error) from error
        refused = first_error(answers)
        if refused is not None:
            detail = f"{_URL}: {self._where}: redis does not let us work: {refused}"
            raise Invalid(detail, field="REDIS_URL")
        info, memory, newest = answers
        _check_version(_told(info))
        self._check_policy(_told(memory))
        if newest:
            self._read[1] = newest[0][0]
        await self.beat()

    def _check_policy(self, memory: Mapping[str, str]) -> None:
        """Warn of a Redis that throws away what it holds when its memory is full: messages, and who lives."""
        policy = memory.get("maxmemory_policy", KEEPING)
        if policy != KEEPING:
            log.warning(
                "redis %s has the maxmemory-policy %s: it may throw away messages; set it to %s",
                *(self._where, policy, KEEPING),
            )

    def _missing(self, error: Unavailable) -> Unavailable:
        """Return the error of a start with the setting and the address in front."""
        return Unavailable(f"{_URL}: {self._where}: {error.detail}", dependency=NAME)

    async def close(self) -> None:
        """See :meth:`penstock.bus.broker.Broker.close`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S * 0.75):
                await asyncio.gather(*(reader.close() for reader in self._readers))
                # Who has not been heard last has nothing to take back, or is forgotten with its lease.
                with contextlib.suppress(Unavailable):
                    if self._pulse.well_since_s < math.inf:
                        await self._lane.ask(("DEL", self._names.alive(self.address), self._names.mail(self.address)))
        if self._asked is not None:
            self._asked.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
            self._asked = None
        await self._ears.close()
        await self._lane.close()
        await self._pool.disconnect()

    async def beat(self) -> None:
        """See :meth:`penstock.bus.broker.Broker.beat`."""
        names, pulse = self._names, self._pulse
        lease_ms, mailbox_ms = int(pulse.lease_s * 1000), int((pulse.lease_s + MAILBOX_S) * 1000)
        keys = (names.alive(self.address), names.mail(self.address))
        try:
            (made,) = await self._lane.ask(("EVAL", scripts.BEAT, 2, *keys, lease_ms, mailbox_ms))
        except Unavailable:
            pulse.well_since_s = math.inf
            raise
        if isinstance(made, ResponseError):
            pulse.well_since_s = math.inf
            raise unavailable(made)
        if pulse.well_since_s == math.inf:
            pulse.well_since_s = self._clock.now()
        elif made:  # Redis has been started anew: our places in its streams mean nothing any more
            self._read = ["0-0", "0-0"]
            pulse.well_since_s = self._clock.now()

    async def join(self, channel: Channel, group: str = "") -> RedisReader:
        """See :meth:`penstock.bus.broker.Broker.join`."""
        number = next(self._numbers)
        own = channel.kind is Kind.NEWS and not group
        name = f"own:{self.address}:{number}" if own else f"group:{group}"
        part = Membership(channel, name, f"{self.address}/{number}", own)
        reader = RedisReader(part, self._names, self._pulse, self._lane, self._pool, self._clock)
        await reader.join()
        self._readers.append(reader)
        return reader

    async def send(self, channel: Channel, record: bytes, key: str, within_s: float) -> None:  # noqa: ARG002 - there is one line for all
        """See :meth:`penstock.bus.broker.Broker.send`."""
        stream, capacity = self._names.stream(channel), self._holds(channel.topic)
        if channel.kind is Kind.WORK:
            script: Command = ("EVAL", scripts.SEND_WORK, 1, stream, capacity, record)
        else:
            script = ("EVAL", scripts.SEND_NEWS, 1, stream, capacity, record, self._names.alive(""))
        until_s, pause_s = self._clock.now() + within_s, PAUSE_S
        while True:
            (answer,) = await self._lane.ask(script)
            if isinstance(answer, OutOfMemoryError):
                answer = None
            if isinstance(answer, ResponseError):
                raise unavailable(answer)
            if answer is not None:
                return
            left_s = until_s - self._clock.now()
            if left_s <= 0:
                raise Rejected(f"{channel.topic} is full", code="queue_full")
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    def _holds(self, topic: str) -> int:
        return self._capacities.get(topic, self._capacity)

    async def depth(self, channel: Channel) -> int:
        """See :meth:`penstock.bus.broker.Broker.depth`."""
        (answer,) = await self._lane.ask(("XLEN", self._names.stream(channel)))
        return int(_result(answer))

    async def reply(self, address: str, record: bytes) -> None:
        """See :meth:`penstock.bus.broker.Broker.reply`."""
        mail = self._names.mail(address)
        (answer,) = await self._lane.ask(("XADD", mail, "NOMKSTREAM", "MAXLEN", "~", MAIL_MAX, "*", "r", record))
        _result(answer)

    async def tell(self, record: bytes) -> None:
        """See :meth:`penstock.bus.broker.Broker.tell`."""
        (answer,) = await self._lane.ask(("XADD", self._names.notes, "MAXLEN", "~", NOTES_MAX, "*", "r", record))
        _result(answer)

    async def listen(self, wait_s: float) -> list[bytes]:
        """See :meth:`penstock.bus.broker.Broker.listen`."""
        mail, notes = self._names.mail(self.address), self._names.notes
        if self._asked is None:
            block = max(1, int(wait_s * 1000))
            reading = ("XREAD", "COUNT", LISTEN_MAX, "BLOCK", block, "STREAMS", mail, notes, *self._read)
            self._asked = self._ears.ask(reading, wait_s=wait_s)
        try:
            (answer,) = await asyncio.shield(self._asked)
        except Unavailable:
            self._asked = None
            raise
        self._asked = None
        found: list[bytes] = []
        for stream, entries in _result(answer) or ():
            which = int(stream != mail.encode())
            self._read[which] = entries[-1][0]
            found += [fields[1] for _, fields in entries]
            if not which:  # read is gone; nobody waits for the answer
                trimmed = self._lane.ask(("XTRIM", mail, "MINID", _after(entries[-1][0])))
                trimmed.add_done_callback(lambda one: one.cancelled() or one.exception())
        return found

    async def letters(self, count: int) -> list[Letter]:
        """See :meth:`penstock.bus.broker.Broker.letters`."""
        (answer,) = await self._lane.ask(("XRANGE", self._names.dead, "-", "+", "COUNT", count))
        return [_letter(id, fields) for id, fields in _result(answer)]

    async def revive(self, letter: str) -> bool:
        """See :meth:`penstock.bus.broker.Broker.revive`."""
        (found,) = await self._lane.ask(("XRANGE", self._names.dead, _id(letter), _id(letter)))
        if not _result(found):
            return False
        id, fields = found[0]
        whole = _letter(id, fields)
        if len(whole.record) < whole.size:
            return False
        channel = Channel(whole.topic, Kind(_fields(fields)["k"].decode()))
        keys, capacity = (self._names.dead, self._names.stream(channel)), self._holds(whole.topic)
        (answer,) = await self._lane.ask(("EVAL", scripts.REVIVE, 2, *keys, id, capacity))
        if _result(answer) is None:
            raise Rejected(f"{whole.topic} is full", code="queue_full")
        return bool(answer)

    async def drop(self, letter: str) -> bool:
        """See :meth:`penstock.bus.broker.Broker.drop`."""
        (answer,) = await self._lane.ask(("XDEL", self._names.dead, _id(letter)))
        return bool(_result(answer))


def _pool(settings: RedisSettings) -> ConnectionPool:
    try:
        return ConnectionPool.from_url(
            settings.url,
            max_connections=settings.pool_size,
            protocol=2,
            socket_connect_timeout=PATIENCE_S * 0.75,
            # Limits are set around whole exchanges: ``wait_for`` inside the client may swallow a cancellation (3.11).
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
            client_name=NAMED,
        )
    except ValueError:
        # The client's own words may repeat a part of the password.
        raise Invalid("no address of a Redis", field="REDIS_URL") from None


#: How the connections are called in Redis's own list of clients.
NAMED: Final = "penstock"


def _told(info: bytes) -> dict[str, str]:
    return dict(line.split(":", 1) for line in info.decode(errors="replace").splitlines() if ":" in line)


def _check_version(server: Mapping[str, str]) -> None:
    text = server.get("redis_version", "0")
    found = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if found < VERSION_MIN:
        wanted = ".".join(map(str, VERSION_MIN))
        raise Invalid(f"redis is version {text}; {wanted} or newer is needed", field="REDIS_URL")


def _result(answer: Any) -> Any:
    if isinstance(answer, ResponseError):
        raise unavailable(answer)
    return answer


def _after(id: bytes) -> str:
    ms, _, n = id.decode().partition("-")
    return f"{ms}-{int(n) + 1}"


def _id(letter: str) -> str:
    """Return the id as Redis writes it, or one that is never given."""
    ms, _, n = letter.partition("-")
    return letter if ms.isdigit() and n.isdigit() else "0-1"


def _fields(fields: list[bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in zip(fields[::2], fields[1::2], strict=True)}


def _letter(id: bytes, fields: list[bytes]) -> Letter:
    found = _fields(fields)
    topic, group, reason = (found[name].decode() for name in "tgw")
    buried_at_s = int(id.partition(b"-")[0]) / 1000
    attempts, size = int(found["n"]), int(found["s"])
    group = group.removeprefix("group:")
    return Letter(id.decode(), topic, group, reason, attempts, buried_at_s, size, found["r"])
