"""The bus against raw queues: publish → handle, and request → reply with a deadline; all accounting on."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from bench.report import Figure, Report, median
from penstock.bus import topic_queue
from penstock.bus.local import LocalBus
from penstock.kernel.context import Context, Criticality, Deadline, MonotonicClock
from penstock.kernel.settings import BusSettings
from penstock.pools.permits import Permits
from penstock.telemetry.bus_metrics import BusMetrics

MESSAGES = 20_000
ROUNDS = 15
CALLERS = 32
SLOTS = 16
BUFFER = 1000
LIMIT_S = 5.0

Round = Callable[[], Awaitable[float]]


async def run() -> Report:
    """Run all rounds interleaved; quote medians and the median of the rounds' ratios."""
    logging.getLogger("penstock").setLevel(logging.ERROR)  # a flood is full by intention
    rounds: dict[str, Round] = {
        "queue": _raw_queue,
        "publish": _publish,
        "queue + future + timeout": _raw_request,
        "request": _request,
        "request, one caller": _request_alone,
        "queue + future + timeout, one caller": _raw_request_alone,
        "wait": _request_queued,
    }
    rates: dict[str, list[float]] = {name: [] for name in rounds}
    for turn in range(ROUNDS + 1):
        for name, one in rounds.items():
            rate = await one()
            if turn:  # the first warms up
                rates[name].append(rate)
    publish, request, alone = (
        _ratio(rates["publish"], rates["queue"]),
        _ratio(rates["request"], rates["queue + future + timeout"]),
        _ratio(rates["request, one caller"], rates["queue + future + timeout, one caller"]),
    )
    figures: tuple[Figure, ...] = (
        Figure("publish → handle", median(rates["publish"]), "1/s"),
        Figure("asyncio.Queue", median(rates["queue"]), "1/s"),
        Figure("publish / asyncio.Queue", publish, "×", "≥ 0.25", publish >= 0.25),
        Figure("request → reply", median(rates["request"]), "1/s"),
        Figure("Queue + Future + timeout", median(rates["queue + future + timeout"]), "1/s"),
        Figure("request / Queue + Future + timeout", request, "×", "≥ 1.0", request >= 1.0),
        Figure("request → reply, one caller", median(rates["request, one caller"]), "1/s"),
        Figure("the same, ratio", alone, "×", "≥ 1.0", alone >= 1.0),
        Figure("request → reply, queued", median(rates["wait"]), "1/s"),
    )
    figures += (Figure("hot path compiled (0 no, 1 yes)", float(not topic_queue.__file__.endswith(".py")), ""),)
    peers = {name: median(found) for name, found in rates.items() if name.startswith("queue")}
    return Report("bus", figures, peers)


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return median([one / other for one, other in zip(ours, theirs, strict=True)])


# --- Ours


def _bus() -> LocalBus:
    clock = MonotonicClock()
    return LocalBus(BusSettings(buffer_size=BUFFER), {}, clock, BusMetrics(clock))


def _label(number: int) -> Context:
    deadline = Deadline(time.monotonic() + LIMIT_S, "bench")
    return Context(deadline, Criticality.INTERACTIVE, f"client {number}", "id")


async def _publish() -> float:
    bus, handled, done = _bus(), 0, asyncio.Event()

    async def handle(_message: object, _ctx: Context) -> None:
        nonlocal handled
        handled += 1
        if handled == MESSAGES:
            done.set()

    bus.subscribe("bench", handle, Permits("bench", SLOTS))
    ctx = _label(0)
    began = time.perf_counter()
    for number in range(MESSAGES):
        await bus.publish("bench", number, ctx)
    await done.wait()
    took_s = time.perf_counter() - began
    assert bus.state()[0].counts.offered == bus.state()[0].counts.answered == MESSAGES
    await bus.close()
    return MESSAGES / took_s


async def _echo(message: object, _ctx: Context) -> object:
    return message


async def _request(callers: int = CALLERS, slots: int = SLOTS) -> float:
    bus, numbers = _bus(), iter(range(MESSAGES))
    bus.subscribe("bench", _echo, Permits("bench", slots))

    async def caller(mine: int) -> None:
        ctx = _label(mine)  # made once for each request from outside, which asks several topics
        for number in numbers:
            assert await bus.request("bench", number, ctx) == number

    began = time.perf_counter()
    await asyncio.gather(*(caller(mine) for mine in range(callers)))
    took_s = time.perf_counter() - began
    counts = bus.state()[0].counts
    assert counts.offered == counts.answered == MESSAGES
    await bus.close()
    return MESSAGES / took_s


async def _request_alone() -> float:
    return await _request(callers=1)


async def _request_queued() -> float:
    """One slot for many callers: every message goes through the discipline."""
    return await _request(slots=1)


# --- Theirs


async def _raw_queue() -> float:
    queue: asyncio.Queue[int] = asyncio.Queue(BUFFER)

    async def handle() -> None:
        for _ in range(MESSAGES):
            await queue.get()

    handler = asyncio.create_task(handle())
    began = time.perf_counter()
    for number in range(MESSAGES):
        await queue.put(number)
    await handler
    return MESSAGES / (time.perf_counter() - began)


async def _raw_request(callers: int = CALLERS) -> float:
    queue: asyncio.Queue[tuple[int, asyncio.Future[int]]] = asyncio.Queue(BUFFER)
    loop, numbers = asyncio.get_running_loop(), iter(range(MESSAGES))

    async def handle() -> None:
        while True:
            number, reply = await queue.get()
            if not reply.done():
                reply.set_result(number)

    async def caller() -> None:
        for number in numbers:
            reply: asyncio.Future[int] = loop.create_future()
            async with asyncio.timeout(LIMIT_S):
                await queue.put((number, reply))
                assert await reply == number

    handlers = [asyncio.create_task(handle()) for _ in range(min(callers, SLOTS))]
    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    took_s = time.perf_counter() - began
    for handler in handlers:
        handler.cancel()
    await asyncio.gather(*handlers, return_exceptions=True)
    return MESSAGES / took_s


async def _raw_request_alone() -> float:
    return await _raw_request(callers=1)
