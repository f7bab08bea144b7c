"""An attack, what it should get, and what it got."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.hostile.target import Target


@dataclass(frozen=True, slots=True)
class Got:
    """What an attack got.

    Attributes:
        said: The answer, or what became of the server, in a few words.
        kept: Whether that is what was promised.
        sent_bytes: Size of what was sent, which bounds the memory that it may take.
    """

    said: str
    kept: bool
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Attack:
    """Input made to hurt.

    Attributes:
        row: The promise that it tries, by its number in ``docs/spec.md``.
        name: What is sent.
        expected: What should come of it.
        act: Sends it.
        watched: Whether the loop, the memory and other callers are watched meanwhile. Not for an attack that has
            a server of its own.
        flood: Whether it is many requests: then others' searches tell what it does to them, not the longest wait
            for ``/livez``, which queues behind them.
        quick: Whether it belongs to a quick run.
    """

    row: str
    name: str
    expected: str
    act: Callable[[Target], Got]
    watched: bool = True
    flood: bool = False
    quick: bool = True
