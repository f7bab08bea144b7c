"""Metrics go out under the exact names of SPEC §10."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.telemetry.metrics import CONTENT_TYPE, Metrics, runtime_readings
from tests.clock import virtual


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def test_what_is_counted_is_exposed_under_its_name() -> None:
    metrics = Metrics()
    metrics.requests.labels("/v1/search", "POST", "200").inc()
    metrics.latency_s.labels("/v1/search").observe(0.004)
    metrics.refused.labels("rate").inc(2)
    metrics.documents.labels("indexed").inc()
    metrics.chunks.inc(7)
    metrics.searches.labels("false").inc()
    metrics.stage_s.labels("fusion").observe(0.001)
    found = samples(metrics)
    route = frozenset({("route", "/v1/search"), ("method", "POST"), ("status", "200")})
    assert found["http_requests_total", route] == 1
    assert found["http_request_seconds_count", frozenset({("route", "/v1/search")})] == 1
    assert found["http_request_seconds_bucket", frozenset({("route", "/v1/search"), ("le", "0.002")})] == 0
    assert found["http_request_seconds_bucket", frozenset({("route", "/v1/search"), ("le", "0.005")})] == 1
    assert found["requests_refused_total", frozenset({("reason", "rate")})] == 2
    assert found["documents_total", frozenset({("status", "indexed")})] == 1
    assert found["chunks_indexed_total", frozenset()] == 7
    assert found["searches_total", frozenset({("degraded", "false")})] == 1
    assert found["search_stage_seconds_count", frozenset({("stage", "fusion")})] == 1


def test_gauges_are_read_at_each_scrape() -> None:
    metrics = Metrics()
    active = {"embed": 1.0, "search": 3.0}
    metrics.read(
        [
            ("worker_pool_active", "Permits held", "pool", active.items),
            ("http_concurrent_requests", "Requests in flight", "", lambda: [("", 5.0)]),
        ]
    )
    assert samples(metrics)["worker_pool_active", frozenset({("pool", "embed")})] == 1
    active["embed"] = 2.0
    found = samples(metrics)
    assert found["worker_pool_active", frozenset({("pool", "embed")})] == 2
    assert found["worker_pool_active", frozenset({("pool", "search")})] == 3
    assert found["http_concurrent_requests", frozenset()] == 5


@virtual
async def test_tasks_and_threads_are_counted_apart_and_together() -> None:
    metrics = Metrics()
    metrics.read(runtime_readings())
    others = [asyncio.create_task(asyncio.Event().wait()) for _ in range(2)]
    found = samples(metrics)
    threads = threading.active_count()
    assert found["task_count", frozenset()] == 3
    assert found["thread_count", frozenset()] == threads
    assert found["goroutine_count", frozenset()] == 3 + threads
    for task in others:
        task.cancel()


def test_outside_a_loop_there_are_no_tasks() -> None:
    metrics = Metrics()
    metrics.read(runtime_readings())
    assert samples(metrics)["task_count", frozenset()] == 0


def test_two_sets_of_metrics_share_nothing() -> None:
    first, second = Metrics(), Metrics()
    first.chunks.inc()
    assert samples(second)["chunks_indexed_total", frozenset()] == 0


@pytest.mark.parametrize("name", sorted(vars(Metrics())))
def test_every_metric_is_documented(name: str) -> None:
    assert name == "registry" or re.search(rf"^\s+{name}: ", Metrics.__doc__ or "", re.MULTILINE)


def test_the_content_type_is_prometheus_text() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
