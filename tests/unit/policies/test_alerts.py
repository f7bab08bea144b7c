"""Alerts are raised and called off in turn, each after its time."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.kernel.errors import Invalid
from penstock.policies.alerts import (
    ALERT_RULES,
    HISTORY_MAX,
    TRACKED_SUBJECTS_MAX,
    AlertRule,
    AlertTracker,
    Measure,
    RaisedAlert,
    Severity,
    Timestamp,
)

BY_NAME = {one.name: one for one in ALERT_RULES}
WALL_S = 1_700_000_000.0


def rule_of(**values: object) -> AlertRule:
    given = {"threshold": 10.0, "clear_below": 5.0, "keep_firing_s": 3.0, "detail": "{subject} at {value:.0f}"} | values
    return AlertRule("test", Severity.WARNING, Measure.TASKS, **given)  # type: ignore[arg-type]


def at(now_s: float) -> Timestamp:
    return Timestamp(now_s, WALL_S + now_s)


def course(one: AlertRule, *values: float, step_s: float = 1.0) -> list[tuple[float, bool]]:
    """Return when, in seconds, the alert was raised (true) or called off (false)."""
    it, seen = AlertTracker(), []
    for number, value in enumerate(values):
        change = it.observe(one, "x", value, at(number * step_s))
        if change is not None:
            seen.append((number * step_s, change.active))
    return seen


@pytest.mark.parametrize(
    ("name", "quiet", "raises", "calls_off"),
    [
        ("queue_filling", 0.80, 0.801, 0.699),
        ("queue_full", 0.95, 0.951, 0.849),
        ("many_tasks", 10_000, 10_001, 8_999),
        ("breaker_open", 1, 2, 0),
        ("memory_short", 0.899, 0.90, 0.849),
        ("loop_late", 0.25, 0.251, 0.099),
        ("quality_reduced", 2, 3, 2),
    ],
)
def test_the_servers_rules_hold_where_the_specification_says(name, quiet, raises, calls_off) -> None:
    one = BY_NAME[name]
    assert course(one, *[quiet] * 200) == []
    assert course(one, *[raises] * 200) == [(one.for_s, True)]
    assert course(one, *[raises] * 100, *[one.clear_below] * 100) == [(one.for_s, True)]
    assert course(one, *[raises] * 100, *[calls_off] * 100) == [(one.for_s, True), (100 + one.keep_firing_s, False)]


def test_severities_are_those_of_the_specification() -> None:
    critical = {one.name for one in ALERT_RULES if one.severity is Severity.CRITICAL}
    assert critical == {"queue_full", "breaker_open", "memory_short"}
    assert len(BY_NAME) == len(ALERT_RULES)


def test_how_long_a_condition_must_last_is_the_specifications() -> None:
    lasting = {one.name: one.for_s for one in ALERT_RULES if one.for_s}
    assert lasting == {"loop_late": 10, "quality_reduced": 60}


def test_a_break_begins_the_time_before_raising_anew() -> None:
    assert course(rule_of(for_s=3), 11, 11, 11, 10, 11, 11, 11, 11, 11) == [(7, True)]


def test_a_value_that_is_not_above_its_bound_is_not_near_an_alert() -> None:
    assert course(rule_of(), 10, 10, 10) == []
    assert course(rule_of(inclusive=True), 10) == [(0, True)]


def test_it_is_called_off_only_after_the_value_has_been_below_clear_for_the_hold_time() -> None:
    assert course(rule_of(), 11, 4, 4, 4, 4, 4) == [(0, True), (4, False)]
    assert course(rule_of(), 11, 4, 4, 5, 4, 4, 4, 4) == [(0, True), (7, False)]
    assert course(rule_of(keep_firing_s=0), 11, 5, 4, 11) == [(0, True), (2, False), (3, True)]


def test_what_is_no_number_changes_nothing() -> None:
    assert course(rule_of(for_s=2), 11, math.nan, 11, math.nan, 4, math.nan, 4, 4, 4) == [(2, True), (7, False)]


def test_subjects_are_told_apart_and_an_alert_tells_what_it_is() -> None:
    it, one = AlertTracker(), rule_of()
    assert it.observe(one, "b", 4, at(0)) is None
    raised = it.observe(one, "a", 12, at(0))
    assert raised == RaisedAlert(one, "a", 12, at(0))
    assert raised.detail == "a at 12"
    it.observe(one, "b", 11, at(1))
    assert [alert.subject for alert in it.active()] == ["b", "a"]
    assert it.subjects(one) == ["a", "b"]
    assert it.subjects(ALERT_RULES[0]) == []
    for now_s in (2, 5):
        it.observe(one, "a", 0, at(now_s))
    assert repr(it) == "<AlertTracker 1 active, 1 called off>"
    (ended,) = it.resolved()
    assert (ended.since, ended.until, ended.active, ended.value) == (at(0), at(5), False, 12)


def test_every_rules_sentence_can_be_told() -> None:
    for one in ALERT_RULES:
        assert "{" not in RaisedAlert(one, "x", 0.9, at(0)).detail


def test_the_history_keeps_the_latest() -> None:
    it, one = AlertTracker(), rule_of(keep_firing_s=0)
    for number in range(HISTORY_MAX + 7):
        it.observe(one, str(number), 11, at(number))
        it.observe(one, str(number), 0, at(number))
    assert [alert.subject for alert in it.resolved()] == [str(n) for n in range(HISTORY_MAX + 6, 6, -1)]


def test_subjects_beyond_the_bound_are_counted_and_get_a_place_when_one_is_free() -> None:
    it, one = AlertTracker(), rule_of(keep_firing_s=0)
    for number in range(TRACKED_SUBJECTS_MAX):
        assert it.observe(one, str(number), 11, at(0)) is not None
    assert it.observe(one, "late", 11, at(0)) is None
    assert it.observe(one, "calm", 1, at(0)) is None
    assert it.dropped == 1
    assert it.observe(one, "0", 1, at(1)) is not None
    assert it.observe(one, "late", 11, at(1)) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"clear_below": 11.0},
        {"clear_below": math.nan},
        {"for_s": -1.0},
        {"keep_firing_s": -1.0},
        {"keep_firing_s": math.nan},
    ],
)
def test_contradictory_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        rule_of(**wrong)


class AlertsMachine(RuleBasedStateMachine):
    """Reference: the whole course of values of each rule and subject, judged anew each time."""

    RULES = (
        AlertRule("now", Severity.WARNING, Measure.QUEUE, 7, 3, 2, "{subject}"),
        AlertRule("later", Severity.CRITICAL, Measure.QUEUE, 8, 8, 0, "{subject}", for_s=3, inclusive=True),
        AlertRule("slow", Severity.CRITICAL, Measure.TASKS, 5, 4, 5, "{subject}", for_s=1),
    )

    def __init__(self) -> None:
        super().__init__()
        self.it = AlertTracker()
        self.now_s = 0.0
        self.courses: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self.told: dict[tuple[str, str], list[bool]] = {}

    @rule(seconds=st.integers(0, 4))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @rule(one=st.sampled_from(ALERT_RULES), subject=st.sampled_from("ab"), value=st.integers(0, 10))
    def observe(self, one: AlertRule, subject: str, value: int) -> None:
        key = one.name, subject
        active = (self.told.get(key) or [False])[-1]
        past = self.courses.setdefault(key, [])
        past.append((self.now_s, value))
        change = self.it.observe(one, subject, value, at(self.now_s))
        turned = self._lasted_s(past, one, active=active)
        assert (change is not None) == (turned is not None and turned >= (one.keep_firing_s if active else one.for_s))
        if change is not None:
            assert change.active is not active
            self.told.setdefault(key, []).append(change.active)
            past.clear()

    def _lasted_s(self, past: list[tuple[float, float]], one: AlertRule, *, active: bool) -> float | None:
        """Return for how long the value has spoken against the present state."""
        against = [value < one.clear_below if active else one.above(value) for _, value in past]
        if not against[-1]:
            return None
        first = len(against) - next((n for n, yes in enumerate(reversed(against)) if not yes), len(against))
        return self.now_s - past[first][0]

    @invariant()
    def raised_and_called_off_alternate(self) -> None:
        for course in self.told.values():
            assert course == [number % 2 == 0 for number in range(len(course))]

    @invariant()
    def what_is_active_is_what_was_raised_last(self) -> None:
        active = {(alert.rule.name, alert.subject) for alert in self.it.active()}
        assert active == {key for key, course in self.told.items() if course[-1]}
        assert all(not alert.active for alert in self.it.resolved())


TestAlertsMachine = AlertsMachine.TestCase
TestAlertsMachine.settings = settings(max_examples=60, stateful_step_count=50)
