"""What is known about one kind of message, and when its estimate is doubted."""

from __future__ import annotations

import pytest

from penstock.bus.envelope import QUICK_S, SAMPLE_EVERY, ServiceTime
from penstock.policies.discard import DiscardVerdict
from penstock.policies.estimate import EstimateSettings

NOW_S = 1000.0


def service(seconds: float, samples: int = 40) -> ServiceTime:
    made = ServiceTime()
    for _ in range(samples):
        made.observe(seconds)
    return made


def test_before_there_are_samples_nothing_is_expected_and_a_guess_is_charged() -> None:
    fresh = service(1.0, samples=0)
    assert (fresh.expected_s, fresh.p50_s, fresh.p90_s) == (0.0, 0.0, 0.0)
    assert fresh.cost_s == EstimateSettings().prior_s
    assert repr(fresh) == "<ServiceTime <Estimate p50 50.0ms p90 50.0ms of 0>>"


def test_with_samples_its_numbers_are_those_of_the_estimate() -> None:
    learnt = service(2.0)
    for number in (learnt.cost_s, learnt.expected_s, learnt.p50_s, learnt.p90_s):
        assert number == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(("seconds", "skip"), [(QUICK_S / 2, SAMPLE_EVERY - 1), (QUICK_S * 2, 0)])
def test_only_of_quick_kinds_most_need_not_be_measured(seconds: float, skip: int) -> None:
    assert service(seconds).samples_to_skip == skip


def test_what_cannot_end_in_time_is_discarded_until_nothing_was_let_through_for_long() -> None:
    learnt = service(1.0)
    learnt.last_admitted_s = NOW_S  # one was let through without a question
    assert learnt.decide(NOW_S + 0.5, NOW_S, contended=True) is DiscardVerdict.DISCARD
    assert learnt.decide(NOW_S + 9.5, NOW_S + 9.0, contended=True) is DiscardVerdict.DISCARD
    assert learnt.decide(NOW_S + 12.0, NOW_S + 11.5, contended=True) is DiscardVerdict.PROBE


def test_one_let_through_without_a_question_puts_the_next_probe_off() -> None:
    learnt = service(1.0)
    learnt.last_admitted_s = NOW_S
    learnt.decide(NOW_S + 0.5, NOW_S, contended=True)
    learnt.last_admitted_s = NOW_S + 9.0
    assert learnt.decide(NOW_S + 12.0, NOW_S + 11.5, contended=True) is DiscardVerdict.DISCARD


def test_a_probe_that_ended_in_time_lets_more_through() -> None:
    learnt = service(1.0)
    assert learnt.decide(NOW_S + 0.5, NOW_S, contended=True) is DiscardVerdict.PROBE
    learnt.probe_ended(in_time=True)
    assert learnt.decide(NOW_S + 0.5, NOW_S, contended=True) is DiscardVerdict.PROBE
    learnt.probe_ended(in_time=False)
    assert learnt.decide(NOW_S + 0.5, NOW_S, contended=True) is DiscardVerdict.DISCARD
