"""Payloads of hits, read up to a number of bytes."""

from __future__ import annotations

from penstock.stores.data_model import ChunkPayload
from penstock.stores.program_runner import FIRST_BATCH_POINTS, HitPayloadReader, estimate_payload_bytes


def payload(number: int, size: int) -> ChunkPayload:
    return ChunkPayload(str(number), 0, "x" * size)


def read(sizes: list[int], bytes_max: int) -> tuple[HitPayloadReader[int], list[int]]:
    """Read points of these sizes; return the reading and how many points each step read."""
    reading = HitPayloadReader(range(len(sizes)), bytes_max)
    steps = []
    while points := reading.next_batch():
        steps.append(len(points))
        reading.add({point: payload(point, sizes[point]) for point in points if sizes[point]})
    return reading, steps


def test_ordinary_hits_are_read_in_one_step_or_two() -> None:
    assert read([100] * 10, 1_000_000)[1] == [10]
    reading, steps = read([100] * 1000, 1_000_000)
    assert steps == [FIRST_BATCH_POINTS, 1000 - FIRST_BATCH_POINTS]
    assert (list(reading.payloads), reading.truncated) == (list(range(1000)), False)


def test_an_answer_ends_before_the_hit_that_does_not_fit() -> None:
    reading, steps = read([1000] * 1000, 200_000)
    assert 190 <= len(reading.payloads) <= 200
    assert list(reading.payloads) == list(range(len(reading.payloads)))
    assert reading.truncated
    assert sum(steps) <= 201


def test_the_best_hit_is_told_whatever_its_size() -> None:
    reading, _ = read([10_000, 10], 100)
    assert (list(reading.payloads), reading.truncated) == ([0], True)


def test_points_that_are_gone_take_nothing() -> None:
    reading, _ = read([0] * FIRST_BATCH_POINTS + [50, 0, 50], 1000)
    assert (len(reading.payloads), reading.truncated) == (2, False)


def test_metadata_counts_as_it_is_written() -> None:
    assert (
        estimate_payload_bytes(ChunkPayload("id", 0, "text", "p", symbol="s", metadata={"a": [1, 2]}))
        == 2 + 4 + 1 + 1 + 11
    )
