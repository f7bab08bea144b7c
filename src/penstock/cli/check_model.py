"""``penstock check-model``: compare the prepared model with its own float32 form."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from rich.console import Console

from penstock.cli.beir import Benchmark, read_benchmark
from penstock.cli.options import Setup, json_option, with_settings
from penstock.cli.progress_bars import progress_bar, show_model_progress
from penstock.cli.terminal import print_json, print_table, stderr_console, stdout_console
from penstock.kernel.cores import available_cores
from penstock.kernel.vectors import DenseVectors
from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.model_source import find_source
from penstock.models.parity import (
    COSINE_MEAN_MIN,
    COSINE_MIN,
    NDCG_LOSS_MAX,
    TEXTS,
    Closeness,
    closeness,
    exact_rankings,
    split_batches,
)
from penstock.models.prepare import PreparedModel, prepare_model
from penstock.models.quantise import Precision
from penstock.search.relevance import ndcg

RANKS: Final = 10
BATCH_TEXTS: Final = 32


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Result of comparing a prepared model with its float32 form.

    Attributes:
        model: Name and fingerprint of the prepared model.
        precision: Its number format.
        cosine: Cosines of the built-in texts, or of the collection's documents.
        collection: The collection's name; empty without one.
        ndcg: nDCG@10 of the dense arm alone by number format; empty without a collection.
    """

    model: str
    precision: str
    cosine: Closeness
    collection: str
    ndcg: dict[str, float]

    @property
    def ndcg_loss(self) -> float:
        """Loss of the prepared model in nDCG@10, negative where it is the better one."""
        return self.ndcg[Precision.FLOAT32] - self.ndcg[self.precision] if self.ndcg else 0.0

    @property
    def passed(self) -> bool:
        """True if every measure lies within its bound."""
        return self.cosine.within_bounds and self.ndcg_loss <= NDCG_LOSS_MAX


@click.command("check-model")
@click.argument(
    "directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@json_option
@with_settings
def command(setup: Setup, directory: Path | None, *, as_json: bool) -> int:
    """Compare the prepared model with its own float32 form: cosines of built-in texts.

    With DIR, a BEIR-layout directory, also what its nDCG@10 loses, by exact dense search. Exit code 1 if a bound is
    broken.
    """
    benchmark = None if directory is None else read_benchmark(directory)
    outcome = _check(setup, benchmark, stderr_console())
    if as_json:
        print_json(_record(outcome))
    else:
        _print(outcome)
    return 0 if outcome.passed else 1


def _check(setup: Setup, benchmark: Benchmark | None, console: Console) -> ParityReport:
    wanted = setup.settings.model
    source = find_source(wanted)
    with show_model_progress(console) as report, tempfile.TemporaryDirectory(prefix="penstock-check-") as place:
        prepared = prepare_model(source, setup.data_dir / "models", report)
        # Four times as large as the prepared one and of no further use: it does not stay in the data directory.
        forms = (prepared, prepare_model(source, Path(place), report, Precision.FLOAT32))
        return _compare(forms, benchmark, console)


def _compare(forms: tuple[PreparedModel, PreparedModel], benchmark: Benchmark | None, console: Console) -> ParityReport:
    texts = list(TEXTS) if benchmark is None else [one.whole for one in benchmark.documents]
    questions = [] if benchmark is None else [query.text for query in benchmark.queries]
    total, vectors, quality = len(texts) + len(questions), [], {}
    # Nothing is shown of the few built-in texts.
    aside = console if total > len(TEXTS) else Console(quiet=True)
    for form in forms:
        runner = BuiltinDenseEncoder(form, threads=available_cores())
        with progress_bar(aside, f"Embedding in {form.precision}", total) as update:
            vectors.append(_embed(runner, texts, update))
            if benchmark is not None:
                quality[str(form.precision)] = _quality(benchmark, _embed(runner, questions, update), vectors[-1])
    fast = forms[0]
    return ParityReport(
        model=f"{fast.name}-{fast.fingerprint}",
        precision=str(fast.precision),
        cosine=closeness(*vectors),
        collection=benchmark.name if benchmark is not None else "",
        ndcg=quality,
    )


def _embed(runner: BuiltinDenseEncoder, texts: Sequence[str], update: Callable[..., None]) -> DenseVectors:
    parts = []
    for batch in split_batches(texts, BATCH_TEXTS):
        parts.append(runner.run(batch))
        update(advance=len(batch))
    return np.concatenate(parts)


def _quality(benchmark: Benchmark, questions: DenseVectors, documents: DenseVectors) -> float:
    """Return nDCG@10 of exact dense search over whole documents."""
    ids = [one.id for one in benchmark.documents]
    ranked = exact_rankings(questions, documents, RANKS)
    scores = [
        ndcg([ids[place] for place in places], benchmark.gains[query.id], RANKS)
        for query, places in zip(benchmark.queries, ranked, strict=True)
    ]
    return sum(scores) / len(scores)


def _record(outcome: ParityReport) -> dict[str, Any]:
    return {
        "model": outcome.model,
        "precision": outcome.precision,
        "cosine": asdict(outcome.cosine) | {"mean_min": COSINE_MEAN_MIN, "least_min": COSINE_MIN},
        "collection": outcome.collection,
        "ndcg@10": outcome.ndcg,
        "ndcg_loss": outcome.ndcg_loss,
        "ndcg_loss_max": NDCG_LOSS_MAX,
        "good": outcome.passed,
    }


def _print(outcome: ParityReport) -> None:
    cosine = outcome.cosine
    measures: list[tuple[str, float, str, bool | None]] = [
        ("cosine, mean", cosine.mean, f"≥ {COSINE_MEAN_MIN}", cosine.mean >= COSINE_MEAN_MIN),
        ("cosine, least", cosine.least, f"≥ {COSINE_MIN}", cosine.least >= COSINE_MIN),
    ]
    if outcome.ndcg:
        loss = outcome.ndcg_loss
        measures += [
            ("nDCG@10, float32", outcome.ndcg[Precision.FLOAT32], "", None),
            ("nDCG@10, prepared", outcome.ndcg[outcome.precision], "", None),
            ("nDCG@10, lost", loss, f"≤ {NDCG_LOSS_MAX}", loss <= NDCG_LOSS_MAX),
        ]
    words = {True: "kept", False: "BROKEN", None: ""}
    rows = [[name, f"{value:.4f}", bound, words[kept]] for name, value, bound, kept in measures]
    console = stdout_console()
    on = f"{outcome.collection}'s documents" if outcome.collection else f"{len(TEXTS)} built-in texts"
    console.print(f"{outcome.model}, {outcome.precision} against float32 on {on}\n")
    print_table(console, ["measure", "value", "bound", ""], rows, numbers={"value"})
