"""``penstock eval``: index a test collection, run its queries, and compare the results with its judgements."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from penstock.cli.beir import Benchmark, Query, read_benchmark
from penstock.cli.options import Setup, json_option, with_settings
from penstock.cli.progress_bars import progress_bar
from penstock.cli.session import connect
from penstock.cli.terminal import print_json, print_table, stderr_console, stdout_console
from penstock.client import AsyncClient, NewDocument, Problem, SearchOptions
from penstock.kernel.context import run_all
from penstock.kernel.errors import Broken
from penstock.search.relevance import ndcg, recall

COLLECTION: Final = "benchmark"
#: Chunks asked for, so that at least a hundred documents are among them.
CHUNKS: Final = 300
BATCH_DOCUMENTS: Final = 64
IN_FLIGHT_MAX: Final = 2
ARMS: Final[dict[str, SearchOptions]] = {
    "sparse": {"weights": {"dense": 0, "sparse": 1}, "rerank": False},
    "dense": {"weights": {"dense": 1, "sparse": 0}, "rerank": False},
    "hybrid": {"weights": {"dense": 1, "sparse": 1}, "rerank": False},
    "default": {},
}

Advance = Callable[[int], None]


@click.command("eval")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--keep", metavar="DIR", type=click.Path(path_type=Path), help="Keep the index in this data directory.")
@json_option
@with_settings
async def command(setup: Setup, directory: Path, *, keep: Path | None, as_json: bool) -> int:
    """Measure nDCG@10 and recall@100 on a BEIR-layout directory.

    Indexes the corpus into a data directory of its own, then asks every judged query of the sparse arm, the dense arm,
    both fused, and what a user gets by default.
    """
    benchmark = read_benchmark(directory)
    with _workplace(keep) as place:
        report = await _measure(setup, benchmark, place)
    if as_json:
        print_json(report)
    else:
        _print(report)
    return 0


@contextmanager
def _workplace(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep.resolve()
        return
    place = Path(tempfile.mkdtemp(prefix="penstock-eval-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def _measure(setup: Setup, benchmark: Benchmark, place: Path) -> dict[str, Any]:
    async with connect(setup, place) as api:
        await api.create_collection(COLLECTION)
        with _bar(f"Indexing {benchmark.name}", len(benchmark.documents)) as advance:
            docs_per_s = await _index(api, benchmark, advance)
        rankings = {}
        for arm, wishes in ARMS.items():
            with _bar(f"Asking {arm}", len(benchmark.queries)) as advance:
                rankings[arm] = await _ask(api, benchmark.queries, wishes, advance)
    return {
        "collection": benchmark.name,
        "queries": len(benchmark.queries),
        "ndcg@10": {arm: _mean(ndcg, ranked, benchmark, 10) for arm, ranked in rankings.items()},
        "recall@100": {arm: _mean(recall, ranked, benchmark, 100) for arm, ranked in rankings.items()},
        "docs_per_s": docs_per_s,
    }


async def _index(api: AsyncClient, benchmark: Benchmark, advance: Advance) -> float | None:
    """Index the corpus and return documents a second, ``None`` where all were there already."""
    batches = iter(
        [benchmark.documents[n : n + BATCH_DOCUMENTS] for n in range(0, len(benchmark.documents), BATCH_DOCUMENTS)]
    )
    indexed = 0

    async def courier() -> None:
        nonlocal indexed
        for batch in batches:
            answer = await api.index_documents([NewDocument(one.id, one.whole) for one in batch], COLLECTION)
            for outcome in answer.documents:
                if outcome.status == "failed":
                    raise Broken(f"document {outcome.id} was not indexed: {(outcome.error or Problem()).message}")
                indexed += outcome.status == "indexed"
            advance(len(batch))

    started_s = time.monotonic()
    await run_all([courier() for _ in range(IN_FLIGHT_MAX)])
    return round(indexed / (time.monotonic() - started_s), 2) if indexed else None


async def _ask(api: AsyncClient, queries: list[Query], wishes: SearchOptions, advance: Advance) -> dict[str, list[str]]:
    """Return the ranking of documents for each query: by best chunk, so at its first appearance."""
    waiting = iter(queries)
    rankings: dict[str, list[str]] = {}
    options: SearchOptions = {**wishes, "limit": CHUNKS}

    async def asker() -> None:
        for query in waiting:
            answer = await api.search(query.text, COLLECTION, **options)
            rankings[query.id] = list(dict.fromkeys(hit.id for hit in answer.hits))
            advance(1)

    await run_all([asker() for _ in range(IN_FLIGHT_MAX)])
    return rankings


def _mean(
    measure: Callable[[list[str], dict[str, float], int], float],
    rankings: dict[str, list[str]],
    benchmark: Benchmark,
    k: int,
) -> float:
    values = [measure(rankings[query.id], benchmark.gains[query.id], k) for query in benchmark.queries]
    return round(sum(values) / len(values), 4)


@contextmanager
def _bar(text: str, total: int) -> Iterator[Advance]:
    console = stderr_console()
    if not console.is_terminal:
        console.print(f"{text} ({total}) …", soft_wrap=True)
    with progress_bar(console, text, total) as update:
        yield lambda count: update(advance=count)


def _print(report: dict[str, Any]) -> None:
    console = stdout_console()
    rows = [[arm, f"{report['ndcg@10'][arm]:.4f}", f"{report['recall@100'][arm]:.4f}"] for arm in ARMS]
    speed = "all documents were indexed already" if report["docs_per_s"] is None else f"{report['docs_per_s']} docs/s"
    console.print(f"{report['collection']}: {report['queries']} judged queries, {speed}\n")
    print_table(console, ["arm", "nDCG@10", "recall@100"], rows, numbers={"nDCG@10", "recall@100"})
