"""The discard rules (DESIGN §4.4)."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from penstock.policies.discard import DiscardPolicy, DiscardSettings, DiscardVerdict, push_excess_s
from penstock.policies.estimate import Estimate, EstimateSettings

SERVE, PROBE, DISCARD = DiscardVerdict.SERVE, DiscardVerdict.PROBE, DiscardVerdict.DISCARD


def estimate(p50_s: float, p90_s: float) -> Estimate:
    it = Estimate(EstimateSettings())
    for n in range(200):
        it.observe(p90_s if n % 5 == 0 else p50_s)
    return it


def excess(deadline_s: float, **changed: float) -> float:
    given = {"ahead_s": 4.0, "capacity": 2, "service_s": 0.5, "idle": 0} | changed
    return push_excess_s(deadline_s, 10.0, **given)  # type: ignore[arg-type]


def test_push_refuses_what_the_queue_ahead_makes_late_and_says_by_how_much() -> None:
    assert excess(12.0) == 0.5
    assert excess(12.5) == 0.0
    assert excess(math.inf) == 0.0


def test_push_never_refuses_while_the_pool_idles() -> None:
    assert excess(10.0, idle=1, ahead_s=1e9) == 0.0


def test_push_with_nothing_ahead_asks_for_the_service_time_only() -> None:
    assert excess(10.5, ahead_s=0.0) == 0.0
    assert excess(10.4, ahead_s=0.0) == pytest.approx(0.1)
    assert excess(12.5, capacity=0) == 2.0, "a pool without permits counts as one"


def test_pop_discards_what_cannot_end_in_time_while_others_wait() -> None:
    it, known = DiscardPolicy(DiscardSettings()), estimate(0.01, 0.1)
    assert it.on_pop(1.2, 1.0, known, contended=True) is SERVE
    assert it.on_pop(1.05, 1.0, known, contended=True) is DISCARD


def test_alone_an_even_chance_is_enough() -> None:
    it, known = DiscardPolicy(DiscardSettings()), estimate(0.01, 0.1)
    assert it.on_pop(1.05, 1.0, known, contended=False) is SERVE
    assert it.on_pop(1.005, 1.0, known, contended=False) is DISCARD


def test_what_is_past_its_deadline_is_discarded_always() -> None:
    it = DiscardPolicy(DiscardSettings())
    for known in (estimate(1.0, 1.0), Estimate(EstimateSettings())):
        for deadline_s in (1.0, 0.5, math.nan):
            assert it.on_pop(deadline_s, 1.0, known, contended=False) is DISCARD


def test_without_an_estimate_nothing_is_discarded_early() -> None:
    it = DiscardPolicy(DiscardSettings())
    assert it.on_pop(1.0001, 1.0, Estimate(EstimateSettings()), contended=True) is SERVE


def test_no_deadline_is_never_too_late() -> None:
    assert DiscardPolicy(DiscardSettings()).on_pop(math.inf, 1.0, estimate(9.0, 9.0), contended=True) is SERVE


def test_a_pessimistic_estimate_lets_one_probe_through_now_and_then() -> None:
    it, known = DiscardPolicy(DiscardSettings()), estimate(0.5, 0.5)
    verdicts = [it.on_pop(t / 10 + 0.2, t / 10, known, contended=True) for t in range(200)]
    probes = [t for t, verdict in enumerate(verdicts) if verdict is PROBE]
    assert probes[0] == 0
    assert all(49 <= later - earlier <= 54 for earlier, later in pairwise(probes))
    assert SERVE not in verdicts


def test_probes_come_at_least_every_thirty_seconds() -> None:
    it, known = DiscardPolicy(DiscardSettings()), estimate(100.0, 100.0)
    assert it.on_pop(1.0, 0.0, known, contended=True) is PROBE
    assert it.on_pop(30.0, 29.9, known, contended=True) is DISCARD
    assert it.on_pop(31.0, 30.0, known, contended=True) is PROBE


def test_a_failed_probe_takes_all_passes_back() -> None:
    it, known = DiscardPolicy(DiscardSettings(passes_max=3)), estimate(0.5, 0.5)
    assert it.on_pop(0.1, 0.0, known, contended=True) is PROBE
    it.probe_ended(in_time=True)
    it.probe_ended(in_time=True)
    assert [it.on_pop(0.1, 0.0, known, contended=True) for _ in range(4)] == [PROBE] * 3 + [DISCARD]
    it.probe_ended(in_time=True)
    it.probe_ended(in_time=False)
    assert it.on_pop(0.1, 0.0, known, contended=True) is DISCARD


def test_while_the_rule_serves_there_are_no_passes() -> None:
    it, known = DiscardPolicy(DiscardSettings()), estimate(0.5, 0.5)
    it.on_pop(0.1, 0.0, known, contended=True)
    it.probe_ended(in_time=True)
    assert it.on_pop(9.0, 0.0, known, contended=True) is SERVE
    assert it.on_pop(0.1, 0.0, known, contended=True) is DISCARD


def test_a_recovered_dependency_is_believed_again_within_seconds() -> None:
    """Two permits; deadlines of 0.5 s; service was 5 s and is 10 ms again; 100 requests a second."""
    it, known = DiscardPolicy(DiscardSettings()), estimate(5.0, 5.0)
    first, now, free = None, 0.0, [0.0, 0.0]
    it.on_pop(0.5, now, known, contended=True)
    it.probe_ended(in_time=False)
    while first is None and now < 120.0:
        now += 0.01
        free.sort()
        if free[0] > now:
            continue
        verdict = it.on_pop(now + 0.5, now, known, contended=True)
        if verdict is DISCARD:
            continue
        free[0] = now + 0.01
        known.observe(0.01)
        if verdict is PROBE:
            it.probe_ended(in_time=True)
        else:
            first = now
    assert first is not None
    assert first < 30.0 + 5.0
