"""What the attacks came to: outcomes, figures, the table of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from bench.hostile.attack import Attack, Got
from bench.hostile.watch import Seen
from bench.report import Figure

#: What one request may hold the event loop for, and take in multiples of its size (H1).
HELD_MS_MAX: Final = 50.0
TIMES_MAX: Final = 8
#: What others' searches may take while somebody floods the server.
SEARCH_S_MAX: Final = 2.0
#: What a small request may take all the same: buffers, caches, a process started.
FLOOR_MB: Final = 32.0

#: Where the page's table begins.
TABLE: Final = "<!-- table -->"


class Outcome(msgspec.Struct, frozen=True):
    """An attack's outcome.

    Attributes:
        row: The promise that was tried.
        name: What was sent.
        expected: What should have come of it.
        said: What came of it.
        held_ms: How long the loop was held at most.
        grown_mb: How much memory it took at most.
        sent_mb: How much was sent.
        harmed: Others' searches that were not answered.
        search_s: The longest that one of others' searches took.
        kept: Whether what came is what should.
        flood: Whether it was many requests.
    """

    row: str
    name: str
    expected: str
    said: str
    held_ms: float
    grown_mb: float
    sent_mb: float
    harmed: int
    search_s: float
    kept: bool
    flood: bool = False

    @classmethod
    def of(cls, attack: Attack, got: Got, seen: Seen) -> Outcome:
        """Return the outcome of one try."""
        return cls(
            attack.row,
            attack.name,
            attack.expected,
            got.said,
            seen.held_ms,
            seen.grown_mb,
            got.sent_bytes / 1e6,
            seen.harmed,
            seen.search_s,
            got.kept,
            attack.flood,
        )

    @property
    def faults(self) -> list[str]:
        """What was not as promised."""
        found = [] if self.kept else [f"not {self.expected}"]
        if self.flood and self.search_s > SEARCH_S_MAX:
            found.append(f"others' searches took {self.search_s:.1f} s")
        if not self.flood and self.held_ms > HELD_MS_MAX:
            found.append(f"loop held {self.held_ms:.0f} ms")
        if self.grown_mb > max(FLOOR_MB, TIMES_MAX * self.sent_mb):
            found.append(f"{self.grown_mb:.0f} MB for {self.sent_mb:.1f}")
        if self.harmed:
            found.append(f"{self.harmed} of others' searches not answered")
        return found

    @property
    def met(self) -> bool:
        """Whether everything was as promised."""
        return not self.faults

    def __str__(self) -> str:
        verdict = "kept" if self.met else "BROKEN: " + "; ".join(self.faults)
        seen = f"{self.held_ms:.0f} ms, {self.grown_mb:.0f} MB, others up to {self.search_s:.1f} s"
        return f"  {self.row:<4} {self.name}: {self.said} [{seen}] {verdict}"


def figures(outcomes: Sequence[Outcome]) -> list[Figure]:
    """Return the figures: all together, then one for each attack that broke something."""
    kept = sum(one.met for one in outcomes)
    held_ms = max((one.held_ms for one in outcomes if not one.flood), default=0.0)
    harmed = sum(one.harmed for one in outcomes)
    found = [
        Figure("attacks", len(outcomes), ""),
        Figure("promises kept", kept, "", f"{len(outcomes)}", kept == len(outcomes)),
        Figure("loop held at most", held_ms, "ms", f"≤ {HELD_MS_MAX:g} ms", held_ms <= HELD_MS_MAX),
        Figure("others' searches not answered", harmed, "", "0", harmed == 0),
    ]
    broken = [one for one in outcomes if not one.met]
    return found + [Figure(f"{one.row} {one.name}: {'; '.join(one.faults)}", None, "", "kept", False) for one in broken]


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a table for the page."""
    lines = ["| promise | attack | expected | got | loop held | memory, sent | others' searches |", "|---" * 7 + "|"]
    for one in outcomes:
        seen = (f"{one.held_ms:.0f} ms", f"{one.grown_mb:.0f}, {one.sent_mb:.1f} MB", f"{one.search_s:.1f} s at most")
        held, memory, search = seen if one.held_ms else ("", "", "")
        lines.append(f"| {one.row} | {one.name} | {one.expected} | {one.said} | {held} | {memory} | {search} |")
    return "\n".join(lines)
