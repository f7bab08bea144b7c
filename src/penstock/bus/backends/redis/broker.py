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
from penstock.bus.backends.redis.multiplexer import NAME, Command, CommandMultiplexer, first_error, unavailable
from penstock.bus.backends.redis.reader import MAILBOX_MAX, InstanceLease, RedisKeys, RedisReader
from penstock.bus.broker import BROKER_TIMEOUT_S, STARTUP_CHECK_S, Channel, ChannelKind, DeadLetter
from penstock.kernel.errors import Invalid, Rejected, Unavailable
from penstock.kernel.redis_url import check_redis_url
from penstock.kernel.settings import BusSettings, RedisSettings

log = logging.getLogger(__name__)

#: The ``maxmemory-policy`` of a Redis that throws nothing away.
NO_EVICTION: Final = "noeviction"
#: The oldest Redis that knows all that is asked of it.
VERSION_MIN: Final = (6, 2)
#: Broadcasts that are kept for slow readers.
BROADCASTS_MAX: Final = 10_000
#: Control messages read at once.
RECEIVE_MAX: Final = 1000
#: Where the address is set, for people.
_URL: Final = "concurrency.redis.url (REDIS_URL)"
#: How long a mailbox outlives the lease of its instance's last heartbeat.
MAILBOX_TTL_S: Final = 60.0
#: How long a sender waits at first, and at most, before it looks again whether there is room.
SEND_RETRY_S, SEND_RETRY_S_MAX = 0.005, 0.1


class RedisBroker:
    """See :class:`penstock.bus.broker.Broker`.

    Args:
        bus: Bounds, names and the lease, that hold for all brokers.
        settings: Address of Redis, and the number of connections (L4).
        capacities: Records a channel holds at most where that is not ``bus.buffer_size``, by topic.

    Raises:
        Invalid: The URL is none of Redis.

    Bounds: ``settings.pool_size`` connections: one for each reader, one for the mailbox, one for all the rest.
    """

    name = NAME

    def __init__(self, bus: BusSettings, settings: RedisSettings, capacities: Mapping[str, int]) -> None:
        self.address = secrets.token_hex(8)
        self._keys = RedisKeys(bus.prefix)
        self._capacities = capacities
        self._capacity = bus.buffer_size
        self._where = check_redis_url(settings.url)
        self._pool = _pool(settings)
        self._commands, self._blocking = CommandMultiplexer(self._pool), CommandMultiplexer(self._pool)
        self._lease = InstanceLease(self.address, bus.lease, math.inf)
        self._readers: list[RedisReader] = []
        self._numbers = itertools.count(1)
        self._last_ids: list[bytes | str] = ["0-0", "0-0"]
        self._pending_read: asyncio.Future[list[Any]] | None = None

    def __repr__(self) -> str:
        return f"<RedisBroker {self.address} {len(self._readers)} readers>"

    @property
    def connections(self) -> int:
        """Number of open connections (L4)."""
        pool = self._pool  # it has no name for them in public
        return sum(one.is_connected for one in (*pool._available_connections, *pool._in_use_connections))  # noqa: SLF001

    async def start(self) -> None:
        """See :meth:`penstock.bus.broker.Broker.start`."""
        newest_note: Command = ("XREVRANGE", self._keys.broadcasts, "+", "-", "COUNT", 1)
        questions: tuple[Command, ...] = (("INFO", "server"), ("INFO", "memory"), newest_note)
        try:
            async with asyncio.timeout(STARTUP_CHECK_S):
                answers = await self._commands.execute(*questions)
        except TimeoutError:
            raise self._start_error(unavailable(None)) from None
        except Unavailable as error:
            if isinstance(error.__cause__, AuthenticationError):
                detail = f"{_URL}: {self._where}: redis does not let us in: {error.__cause__}"
                raise Invalid(detail, field="REDIS_URL") from None
            raise self._start_error(error) from error
        refused = first_error(answers)
        if refused is not None:
            detail = f"{_URL}: {self._where}: redis does not let us work: {refused}"
            raise Invalid(detail, field="REDIS_URL")
        info, memory, newest = answers
        _check_version(_parse_info(info))
        self._check_policy(_parse_info(memory))
        if newest:
            self._last_ids[1] = newest[0][0]
        await self.heartbeat()

    def _check_policy(self, memory: Mapping[str, str]) -> None:
        """Warn of a Redis that evicts keys when its memory is full: messages and heartbeats would be lost."""
        policy = memory.get("maxmemory_policy", NO_EVICTION)
        if policy != NO_EVICTION:
            log.warning(
                "redis %s has the maxmemory-policy %s: it may throw away messages; set it to %s",
                *(self._where, policy, NO_EVICTION),
            )

    def _start_error(self, error: Unavailable) -> Unavailable:
        """Return the error of a start with the setting and the address in front."""
        return Unavailable(f"{_URL}: {self._where}: {error.detail}", dependency=NAME)

    async def close(self) -> None:
        """See :meth:`penstock.bus.broker.Broker.close`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BROKER_TIMEOUT_S * 0.75):
                await asyncio.gather(*(reader.close() for reader in self._readers))
                # Where the last heartbeat failed there is nothing to withdraw, or it goes with the lease.
                with contextlib.suppress(Unavailable):
                    if self._lease.healthy_since_s < math.inf:
                        await self._commands.execute(
                            ("DEL", self._keys.alive(self.address), self._keys.mailbox(self.address))
                        )
        if self._pending_read is not None:
            self._pending_read.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
            self._pending_read = None
        await self._blocking.close()
        await self._commands.close()
        await self._pool.disconnect()

    async def heartbeat(self) -> None:
        """See :meth:`penstock.bus.broker.Broker.heartbeat`."""
        names, pulse = self._keys, self._lease
        lease_ms, mailbox_ms = int(pulse.duration_s * 1000), int((pulse.duration_s + MAILBOX_TTL_S) * 1000)
        keys = (names.alive(self.address), names.mailbox(self.address))
        try:
            (made,) = await self._commands.execute(("EVAL", scripts.HEARTBEAT, 2, *keys, lease_ms, mailbox_ms))
        except Unavailable:
            pulse.healthy_since_s = math.inf
            raise
        if isinstance(made, ResponseError):
            pulse.healthy_since_s = math.inf
            raise unavailable(made)
        if made and pulse.healthy_since_s < math.inf:
            self._last_ids = ["0-0", "0-0"]  # Redis was restarted: our positions in its streams mean nothing any more
        if made or pulse.healthy_since_s == math.inf:
            pulse.healthy_since_s = asyncio.get_running_loop().time()

    async def join(self, channel: Channel) -> RedisReader:
        """See :meth:`penstock.bus.broker.Broker.join`."""
        reader = RedisReader(channel, next(self._numbers), self._keys, self._lease, self._commands, self._pool)
        await reader.create_group()
        self._readers.append(reader)
        return reader

    async def send(self, channel: Channel, record: bytes, key: str, within_s: float) -> None:  # noqa: ARG002 - one stream keeps all in order
        """See :meth:`penstock.bus.broker.Broker.send`."""
        stream, capacity = self._keys.stream(channel), self._capacities.get(channel.topic, self._capacity)
        if channel.kind is ChannelKind.QUEUE:
            script: Command = ("EVAL", scripts.SEND_QUEUE, 1, stream, capacity, record)
        else:
            script = ("EVAL", scripts.SEND_PUBSUB, 1, stream, capacity, record, self._keys.alive(""))
        loop = asyncio.get_running_loop()
        until_s, pause_s = loop.time() + within_s, SEND_RETRY_S
        while True:
            (answer,) = await self._commands.execute(script)
            if isinstance(answer, OutOfMemoryError):
                answer = None
            if isinstance(answer, ResponseError):
                raise unavailable(answer)
            if answer is not None:
                return
            left_s = until_s - loop.time()
            if left_s <= 0:
                raise Rejected(f"{channel.topic} is full", code="topic_full")
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, SEND_RETRY_S_MAX)

    async def depth(self, channel: Channel) -> int:
        """See :meth:`penstock.bus.broker.Broker.depth`."""
        return int(await self._ask("XLEN", self._keys.stream(channel)))

    async def reply(self, address: str, record: bytes) -> None:
        """See :meth:`penstock.bus.broker.Broker.reply`."""
        mail = self._keys.mailbox(address)
        await self._ask("XADD", mail, "NOMKSTREAM", "MAXLEN", "~", MAILBOX_MAX, "*", "r", record)

    async def broadcast(self, record: bytes) -> None:
        """See :meth:`penstock.bus.broker.Broker.broadcast`."""
        await self._ask("XADD", self._keys.broadcasts, "MAXLEN", "~", BROADCASTS_MAX, "*", "r", record)

    async def receive(self, wait_s: float) -> list[bytes]:
        """See :meth:`penstock.bus.broker.Broker.receive`."""
        mail, records = self._keys.mailbox(self.address), self._keys.broadcasts
        if self._pending_read is None:
            block = max(1, int(wait_s * 1000))
            reading = ("XREAD", "COUNT", RECEIVE_MAX, "BLOCK", block, "STREAMS", mail, records, *self._last_ids)
            self._pending_read = self._blocking.execute(reading, wait_s=wait_s)
        try:
            (answer,) = await asyncio.shield(self._pending_read)
        except Unavailable:
            self._pending_read = None
            raise
        self._pending_read = None
        found: list[bytes] = []
        for stream, entries in _raise_error_reply(answer) or ():
            which = int(stream != mail.encode())
            self._last_ids[which] = entries[-1][0]
            found += [fields[1] for _, fields in entries]
            if not which:  # what is read goes; the answer is not awaited
                trimmed = self._commands.execute(("XTRIM", mail, "MINID", _next_stream_id(entries[-1][0])))
                trimmed.add_done_callback(lambda one: one.cancelled() or one.exception())
        return found

    async def dead_letters(self, count: int) -> list[DeadLetter]:
        """See :meth:`penstock.bus.broker.Broker.dead_letters`."""
        found = await self._ask("XRANGE", self._keys.dead_letters, "-", "+", "COUNT", count)
        return [_to_dead_letter(id, fields) for id, fields in found]

    async def requeue_dead_letter(self, letter_id: str) -> bool:
        """See :meth:`penstock.bus.broker.Broker.requeue_dead_letter`."""
        found = await self._ask("XRANGE", self._keys.dead_letters, _stream_id(letter_id), _stream_id(letter_id))
        letter = _to_dead_letter(*found[0]) if found else None
        if letter is None or not letter.whole:
            return False
        await self.send(letter.channel, letter.record, "", 0.0)
        return await self.delete_dead_letter(letter_id)

    async def delete_dead_letter(self, letter_id: str) -> bool:
        """See :meth:`penstock.bus.broker.Broker.delete_dead_letter`."""
        return bool(await self._ask("XDEL", self._keys.dead_letters, _stream_id(letter_id)))

    async def _ask(self, *command: bytes | str | int) -> Any:
        (answer,) = await self._commands.execute(command)
        return _raise_error_reply(answer)


def _pool(settings: RedisSettings) -> ConnectionPool:
    try:
        return ConnectionPool.from_url(
            settings.url,
            max_connections=settings.pool_size,
            protocol=2,
            socket_connect_timeout=BROKER_TIMEOUT_S * 0.75,
            # Limits are set around whole exchanges: ``wait_for`` inside the client may swallow a cancellation (3.11).
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
            client_name=CLIENT_NAME,
        )
    except ValueError:
        # The client's own words may repeat a part of the password.
        raise Invalid("no address of a Redis", field="REDIS_URL") from None


#: Name of the connections in Redis's own list of clients.
CLIENT_NAME: Final = "penstock"


def _parse_info(info: bytes) -> dict[str, str]:
    return dict(line.split(":", 1) for line in info.decode(errors="replace").splitlines() if ":" in line)


def _check_version(server: Mapping[str, str]) -> None:
    text = server.get("redis_version", "0")
    found = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if found < VERSION_MIN:
        wanted = ".".join(map(str, VERSION_MIN))
        raise Invalid(f"redis is version {text}; {wanted} or newer is needed", field="REDIS_URL")


def _raise_error_reply(answer: Any) -> Any:
    if isinstance(answer, ResponseError):
        raise unavailable(answer)
    return answer


def _next_stream_id(id: bytes) -> str:
    ms, _, n = id.decode().partition("-")
    return f"{ms}-{int(n) + 1}"


def _stream_id(letter_id: str) -> str:
    """Return the id as Redis writes it, or one that is never given."""
    ms, _, n = letter_id.partition("-")
    return letter_id if ms.isdigit() and n.isdigit() else "0-1"


def _to_dead_letter(id: bytes, fields: list[bytes]) -> DeadLetter:
    found = {name.decode(): value for name, value in zip(fields[::2], fields[1::2], strict=True)}
    topic, kind, group, reason = (found[name].decode() for name in "tkgw")
    buried_at_s, channel = int(id.partition(b"-")[0]) / 1000, Channel(topic, ChannelKind(kind))
    group = group.removeprefix("group:")
    return DeadLetter(id.decode(), channel, group, reason, int(found["n"]), buried_at_s, int(found["s"]), found["r"])
