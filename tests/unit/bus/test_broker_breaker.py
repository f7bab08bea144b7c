import pytest

from penstock.bus.broker import HEARTBEAT_S
from penstock.bus.broker_breaker import SLOW_FAILURE_S, BrokerBreaker
from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import GuardSettings
from penstock.policies.breaker import BreakerState


def link() -> BrokerBreaker:
    return BrokerBreaker("redis", GuardSettings(failures=3, successes=2))


def test_it_is_closed_until_failures_follow_each_other():
    one = link()
    for _ in range(2):
        one.call_failed(0.0)
    one.send_ok()
    for _ in range(2):
        one.call_failed(0.0)
    one.heartbeat_ok()
    one.call_failed(0.0)
    one.check()
    assert one.state is BreakerState.CLOSED
    assert one.retry_after_s() == 0.0


def test_failures_in_a_row_open_it_and_all_is_refused_at_once():
    one, opened, turns = link(), [], []
    one.on_open = lambda: opened.append(True)
    one.on_state_change = turns.append
    for _ in range(3):
        one.call_failed(0.0)
    with pytest.raises(Unavailable) as caught:
        one.check()
    assert (caught.value.dependency, caught.value.code) == ("redis", "circuit_open")
    assert (opened, turns, repr(one)) == ([True], [one], "<BrokerBreaker redis open>")
    one.call_failed(0.0)
    assert opened == [True]


def test_one_long_silence_is_enough():
    one = link()
    one.call_failed(SLOW_FAILURE_S)
    assert one.state is BreakerState.OPEN


def test_beats_close_it_by_way_of_half_open():
    one = link()
    one.call_failed(SLOW_FAILURE_S)
    assert one.retry_after_s() == 2 * HEARTBEAT_S
    one.heartbeat_ok()
    assert one.state is BreakerState.HALF_OPEN
    assert one.retry_after_s() == HEARTBEAT_S
    one.heartbeat_ok()
    assert one.state is BreakerState.CLOSED
    one.check()


def test_a_failure_while_half_open_opens_it_again():
    one = link()
    one.call_failed(SLOW_FAILURE_S)
    one.heartbeat_ok()
    one.call_failed(0.0)
    assert one.state is BreakerState.OPEN
    assert one.retry_after_s() == 2 * HEARTBEAT_S
