"""``python -m bench index``: a tree of real files, end to end, beside the bare embedder on the same chunks.

End to end is what a user does: ``penstock index DIR`` against a running server with an empty collection. It walks,
reads, sends; the server cuts, embeds both ways, writes and seals. The bare embedder gets the very texts that the
server's model gets.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import drawing
from bench.report import Figure, Report, median, tell
from bench.serving import serving
from bench.tree import index, plant
from bench.worker import Worker
from penstock.models.model_source import find_source
from penstock.models.prepare import prepare_model

GOAL: Final = 0.85


@dataclass(slots=True)
class Taken:
    """What was measured, a value a round; times in seconds.

    Attributes:
        ours_s: Indexing everything.
        again_s: The same again, nothing changed.
        bare_s: Embedding alone.
        cpu_s: Processor time of an index run, by process.
    """

    ours_s: list[float] = field(default_factory=list)
    again_s: list[float] = field(default_factory=list)
    bare_s: list[float] = field(default_factory=list)
    cpu_s: dict[str, list[float]] = field(default_factory=dict)


async def run(*, files: int = 90, rounds: int = 3, work: Path | None = None, out: Path | None = None) -> Report:
    """Index and embed in turn.

    Args:
        files: Files of the tree.
        rounds: How often; medians count.
        work: Directory to work in; a temporary one by default.
        out: Where ``index.json`` and the plot go.
    """
    with ExitStack() as stack:
        place = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        place = place.resolve() / "index"
        models, tree, taken = place / "models", place / "tree", Taken()
        prepare_model(find_source(), models)
        planted = plant(tree, files)
        bare = stack.enter_context(Worker("bench.bare"))
        told = bare.ask(do="read", tree=str(tree), models=str(models))
        tell(f"{planted} files, {told['chunks']} chunks, {told['distinct']} of them different")
        for number in range(1, rounds + 1):
            taken.bare_s.append(bare.ask(do="run")["took_s"])
            chunks = _index(place / "data", models, tree, taken)
            if chunks != told["chunks"]:
                raise RuntimeError(f"the server made {chunks} chunks, the bare embedder got {told['chunks']}")
            tell(f"round {number}: indexed in {taken.ours_s[-1]:.1f} s, bare embedder {taken.bare_s[-1]:.1f} s")
    report = Report("index", figures(planted, told, taken), {"bare embedder": _bare(told, taken)})
    if out is not None:
        report.save(out, {"files": planted, **told, **{k: getattr(taken, k) for k in Taken.__slots__}})
        _draw(told["chunks"], taken, out)
    return report


def _index(data_dir: Path, models: Path, tree: Path, taken: Taken) -> int:
    """Index the tree into a new data directory; return the number of chunks."""
    shutil.rmtree(data_dir, ignore_errors=True)
    shutil.copytree(models, data_dir / "models")
    with serving(data_dir) as server:
        before = server.cpu_s()
        told = index(tree, data_dir)
        after = server.cpu_s()
        taken.again_s.append(index(tree, data_dir)["took_s"])
    taken.ours_s.append(told["took_s"])
    for role, value in after.items():
        taken.cpu_s.setdefault(role, []).append(value - before.get(role, 0.0))
    return int(told["chunks"])


def figures(files: int, told: dict[str, Any], taken: Taken) -> list[Figure]:
    """Return the figures."""
    chunks, ours_s = told["chunks"], median(taken.ours_s)
    ratio = median([bare / ours for bare, ours in zip(taken.bare_s, taken.ours_s, strict=True)])
    found = [
        Figure("files", files, "files"),
        Figure("chunks", chunks, "chunks"),
        Figure("different chunks", told["distinct"], "chunks"),
        Figure("files a second", files / ours_s, "files/s"),
        Figure("chunks a second", chunks / ours_s, "chunks/s"),
        Figure("bare embedder", chunks / median(taken.bare_s), "chunks/s"),
        Figure("end to end / bare embedder", ratio, "×", f"≥ {GOAL:g}", met=ratio >= GOAL),
        Figure("the same again, unchanged", median(taken.again_s), "s"),
    ]
    for role, values in sorted(taken.cpu_s.items()):
        found.append(Figure(f"processor, {role}", 1000 * median(values) / chunks, "ms/chunk"))
    return found


def _bare(told: dict[str, Any], taken: Taken) -> dict[str, float]:
    return {"chunks/s": round(told["chunks"] / median(taken.bare_s), 1)}


def _draw(chunks: int, taken: Taken, out: Path) -> None:
    rows = {
        "bare embedder": [chunks / took_s for took_s in taken.bare_s],
        "penstock index, end to end": [chunks / took_s for took_s in taken.ours_s],
    }

    def plot(pyplot: Any) -> Any:
        figure, axis = pyplot.subplots(figsize=(8, 1.8))
        axis.barh(list(rows), [median(values) for values in rows.values()], color=[drawing.THEIRS, drawing.OURS])
        for place, values in enumerate(rows.values()):
            axis.plot(values, [place] * len(values), "o", color="black", markersize=4)
        axis.axvline(GOAL * median(rows["bare embedder"]), color="black", linestyle="--", linewidth=1)
        axis.set_xlabel(f"chunks a second; dots: rounds; dashed: the goal, {GOAL:g} of the bare embedder")
        return figure

    drawing.save(out / "index.svg", plot)
