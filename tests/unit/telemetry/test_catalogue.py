"""The catalogue is well-formed: what it says about a metric, Prometheus can take."""

import re

import pytest

from penstock.kernel.errors import Broken
from penstock.telemetry.catalogue import CATALOGUE, MetricKind, metric_definition

SPECIFIED = {
    "worker_pool_active",
    "worker_pool_queued",
    "event_bus_buffer_used",
    "goroutine_count",
    "task_count",
    "thread_count",
    "http_concurrent_requests",
    "circuit_breaker_state",
}


def test_the_specifications_names_are_in_it():
    assert {one.name for one in CATALOGUE} >= SPECIFIED


def test_no_two_metrics_export_a_line_of_the_same_name():
    lines = [name for one in CATALOGUE for name in one.series]
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize("one", CATALOGUE, ids=lambda one: one.name)
def test_names_follow_the_conventions(one):
    assert re.fullmatch(r"[a-z][a-z_]*[a-z]", one.name)
    assert one.name.endswith("_total") == (one.kind is MetricKind.COUNTER)
    assert one.name.endswith("_seconds") == (one.kind is MetricKind.HISTOGRAM)
    assert all(re.fullmatch(r"[a-z_]+", label) for label in one.labels)
    assert "le" not in one.labels
    assert one.help
    assert not one.help.endswith(".")


def test_a_name_leads_to_its_entry_or_is_refused():
    assert metric_definition("task_count").kind is MetricKind.GAUGE
    with pytest.raises(Broken, match="no 'taskcount'"):
        metric_definition("taskcount")
