"""Alarms tell each change once: to the log, the metrics and whoever listens."""

import logging

import pytest

from penstock.policies.alerts import ALERT_RULES, Measure
from penstock.telemetry.alert_monitor import AlertMonitor
from penstock.telemetry.metrics import Metrics

WALL_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z


class House:
    """Everything that is measured, and both clocks."""

    def __init__(self):
        self.now_s = 1000.0
        self.values = {measure: {} for measure in Measure}
        self.told = []
        sources = {measure: lambda measure=measure: self.values[measure].items() for measure in Measure}
        self.alarms = AlertMonitor(sources, self, wall_clock=lambda: WALL_S + self.now_s - 1000)
        self.alarms.on_change = self.told.append
        self.metrics = Metrics()
        self.metrics.register_callbacks(self.alarms.callback_metrics())

    def now(self):
        return self.now_s

    def pass_s(self, seconds):
        for _ in range(seconds):
            self.now_s += 1
            self.alarms.evaluate()

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def house():
    return House()


def test_an_alert_is_told_when_raised_and_when_called_off_with_wall_times(house):
    house.values[Measure.QUEUE] = {"search.request": 0.9, "ml.embed": 0.5}
    house.alarms.evaluate()
    assert house.told == house.alarms.alerts()
    (raised,) = house.told
    assert (raised.rule.name, raised.subject, raised.since.wall_s) == ("queue_filling", "search.request", WALL_S)
    assert (raised.detail, raised.active) == ("topic search.request is 90% full", True)
    house.values[Measure.QUEUE] = {"search.request": 0.1, "ml.embed": 0.5}
    house.pass_s(60)
    assert len(house.told) == 2
    assert house.told[1:] == house.alarms.alerts()
    ended = house.told[1]
    assert (ended.active, ended.since.wall_s, ended.until.wall_s) == (False, WALL_S, WALL_S + 11)


def test_each_change_is_logged_as_loudly_as_it_deserves(house, caplog):
    caplog.set_level("INFO")
    house.values[Measure.QUEUE] = {"ml.embed": 0.99}
    house.alarms.evaluate()
    house.values[Measure.QUEUE] = {"ml.embed": 0.0}
    house.pass_s(60)
    levels = [(record.levelno, record.alert, record.subject) for record in caplog.records]
    assert levels == [
        (logging.WARNING, "queue_filling", "ml.embed"),
        (logging.ERROR, "queue_full", "ml.embed"),
        (logging.INFO, "queue_filling", "ml.embed"),
        (logging.INFO, "queue_full", "ml.embed"),
    ]
    assert caplog.records[1].message == "alert: topic ml.embed is 99% full; requests for it are refused"
    assert caplog.records[2].message.startswith("alert resolved: ")


def test_what_is_active_and_how_often_it_was_raised_is_counted(house):
    assert house.value("alerts_active", severity="critical") == 0
    assert house.value("alerts_raised_total", alert="breaker_open", severity="critical") == 0
    for state in (2, 0, 2):
        house.values[Measure.BREAKER] = {"store": float(state), "redis": 0.0}
        house.pass_s(20)
    assert house.value("alerts_active", severity="critical") == 1
    assert house.value("alerts_active", severity="warning") == 0
    assert house.value("alerts_raised_total", alert="breaker_open", severity="critical") == 2
    assert repr(house.alarms) == "<AlertMonitor on 6 measures, <AlertTracker 1 active, 1 called off>>"


def test_active_ones_are_listed_first_then_those_called_off_the_newest_first(house):
    for second, topic in enumerate(("a", "b", "c")):
        house.values[Measure.QUEUE][topic] = 0.9
        house.pass_s(1 + second)
    house.values[Measure.QUEUE].update(a=0, b=0)
    house.pass_s(20)
    house.values[Measure.TASKS] = {"": 20_000}
    house.pass_s(1)
    assert [(r.rule.name, r.subject, r.active) for r in house.alarms.alerts()] == [
        ("many_tasks", "", True),
        ("queue_filling", "c", True),
        ("queue_filling", "b", False),
        ("queue_filling", "a", False),
    ]


def test_looking_on_demand_as_often_as_one_likes_changes_no_durations(house):
    house.values[Measure.LOOP_LAG] = {"": 0.5}
    for _ in range(100):
        house.alarms.evaluate()
    assert house.told == []
    house.pass_s(10)
    assert [record.rule.name for record in house.told] == ["loop_late"]
    assert house.told[0].detail == "the event loop is 0.50 s late"


def test_a_subject_that_is_named_no_more_is_calm_after_the_hold_time(house):
    house.values[Measure.BREAKER] = {"store": 2.0}
    house.alarms.evaluate()
    house.values[Measure.BREAKER] = {}
    house.pass_s(5)
    assert [record.active for record in house.told] == [True]
    house.pass_s(20)
    assert [record.active for record in house.told] == [True, False]
    assert house.alarms.alerts()[0].subject == "store"


def test_a_source_that_fails_is_logged_once_and_leaves_the_others_alone(house, caplog):
    works = False

    def source():
        if not works:
            raise OSError("no such file")
        return [("", 0.99)]

    told = []
    alarms = AlertMonitor({Measure.MEMORY: source, Measure.TASKS: lambda: [("", 20_000)]}, house)
    alarms.on_change = told.append
    alarms.evaluate()
    alarms.evaluate()
    failures = [record for record in caplog.records if record.exc_info]
    assert [record.measure for record in failures] == ["memory"]
    assert [record.rule.name for record in told] == ["many_tasks"]
    works = True
    alarms.evaluate()
    assert [record.rule.name for record in told] == ["many_tasks", "memory_short"]
    works = False
    alarms.evaluate()
    assert len([record for record in caplog.records if record.exc_info]) == 2
    assert [record.active for record in alarms.alerts()] == [True, True]


def test_a_measure_without_a_source_is_not_watched_and_nobody_has_to_listen(house):
    alarms = AlertMonitor({Measure.TASKS: lambda: [("", 20_000.0)]}, house)
    alarms.evaluate()
    assert [record.rule.name for record in alarms.alerts()] == ["many_tasks"]


def test_an_event_has_fields_of_the_apis_answer_and_each_measure_has_a_rule():
    from penstock.http.responses import AlertStatus
    from penstock.kernel.messages import AlertTriggered

    assert set(AlertTriggered.__slots__) < set(AlertStatus.__struct_fields__)
    assert {rule.measure for rule in ALERT_RULES} == set(Measure)
