"""``python -m bench scale``: one size after the other, each in a process of its own; what was measured is kept."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench import drawing
from bench.report import Figure, Report, tell
from bench.worker import Worker

SIZES: Final = (10_000, 100_000)
#: What is shown, in its order: under which words, in which unit.
COLUMNS: Final = {
    "rescored, p50 ms": ("search, p50", "ms"),
    "rescored, p99 ms": ("search, p99", "ms"),
    "rescored, 1/s": ("16 callers", "1/s"),
    "both arms, p50 ms": ("both arms only, p50", "ms"),
    "dense, p50 ms": ("dense arm, p50", "ms"),
    "sparse, p50 ms": ("sparse arm, p50", "ms"),
    "recall@10": ("recall@10", ""),
    "memory_mb": ("memory", "MB"),
    "disk_mb": ("disk", "MB"),
    "load_s": ("load", "s"),
    "written, 1/s": ("written", "1/s"),
    "rest_s": ("until optimised", "s"),
}

Sizes = Mapping[int, Mapping[str, float]]


async def run(
    *, sizes: Sequence[int] = SIZES, work: Path | None = None, out: Path | None = None, again: bool = False
) -> Report:
    """Measure every size that has not been measured in this work directory.

    Args:
        sizes: Numbers of chunks.
        work: Directory that keeps ``scale-N.json`` for each size; a temporary one by default.
        out: Where ``scale.json``, ``scale.svg`` and the table go.
        again: Whether sizes that were measured are measured anew.
    """
    with ExitStack() as stack:
        place = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        place = place.resolve() / "scale"
        place.mkdir(parents=True, exist_ok=True)
        for chunks in sizes:
            kept = place / f"scale-{chunks}.json"
            if again or not kept.exists():
                tell(f"{chunks} chunks")
                with Worker("bench.scale.one") as worker:
                    found = worker.ask(chunks=chunks, directory=str(place / f"data-{chunks}"))
                kept.write_text(json.dumps(found))
        measured = {chunks: json.loads((place / f"scale-{chunks}.json").read_text()) for chunks in sorted(sizes)}
    report = Report("scale", figures(measured))
    tell(table(measured))
    if out is not None:
        report.save(out, {str(chunks): found for chunks, found in measured.items()})
        _draw(measured, out)
    return report


def figures(measured: Sizes) -> list[Figure]:
    """Return the figures of every size."""
    return [
        Figure(f"{_spaced(chunks)} chunks, {what}", one[name], unit)
        for chunks, one in measured.items()
        for name, (what, unit) in COLUMNS.items()
        if name in one
    ]


def table(measured: Sizes) -> str:
    """Return a table in Markdown: a row for each size."""
    head = ["chunks", *(f"{what}, {unit}" if unit else what for what, unit in COLUMNS.values())]
    rows = [[_spaced(chunks), *(_cell(one.get(name)) for name in COLUMNS)] for chunks, one in measured.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def _spaced(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _draw(measured: Sizes, out: Path) -> None:
    panels: dict[str, tuple[str, dict[str, str]]] = {
        "time of a search, ms": ("log", {"rescored, p50 ms": "p50", "rescored, p99 ms": "p99"}),
        "memory and disk, MB": ("log", {"memory_mb": "memory", "disk_mb": "disk"}),
        "recall@10, dense arm": ("linear", {"recall@10": "recall@10"}),
    }
    sizes = list(measured)

    def plot(pyplot: Any) -> Any:
        figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6))
        for axis, (title, (scale, lines)) in zip(axes, panels.items(), strict=True):
            for (name, label), colour in zip(lines.items(), drawing.PALETTE, strict=False):
                axis.plot(sizes, [measured[size][name] for size in sizes], marker="o", label=label, color=colour)
            axis.set_xscale("log")
            axis.set_yscale(scale)
            axis.set_title(title)
            axis.set_xlabel("chunks")
            axis.legend(frameon=False)
        axes[2].set_ylim(0.8, 1.005)
        figure.tight_layout()
        return figure

    drawing.save(out / "scale.svg", plot)
