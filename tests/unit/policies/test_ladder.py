"""The degradation ladder."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.kernel.errors import Invalid
from penstock.policies.congestion import Congestion, CongestionSettings
from penstock.policies.ladder import Ladder, LadderSettings, Rung, RungChange, serve_at


def observed(it: Ladder, pressure: float, seconds: float, *, begin_s: float = 0.0, **facts: bool) -> list[int]:
    """Observe ten times a second; return the rung told after each."""
    told = []
    for n in range(1, round(seconds * 10) + 1):
        it.observe(pressure, begin_s + n / 10, **facts)
        told.append(int(it.rung))
    return told


def shares(it: Ladder, count: int = 1000) -> dict[Rung, float]:
    served = Counter(it.serve() for _ in range(count))
    return {rung: number / count for rung, number in served.items()}


def test_it_climbs_a_rung_in_300_ms_at_most_and_stays_where_work_is_done() -> None:
    it = Ladder(LadderSettings())
    assert observed(it, 1000.0, 1.5, nearly_full=False) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3]
    assert it.level == 3.0
    assert repr(it) == "<Ladder one_arm at 3.00>"


def test_while_nothing_waits_it_comes_down_a_rung_in_3_s() -> None:
    it = Ladder(LadderSettings())
    observed(it, 1000.0, 2.0, nearly_full=False)
    told = observed(it, 0.0, 15.0, begin_s=2.0)
    falls = [n for n, (before, after) in enumerate(itertools.pairwise(told)) if after < before]
    assert len(falls) == 3
    assert [(after - before) / 10 for before, after in itertools.pairwise(falls)] == pytest.approx([3, 3])
    assert told[-1] == 0
    assert it.level == 0.0


def test_where_the_pressure_is_as_it_should_be_it_stays() -> None:
    it = Ladder(LadderSettings())
    observed(it, 1000.0, 0.5, nearly_full=False)
    observed(it, it_holds := LadderSettings().hold, 60.0, begin_s=0.5)
    level = it.level
    observed(it, it_holds, 60.0, begin_s=60.5)
    assert it.level == level
    assert 0 < level < 3


def test_a_little_pressure_moves_it_slowly_and_much_moves_it_fast() -> None:
    def level(pressure: float) -> float:
        it = Ladder(LadderSettings())
        observed(it, pressure, 0.3)
        return it.level

    levels = [level(pressure) for pressure in (0.25, 0.3, 0.5, 0.75)]
    assert levels == sorted(levels)
    assert levels[0] == 0
    assert levels[1] < 0.1
    assert level(100.0) == pytest.approx(4 / 3), "two thirds of a rung in 200 ms, and as much ahead"


def test_work_is_served_on_both_rungs_around_the_level() -> None:
    it = Ladder(LadderSettings(hold=1.0))
    observed(it, 2.0, 0.9)
    assert it.level == pytest.approx(0.53, abs=0.01)
    assert shares(it) == pytest.approx({Rung.FULL: 0.47, Rung.FEWER_CANDIDATES: 0.53}, abs=0.01)
    assert shares(Ladder(LadderSettings())) == {Rung.FULL: 1.0}


def test_a_change_tells_both_rungs() -> None:
    it = Ladder(LadderSettings(up_s=0.1))
    assert it.observe(100.0, 0.0) is None
    assert it.observe(100.0, 0.1) == RungChange(Rung.FULL, Rung.FEWER_CANDIDATES)
    assert it.observe(100.0, 0.15) is None


def test_a_burst_that_drains_is_no_pressure() -> None:
    it = Ladder(LadderSettings())
    for n in range(1000):
        it.observe(0.0 if n % 8 == 0 else 5.0, n / 100)
        assert it.serve() is Rung.FULL


def test_the_more_work_the_sooner_it_looks() -> None:
    rare, often = Ladder(LadderSettings()), Ladder(LadderSettings())
    for n in range(10):
        often.observe(5.0, n / 200)
    for n in range(4):
        rare.observe(5.0, n / 80)
    assert rare.level == 0.0
    assert often.level > 0.0


def test_a_stalled_loop_is_not_taken_for_a_long_queue() -> None:
    it = Ladder(LadderSettings())
    it.observe(1000.0, 0.0)
    it.observe(1000.0, 60.0)
    assert it.rung <= Rung.FEWER_CANDIDATES
    assert it.level <= 1.0


def test_after_an_idle_hour_the_first_request_finds_it_at_its_foot() -> None:
    it = Ladder(LadderSettings())
    observed(it, 1000.0, 2.0, nearly_full=False)
    assert it.observe(0.0, 3600.0) == RungChange(Rung.ONE_ARM, Rung.FULL)
    assert it.serve() is Rung.FULL


def test_while_work_is_refused_it_climbs_at_once() -> None:
    it = Ladder(LadderSettings())
    assert observed(it, 0.3, 0.4, nearly_full=False, refusing=True) == [0, 1, 2, 3]


def test_it_stops_at_the_highest_rung_allowed() -> None:
    for highest in Rung:
        it = Ladder(LadderSettings(highest=highest))
        observed(it, 1000.0, 10.0, refusing=True)
        assert it.rung is highest
        assert set(shares(it)) == {highest}


def test_it_gives_up_work_only_while_the_queue_is_nearly_full_and_takes_it_up_at_once() -> None:
    it = Ladder(LadderSettings())
    observed(it, 1000.0, 10.0, nearly_full=False)
    assert it.rung is Rung.ONE_ARM
    assert observed(it, 1000.0, 0.7, begin_s=10.0) == [3, 3, 4, 4, 4, 4, 5]
    it.observe(1000.0, 10.8, nearly_full=False)
    assert it.rung is Rung.ONE_ARM
    it.observe(1000.0, 10.9)
    assert it.rung is Rung.ONE_ARM, "and another patience before the next sip"
    assert observed(it, 1000.0, 0.3, begin_s=10.9)[-1] == Rung.CACHED_ONLY
    it.observe(0.0, 11.3)
    assert it.serve() is not Rung.CACHED_ONLY


def test_strict_requests_see_refusal_instead_of_degradation() -> None:
    assert [serve_at(rung, strict=True) for rung in Rung] == [Rung.FULL] + [Rung.REFUSE] * 5
    assert [serve_at(rung, strict=False) for rung in Rung] == list(Rung)


def test_a_request_that_loses_nothing_is_served_in_full() -> None:
    for strict in (False, True):
        assert serve_at(Rung.NO_RERANK, strict=strict, degraded_from=Rung.ONE_ARM) is Rung.FULL
    assert serve_at(Rung.ONE_ARM, strict=True, degraded_from=Rung.ONE_ARM) is Rung.REFUSE


def test_each_rung_has_its_word() -> None:
    words = ["", "fewer_candidates", "no_rerank", "one_arm", "cached_only", "refuse"]
    assert [rung.label for rung in Rung] == words


def test_absurd_settings_are_refused() -> None:
    with pytest.raises(Invalid, match="up_s"):
        LadderSettings(up_s=0)


#: Seconds of a core that a search takes on each rung, about as measured on one.
COSTS: Final = (0.009, 0.0082, 0.0068, 0.0013)


@dataclass
class Course:
    """What became of the searches of one simulation.

    Attributes:
        served: How many on each rung.
        waits_s: Their waits.
        moves: Moves of the ladder.
        idle: Share of the permits' time without work.
    """

    served: Counter[Rung] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)
    moves: int = 0
    idle: float = 0.0

    def share(self, rung: Rung) -> float:
        return self.served[rung] / self.served.total()


def simulate(
    load: float,
    ladder: Ladder,
    *,
    seconds: float = 60.0,
    permits: int = 16,
    limit_s: float = 1.0,
    costs: Sequence[float] = COSTS,
) -> Course:
    """Simulate a core that all running searches share, asked for ``load`` times what it carries at full quality.

    The first quarter of the time is not counted.
    """
    draw, congestion, told = random.Random(1), Congestion(CongestionSettings()), Course()
    took_s: deque[float] = deque([costs[0]], maxlen=200)
    waiting: deque[float] = deque()
    running: list[list[float]] = []
    now_s = arrival_s = 0.0
    while now_s < seconds:
        counted = now_s > seconds / 4
        ends_s = now_s + min((left for left, _ in running), default=math.inf) * len(running)
        before_s, now_s = now_s, min(arrival_s, ends_s)
        told.idle += (permits - len(running)) * (now_s - before_s) / permits / seconds
        for one in running:
            one[0] -= (now_s - before_s) / len(running)
        if now_s == arrival_s:
            arrival_s += draw.expovariate(load / costs[0])
            if ladder.rung < Rung.CACHED_ONLY:
                waiting.append(now_s)
        took_s.extend(now_s - begun_s for left, begun_s in running if left < 1e-9)
        running = [one for one in running if one[0] >= 1e-9]
        congestion.retarget(statistics.median(took_s))
        while waiting and len(running) < permits:
            since_s = waiting.popleft()
            if now_s - since_s < limit_s:
                rung = ladder.serve()
                running.append([draw.uniform(0.5, 1.5) * costs[min(rung, Rung.ONE_ARM)], now_s])
                told.served[rung] += counted
                told.waits_s += [now_s - since_s] * counted
        pressure = (now_s - waiting[0]) / congestion.target_s if waiting else 0.0
        told.moves += (ladder.observe(pressure, now_s) is not None) and counted
    return told


def test_it_gives_up_no_more_than_it_must() -> None:
    assert simulate(0.7, Ladder(LadderSettings())).share(Rung.FULL) > 0.99
    told = simulate(1.2, Ladder(LadderSettings()))
    assert told.share(Rung.ONE_ARM) < 0.1
    assert sum(COSTS[rung] * told.share(rung) for rung in told.served) == pytest.approx(COSTS[0] / 1.2, rel=0.02)
    assert statistics.median(told.waits_s) < 0.15


@pytest.mark.parametrize("load", [0.9, 1.2, 2.0, 5.0])
def test_under_a_steady_load_it_does_not_move(load: float) -> None:
    assert simulate(load, Ladder(LadderSettings())).moves <= 3


@pytest.mark.parametrize("permits", [2, 16])
def test_the_rungs_that_send_no_work_do_not_idle_the_pools(permits: int) -> None:
    costs = (0.020, 0.015, 0.010, 0.006)
    told = simulate(6.0, Ladder(LadderSettings()), permits=permits, seconds=20.0, limit_s=0.5, costs=costs)
    assert told.served[Rung.CACHED_ONLY] > 0, "it went there"
    assert told.idle < 0.05


class LadderAtAnyPaceMachine(RuleBasedStateMachine):
    """Looked at whenever it pleases, between two looks of a millisecond or of an hour: what must hold anyway."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.it = Ladder(LadderSettings())

    @rule(
        pressure=st.sampled_from([0.0, 0.1, 0.25, 0.3, 1.0, 50.0]),
        later_s=st.sampled_from([0.0, 0.001, 0.1, 0.3, 1.0, 3.0, 60.0, 3600.0]),
        nearly_full=st.booleans(),
    )
    def look(self, *, pressure: float, later_s: float, nearly_full: bool) -> None:
        self.now_s += later_s
        before, level = self.it.rung, self.it.level
        change = self.it.observe(pressure, self.now_s, nearly_full=nearly_full)
        assert (change is None) == (self.it.rung is before)
        assert self.it.rung <= before + 1, "one rung up at most"
        if not nearly_full:
            assert self.it.level <= Rung.ONE_ARM
        if pressure == 0.0:
            assert self.it.rung <= before, "never up while nothing waits"
            assert self.it.level <= level
        if change is None and pressure == 0.0 and later_s == 3600.0:
            assert self.it.level == 0.0

    @invariant()
    def serves_a_rung_beside_its_level(self) -> None:
        assert abs(self.it.serve() - self.it.level) < 1.0
        assert Rung.FULL <= self.it.rung <= Rung.REFUSE

    @invariant()
    def strict_is_whole_or_nothing(self) -> None:
        assert serve_at(self.it.rung, strict=True) in (Rung.FULL, Rung.REFUSE)


TestLadderAtAnyPaceMachine = LadderAtAnyPaceMachine.TestCase
TestLadderAtAnyPaceMachine.settings = settings(max_examples=60, stateful_step_count=40)
