"""What a run has found, and the figures made of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.faults.accounting import Contents, Phase, Tally, course, doubled, tally
from bench.faults.load import Attempt
from bench.faults.plant import LAYOUTS
from bench.report import Figure, machine, tell


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
        course: For each second, requests answered, refused, and with no other end.
        machine: Where it ran.
    """

    layout: str
    phases: list[Phase]
    tallies: list[Tally]
    documents: int
    again: int
    missing: int
    doubled: int
    course: list[list[int]]
    machine: str

    @property
    def lost(self) -> int:
        """Requests that were accepted and lost."""
        return sum(one.lost for one in self.tallies)


def run_of(layout: str, phases: Sequence[Phase], attempts: Sequence[Attempt], contents: Contents) -> Run:
    """Return a layout's run."""
    return Run(
        layout,
        list(phases),
        [tally(phase, attempts, contents) for phase in phases],
        documents=len(contents.chunks),
        again=contents.again,
        missing=contents.missing,
        doubled=doubled(attempts, contents),
        course=course(attempts),
        machine=machine(),
    )


def with_kept(out: Path, runs: Sequence[Run]) -> list[Run]:
    """Return runs and, of other layouts, those that an earlier call has left in ``faults.json``."""
    found: dict[str, Run] = {}
    path = out / "faults.json"
    if path.exists():
        try:
            kept = msgspec.convert(json.loads(path.read_text()).get("results", []), list[Run])
        except msgspec.ValidationError:
            tell(f"{path} was written in another form: what it holds of other layouts is not kept")
            kept = []
        found = {one.layout: one for one in kept}
    found |= {one.layout: one for one in runs}
    return [found[name] for name in LAYOUTS if name in found]


def figures(runs: Sequence[Run]) -> list[Figure]:
    """Return the figures: the goals for each layout, and each fault's recovery."""
    found = []
    for run in runs:
        found += [
            Figure(f"{run.layout}: lost", run.lost, "", "0", run.lost == 0),
            Figure(f"{run.layout}: doubled effects", run.doubled, "", "0", run.doubled == 0),
        ]
        for phase, one in zip(run.phases, run.tallies, strict=True):
            found.append(Figure(f"{run.layout}: {phase.name}: recovery", one.recovery_s, "s"))
    return found


def table(run: Run) -> str:
    """Return a run as a table for the page."""
    head = (
        "| fault | requests | answered | of these lesser | refused | not reached | lost | bad seconds | recovery | "
        "longest without an answer | worst |"
    )
    lines = [head, "|---" * 11 + "|"]
    for phase, one in zip(run.phases, run.tallies, strict=True):
        refused = ", ".join(f"{count} × {what}" for what, count in sorted(one.refused.items())) or "0"
        recovery = "not in the phase" if one.recovery_s is None else f"{one.recovery_s:.0f} s"
        if one.after_mending_s:
            recovery += f" ({one.after_mending_s:.1f} s after the mending)"
        lines.append(
            f"| {phase.name} | {one.requests} | {one.answered} | {one.lesser} | {refused} | {one.unreached} | "
            f"{one.lost} | {one.bad_s} | {recovery} | {one.still_s:.1f} s | {one.worst_s:.1f} s |"
        )
    return "\n".join(lines)
