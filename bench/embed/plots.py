"""The plot of the embedding benchmark."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.drawing import save
from bench.embed.results import OURS, Results

COLOURS: Final = ("#c2185b", "#1565c0", "#64b5f6", "#616161", "#8d6e63")
TITLES: Final = {"mixed": "bulk, texts of mixed lengths", "even": "bulk, texts of one length"}


def figure(results: Results, pyplot: Any) -> Any:
    """Draw throughput and latency; return the figure."""
    drawn, axes = pyplot.subplots(1, 3, figsize=(12, 2.8))
    names = results.systems
    places = list(range(len(names)))[::-1]
    for axis, (task, title) in zip(axes, TITLES.items(), strict=False):
        rates = [results.docs_per_s(name, task) for name in names]
        bars = axis.barh(places, rates, color=COLOURS[: len(names)])
        axis.bar_label(bars, [f"{rate:.0f}" for rate in rates], padding=3)
        axis.set_title(title)
        axis.set_xlabel("docs/s")
        axis.margins(x=0.15)
    last = axes[-1]
    for place, name, colour in zip(places, names, COLOURS, strict=False):
        for task, offset, alpha in (("idle", 0.2, 0.45), ("beside", -0.2, 1.0)):
            half, most = (results.percentile_ms(name, task, share) for share in (0.5, 0.99))
            last.plot([half, most], [place + offset] * 2, color=colour, alpha=alpha, linewidth=3)
            last.plot([half], [place + offset], "o", color=colour, alpha=alpha)
    last.set_xscale("log")
    last.set_title("one query, p50 to p99: alone (pale), beside bulk")
    last.set_xlabel("ms")
    for axis in axes:
        axis.set_yticks(places, names if axis is axes[0] else [""] * len(names))
        axis.grid(visible=False, axis="y")
    axes[0].get_yticklabels()[names.index(OURS)].set_weight("bold")
    drawn.tight_layout()
    return drawn


def main(arguments: Sequence[str]) -> None:
    """Draw again from a file: ``python -m bench.embed.plots embed.json DIR``."""
    found = json.loads(Path(arguments[0]).read_text())["results"]
    save(Path(arguments[1]) / "embed.svg", partial(figure, msgspec.convert(found, Results)))


if __name__ == "__main__":
    main(sys.argv[1:])
