import asyncio

import pytest

from penstock.http.gate import EXEMPT_PATHS, Gate
from penstock.http.probes import DELAY_S_MAX, PROBES_BURST, PROBES_PER_S, TTL_S, CachedValue, ProbeThrottle
from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import HttpSettings
from penstock.telemetry.metrics import Metrics
from tests.clock import BEGIN_S, virtual
from tests.fakes.api import Api, Caller


class Counted:
    def __init__(self, takes_s: float = 0.0, error: Exception | None = None) -> None:
        self.times_s: list[float] = []
        self._takes_s = takes_s
        self._error = error

    async def __call__(self) -> int:
        self.times_s.append(asyncio.get_running_loop().time() - BEGIN_S)
        await asyncio.sleep(self._takes_s)
        if self._error is not None:
            raise self._error
        return len(self.times_s)


@virtual
async def test_however_many_ask_it_is_computed_once_a_second():
    counted = Counted(takes_s=0.3)
    recent = CachedValue(counted)
    for _ in range(50):
        await asyncio.gather(*(recent.get() for _ in range(200)))
        await asyncio.sleep(0.1)
    apart_s = [later - earlier for earlier, later in zip(counted.times_s, counted.times_s[1:], strict=False)]
    assert min(apart_s) >= TTL_S
    assert max(apart_s) <= TTL_S + 0.4 + 0.001


@virtual
async def test_a_computation_that_takes_longer_than_a_second_is_not_begun_again():
    counted = Counted(takes_s=5)
    recent = CachedValue(counted)
    asked = []
    for _ in range(4):
        asked.append(asyncio.create_task(recent.get()))
        await asyncio.sleep(1)
    assert await asyncio.gather(*asked) == [1] * 4


@virtual
async def test_one_who_leaves_takes_nothing_from_the_others():
    recent = CachedValue(Counted(takes_s=0.5))
    first, second = asyncio.create_task(recent.get()), asyncio.create_task(recent.get())
    await asyncio.sleep(0.1)
    first.cancel()
    assert await second == 1


@virtual
async def test_an_error_is_told_to_all_and_tried_again_after_a_second(caplog):
    counted = Counted(error=Unavailable("x", dependency="store"))
    recent = CachedValue(counted)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await recent.get()
    assert len(counted.times_s) == 1
    await asyncio.sleep(TTL_S)
    with pytest.raises(Unavailable):
        await recent.get()
    assert len(counted.times_s) == 2
    assert caplog.records == []


@pytest.mark.parametrize("path", sorted(EXEMPT_PATHS - {"/livez", "/metrics", "/v1/flow"}))
@virtual
async def test_what_is_told_of_the_server_is_computed_once_a_second(path):
    api = Api()
    for _ in range(3):
        for answer in await asyncio.gather(*(api.ask("GET", path) for _ in range(20))):
            assert answer.status == 200
        await asyncio.sleep(TTL_S)
    # A status reads the reasons and the alerts.
    assert api.core.told == (6 if path == "/v1/status" else 3)


@virtual
async def test_metrics_are_the_same_for_a_second():
    api = Api()
    texts = []
    for _ in range(4):
        texts.append((await api.ask("GET", "/metrics")).body)
        api.metrics.chunks.inc()
        await asyncio.sleep(TTL_S / 2)
    assert texts[0] == texts[1] != texts[2] == texts[3]


# The pace


def test_an_address_that_asks_without_pause_is_slowed_down_and_no_other():
    pace = ProbeThrottle()
    delays_s = [pace.delay_s("a", 0.0) for _ in range(10 * PROBES_BURST)]
    assert max(delays_s[:PROBES_BURST]) < 1e-9
    assert delays_s == sorted(delays_s)
    assert delays_s[-1] == DELAY_S_MAX
    assert pace.delay_s("b", 0.0) == 0.0
    assert pace.delay_s("a", 3 + DELAY_S_MAX) == 0.0


def test_what_is_remembered_of_addresses_is_bounded():
    pace = ProbeThrottle()
    for number in range(10_000):
        pace.delay_s(str(number), 0.0)
    assert len(pace._due_s) == 4096


@virtual
async def test_two_hundred_that_hammer_probes_get_few_hundred_a_second_and_fill_no_place():
    answered = []

    async def app(_scope, _receive, send):
        answered.append(asyncio.get_running_loop().time())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    gate = Gate(app, HttpSettings(rate_limit=1, rate_burst=1, max_concurrent=10), Metrics())

    async def hammer():
        while asyncio.get_running_loop().time() < BEGIN_S + 10:
            await Caller(gate).ask("GET", "/livez")

    hammers = [asyncio.create_task(hammer()) for _ in range(200)]
    await asyncio.sleep(5)
    assert (await Caller(gate, address="192.0.2.2").ask("POST", "/x")).status == 200
    await asyncio.gather(*hammers)
    assert len(answered) <= PROBES_BURST + 10 * max(PROBES_PER_S, 200 / DELAY_S_MAX) * 1.2
