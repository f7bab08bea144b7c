"""The heartbeat keeps its pace, measures the loop's lag, and nothing that is called at it stops it."""

import asyncio
import logging

import pytest

from penstock.telemetry.heartbeat import LOGGED_ERROR_TYPES_MAX, Heartbeat
from penstock.telemetry.metrics import Metrics
from tests.clock import BEGIN_S, virtual
from tests.fakes.loop_clock import LoopClock


def stall(seconds):
    asyncio.get_running_loop().spend(seconds)


def now():
    return asyncio.get_running_loop().time()


def told(heartbeat):
    metrics = Metrics()
    metrics.register_histograms(heartbeat.histograms)
    metrics.register_callbacks(heartbeat.callback_metrics())
    return metrics.registry.get_sample_value


@virtual
async def test_each_call_comes_at_its_own_pace_and_first_at_the_first_beat():
    it, quick, slow = Heartbeat(LoopClock()), [], []
    it.every(0.1, lambda: quick.append(now() - BEGIN_S))
    it.every(1.0, lambda: slow.append(now() - BEGIN_S))
    it.start()
    await asyncio.sleep(10.05)
    await it.close()
    assert len(quick) == 100
    assert quick == pytest.approx([n / 10 for n in range(1, 101)])
    assert slow == pytest.approx([0.1 + n for n in range(10)])
    assert repr(it) == "<Heartbeat every 0.1 s, 2 calls, lag 0.0 ms>"


@virtual
async def test_a_loop_in_time_has_no_lag_and_every_beat_is_counted():
    it = Heartbeat(LoopClock())
    it.start()
    await asyncio.sleep(2.05)
    await it.close()
    value = told(it)
    assert value("event_loop_lag_seconds_count") == 20
    assert value("event_loop_lag_seconds_sum") == pytest.approx(0, abs=1e-6)
    assert value("event_loop_lag_seconds_max") == pytest.approx(0, abs=1e-6)


@virtual
async def test_a_stall_is_measured_and_seen_for_the_window_but_lately_only_for_a_second():
    it = Heartbeat(LoopClock())
    it.start()
    await asyncio.sleep(1.0)
    stall(0.7)
    await asyncio.sleep(0.35)
    assert it.lag_s() == it.lag_s_max() == pytest.approx(0.6, abs=0.1)
    await asyncio.sleep(3)
    assert it.lag_s() == pytest.approx(0, abs=1e-6)
    assert told(it)("event_loop_lag_seconds_max") == it.lag_s_max() == pytest.approx(0.6, abs=0.1)
    await asyncio.sleep(20)
    assert it.lag_s_max() == pytest.approx(0, abs=1e-6)
    await it.close()


@virtual
async def test_after_a_stall_nothing_is_made_up_for():
    it, quick, slow = Heartbeat(LoopClock()), [], []
    it.every(0.1, lambda: quick.append(now()))
    it.every(1.0, lambda: slow.append(now()))
    it.start()
    await asyncio.sleep(0.55)
    stall(30)
    await asyncio.sleep(0.95)
    await it.close()
    assert 13 <= len(quick) <= 16
    assert len(slow) == 2
    assert slow[1] - slow[0] == pytest.approx(30.45, abs=0.06)


@virtual
async def test_calls_that_take_longer_than_a_beat_show_as_lag():
    it = Heartbeat(LoopClock())
    it.every(0.1, lambda: stall(0.3))
    it.start()
    await asyncio.sleep(5)
    await it.close()
    assert told(it)("event_loop_lag_seconds_count") < 20


@virtual
async def test_one_that_raises_is_logged_once_for_each_kind_and_stops_nothing(caplog):
    it, beats = Heartbeat(LoopClock()), []
    errors = iter([ValueError("a"), ValueError("b"), KeyError("c"), ValueError("d"), KeyError("e")])

    def fail():
        error = next(errors, None)
        if error is not None:
            raise error

    it.every(0.1, fail)
    it.every(0.1, lambda: beats.append(1))
    it.start()
    await asyncio.sleep(1.05)
    await it.close()
    assert len(beats) == 10
    assert [record.exc_info[0] for record in caplog.records] == [ValueError, KeyError]
    assert "fail" in caplog.records[0].call
    assert all(record.levelno == logging.ERROR for record in caplog.records)


@virtual
async def test_kinds_of_errors_without_end_are_not_logged_without_end(caplog):
    it = Heartbeat(LoopClock())

    def fail():
        raise type("Odd", (Exception,), {})

    it.every(0.1, fail)
    it.start()
    await asyncio.sleep(10)
    await it.close()
    assert len(caplog.records) == LOGGED_ERROR_TYPES_MAX


@virtual
async def test_it_is_started_once_and_closed_as_often_as_one_likes():
    it = Heartbeat(LoopClock())
    await it.close()
    it.start()
    with pytest.raises(RuntimeError):
        it.start()
    await it.close()
    await it.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_it_can_be_closed_by_what_it_calls_and_started_again():
    it, beats = Heartbeat(LoopClock()), []
    it.every(0.1, lambda: beats.append(1))
    it.start()
    await asyncio.sleep(0.25)
    await it.close()
    await asyncio.sleep(5)
    assert len(beats) == 2
    it.start()
    await asyncio.sleep(0.15)
    await it.close()
    assert len(beats) == 3
