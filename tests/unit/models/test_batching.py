"""Properties of the sub-batch plan."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from penstock.models.batching import plan_batches

LENGTHS = st.lists(st.integers(0, 300), max_size=200)


@given(LENGTHS, st.integers(0, 1024), st.none() | st.integers(0, 64))
def test_every_text_is_planned_once_within_the_budgets(
    lengths: list[int], tokens_max: int, padding_max: int | None
) -> None:
    groups = plan_batches(lengths, tokens_max, padding_max)
    assert sorted(position for group in groups for position in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[position] for position in group)
        assert len(group) == 1 or longest * len(group) <= tokens_max
        padding = sum(longest - lengths[position] for position in group)
        assert padding <= (tokens_max if padding_max is None else padding_max)


@given(LENGTHS, st.integers(0, 1024))
def test_groups_fall_in_length(lengths: list[int], tokens_max: int) -> None:
    order = [lengths[position] for group in plan_batches(lengths, tokens_max) for position in group]
    assert order == sorted(order, reverse=True)


@given(st.lists(st.integers(1, 300), max_size=200))
def test_no_two_neighbouring_groups_would_fit_in_one(lengths: list[int]) -> None:
    groups = plan_batches(lengths, 512)
    for first, second in pairwise(groups):
        assert (len(first) + len(second)) * lengths[first[0]] > 512


def test_equal_texts_keep_their_order() -> None:
    assert plan_batches([5, 5, 5, 5, 5], 10) == [[0, 1], [2, 3], [4]]
