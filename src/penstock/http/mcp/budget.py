"""Size of an answer in tokens: how much of it an agent is sent at once. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

#: Bytes of UTF-8 to a token. Code has between 3 and 4, prose more; whose model it is, the server does not know.
BYTES_PER_TOKEN: Final = 3

#: Bytes of a snippet that are shown however small the budget is.
SNIPPET_BYTES_MIN: Final = 300


def token_count(size: int) -> int:
    """Return about how many tokens so many bytes are, rather too many than too few."""
    return -(-size // BYTES_PER_TOKEN)


def count_fitting(items: Sequence[T], cost: Callable[[T], int], tokens: int) -> int:
    """Return how many of the items, from the first on, cost no more than ``tokens`` together."""
    for place, item in enumerate(items):
        tokens -= cost(item)
        if tokens < 0:
            return place
    return len(items)


def cut_text(text: str, bytes_max: int) -> str:
    """Return the beginning of a text: whole lines where one fits, else a part of the first."""
    data = text.encode("utf-8", "replace")
    if len(data) <= bytes_max:
        return text
    begin = data[:bytes_max]
    end = begin.rfind(b"\n")
    return (begin[:end] if end > 0 else begin).decode("utf-8", "ignore")
