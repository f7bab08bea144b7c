"""The degradation ladder."""

from __future__ import annotations

import heapq
import random
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.kernel.errors import Invalid
from penstock.policies.congestion import Congestion, CongestionSettings
from penstock.policies.ladder import Ladder, LadderSettings, Rung, RungChange, serve_at


def test_it_climbs_one_rung_for_each_300_ms_of_congestion() -> None:
    it = Ladder(LadderSettings())
    rungs = []
    for t in range(18):
        it.observe(congested=True, now_s=t / 8)
        rungs.append(int(it.rung))
    assert rungs == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]
    assert repr(it) == "<Ladder refuse congested>"


def test_it_descends_one_rung_for_each_3_s_clear() -> None:
    it = Ladder(LadderSettings())
    it.rung = Rung.ONE_ARM
    rungs = []
    for t in range(10):
        it.observe(congested=False, now_s=t)
        rungs.append(int(it.rung))
    assert rungs == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0]
    assert repr(it) == "<Ladder full clear>"


def test_a_change_tells_both_rungs() -> None:
    it = Ladder(LadderSettings())
    assert it.observe(congested=True, now_s=0.0) is None
    assert it.observe(congested=True, now_s=0.3) == RungChange(Rung.FULL, Rung.FEWER_CANDIDATES)


def test_a_moment_of_relief_starts_the_climb_anew() -> None:
    it = Ladder(LadderSettings())
    for t in range(100):
        it.observe(congested=t % 3 != 0, now_s=t / 10)
    assert it.rung is Rung.FULL


def test_a_moment_of_congestion_starts_the_descent_anew() -> None:
    it = Ladder(LadderSettings())
    it.rung = Rung.NO_RERANK
    for t in range(100):
        it.observe(congested=t % 3 == 0, now_s=t)
    assert it.rung is Rung.NO_RERANK


def test_a_stalled_loop_is_not_taken_for_long_congestion() -> None:
    it = Ladder(LadderSettings())
    it.observe(congested=True, now_s=0.0)
    it.observe(congested=True, now_s=60.0)
    assert it.rung is Rung.FEWER_CANDIDATES


def test_after_an_idle_hour_the_first_request_finds_it_at_its_foot() -> None:
    it = Ladder(LadderSettings())
    it.rung = Rung.ONE_ARM
    it.observe(congested=False, now_s=0.0)
    assert it.observe(congested=False, now_s=3600.0) == RungChange(Rung.ONE_ARM, Rung.FULL)


def test_while_work_is_refused_it_climbs_at_once() -> None:
    it = Ladder(LadderSettings())
    for t in range(4):
        it.observe(congested=False, now_s=t / 10, refusing=True)
    assert it.rung is Rung.ONE_ARM


def test_a_descent_is_a_slope() -> None:
    it = Ladder(LadderSettings(down_s=10.0))
    it.rung = Rung.NO_RERANK
    it.observe(congested=False, now_s=0.0)
    lower = [sum(it.serve(t + n / 100) is Rung.FEWER_CANDIDATES for n in range(100)) for t in range(10)]
    assert lower == pytest.approx([5, 15, 25, 35, 45, 55, 65, 75, 85, 95], abs=2)
    it.observe(congested=True, now_s=9.99)
    assert {it.serve(9.99) for _ in range(100)} == {Rung.NO_RERANK}, "what is congested is served no better"


def test_what_sends_the_pools_no_work_and_what_is_whole_have_no_slope() -> None:
    it = Ladder(LadderSettings())
    for rung in (Rung.FULL, Rung.CACHED_ONLY, Rung.REFUSE):
        it.rung = rung
        assert {it.serve(1000.0) for _ in range(10)} == {rung}


def test_it_stops_at_the_highest_rung_allowed() -> None:
    it = Ladder(LadderSettings(highest=Rung.ONE_ARM))
    for t in range(100):
        it.observe(congested=True, now_s=float(t))
    assert it.rung is Rung.ONE_ARM


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


def idle_share(load: float, ladder: Ladder) -> float:
    """Simulate two permits for 20 s; return the share of their time without work."""
    draw, congestion, cost = random.Random(1), Congestion(CongestionSettings()), (0.020, 0.015, 0.010, 0.006)
    congestion.retarget(0.006)
    waiting: deque[float] = deque()
    running: list[float] = []
    now, arrival, idle = 0.0, 0.0, 0.0
    while now < 20.0:
        event = min([arrival, *running[:1]])
        idle, now = idle + (event - now) * (2 - len(running)), event
        if now == arrival:
            arrival += draw.expovariate(load * 2 / cost[0])
            if ladder.rung < Rung.CACHED_ONLY:
                waiting.append(now)
        else:
            heapq.heappop(running)
        while waiting and len(running) < 2:
            if now - waiting.popleft() < 0.5:
                heapq.heappush(running, now + draw.expovariate(1 / cost[min(3, ladder.rung)]))
        congestion.observe(now - waiting[0] if waiting else 0.0, now)
        ladder.observe(congestion.congested, now)
    return idle / 40.0


def test_the_rungs_that_send_no_work_do_not_idle_the_pools() -> None:
    assert idle_share(6.0, Ladder(LadderSettings())) < 0.05
    assert idle_share(6.0, Ladder(LadderSettings(down_idle_s=3.0))) > 0.5, "why those rungs are left at once"


class LadderMachine(RuleBasedStateMachine):
    """Reference: the history of verdicts, and where each step must have been taken."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks = 0
        self.it = Ladder(LadderSettings())
        self.run = 0
        self.last: bool | None = None
        self.rung = 0

    @rule(congested=st.booleans(), times=st.integers(1, 40))
    def tick(self, *, congested: bool, times: int) -> None:
        """Eighths of a second, observed each: counters instead of times."""
        for _ in range(times):
            self.ticks += 1
            self.run = self.run + 1 if congested is self.last else 0
            self.last = congested
            before = self.it.rung
            change = self.it.observe(congested, self.ticks * 0.125)
            assert (change is not None) == (self.it.rung is not before)
            if congested and self.run >= 3 and self.rung < 5:
                self.rung, self.run = self.rung + 1, 0
            elif not congested:
                if self.rung >= 4:
                    self.rung = 3
                if self.run >= 24 and self.rung:
                    self.rung, self.run = self.rung - 1, 0
            assert int(self.it.rung) == self.rung

    @invariant()
    def strict_is_whole_or_nothing(self) -> None:
        assert serve_at(self.it.rung, strict=True) in (Rung.FULL, Rung.REFUSE)


TestLadderMachine = LadderMachine.TestCase
TestLadderMachine.settings = settings(max_examples=50, stateful_step_count=30)


class LadderAtAnyPaceMachine(RuleBasedStateMachine):
    """Looked at whenever it pleases, between two looks of a millisecond or of an hour: what must hold anyway."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.it = Ladder(LadderSettings())
        self.verdict: bool | None = None
        self.turned_s = 0.0
        self.moved_s = -1000.0

    @rule(congested=st.booleans(), later_s=st.sampled_from([0.0, 0.001, 0.1, 0.3, 1.0, 3.0, 60.0, 3600.0]))
    def look(self, *, congested: bool, later_s: float) -> None:
        self.now += later_s
        if congested is not self.verdict:
            self.verdict, self.turned_s = congested, self.now
        before = self.it.rung
        change = self.it.observe(congested, self.now)
        assert (change is None) == (self.it.rung is before)
        if congested:
            assert before <= self.it.rung <= before + 1, "one rung up at most, and never down"
        else:
            assert self.it.rung <= before, "never up while clear"
        if self.it.rung > before:
            assert self.now - self.turned_s >= 0.3 - 1e-9, "only after 300 ms of congestion without a break"
            assert self.now - self.moved_s >= 0.3 - 1e-9, "and 300 ms after the last move"
        if self.it.rung < before <= Rung.ONE_ARM:
            assert self.now - self.turned_s >= 3.0 - 1e-9, "only after 3 s clear without a break"
        if self.it.rung is not before:
            self.moved_s = self.now

    @invariant()
    def within_bounds(self) -> None:
        assert Rung.FULL <= self.it.rung <= Rung.REFUSE


TestLadderAtAnyPaceMachine = LadderAtAnyPaceMachine.TestCase
TestLadderAtAnyPaceMachine.settings = settings(max_examples=60, stateful_step_count=40)


def test_it_gives_up_work_only_while_the_queue_is_nearly_full_and_takes_it_up_at_once() -> None:
    it = Ladder(LadderSettings())
    now_s = 10.0
    for _ in range(20):
        it.observe(True, now_s, nearly_full=False)
        now_s += 0.3
    assert it.rung is Rung.ONE_ARM
    it.observe(True, now_s, nearly_full=True)
    assert it.rung is Rung.CACHED_ONLY
    it.observe(True, now_s + 0.1, nearly_full=False)
    assert it.rung is Rung.ONE_ARM
    it.observe(True, now_s + 0.2, nearly_full=True)
    assert it.rung is Rung.ONE_ARM, "and another patience before the next sip"
