import asyncio
from typing import Any

import pytest

from penstock.http.gate import SLOW_BODY_S, Gate
from penstock.kernel.settings import HttpSettings
from penstock.telemetry.metrics import Metrics
from tests.clock import quiet, virtual
from tests.fakes.api import Caller

NEVER = float("inf")


async def reads(_scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Crowd:
    """Callers of one gate, most of which never send their bodies."""

    def __init__(self, **limits: Any) -> None:
        self.gate = Gate(reads, HttpSettings(**{"rate_limit": 0, "max_concurrent": 40, **limits}), Metrics())
        self.tasks: list[asyncio.Task[Any]] = []

    async def stall(self, count: int, address: str = "192.0.2.1", key: str = "") -> list[Caller]:
        callers = [Caller(self.gate, address=address, pause_s=NEVER) for _ in range(count)]
        headers = {"x-api-key": key} if key else {}
        for caller in callers:
            self.tasks.append(asyncio.create_task(caller.ask("POST", "/x", b"13 bytes here", headers)))
        await quiet()
        return callers

    async def ask(self, address: str = "192.0.2.2") -> int:
        return (await Caller(self.gate, address=address).ask("POST", "/x", b"body")).status

    def in_flight(self) -> int:
        return self.gate.traffic.in_flight


def ends(callers: list[Caller]) -> list[int]:
    return [caller.answer().status if caller.sent else 0 for caller in callers]


@pytest.mark.parametrize("keys", [["A"], [""], ["A", "B", "C", "D", "E", "F"]])
@virtual
async def test_one_client_fills_a_quarter_of_the_places_whatever_keys_it_makes_up(keys):
    crowd = Crowd()
    callers = []
    for number in range(60):
        callers += await crowd.stall(1, key=keys[number % len(keys)])
        assert await crowd.ask() == 200
    assert ends(callers) == [429] * 50 + [0] * 10
    unfinished = {one for of_owner in crowd.gate._state.uploads._by_owner.values() for one in of_owner}
    assert (crowd.in_flight(), len(unfinished)) == (10, 10)
    refused = callers[0].answer()
    assert (refused.json["code"], refused.headers["connection"]) == ("slow_uploads", "close")


@virtual
async def test_one_key_from_many_addresses_fills_a_quarter_too():
    crowd = Crowd()
    for number in range(30):
        await crowd.stall(1, address=f"192.0.2.{number}", key="A")
    assert crowd.in_flight() == 10


@virtual
async def test_a_body_that_comes_at_once_is_never_the_slowest():
    crowd = Crowd()
    await crowd.stall(10)
    for _ in range(30):
        assert await crowd.ask("192.0.2.1") == 200


@virtual
async def test_many_clients_with_slow_bodies_give_way_when_the_server_is_full():
    crowd = Crowd()
    callers = []
    for number in range(4):
        callers += await crowd.stall(10, address=f"192.0.2.{number}")
    assert await crowd.ask("192.0.2.9") == 503
    assert ends(callers) == [0] * 40
    await asyncio.sleep(2 * SLOW_BODY_S)
    assert await crowd.ask("192.0.2.9") == 503
    await quiet()
    assert await crowd.ask("192.0.2.9") == 200
    assert ends(callers) == [429] + [0] * 39


@virtual
async def test_what_has_not_arrived_delays_the_end_by_a_second():
    crowd = Crowd()
    callers = await crowd.stall(5)
    crowd.gate.traffic.draining = True
    began_s = asyncio.get_running_loop().time()
    assert await crowd.gate.wait_drained(30) is False
    assert asyncio.get_running_loop().time() - began_s < 1.5 * SLOW_BODY_S
    assert ends(callers) == [503] * 5
    assert callers[0].answer().headers["connection"] == "close"


@virtual
async def test_what_arrives_while_the_server_ends_is_answered():
    crowd = Crowd()
    caller = Caller(crowd.gate, pause_s=SLOW_BODY_S / 2)
    asked = asyncio.create_task(caller.ask("POST", "/x", b"late"))
    await quiet()
    crowd.gate.traffic.draining = True
    assert await crowd.gate.wait_drained(30) is True
    assert (await asked).status == 200


@virtual
async def test_nothing_is_counted_when_all_have_ended():
    crowd = Crowd(read_timeout=5)
    await crowd.stall(10)
    await asyncio.sleep(6)
    assert (crowd.in_flight(), crowd.gate._state.uploads._by_owner) == (0, {})
