"""What a run has found, and the figures made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from bench.faults.accounting import Contents, Phase, Tally
from bench.report import Figure


class Run(msgspec.Struct, frozen=True):
    """One layout's run.

    Attributes:
        layout: Its name.
        phases: The faults, in order.
        tallies: What became of each one's requests.
        documents: Complete documents in the end.
        again: Documents refused at first and written afterwards.
        missing: Documents that could not be written afterwards either.
        doubled: Chunks that were there twice.
    """

    layout: str
    phases: list[Phase]
    tallies: list[Tally]
    documents: int
    again: int
    missing: int
    doubled: int

    @property
    def lost(self) -> int:
        """Requests that were accepted and lost."""
        return sum(one.lost for one in self.tallies)


def run_of(layout: str, counted: Sequence[tuple[Phase, Tally]], contents: Contents, doubled: int) -> Run:
    """Return a layout's run."""
    phases, tallies = [phase for phase, _ in counted], [tally for _, tally in counted]
    return Run(layout, phases, tallies, len(contents.chunks), contents.again, contents.missing, doubled)


def figures(runs: Sequence[Run]) -> list[Figure]:
    """Return the figures: the goals for each layout, and each fault's recovery."""
    found = []
    for run in runs:
        found += [
            Figure(f"{run.layout}: lost", run.lost, "", "0", run.lost == 0),
            Figure(f"{run.layout}: doubled effects", run.doubled, "", "0", run.doubled == 0),
        ]
        for phase, tally in zip(run.phases, run.tallies, strict=True):
            found.append(Figure(f"{run.layout}: {phase.name}: recovery", tally.recovery_s, "s"))
    return found


def table(run: Run) -> str:
    """Return a run as a table for the page."""
    head = (
        "| fault | sent | answered | of these lesser | refused | not reached | lost | bad seconds | recovery | worst |"
    )
    lines = [head, "|---" * 10 + "|"]
    for phase, one in zip(run.phases, run.tallies, strict=True):
        refused = ", ".join(f"{count} × {what}" for what, count in sorted(one.refused.items())) or "0"
        recovery = "not in the phase" if math.isinf(one.recovery_s) else f"{one.recovery_s:.0f} s"
        if one.after_mending_s and not math.isinf(one.recovery_s):
            recovery += f" ({one.after_mending_s:.1f} s after the mending)"
        lines.append(
            f"| {phase.name} | {one.sent} | {one.answered} | {one.lesser} | {refused} | {one.unreached} | {one.lost} | "
            f"{one.bad_s} | {recovery} | {one.worst_s:.1f} s |"
        )
    return "\n".join(lines)
