"""The overload benchmark counts what it says it counts: written trials with known outcomes, and its load."""

import math
import random
from itertools import pairwise
from pathlib import Path

import pytest

from bench.overload.accounting import summary
from bench.overload.conduct import read
from bench.overload.plan import PARTS, turns
from bench.overload.records import Attempt, End, Held, Sent, Served
from bench.overload.results import Results, Taken
from bench.overload.scenarios import (
    BUDGET,
    FULL,
    QUICK,
    Request,
    Scenario,
    Segment,
    dependency,
    hasty,
    hog,
    poisson,
    steady,
    step,
)
from bench.overload.systems import OURS, SYSTEMS
from bench.overload.trial import Trial
from bench.overload.workload import DEADLINE_S, KINDS, MEAN_S, PERMITS, WAITING, Load

LOAD = Load(permits=2, turns_s=0.0, capacity=10.0)
CALM = Scenario("steady 1", (Segment(1, 1.0), Segment(1, 4.0)))


def trial(
    *attempts: Attempt,
    scenario: Scenario = CALM,
    held: tuple[Held, ...] = (),
    requests: tuple[Request, ...] | None = None,
) -> Trial:
    if requests is None:
        requests = tuple(Request(a.due_s, 0, 0, 1, False, DEADLINE_S) for a in attempts)
    served = Served(list(held), cpu_s=0.5, waited_s=0.0, wall_s=5.0, counts={})
    return Trial(scenario, LOAD, requests, Sent(list(attempts), cpu_s=0.1, wall_s=5.0, opened=1), served)


def attempt(
    number: int, due_s: float, took_s: float = 0.1, end: End = End.ANSWERED, *, late_s: float = 0.0, tries: int = 0
) -> Attempt:
    return Attempt(number, number, tries, due_s, due_s + late_s, due_s + took_s, end)


def test_goodput_counts_from_the_scheduled_send_and_not_from_the_late_one() -> None:
    found = summary(trial(attempt(0, 2.0, 0.5), attempt(1, 2.0, 0.6, late_s=0.3)))
    assert found.goodput == pytest.approx(1 / (4.0 * LOAD.capacity))


def test_warm_up_is_not_counted() -> None:
    found = summary(trial(attempt(0, 0.9), attempt(1, 1.0)))
    assert found.offered == found.goodput == pytest.approx(1 / 40)


def test_degraded_answers_are_goodput_but_not_of_full_quality() -> None:
    found = summary(trial(attempt(0, 2.0), attempt(1, 2.0, end=End.DEGRADED)))
    assert found.goodput == pytest.approx(2 * found.goodput_full)


def test_refusals_and_losses_are_told_apart() -> None:
    ends = (End.ANSWERED, End.REFUSED, End.GAVE_UP, End.FAILED, End.UNSENT, End.HUNG_UP)
    found = summary(trial(*(attempt(number, 2.0, 0.01, end) for number, end in enumerate(ends))))
    assert found.refused == pytest.approx(1 / 6)
    assert found.lost == pytest.approx(3 / 6)
    assert found.refusal_p99_ms == pytest.approx(10.0)


def test_wasted_is_permit_time_for_answers_that_came_too_late_or_to_nobody() -> None:
    held = (Held(0, 2.0, 0.1, 0.1), Held(1, 2.0, 0.3, 0.3), Held(2, 0.5, 9.0, 9.0))
    found = summary(trial(attempt(0, 2.0), attempt(1, 2.0, 0.7), held=held))
    assert found.wasted == pytest.approx(0.75)


def test_goodput_by_work_is_worth_over_what_the_permits_had_to_give() -> None:
    held = (Held(0, 2.0, 0.9, 0.8), Held(1, 2.0, 0.5, 0.5))
    found = summary(trial(attempt(0, 2.0), attempt(1, 2.0, 0.7), held=held))
    assert found.goodput_work == pytest.approx(0.8 / 4.0 / LOAD.permits)


def test_shares_are_by_kind_by_class_and_of_all_but_the_hog() -> None:
    requests = (
        Request(2.0, 0, 0, 0, False, DEADLINE_S),
        Request(2.0, 1, 0, 7, False, DEADLINE_S),
        Request(2.0, 1, 2, 7, False, DEADLINE_S),
    )
    attempts = (attempt(0, 2.0, end=End.REFUSED), attempt(1, 2.0), attempt(2, 2.0, end=End.GAVE_UP))
    found = summary(trial(*attempts, requests=requests))
    assert found.by_kind == {"cheap": 0.0, "usual": 0.5, "deep": 1.0}
    assert found.by_class == {"interactive": 0.5, "standard": 1.0, "bulk": 0.0}
    assert found.small == 0.5


def stepped(back_s: float) -> Trial:
    """A step of 2 s after 2 s of calm; afterwards nothing is answered until ``back_s`` after its end."""
    scenario = Scenario("step", (Segment(1, 1.0), Segment(1, 2.0), Segment(20, 2.0), Segment(1, 6.0)), retries=2)
    dues = [0.05 + tenth / 10 for tenth in range(110)]
    attempts = (
        attempt(number, due, end=End.REFUSED if 3.0 <= due < 5.0 + back_s else End.ANSWERED)
        for number, due in enumerate(dues)
    )
    return trial(*attempts, scenario=scenario)


@pytest.mark.parametrize("back_s", [0.0, 1.0, 2.5])
def test_recovery_is_the_first_whole_second_as_good_as_before_the_step(back_s: float) -> None:
    found = summary(stepped(back_s))
    assert found.recovery_s == pytest.approx(back_s, abs=0.11)
    assert found.new_recovery_s == pytest.approx(back_s, abs=0.11)
    assert found.storm_s == 0.0
    assert found.course[:4] == pytest.approx([1.0] * 4)
    assert found.course[4:8] == [0.0] * 4


def test_server_that_never_comes_back_recovers_after_infinity() -> None:
    found = summary(stepped(6.0))
    assert found.recovery_s == found.new_recovery_s == math.inf


def test_recovery_of_new_requests_ignores_answered_retries() -> None:
    whole = stepped(6.0)
    retries = [attempt(1000 + n, 5.05 + n / 10, tries=1) for n in range(60)]
    requests = [*whole.requests, *([whole.requests[0]] * 2000)]
    found = summary(trial(*whole.sent.attempts, *retries, scenario=whole.scenario, requests=tuple(requests)))
    assert found.recovery_s == pytest.approx(0.0)
    assert found.new_recovery_s == math.inf


def test_capacity_is_permits_over_the_mean_service_time() -> None:
    assert pytest.approx(sum(kind.share for kind in KINDS)) == 1.0
    assert pytest.approx(PERMITS / MEAN_S) == WAITING.capacity
    assert not WAITING.computes


def test_load_is_poisson_and_the_same_for_the_same_seed() -> None:
    scenario = steady(5, FULL)
    requests = scenario.requests(100.0, 1)
    assert requests == scenario.requests(100.0, 1) != scenario.requests(100.0, 2)
    expected = 5 * 100.0 * scenario.end_s
    assert abs(len(requests) - expected) < 5 * math.sqrt(expected)
    gaps = [after.at_s - before.at_s for before, after in pairwise(requests)]
    mean_s = sum(gaps) / len(gaps)
    deviation_s = math.sqrt(sum((gap - mean_s) ** 2 for gap in gaps) / len(gaps))
    assert deviation_s == pytest.approx(mean_s, rel=0.1)
    assert list(poisson(0.0, 0.0, 10.0, random.Random(1))) == []


def test_scenarios_are_what_they_are_called() -> None:
    by_client = [request.client for request in hog(FULL).requests(100.0, 0)]
    assert 0.9 < by_client.count(0) / len(by_client) < 1.0
    early = [request.patience_s < DEADLINE_S for request in hasty(FULL).requests(100.0, 0)]
    assert 0.25 < sum(early) / len(early) < 0.35
    asks = [request.asks for request in dependency(FULL).requests(100.0, 0)]
    assert 0.25 < sum(asks) / len(asks) < 0.35
    assert [phase for _, phase in dependency(FULL).phases()] == ["well", "well", "slow", "hangs", "dead", "well"]
    assert (step(FULL).retries, step(FULL).budget, step(FULL, BUDGET).budget) == (2, 0.0, BUDGET)


@pytest.mark.parametrize("course", [FULL, QUICK])
def test_every_trial_is_of_a_known_system_and_each_part_can_be_run_alone(course: object) -> None:
    assert isinstance(course, type(FULL))
    whole = list(turns(course, frozenset(PARTS)))
    assert {turn.system for turn in whole} <= set(SYSTEMS)
    for part in PARTS:
        assert list(turns(course, frozenset({part})))


def test_figures_stand_beside_their_goals_and_say_which_are_missed() -> None:
    good = summary(trial(*(attempt(n, 1.0 + n / 20) for n in range(80))))
    poor = summary(trial(*(attempt(n, 1.0 + n / 20, end=End.REFUSED) for n in range(80))))
    taken = [Taken(False, "steady 2", OURS, 0, 0, good), Taken(False, "steady 20", OURS, 0, 0, poor)]
    figures = {one.name: one for one in Results("full", {}, 10.0, 0.0, taken).figures()}
    assert figures["goodput at 2 C"].met is True
    assert figures["goodput at 2 C"].value == pytest.approx(2.0)
    assert figures["goodput at 20 C"].met is False
    assert figures["wasted, steady 2"].goal == "< 0.05"


def test_kept_results_can_be_read_again() -> None:
    kept = read(Path(__file__).parents[3] / "docs/benchmarks/overload.json")
    assert kept.course == "full"
    assert set(kept.loads()) == {"0.5", "1", "2", "5", "10", "20"}
    peers = kept.peers()
    assert {"bare", "timeout", "limit-concurrency", "fifo-1000", "fifo-16"} <= set(peers)
    assert OURS not in peers
