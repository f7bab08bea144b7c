"""The time for a document grows with it, and no faster, whatever it is made of.

Grammars are held to their bounds in ``tests/contract/test_chunker_process.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import pytest

from penstock.indexing.chunk import Chunk

Cut = Callable[..., list[Chunk]]

SMALL: Final = 40_000
TIMES: Final = 4
#: Four times the text may take eight times as long: quadratic work takes sixteen times.
GROWTH_MAX: Final = 2.0 * TIMES
#: What is quicker is not worth comparing.
SECONDS_MIN: Final = 0.05

FAMILIES: Final[dict[str, Callable[[int], str]]] = {
    "spaces in a heading": lambda size: "# a" + " " * size + "b",
    "hashes": lambda size: "# a" + " #" * (size // 2) + "b",
    "brackets": lambda size: "# " + "[" * size,
    "pictures": lambda size: "# " + "![" * (size // 2),
    "links": lambda size: "# " + "[a](" * (size // 4),
    "tags": lambda size: "# " + "<" * size,
    "names": lambda size: "# " + "{#" * (size // 2),
    "fences": lambda size: "```a\n" * (size // 5),
    "open fences": lambda size: "".join(f"{'`' * (3 + number % 50)}\n" for number in range(size // 30)),
    "rules": lambda size: "a\n===\n" * (size // 6),
    "dashes": lambda size: "-" * size,
    "front matter": lambda size: "---\n" + "a: b\n" * (size // 5),
    "roles": lambda size: f"{':' * size}\n{'=' * size}\n",
    "open roles": lambda size: f"{':a:`' * (size // 4)}\n{'=' * size}\n",
    "levels": lambda size: "".join(f"t{n}\n{'=-~^+*#'[n % 7] * 8}\n\nx\n\n" for n in range(size // 20)),
    "a long title": lambda size: f"{'t' * (size // 2)}\n{'=' * (size // 2)}\n\n" + "u\n---\n\nx\n\n" * (size // 20),
    "blank lines": lambda size: "x" + "\n" * size + "y",
    "short lines": lambda size: "a\n" * (size // 2),
    "one word": lambda size: "x" * size,
    "signs": lambda size: "(" * size,
    "marks": lambda size: "\u0301" * size,
    "words": lambda size: "ab " * (size // 3),
}


def _seconds(cut: Cut, text: str, language: str) -> float:
    started = time.thread_time()
    cut(text, language)
    return time.thread_time() - started


@pytest.mark.slow
@pytest.mark.parametrize("language", ["markdown", "rst", "text"])
@pytest.mark.parametrize("family", FAMILIES)
def test_time_grows_with_the_text_alone(cut: Cut, family: str, language: str) -> None:
    small = min(_seconds(cut, FAMILIES[family](SMALL), language) for _ in range(2))
    large = min(_seconds(cut, FAMILIES[family](SMALL * TIMES), language) for _ in range(2))
    assert large < max(GROWTH_MAX * small, SECONDS_MIN)


@pytest.mark.parametrize("language", ["markdown", "rst", "text"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_chunks_take_a_few_times_the_text(cut: Cut, family: str, language: str) -> None:
    text = FAMILIES[family](SMALL)
    assert sum(len(chunk.text) + len(chunk.symbol) for chunk in cut(text, language)) < 8 * len(text)


def test_a_text_over_the_bound_is_cut_by_its_lines_with_their_numbers(cut: Cut) -> None:
    lines = [f"line {number} of a text that is long" for number in range(40_000)]
    lines[20_000] = "w" * 600_000
    chunks = cut("\n".join(lines), "python")
    shown = lines[:20_000] + lines[20_001:]
    assert "\n".join(chunk.text for chunk in chunks if "w" not in chunk.text) == "\n".join(shown)
    assert {chunk.start_line for chunk in chunks if "w" in chunk.text} == {20_001}
    assert sum(len(chunk.text) for chunk in chunks if "w" in chunk.text) == 600_000
    assert all(
        lines[chunk.start_line - 1].startswith(chunk.text.split("\n")[0]) for chunk in chunks if "w" not in chunk.text
    )
    assert chunks[-1].end_line == len(lines)
