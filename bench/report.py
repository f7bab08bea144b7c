"""What every benchmark prints: figures beside their goals, and the machine they were taken on."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        name: What was measured.
        value: The number.
        unit: Its unit.
        goal: What it should be, in words; empty where no goal is set.
        met: Whether the goal is met; ``None`` where there is none.
    """

    name: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A benchmark's outcome."""

    bench: str
    figures: Sequence[Figure]
    peers: Mapping[str, object] = field(default_factory=dict)

    def text(self) -> str:
        """Return the figures as lines for a person."""
        lines = [f"{self.bench} on {machine()}"]
        for figure in self.figures:
            verdict = "" if figure.met is None else f"  goal {figure.goal}: {'met' if figure.met else 'MISSED'}"
            lines.append(f"  {figure.name:<34}{figure.value:>12,.2f} {figure.unit}{verdict}")
        return "\n".join(lines)

    def json(self) -> str:
        """Return one JSON object on one line."""
        figures = [asdict(figure) for figure in self.figures]
        whole = {"bench": self.bench, "machine": machine(), "figures": figures, "peers": dict(self.peers)}
        return json.dumps(whole)


def machine() -> str:
    """Return what the figures were taken on."""
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, Linux {platform.release()}, Python {platform.python_version()}"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` (0 to 1) of the values lie; nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)
