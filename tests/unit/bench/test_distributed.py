"""The distributed benchmark's counting: ratios round by round, shares of what slots allow."""

import asyncio

import pytest

from bench.distributed.results import Crowd, Pair, Results
from bench.distributed.system import MESSAGE, Burst, Waiters


def burst(rate, p50_ms=1.0, p99_ms=2.0):
    return Burst(int(rate), 1.0, p50_ms, p99_ms, 0.5)


def named(figures):
    return {one.name: one for one in figures}


def test_the_ratio_is_that_of_each_round_not_of_the_medians():
    pair = Pair("redis", 16, ours=[burst(100), burst(30), burst(90)], bare=[burst(100), burst(20), burst(300)])
    assert pair.ratio == 1.0
    found = named(pair.figures())
    assert found["redis, 16 callers: requests"].value == 90
    assert found["  of the bare client"].value == 100
    assert found["  ratio"].met


def test_a_bus_slower_than_it_may_be_misses_its_goal():
    pair = Pair("kafka", 1, ours=[burst(69)], bare=[burst(100)])
    assert named(pair.figures())["  ratio"].met is False


def test_workers_that_wait_are_held_against_what_their_slots_allow():
    crowd = Crowd("redis", 2, 320.0, [burst(304), burst(310), burst(160)], [160, 150])
    found = named(crowd.figures())
    assert found["redis, 2 workers that wait"].value == 304
    assert found["  of what their slots allow"].value == pytest.approx(0.95)
    assert found["  of what their slots allow"].met


def test_a_broker_that_is_not_there_is_named_beside_what_was_measured():
    results = Results([Pair("memory", 1, [burst(1)], [burst(1)])], lacking={"kafka": "no Kafka: needs java"})
    assert results.peers() == {
        "memory": "asyncio.Queue + Future + timeout",
        "not measured": {"kafka": "no Kafka: needs java"},
    }


def test_a_bare_client_finds_who_waits_for_a_reply():
    waiters = Waiters()

    async def send(number):
        waiters.settle(number + 1, "nobody's")
        waiters.settle(number, MESSAGE)

    assert asyncio.run(waiters.wait(send)) is MESSAGE
