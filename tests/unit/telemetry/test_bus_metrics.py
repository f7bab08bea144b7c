"""What is measured about topics: waits, slack, service times, bursts."""

from penstock.bus.counters import BusObserver
from penstock.kernel.context import Context, Deadline
from penstock.policies.levels import Level
from penstock.telemetry.bus_metrics import TOPICS_MAX, WINDOW_S, BusMetrics
from penstock.telemetry.metrics import Metrics


class Hand:
    """A clock moved by hand."""

    def __init__(self, now_s=1000.0):
        self.now_s = now_s

    def now(self):
        return self.now_s


def exposed(bus_metrics):
    metrics = Metrics()
    metrics.register_histograms(bus_metrics.histograms)
    metrics.register_callbacks(bus_metrics.callback_metrics())
    return lambda name, **labels: metrics.registry.get_sample_value(name, labels)


def test_it_is_what_a_bus_wants_as_its_observer():
    observer: BusObserver = BusMetrics(Hand())
    observer.started("t", Context.background(), 0.0)


def test_waits_slack_and_service_times_are_told_apart_by_topic():
    it = BusMetrics(Hand())
    value = exposed(it)
    it.started("ml.embed", Context(Deadline(1004.0, "search")), 0.25)
    it.started("ml.embed", Context(Deadline(1001.0, "search")), 0.75)
    it.started("search.request", Context(Deadline(1009.0, "search")), 0.0)
    it.ended("ml.embed", 0.5)
    assert value("event_bus_wait_seconds_sum", topic="ml.embed") == 1.0
    assert value("event_bus_slack_seconds_sum", topic="ml.embed") == 5.0
    assert value("event_bus_slack_seconds_count", topic="search.request") == 1
    assert value("event_bus_service_seconds_sum", topic="ml.embed") == 0.5


def test_work_without_a_deadline_has_no_slack_and_work_past_it_has_none_left():
    it = BusMetrics(Hand())
    value = exposed(it)
    it.started("t", Context.background(), 0.1)
    assert value("event_bus_slack_seconds_count", topic="t") == 0
    it.started("t", Context(Deadline(999.0, "search")), 0.1)
    assert value("event_bus_slack_seconds_count", topic="t") == 1
    assert value("event_bus_slack_seconds_sum", topic="t") == 0
    assert value("event_bus_wait_seconds_count", topic="t") == 2


def test_a_burst_between_two_scrapes_is_seen():
    clock, fills = Hand(), {"t": 0.0}
    it = BusMetrics(clock)
    it.sample_fills()
    it.fills = fills.items
    value = exposed(it)
    assert value("event_bus_buffer_used_max", topic="t") is None
    for fills["t"] in (0.2, 0.9, 0.0):
        it.sample_fills()
        clock.now_s += 0.1
    assert value("event_bus_buffer_used_max", topic="t") == 0.9
    clock.now_s += 2 * WINDOW_S
    assert value("event_bus_buffer_used_max", topic="t") == 0


def test_a_crossing_is_looked_at_when_it_happens():
    it = BusMetrics(Hand())
    it.fills = lambda: [("t", 0.83)]
    it.on_level("t", Level.HIGH)
    assert exposed(it)("event_bus_buffer_used_max", topic="t") == 0.83


def test_rises_to_a_level_are_counted_and_falls_are_not():
    it = BusMetrics(Hand())
    value = exposed(it)
    for level in (Level.HIGH, Level.CRITICAL, Level.HIGH, Level.CALM, Level.CRITICAL, Level.CALM):
        it.on_level("t", level)
    assert value("event_bus_level_reached_total", topic="t", level="high") == 2
    assert value("event_bus_level_reached_total", topic="t", level="critical") == 2
    assert value("event_bus_level_reached_total", topic="t", level="calm") is None


def test_any_number_of_topics_takes_up_bounded_room():
    it = BusMetrics(Hand())
    names = [f"topic.{number}" for number in range(3 * TOPICS_MAX)]
    it.fills = lambda: [(name, 0.5) for name in names]
    for name in names:
        it.started(name, Context.background(), 0.1)
        it.ended(name, 0.1)
        it.on_level(name, Level.HIGH)
    value = exposed(it)
    assert value("event_bus_wait_seconds_count", topic="other") == 2 * TOPICS_MAX
    assert value("event_bus_service_seconds_count", topic="topic.0") == 1
    assert len(it._durations) == len(it._fill_max) == len(it._levels) == TOPICS_MAX
    assert repr(it) == f"<BusMetrics {TOPICS_MAX} topics>"
