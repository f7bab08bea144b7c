"""Batching of texts: groups of similar length under a token budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SLICE_TOKENS_MAX = 448
"""Tokens that one thread processes before it checks for more urgent work. Measured with int8,
one thread a call and both cores of the reference machine busy: 384 tokens take 25 ms (p95 34), 512
take 41 ms (p95 51). Without VNNI they
take about twice that; queries do not wait there either, because bulk work yields to them."""

ONE_TEXT = 0
"""The budget with which every text is a group of its own.

A processor runs each text alone. Its eight-bit activations share one scale in a run, so that a vector would depend on
the texts beside it: cosines to itself down to .944. Runs of several texts are no faster: 121 to 151 chunks/s alone,
115 to 149 in runs of 512 padded tokens (two threads of one core each, 158 tokens a chunk)."""


def plan_batches(lengths: Sequence[int], tokens_max: int, padding_max: int | None = None) -> list[list[int]]:
    """Group texts by falling length under a budget of padded tokens.

    Args:
        lengths: Tokens of each text.
        tokens_max: Most padded tokens (longest times count) of a group; a text over it gets a group
            of its own.
        padding_max: Most padding in a group; no limit if ``None``.

    Returns:
        Groups of positions in ``lengths``; every position exactly once, none empty.
    """
    padding_max = tokens_max if padding_max is None else padding_max
    groups: list[list[int]] = []
    longest = padding = 0
    for position in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[position]
        gap = longest - length
        if groups and (len(groups[-1]) + 1) * longest <= tokens_max and padding + gap <= padding_max:
            groups[-1].append(position)
            padding += gap
        else:
            groups.append([position])
            longest, padding = length, 0
    return groups
