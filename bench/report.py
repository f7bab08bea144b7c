"""What every benchmark prints: figures beside their goals, and the machine they were taken on."""

import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        name: What was measured.
        value: The number; ``None`` where there is none.
        unit: Its unit.
        goal: What it should be, in words; empty where no goal is set.
        met: Whether the goal is met; ``None`` where there is none.
    """

    name: str
    value: float | None
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
            value = "none" if figure.value is None else f"{figure.value:,.2f}"
            lines.append(f"  {figure.name:<46}{value:>12} {figure.unit}{verdict}")
        return "\n".join(lines)

    def json(self) -> str:
        """Return one JSON object on one line."""
        figures = [asdict(figure) for figure in self.figures]
        whole = {"bench": self.bench, "machine": machine(), "figures": figures, "peers": dict(self.peers)}
        return json.dumps(whole)

    def save(self, out: Path, results: object = None) -> None:
        """Write ``NAME.json`` into a directory: the object, and what it was drawn from."""
        out.mkdir(parents=True, exist_ok=True)
        whole = json.loads(self.json()) | ({} if results is None else {"results": results})
        path = out / f"{self.bench}.json"
        path.write_text(json.dumps(_finite(whole)) + "\n")
        tell(f"wrote {path}")


def tell(line: str) -> None:
    """Tell the progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def _finite(value: Any) -> Any:
    """Return the value with numbers rounded and infinities as null, which JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value


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
