"""Metrics go out under the exact names of SPEC §10."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from penstock.kernel.errors import Broken
from penstock.telemetry.histogram import Histograms
from penstock.telemetry.metrics import CONTENT_TYPE, Metrics, runtime_metrics, unlabelled
from tests.clock import virtual


def families(metrics: Metrics) -> dict[str, Family]:
    return {one.name: one for one in text_string_to_metric_families(metrics.exposition().decode())}


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = [sample for family in families(metrics).values() for sample in family.samples]
    return {(one.name, frozenset(one.labels.items())): one.value for one in found}


def of(**labels: str) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


def test_what_is_counted_is_exposed_under_its_name() -> None:
    metrics = Metrics()
    metrics.requests.labels("/v1/search", "POST", "200").inc()
    metrics.latency_s.labels("/v1/search").observe(0.004)
    metrics.refused.labels("rate").inc(2)
    metrics.documents.labels("indexed").inc()
    metrics.chunks.inc(7)
    metrics.searches.labels("false").inc()
    metrics.degraded.labels("none").inc()
    metrics.stage_s.labels("fusion").observe(0.001)
    found = samples(metrics)
    assert found["http_requests_total", of(route="/v1/search", method="POST", status="200")] == 1
    assert found["http_request_seconds_count", of(route="/v1/search")] == 1
    assert found["http_request_seconds_bucket", of(route="/v1/search", le="0.002")] == 0
    assert found["http_request_seconds_bucket", of(route="/v1/search", le="0.005")] == 1
    assert found["requests_refused_total", of(reason="rate")] == 2
    assert found["documents_total", of(status="indexed")] == 1
    assert found["chunks_indexed_total", of()] == 7
    assert found["searches_total", of(degraded="false")] == 1
    assert found["searches_degraded_total", of(what="none")] == 1
    assert found["search_stage_seconds_count", of(stage="fusion")] == 1


def test_gauges_are_read_at_each_scrape() -> None:
    metrics = Metrics()
    active = {"embed": 1, "search": 3}
    metrics.register_callbacks(
        [
            ("worker_pool_active", lambda: [((pool,), count) for pool, count in active.items()]),
            unlabelled("http_concurrent_requests", lambda: 5),
        ]
    )
    assert samples(metrics)["worker_pool_active", of(pool="embed")] == 1
    active["embed"] = 2
    found = samples(metrics)
    assert found["worker_pool_active", of(pool="embed")] == 2
    assert found["worker_pool_active", of(pool="search")] == 3
    assert found["http_concurrent_requests", of()] == 5
    assert families(metrics)["worker_pool_active"].type == "gauge"


def test_a_renamed_metric_is_exported_under_its_former_name_as_well() -> None:
    metrics = Metrics()
    metrics.register_callbacks([("http_responses_total", lambda: [(("true",), 3.0)])])
    found = samples(metrics)
    assert found["http_responses_total", of(in_time="true")] == 3
    assert found["http_answers_total", of(in_time="true")] == 3
    assert families(metrics)["http_answers"].documentation == "Former name of http_responses_total"


def test_counters_read_at_scrape_are_counters_and_may_have_two_labels() -> None:
    metrics = Metrics()
    metrics.register_callbacks(
        [("event_bus_messages_total", lambda: [(("ml.embed", "answered"), 3), (("ml.embed", "left"), 1)])]
    )
    assert samples(metrics)["event_bus_messages_total", of(topic="ml.embed", outcome="answered")] == 3
    assert b"# TYPE event_bus_messages_total counter\n" in metrics.exposition()
    assert metrics.registry.get_sample_value("event_bus_messages_total", {"topic": "ml.embed", "outcome": "left"}) == 1


@pytest.mark.parametrize("name", ["made_up", "event_bus_wait_seconds"])
def test_what_the_catalogue_does_not_have_so_cannot_be_read(name: str) -> None:
    with pytest.raises(Broken, match=name):
        Metrics().register_callbacks([unlabelled(name, lambda: 1)])


def test_a_counter_of_one_label_tells_its_counts() -> None:
    metrics = Metrics()
    assert metrics.counts_by_label(metrics.refused) == {}
    metrics.refused.labels("draining").inc(3)
    metrics.refused.labels("rate_limited").inc()
    assert metrics.counts_by_label(metrics.refused) == {"draining": 3, "rate_limited": 1}


def test_label_values_and_numbers_of_any_kind_come_back_as_they_were() -> None:
    metrics = Metrics()
    odd = 'a "quoted"\\ back\nslash, and é'
    numbers = {odd: 1e-7, "big": 12345678901234567890.0, "inf": float("inf"), "negative": -0.5}
    metrics.register_callbacks([("cache_bytes", lambda: [((cache,), number) for cache, number in numbers.items()])])
    found = samples(metrics)
    assert {cache: found["cache_bytes", of(cache=cache)] for cache in numbers} == numbers


def test_numbers_that_are_none_are_written_as_prometheus_has_them() -> None:
    metrics = Metrics()
    values = (float("inf"), float("-inf"), float("nan"), 3, 0.1, 1e300)
    metrics.register_callbacks(
        [("cache_bytes", lambda: [((str(number),), value) for number, value in enumerate(values)])]
    )
    lines = [line for line in metrics.exposition().decode().splitlines() if line.startswith("cache_bytes")]
    assert [line.split()[1] for line in lines] == ["+Inf", "-Inf", "NaN", "3", "0.1", "1e+300"]


def test_labels_stand_in_the_order_of_their_names() -> None:
    metrics = Metrics()
    metrics.requests.labels("/v1/search", "POST", "200").inc()
    assert b'http_requests_total{method="POST",route="/v1/search",status="200"} 1.0\n' in metrics.exposition()


def test_lines_that_only_say_when_a_series_began_are_left_out() -> None:
    metrics = Metrics()
    metrics.chunks.inc()
    assert b"_created" not in metrics.exposition()


@virtual
async def test_tasks_and_threads_are_counted_apart_and_together() -> None:
    metrics = Metrics()
    metrics.register_callbacks(runtime_metrics())
    others = [asyncio.create_task(asyncio.Event().wait()) for _ in range(2)]
    found = samples(metrics)
    threads = threading.active_count()
    assert found["task_count", of()] == 3
    assert found["thread_count", of()] == threads
    assert found["goroutine_count", of()] == 3 + threads
    for task in others:
        task.cancel()


def test_outside_a_loop_there_are_no_tasks() -> None:
    metrics = Metrics()
    metrics.register_callbacks(runtime_metrics())
    assert samples(metrics)["task_count", of()] == 0


def test_two_sets_of_metrics_share_nothing() -> None:
    first, second = Metrics(), Metrics()
    first.chunks.inc()
    first.latency_s.labels("/").observe(1)
    assert samples(second)["chunks_indexed_total", of()] == 0
    assert ("http_request_seconds_count", of(route="/")) not in samples(second)


def test_histograms_of_others_are_exposed_beside_its_own() -> None:
    metrics, waits = Metrics(), Histograms("event_bus_wait_seconds")
    metrics.register_histograms([waits])
    waits.labels("ml.embed").observe(0.3)
    assert samples(metrics)["event_bus_wait_seconds_sum", of(topic="ml.embed")] == 0.3


@pytest.mark.parametrize("name", sorted(vars(Metrics())))
def test_every_metric_is_documented(name: str) -> None:
    assert re.search(rf"^\s+{name}: ", Metrics.__doc__ or "", re.MULTILINE)


def test_the_content_type_is_prometheus_text() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
