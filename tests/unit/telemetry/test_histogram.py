"""Histograms are Prometheus' own, and bounded."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.histogram import (
    DURATION_BUCKETS_S,
    OTHER,
    SERIES_MAX,
    Histogram,
    Histograms,
)

BOUNDS = (0.1, 1.0, 10.0)


def lines(histograms):
    return {(s.name, tuple(s.labels.items())): s.value for s in histograms.family().samples}


@given(st.lists(st.floats(0, 100)))
def test_each_value_counts_in_every_bucket_it_fits_into(values):
    histograms = Histograms("event_bus_wait_seconds", BOUNDS)
    for value in values:
        histograms.labels("t").observe(value)
    found = lines(histograms) or {("event_bus_wait_seconds_count", (("topic", "t"),)): 0}
    for text, bound in (("0.1", 0.1), ("1.0", 1.0), ("10.0", 10.0), ("+Inf", math.inf)):
        expected = sum(value <= bound for value in values)
        assert found.get(("event_bus_wait_seconds_bucket", (("topic", "t"), ("le", text))), 0) == expected
    assert found["event_bus_wait_seconds_count", (("topic", "t"),)] == len(values)
    assert found.get(("event_bus_wait_seconds_sum", (("topic", "t"),)), 0) == pytest.approx(sum(values))


def test_a_value_equal_to_a_bound_is_below_it():
    histogram = Histogram(BOUNDS)
    for value in BOUNDS:
        histogram.observe(value)
    assert histogram.counts == [1, 1, 1, 0]
    assert repr(histogram) == "<Histogram 3 values, sum 11.1>"


def test_series_beyond_the_bound_are_counted_as_one():
    histograms = Histograms("event_bus_wait_seconds")
    for number in range(SERIES_MAX + 10):
        histograms.labels(f"topic.{number}").observe(1)
    found = lines(histograms)
    assert found["event_bus_wait_seconds_count", (("topic", f"topic.{SERIES_MAX - 1}"),)] == 1
    assert found["event_bus_wait_seconds_count", (("topic", OTHER),)] == 10
    assert len(histograms._series) == len(histograms._shown) == SERIES_MAX + 1
    assert repr(histograms) == f"<Histograms event_bus_wait_seconds {SERIES_MAX + 1} series>"


def test_a_series_goes_on_counting_from_scrape_to_scrape():
    histograms = Histograms("event_loop_lag_seconds", BOUNDS)
    for scrape in (1, 2):
        histograms.labels().observe(0.5)
        family = histograms.family()
        assert family.type == "histogram"
        assert [s.value for s in family.samples] == [0, scrape, scrape, scrape, scrape, scrape * 0.5]


def test_the_time_a_body_takes_is_taken_in_even_if_it_fails():
    histogram = Histogram(DURATION_BUCKETS_S)
    with histogram.time():
        pass
    with pytest.raises(ZeroDivisionError), histogram.time():
        raise ZeroDivisionError
    assert sum(histogram.counts) == 2
    assert 0 < histogram.sum < 1
