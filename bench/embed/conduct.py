"""``python -m bench embed``: all systems in turns on the same texts, medians and ratios."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from bench.drawing import save
from bench.embed import plots, texts
from bench.embed.peers import peers
from bench.embed.results import Course, Results, Taken
from bench.embed.systems import Penstock, System
from bench.report import Report, tell
from bench.workbench import MODELS
from penstock.models.model_source import find_source
from penstock.models.prepare import PreparedModel, prepare_model
from penstock.models.quantise import Precision
from penstock.models.tokenizer import TextTokenizer

FULL: Final = Course(texts=128, rounds=5, queries=150)
QUICK: Final = Course(texts=64, rounds=2, queries=40)
EVEN_TOKENS: Final = 160
#: Queries of one system before the next one's turn.
BLOCK: Final = 20
#: Rest between two queries beside bulk work: long enough that they meet it at any moment of its calls.
REST_S: Final = 0.02


async def run(*, quick: bool = False, out: Path | None = None) -> Report:
    """Measure bulk throughput, single queries, and single queries beside bulk work.

    Args:
        quick: Fewer texts and rounds.
        out: Where ``embed.json`` and the plot go; nowhere by default.
    """
    course = QUICK if quick else FULL
    source = find_source()
    exact, ours = prepare_model(source, MODELS, precision=Precision.FLOAT32), prepare_model(source, MODELS)
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-"))
        systems: list[System] = [Penstock(ours), *peers(exact, Path(directory))]
        for system in systems:
            stack.push_async_callback(system.close)
        results = await _conduct(systems, course, ours)
    report = Report("embed", results.figures(), results.peers())
    if out is not None:
        report.save(out, results.plain())
        save(out / "embed.svg", partial(plots.figure, results))
    return report


async def _conduct(systems: Sequence[System], course: Course, prepared: PreparedModel) -> Results:
    tokenizer = TextTokenizer(prepared.tokenizer_path, prepared.tokens_max)
    whole = texts.library()
    sets = {
        "mixed": texts.mixed(whole, course.texts),
        "even": texts.even(whole, course.texts, EVEN_TOKENS, tokenizer.count),
    }
    questions = texts.queries(whole, course.queries)
    results = Results(str(prepared.precision), {name: _tokens(tokenizer, ones) for name, ones in sets.items()}, [])
    results.cosines = await _cosines(systems, sets["mixed"])
    for number in range(course.rounds + 1):
        for name, ones in sets.items():
            for system in systems:
                began_s = time.perf_counter()
                await system.bulk(ones)
                took_s = time.perf_counter() - began_s
                if number:  # the first warms up
                    results.taken.append(Taken(system.name, name, [took_s]))
                tell(f"{number}/{course.rounds} {name:<6}{system.name:<28}{len(ones) / took_s:8.1f} docs/s")
    for first in range(0, len(questions), BLOCK):
        for system in systems:
            taken_s = await _ask(system, questions[first : first + BLOCK], rest_s=0.0)
            results.taken.append(Taken(system.name, "idle", taken_s))
    for system in systems:
        results.taken.append(Taken(system.name, "beside", await _beside(system, sets["mixed"], questions)))
        tell(f"{system.name:<28}{results.percentile_ms(system.name, 'beside', 0.99):8.1f} ms beside bulk, p99")
    return results


def _tokens(tokenizer: TextTokenizer, ones: Sequence[str]) -> list[int]:
    return [len(row) for row in tokenizer.token_ids(ones)]


async def _cosines(systems: Sequence[System], ones: Sequence[str]) -> dict[str, list[float]]:
    """Return mean and least cosine of every system's vectors to those of the last one, which are exact."""
    exact = await systems[-1].bulk(ones)
    found = {}
    for system in systems:
        cosines = (await system.bulk(ones) * exact).sum(1)
        found[system.name] = [float(np.mean(cosines)), float(np.min(cosines))]
    return found


async def _ask(system: System, questions: Sequence[str], rest_s: float) -> list[float]:
    """Ask one after the other; return the seconds each took."""
    taken_s = []
    for question in questions:
        began_s = time.perf_counter()
        await system.query(question)
        taken_s.append(time.perf_counter() - began_s)
        await asyncio.sleep(rest_s)
    return taken_s


async def _beside(system: System, ones: Sequence[str], questions: Sequence[str]) -> list[float]:
    """Ask while bulk work never ends."""
    over = False

    async def work() -> None:
        while not over:
            await system.bulk(ones)

    bulk = asyncio.create_task(work())
    await asyncio.sleep(REST_S)
    taken_s = await _ask(system, questions, REST_S)
    over = True
    await bulk
    return taken_s
