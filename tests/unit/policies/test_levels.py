"""Fill levels with hysteresis."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from penstock.kernel.errors import Invalid
from penstock.policies.levels import Level, LevelChange, LevelSettings, LevelTracker

CALM, HIGH, CRITICAL = Level


def test_a_crossing_is_told_once_and_again_only_after_it_was_called_off() -> None:
    it = LevelTracker(LevelSettings())
    fills = (0.5, 0.79, 0.80, 0.81, 0.79, 0.80, 0.70, 0.81, 0.69, 0.80)
    warned = [n for n, fill in enumerate(fills) if (change := it.observe(fill)) and change.enters(HIGH)]
    assert warned == [2, 9]


def test_refusal_begins_at_90_and_ends_below_85() -> None:
    it = LevelTracker(LevelSettings())
    seen = []
    for fill in (0.89, 0.90, 0.86, 0.85, 0.849, 0.89, 0.90):
        it.observe(fill)
        seen.append(it.level)
    assert seen == [HIGH, CRITICAL, CRITICAL, CRITICAL, HIGH, HIGH, CRITICAL]
    assert repr(it) == "<LevelTracker critical>"


def test_a_jump_enters_and_leaves_both_levels() -> None:
    it = LevelTracker(LevelSettings())
    up = it.observe(1.0)
    down = it.observe(0.0)
    assert (up, down) == (LevelChange(CALM, CRITICAL), LevelChange(CRITICAL, CALM))
    for level in (HIGH, CRITICAL):
        assert up is not None
        assert down is not None
        assert (up.enters(level), up.leaves(level)) == (True, False)
        assert (down.enters(level), down.leaves(level)) == (False, True)


def test_falling_from_critical_to_high_does_not_warn_again() -> None:
    it = LevelTracker(LevelSettings())
    it.observe(0.95)
    change = it.observe(0.82)
    assert change == LevelChange(CRITICAL, HIGH)
    assert not change.enters(HIGH)


@pytest.mark.parametrize(
    "wrong", [{"high": 0.95}, {"high_clear": 0.9}, {"critical_clear": 0.95}, {"critical_clear": 0.5}, {"critical": 80}]
)
def test_contradictory_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        LevelSettings(**wrong)


class LevelsMachine(RuleBasedStateMachine):
    """Reference: two independent latches."""

    def __init__(self) -> None:
        super().__init__()
        self.it = LevelTracker(LevelSettings())
        self.high = False
        self.critical = False

    @rule(percent=st.integers(0, 110))
    def fill(self, percent: int) -> None:
        before = self.it.level
        change = self.it.observe(percent / 100)
        self.high = percent >= (70 if self.high else 80)
        self.critical = percent >= (85 if self.critical else 90)
        assert int(self.it.level) == self.high + self.critical
        assert change == (None if before is self.it.level else LevelChange(before, self.it.level))


TestLevelsMachine = LevelsMachine.TestCase
TestLevelsMachine.settings = settings(max_examples=50, stateful_step_count=50)
