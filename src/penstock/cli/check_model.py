"""``penstock check-model``: compare the prepared model with its own float32 form."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from penstock.cli.beir import Benchmark, read_benchmark
from penstock.cli.options import Setup, common, json_option
from penstock.cli.output import print_json
from penstock.cli.preparation import preparing
from penstock.cli.tables import Rows, print_rows
from penstock.cli.terminal import notices, results
from penstock.kernel.cores import cores
from penstock.kernel.vectors import DenseVectors
from penstock.models.dense import OnnxDense
from penstock.models.parity import (
    COSINE_MEAN_MIN,
    COSINE_MIN,
    NDCG_LOSS_MAX,
    TEXTS,
    Closeness,
    closeness,
    in_batches,
    rankings,
)
from penstock.models.prepare import Prepared, prepare
from penstock.models.quantise import Precision
from penstock.models.source import SourceSettings, find_source
from penstock.search.relevance import ndcg

RANKS: Final = 10
BATCH_TEXTS: Final = 32

Embed = Callable[[Sequence[str]], DenseVectors]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found.

    Attributes:
        model: Name and fingerprint of the prepared model.
        precision: Its number format.
        cosine: Of the built-in texts, or of the collection's documents.
        collection: The collection's name; empty without one.
        ndcg: nDCG@10 of the dense arm alone by number format; empty without a collection.
    """

    model: str
    precision: str
    cosine: Closeness
    collection: str
    ndcg: dict[str, float]

    @property
    def loss(self) -> float:
        """What the prepared model loses in nDCG@10; negative where it is the better one."""
        return self.ndcg[Precision.FLOAT32] - self.ndcg[self.precision] if self.ndcg else 0.0

    @property
    def good(self) -> bool:
        """Whether everything lies within the bounds."""
        return self.cosine.close and self.loss <= NDCG_LOSS_MAX


@click.command("check-model")
@click.argument(
    "directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@json_option
@common
def command(setup: Setup, directory: Path | None, *, as_json: bool) -> int:
    """Compare the prepared model with its own float32 form: cosines of built-in texts.

    With DIR, a BEIR-layout directory, also what its nDCG@10 loses, by exact dense search. Exit code 1 if a bound is
    broken.
    """
    benchmark = None if directory is None else read_benchmark(directory)
    outcome = _check(setup, benchmark, notices())
    if as_json:
        print_json(_record(outcome))
    else:
        _print(outcome)
    return 0 if outcome.good else 1


def _check(setup: Setup, benchmark: Benchmark | None, console: Console) -> Outcome:
    wanted = setup.settings.model
    source = find_source(SourceSettings(Path(wanted.dir) if wanted.dir else None, wanted.hub))
    with preparing(console) as report, tempfile.TemporaryDirectory(prefix="penstock-check-") as place:
        prepared = prepare(source, setup.data_dir / "models", report)
        # Four times as large as the prepared one and of no further use: it does not stay in the data directory.
        forms = (prepared, prepare(source, Path(place), report, Precision.FLOAT32))
        return _compare(forms, benchmark, console)


def _compare(forms: tuple[Prepared, Prepared], benchmark: Benchmark | None, console: Console) -> Outcome:
    texts = list(TEXTS) if benchmark is None else [one.whole for one in benchmark.documents]
    questions = [] if benchmark is None else [query.text for query in benchmark.queries]
    vectors, quality = [], {}
    for form in forms:
        with _embedding(form, len(texts) + len(questions), console) as embed:
            documents = embed(texts)
            vectors.append(documents)
            if benchmark is not None:
                quality[str(form.precision)] = _quality(benchmark, embed(questions), documents)
    fast = forms[0]
    return Outcome(
        model=f"{fast.name}-{fast.fingerprint}",
        precision=str(fast.precision),
        cosine=closeness(*vectors),
        collection=benchmark.name if benchmark is not None else "",
        ndcg=quality,
    )


@contextmanager
def _embedding(form: Prepared, total: int, console: Console) -> Iterator[Embed]:
    """Yield a function that embeds and shows how far it is."""
    runner = OnnxDense(form, threads=cores())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = console.is_terminal and total > len(TEXTS)
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(f"Embedding in {form.precision}", total=total)

        def embed(texts: Sequence[str]) -> DenseVectors:
            parts = []
            for batch in in_batches(texts, BATCH_TEXTS):
                parts.append(runner.run(batch))
                progress.advance(task, len(batch))
            return np.concatenate(parts)

        yield embed


def _quality(benchmark: Benchmark, questions: DenseVectors, documents: DenseVectors) -> float:
    """Return nDCG@10 of exact dense search over whole documents."""
    ids = [one.id for one in benchmark.documents]
    ranked = rankings(questions, documents, RANKS)
    scores = [
        ndcg([ids[place] for place in places], benchmark.gains[query.id], RANKS)
        for query, places in zip(benchmark.queries, ranked, strict=True)
    ]
    return sum(scores) / len(scores)


def _record(outcome: Outcome) -> dict[str, Any]:
    return {
        "model": outcome.model,
        "precision": outcome.precision,
        "cosine": asdict(outcome.cosine) | {"mean_min": COSINE_MEAN_MIN, "least_min": COSINE_MIN},
        "collection": outcome.collection,
        "ndcg@10": outcome.ndcg,
        "ndcg_loss": outcome.loss,
        "ndcg_loss_max": NDCG_LOSS_MAX,
        "good": outcome.good,
    }


def _print(outcome: Outcome) -> None:
    cosine = outcome.cosine
    rows = [
        _row("cosine, mean", f"{cosine.mean:.4f}", f"≥ {COSINE_MEAN_MIN}", kept=cosine.mean >= COSINE_MEAN_MIN),
        _row("cosine, least", f"{cosine.least:.4f}", f"≥ {COSINE_MIN}", kept=cosine.least >= COSINE_MIN),
    ]
    if outcome.ndcg:
        exact, fast = outcome.ndcg[Precision.FLOAT32], outcome.ndcg[outcome.precision]
        rows += [
            ["nDCG@10, float32", f"{exact:.4f}", "", ""],
            ["nDCG@10, prepared", f"{fast:.4f}", "", ""],
            _row("nDCG@10, lost", f"{outcome.loss:.4f}", f"≤ {NDCG_LOSS_MAX}", kept=outcome.loss <= NDCG_LOSS_MAX),
        ]
    console = results()
    on = f"{outcome.collection}'s documents" if outcome.collection else f"{len(TEXTS)} built-in texts"
    console.print(f"{outcome.model}, {outcome.precision} against float32 on {on}\n")
    print_rows(console, Rows(["measure", "value", "bound", ""], rows, numbers=frozenset({1})))


def _row(name: str, value: str, bound: str, *, kept: bool) -> list[str]:
    return [name, value, bound, "kept" if kept else "BROKEN"]
