"""How a bound is kept of which the broker knows nothing."""

import asyncio

from penstock.bus.backends.kafka.broker import REFRESH_IDLE_S, REFRESH_S, BacklogLimiter
from tests.clock import run


class Channel:
    """A channel that is looked at."""

    def __init__(self, held: int = 0) -> None:
        self.held = held
        self.looks = 0

    async def look(self) -> int:
        self.looks += 1
        await asyncio.sleep(0.01)
        return self.held


def test_one_who_sends_alone_keeps_the_bound_exactly() -> None:
    async def main() -> None:
        channel = Channel()
        gauge = BacklogLimiter(5, channel.look)
        entered = 0
        while await gauge.acquire(0.0):
            entered += 1
            channel.held += 1
            gauge.on_sent()
        assert entered == channel.held == 5

    run(main())


def test_many_at_once_do_not_exceed_it() -> None:
    async def main() -> None:
        channel = Channel(2)
        gauge = BacklogLimiter(5, channel.look)
        assert sum(await asyncio.gather(*[gauge.acquire(0.0) for _ in range(20)])) == 3

    run(main())


def test_a_blocked_sender_goes_on_soon_after_there_is_room() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        channel = Channel(5)
        gauge = BacklogLimiter(5, channel.look)
        began_s = loop.time()
        blocked = asyncio.create_task(gauge.acquire(10.0))
        await asyncio.sleep(3.0)
        channel.held = 4
        assert await blocked
        assert loop.time() - began_s <= 3.0 + 2 * REFRESH_S

    run(main())


def test_a_blocked_sender_is_refused_when_its_time_is_up() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        gauge = BacklogLimiter(5, Channel(5).look)
        began_s = loop.time()
        assert not await gauge.acquire(5.0)
        assert 5.0 <= loop.time() - began_s <= 5.1

    run(main())


def test_a_calm_channel_is_looked_at_rarely_and_a_full_one_often_but_not_always() -> None:
    async def main() -> None:
        calm, full = Channel(0), Channel(90)
        for channel in (calm, full):
            gauge = BacklogLimiter(100, channel.look)
            for _ in range(100):
                await asyncio.sleep(0.02)
                await gauge.acquire(0.0)
                gauge._sending = 0
        assert calm.looks <= 2.0 / REFRESH_IDLE_S + 1
        assert 10 <= full.looks <= 2.0 / REFRESH_S + 1

    run(main())


def test_a_sender_that_gives_up_spoils_no_look_of_others() -> None:
    async def main() -> None:
        channel = Channel(4)
        gauge = BacklogLimiter(5, channel.look)
        hasty = asyncio.create_task(gauge.acquire(1.0))
        patient = asyncio.create_task(gauge.acquire(1.0))
        await asyncio.sleep(0.001)
        hasty.cancel()
        assert await patient
        assert channel.looks == 1

    run(main())
