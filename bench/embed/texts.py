"""Texts to embed, cut from the standard library of the Python that runs this: read in place, nothing is copied."""

from __future__ import annotations

import random
import re
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

#: Characters of a text: log-normal, so that there are short ones, many of some eighty tokens, and some that are cut.
CHARACTERS_TYPICAL: Final = 270.0
SPREAD: Final = 0.9
CHARACTERS_MIN, CHARACTERS_MAX = 16, 1600
QUERY_WORDS: Final = 7
SOURCE_CHARACTERS: Final = 4_000_000


def library(characters_max: int = SOURCE_CHARACTERS) -> str:
    """Return the modules of the standard library one after the other, in the order of their names."""
    found, size = [], 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        found.append(path.read_text("utf-8", errors="replace"))
        size += len(found[-1])
        if size >= characters_max:
            break
    return "".join(found)


def mixed(whole: str, count: int, seed: int = 0) -> list[str]:
    """Return pieces of very different lengths, in no order."""
    dice = random.Random(seed)
    sizes = [
        int(min(max(CHARACTERS_TYPICAL * dice.lognormvariate(0.0, SPREAD), CHARACTERS_MIN), CHARACTERS_MAX))
        for _ in range(count)
    ]
    return [_piece(whole, size, dice) for size in sizes]


def even(
    whole: str, count: int, tokens: int, measure: Callable[[Sequence[str]], list[int]], seed: int = 0
) -> list[str]:
    """Return pieces of about ``tokens`` tokens each: peers lose nothing to padding.

    Args:
        whole: What they are cut from.
        count: How many.
        tokens: Tokens of each.
        measure: Counts the tokens of texts.
        seed: Of the places.
    """
    dice = random.Random(seed)
    pieces = []
    for _ in range(count):
        piece = _piece(whole, tokens * 8, dice)
        share = tokens / max(1, measure([piece])[0])
        pieces.append(piece[: int(len(piece) * min(1.0, share))])
    return pieces


def queries(whole: str, count: int, seed: int = 0) -> list[str]:
    """Return short questions: words that stand in one line of the library."""
    dice = random.Random(seed)
    lines = [line for line in whole.splitlines() if len(re.findall(r"[A-Za-z]{3,}", line)) >= QUERY_WORDS]
    return [" ".join(re.findall(r"[A-Za-z]{3,}", line)[:QUERY_WORDS]) for line in dice.sample(lines, count)]


def _piece(whole: str, size: int, dice: random.Random) -> str:
    start = dice.randrange(len(whole) - size)
    return whole[start : start + size]
