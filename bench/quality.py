"""``python -m bench quality``: nDCG@10 and recall@100 of every arm and of the default, with bootstrap intervals.

The same as ``penstock eval`` (its arms, its sizes, its reading of a collection), query by query, through HTTP.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench import drawing
from bench.bootstrap import Interval, interval
from bench.corpus import COLLECTIONS, DATA
from bench.report import Figure, Report, tell
from bench.serving import serving
from penstock.cli.beir import Benchmark, read_benchmark
from penstock.cli.evaluate import ARMS, BATCH_DOCUMENTS, CHUNKS, COLLECTION
from penstock.client import Client, NewDocument, SearchOptions
from penstock.search.relevance import ndcg, recall

GOALS: Final = {"cisi": 0.46, "cranfield": 0.44, "cosqa-dev": 0.605}
DEFAULT: Final = "default"
SINGLE: Final = ("sparse", "dense")
NDCG: Final = "nDCG@10"
RECALL: Final = "recall@100"


@dataclass(frozen=True, slots=True)
class Scores:
    """One collection's scores: by measure and arm, a value for each query, always in the same order."""

    collection: str
    documents: int
    by_measure: dict[str, dict[str, list[float]]]

    def mean(self, measure: str, arm: str) -> Interval:
        """Return an arm's mean."""
        return interval(self.by_measure[measure][arm])

    @property
    def better(self) -> str:
        """The single arm of higher nDCG."""
        return max(SINGLE, key=lambda arm: sum(self.by_measure[NDCG][arm]))

    def gain(self, measure: str, arm: str, over: str) -> Interval:
        """Return the paired difference of two arms."""
        values = self.by_measure[measure]
        return interval([one - other for one, other in zip(values[arm], values[over], strict=True)])


async def run(
    *,
    collections: Sequence[str] = COLLECTIONS,
    work: Path | None = None,
    out: Path | None = None,
    data: Path = DATA,
) -> Report:
    """Index and ask every collection.

    Args:
        collections: Names of directories in ``data``.
        work: Directory to index into; what it holds already is not indexed again. A temporary one by default.
        out: Where ``quality.json`` and the plot go.
        data: Where the collections are.
    """
    scores = []
    with ExitStack() as stack:
        place = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        for name in collections:
            benchmark = read_benchmark(data / name)
            with serving(place / "quality" / name) as server:
                tell(f"{name}: indexing {len(benchmark.documents)} documents")
                with Client(server.url) as client:
                    _index(client, benchmark)
                    rankings = {arm: _ask(client, benchmark, wishes) for arm, wishes in ARMS.items()}
            scores.append(scored(benchmark, rankings))
            tell(f"{name}: {', '.join(f'{arm} {scores[-1].mean(NDCG, arm)}' for arm in ARMS)}")
    report = Report("quality", figures(scores), peers(scores))
    if out is not None:
        report.save(out, [_plain(one) for one in scores])
        _draw(scores, out)
    return report


def _index(client: Client, benchmark: Benchmark) -> None:
    client.create_collection(COLLECTION)
    for first in range(0, len(benchmark.documents), BATCH_DOCUMENTS):
        batch = [NewDocument(one.id, one.whole) for one in benchmark.documents[first : first + BATCH_DOCUMENTS]]
        report = client.index_documents(batch, COLLECTION)
        if report.failed:
            why = next(one.error for one in report.documents if one.status == "failed")
            raise RuntimeError(f"{report.failed} documents of {benchmark.name} were not indexed: {why}")


def _ask(client: Client, benchmark: Benchmark, wishes: SearchOptions) -> dict[str, list[str]]:
    """Return the ranking of documents for each query, each at its best chunk.

    Raises:
        RuntimeError: An answer was degraded by load or a failure.
    """
    rankings = {}
    for query in benchmark.queries:
        options: SearchOptions = {**wishes, "limit": CHUNKS}
        answer = client.search(query.text, COLLECTION, **options)
        if lost := set(answer.degraded) - {"query_truncated"}:
            raise RuntimeError(f"{benchmark.name}, query {query.id}: degraded by {', '.join(sorted(lost))}")
        rankings[query.id] = list(dict.fromkeys(hit.id for hit in answer.hits))
    return rankings


def scored(benchmark: Benchmark, rankings: Mapping[str, Mapping[str, list[str]]]) -> Scores:
    """Return every arm's score of every query."""
    measures = {NDCG: (ndcg, 10), RECALL: (recall, 100)}
    return Scores(
        benchmark.name,
        len(benchmark.documents),
        {
            name: {
                arm: [measure(ranked[query.id], benchmark.gains[query.id], k) for query in benchmark.queries]
                for arm, ranked in rankings.items()
            }
            for name, (measure, k) in measures.items()
        },
    )


def figures(scores: Sequence[Scores]) -> list[Figure]:
    """Return the figures, beside their goals."""
    found = []
    for one in scores:
        for arm in one.by_measure[NDCG]:
            value, goal = one.mean(NDCG, arm).mean, GOALS.get(one.collection)
            judged = arm == DEFAULT and goal is not None
            met = value >= goal if judged and goal is not None else None
            text = f"≥ {goal:g}" if judged else ""
            found.append(Figure(f"{one.collection}, {arm}, {NDCG}", value, "", text, met))
        gain = one.gain(NDCG, DEFAULT, one.better)
        name = f"{one.collection}, {DEFAULT} - {one.better}, {NDCG}"
        found.append(Figure(name, gain.mean, "", "≥ 0", met=gain.mean >= 0))
        found += [Figure(f"{one.collection}, {arm}, {RECALL}", one.mean(RECALL, arm).mean, "") for arm in ARMS]
    return found


def peers(scores: Sequence[Scores]) -> dict[str, dict[str, float]]:
    """Return what the default is held against: each arm alone and both fused by rank."""
    return {
        arm: {f"{one.collection}, {NDCG}": round(one.mean(NDCG, arm).mean, 4) for one in scores}
        for arm in ARMS
        if arm != DEFAULT
    }


def _plain(one: Scores) -> dict[str, Any]:
    arms = list(one.by_measure[NDCG])
    return {
        "collection": one.collection,
        "documents": one.documents,
        "queries": len(one.by_measure[NDCG][DEFAULT]),
        "means": {name: {arm: asdict(one.mean(name, arm)) for arm in arms} for name in one.by_measure},
        "default over": {
            arm: {name: asdict(one.gain(name, DEFAULT, arm)) for name in one.by_measure}
            for arm in arms
            if arm != DEFAULT
        },
    }


def _draw(scores: Sequence[Scores], out: Path) -> None:
    arms = list(ARMS)
    colours = dict(zip(arms, (drawing.PALETTE[1], drawing.PALETTE[2], drawing.THEIRS, drawing.OURS), strict=True))

    def plot(pyplot: Any) -> Any:
        figure, axis = pyplot.subplots(figsize=(9, 3.8))
        for number, arm in enumerate(arms):
            means = [one.mean(NDCG, arm) for one in scores]
            places = [place + (number - 1.5) * 0.2 for place in range(len(scores))]
            around = [[m.mean - m.low for m in means], [m.high - m.mean for m in means]]
            axis.bar(places, [m.mean for m in means], 0.18, yerr=around, color=colours[arm], label=arm, capsize=2)
        for place, one in enumerate(scores):
            if (goal := GOALS.get(one.collection)) is not None:
                label = "goal" if place == 0 else None
                axis.plot([place - 0.42, place + 0.42], [goal, goal], color="black", linewidth=1.5, label=label)
        axis.set_xticks(range(len(scores)), [one.collection for one in scores])
        axis.set_ylabel(f"{NDCG}, 95 % bootstrap intervals")
        axis.legend(frameon=False, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.08))
        return figure

    drawing.save(out / "quality.svg", plot)
