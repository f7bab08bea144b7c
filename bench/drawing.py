"""What every plot here shares: how it looks, and that it is drawn only where there is something to draw with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.report import tell

OURS: Final = "#c2185b"
THEIRS: Final = "#616161"
PALETTE: Final = (OURS, "#1565c0", "#2e7d32", "#ef8f00", "#8d6e63", "#616161")
SETTINGS: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "penstock",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
}


def save(path: Path, plot: Callable[[Any], Any]) -> bool:
    """Draw a figure into an SVG file; return whether that was done. Without matplotlib it is not, and that is said.

    Args:
        path: The file.
        plot: Gets ``pyplot`` and returns a figure.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - optional
        from matplotlib import pyplot  # noqa: ICN001, PLC0415 - the whole word reads better
    except ImportError:
        tell("matplotlib is not installed: no plots")
        return False
    mpl.use("svg")
    with mpl.rc_context(SETTINGS):
        figure = plot(pyplot)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
        pyplot.close(figure)
    tell(f"wrote {path}")
    return True
