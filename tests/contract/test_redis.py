"""What only a Redis of one's own can show: silence, a crash, passwords, TLS, connections counted by the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.app.external_backends import build_broker as made
from penstock.bus.backends.redis.broker import CLIENT_NAME, RedisBroker
from penstock.bus.broker import BROKER_TIMEOUT_S, Channel, ChannelKind, Delivery, Reader, ReplyMessage
from penstock.kernel.errors import Invalid, PenstockError, Unavailable
from penstock.kernel.settings import BusSettings, RedisSettings, Settings
from tests.rigs import redis

WORK = Channel("t", ChannelKind.QUEUE)
NEWS = Channel("n", ChannelKind.PUBSUB)
CAPACITY = 5
LEASE_S = 1.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[redis.Redis]:
    redis.needed()
    with redis.redis(tmp_path / "redis") as one:
        yield one


def broker(url: str, pool_size: int = 20) -> RedisBroker:
    bus = BusSettings(prefix=f"test-{uuid.uuid4().hex[:8]}", lease=LEASE_S, buffer_size=CAPACITY)
    return RedisBroker(bus, RedisSettings(url=url, pool_size=pool_size), {})


def beside(other: RedisBroker, url: str) -> RedisBroker:
    bus = BusSettings(prefix=other._keys.prefix, lease=LEASE_S, buffer_size=CAPACITY)
    return RedisBroker(bus, RedisSettings(url=url), {})


async def take(reader: Reader, count: int = 10, within_s: float = 10.0) -> list[Delivery]:
    """Take until there is something, or time is up."""
    end_s = asyncio.get_running_loop().time() + within_s
    while asyncio.get_running_loop().time() < end_s:
        with contextlib.suppress(Unavailable):
            taken = await reader.poll(count, 0.2)
            if taken:
                return taken
    return []


async def refused(url: str) -> tuple[PenstockError, float]:
    """Return the error of a start, and how long it and the end after it took."""
    one, began_s = broker(url), time.monotonic()
    with pytest.raises(PenstockError) as caught:
        await one.start()
    await one.close()
    took_s = time.monotonic() - began_s
    return caught.value, took_s


# --- The address


def test_a_wrong_password_is_told_apart_and_never_shown(tmp_path: Path) -> None:
    redis.needed()

    async def main() -> None:
        for url in (server.url, server.url.replace("redis://", "redis://:wrong-secret@")):
            error, took_s = await refused(url)
            assert isinstance(error, Invalid)
            assert error.field == "REDIS_URL"
            assert "wrong-secret" not in str(error)
            assert took_s < 5
        right = broker(server.url.replace("redis://", "redis://:right@"))
        await right.start()
        await right.close()

    with redis.redis(tmp_path, options=("--requirepass", "right")) as server:
        asyncio.run(main())


@pytest.mark.parametrize(("policy", "warned"), [("noeviction", False), ("allkeys-lru", True), ("volatile-ttl", True)])
def test_a_redis_that_may_throw_away_messages_is_warned_of(
    policy: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, warned: bool
) -> None:
    redis.needed()

    async def main() -> None:
        one = broker(server.url)
        await one.start()
        await one.close()

    with redis.redis(tmp_path, options=("--maxmemory-policy", policy)) as server:
        asyncio.run(main())
    said = [record.getMessage() for record in caplog.records if "maxmemory-policy" in record.getMessage()]
    assert [policy in one for one in said] == ([True] if warned else [])


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        (RedisSettings(), False),
        (RedisSettings(rates=True), False),
        (RedisSettings(cache=True), True),
        (RedisSettings(cache=True, shared_url="redis://127.0.0.1:6380"), False),
    ],
)
def test_a_cache_in_the_redis_of_the_bus_is_warned_of(
    settings: RedisSettings, caplog: pytest.LogCaptureFixture, *, warned: bool
) -> None:
    made(Settings(bus=BusSettings(backend="redis"), redis=settings))
    assert ("REDIS_SHARED_URL" in caplog.text) is warned


def test_an_address_where_nothing_listens_or_nothing_answers_is_reported_within_five_seconds() -> None:
    async def main() -> None:
        error, took_s = await refused("redis://127.0.0.1:1/0")
        assert isinstance(error, Unavailable)
        assert took_s < 1
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            error, took_s = await refused(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        assert isinstance(error, Unavailable)
        assert took_s < 4, "a program takes a second to start, and has five to say so"
        assert "(REDIS_URL): 127.0.0.1:" in error.detail

    asyncio.run(main())


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://127.0.0.1/0", "redis://127.0.0.1/0?max_connections=99"])
def test_what_is_no_address_of_a_redis_is_invalid(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        broker(url)
    assert caught.value.field == "REDIS_URL"


def test_tls_is_spoken_and_an_unknown_certificate_is_not_believed(tmp_path: Path) -> None:
    redis.needed()

    async def main() -> None:
        address = f"rediss://127.0.0.1:{server.tls_port}/0"
        error, took_s = await refused(address)
        assert isinstance(error, Unavailable)
        assert took_s < 5
        believed = broker(f"{address}?ssl_ca_certs={tmp_path / 'certificate.pem'}")
        await believed.start()
        await believed.send(WORK, b"m", "", 1.0)
        assert await believed.depth(WORK) == 1
        await believed.close()

    with redis.redis(tmp_path, tls=True) as server:
        asyncio.run(main())


# --- Connections: limit L4


def test_there_are_never_more_connections_than_allowed(server: redis.Redis) -> None:
    async def main() -> None:
        here, other = broker(server.url, pool_size=8), broker(server.url)
        await here.start()
        await other.start()
        readers = [await here.join(WORK) for _ in range(6)]
        taking = [asyncio.create_task(reader.poll(1, 1.0)) for reader in readers]
        await asyncio.sleep(0.3)
        await asyncio.gather(*(here.send(NEWS, b"m", "", 0.0) for _ in range(200)))
        (clients,) = await other._commands.execute(("CLIENT", "LIST"))
        ours = clients.count(b"name=" + CLIENT_NAME.encode()) - 1
        assert ours == 7
        assert here.connections == ours
        await asyncio.gather(*taking)
        more = [await here.join(WORK) for _ in range(2)]
        (_, error) = await asyncio.gather(*(reader.poll(1, 0.5) for reader in more), return_exceptions=True)
        assert isinstance(error, Unavailable)
        await here.close()
        await other.close()

    asyncio.run(main())


# --- Silence and crashes


def test_a_silent_redis_is_unavailable_soon_and_well_again_by_itself(server: redis.Redis) -> None:
    async def main() -> None:
        here = broker(server.url)
        await here.start()
        reader, loop = await here.join(WORK), asyncio.get_running_loop()
        server.freeze()
        try:
            for act in (
                lambda: here.send(WORK, b"w", "", 0.0),
                lambda: reader.poll(1, 0.5),
                lambda: here.receive(0.5),
                here.heartbeat,
            ):
                began_s = loop.time()
                with pytest.raises(Unavailable) as caught:
                    await act()
                assert caught.value.dependency == "redis"
                assert loop.time() - began_s <= BROKER_TIMEOUT_S + 1.5
        finally:
            server.thaw()
        await here.heartbeat()
        await here.send(WORK, b"after", "", 5.0)
        seen: list[bytes] = []
        while b"after" not in seen:
            seen += [one.record for one in await take(reader)]
        await here.close()

    asyncio.run(main())


def test_work_mailboxes_and_what_was_taken_outlive_a_crash_of_redis(server: redis.Redis) -> None:
    async def main() -> None:
        here = broker(server.url)
        there = beside(here, server.url)
        await here.start()
        await there.start()
        reader = await there.join(WORK)
        await here.send(WORK, b"held", "", 0.0)
        (held,) = await take(reader)
        await here.send(WORK, b"waits", "", 0.0)
        server.kill()
        server.start()
        for one in (here, there):
            with contextlib.suppress(Unavailable):
                await one.heartbeat()
            await one.heartbeat()
        assert [one.record for one in await take(reader)] == [b"waits"]
        await reader.ack(held, ReplyMessage(here.address, b"answer"))
        found: list[bytes] = []
        while not found:
            with contextlib.suppress(Unavailable):
                found = await here.receive(0.5)
        assert found == [b"answer"]
        await here.close()
        await there.close()

    asyncio.run(main())


def test_after_a_crash_that_forgot_everything_all_is_made_anew(tmp_path: Path) -> None:
    redis.needed()

    async def main() -> None:
        here = broker(server.url)
        await here.start()
        work, news = await here.join(WORK), await here.join(NEWS)
        await take(work, within_s=0.3)
        server.kill()
        server.start()
        with contextlib.suppress(Unavailable):
            await here.heartbeat()
        await here.heartbeat()
        for reader in (work, news):
            await take(reader, within_s=0.5)
        await here.send(WORK, b"w", "", 1.0)
        await here.send(NEWS, b"n", "", 1.0)
        await here.reply(here.address, b"note")
        assert [one.record for one in await take(work)] == [b"w"]
        assert [one.record for one in await take(news)] == [b"n"]
        found: list[bytes] = []
        while not found:
            with contextlib.suppress(Unavailable):
                found = await here.receive(0.5)
        assert found == [b"note"]
        await here.close()

    with redis.redis(tmp_path, persistent=False) as server:
        asyncio.run(main())


def test_news_nobody_reads_any_more_fills_nothing(server: redis.Redis) -> None:
    async def main() -> None:
        here = broker(server.url)
        gone = beside(here, server.url)
        await here.start()
        await gone.start()
        reader = await here.join(NEWS)
        await gone.join(NEWS)
        await redis.crash(gone)
        await asyncio.sleep(1.5 * LEASE_S)
        for n in range(2 * CAPACITY):
            await here.heartbeat()
            await here.send(NEWS, b"%d" % n, "", 2.0)
            assert len(await take(reader)) == 1
        await reader.close()
        for n in range(2 * CAPACITY):
            await here.send(NEWS, b"%d" % n, "", 0.0)
        await here.close()

    asyncio.run(main())


def test_a_redis_without_memory_counts_as_full(tmp_path: Path) -> None:
    redis.needed()

    async def main() -> None:
        here = broker(server.url)
        await here.start()
        sending = (here.send(WORK, b"x" * 1_000_000, "", 0.1) for _ in range(CAPACITY))
        with pytest.raises(PenstockError) as caught:
            await asyncio.gather(*sending)
        assert caught.value.code == "topic_full"
        await here.close()

    with redis.redis(tmp_path, options=("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")) as server:
        asyncio.run(main())
