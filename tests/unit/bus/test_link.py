import pytest

from penstock.bus.broker import BEAT_S
from penstock.bus.link import SILENCE_S, Link
from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import GuardSettings
from penstock.policies.breaker import State


def link() -> Link:
    return Link("redis", GuardSettings(failures=3, successes=2))


def test_it_is_closed_until_failures_follow_each_other():
    one = link()
    for _ in range(2):
        one.failed(0.0)
    one.sent()
    for _ in range(2):
        one.failed(0.0)
    one.beaten()
    one.failed(0.0)
    one.check()
    assert one.state is State.CLOSED
    assert one.retry_after_s() == 0.0


def test_failures_in_a_row_open_it_and_all_is_refused_at_once():
    one, opened, turns = link(), [], []
    one.on_open = lambda: opened.append(True)
    one.on_turn = turns.append
    for _ in range(3):
        one.failed(0.0)
    with pytest.raises(Unavailable) as caught:
        one.check()
    assert (caught.value.dependency, caught.value.code) == ("redis", "circuit_open")
    assert (opened, turns, repr(one)) == ([True], [one], "<Link redis open>")
    one.failed(0.0)
    assert opened == [True]


def test_one_long_silence_is_enough():
    one = link()
    one.failed(SILENCE_S)
    assert one.state is State.OPEN


def test_beats_close_it_by_way_of_half_open():
    one = link()
    one.failed(SILENCE_S)
    assert one.retry_after_s() == 2 * BEAT_S
    one.beaten()
    assert one.state is State.HALF_OPEN
    assert one.retry_after_s() == BEAT_S
    one.beaten()
    assert one.state is State.CLOSED
    one.check()


def test_a_failure_while_half_open_opens_it_again():
    one = link()
    one.failed(SILENCE_S)
    one.beaten()
    one.failed(0.0)
    assert one.state is State.OPEN
    assert one.retry_after_s() == 2 * BEAT_S
