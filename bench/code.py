"""How well code is found: questions about Python's library, by arm and by signal."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from bench import library
from bench.bootstrap import interval
from bench.library import Place, Question
from bench.report import Figure, Report
from bench.workbench import workbench
from penstock.client import AsyncClient, Problem, SearchOptions, calls
from penstock.ranking.program import RESCORED_CANDIDATES
from penstock.ranking.signals import DEFAULT_SIGNALS, SignalFactors, apply_signals
from penstock.search.request import SearchHit

#: Chunks asked for: all that the signals see.
DEPTH = RESCORED_CANDIDATES
BATCH = 4
#: Half of the questions chose the factors; the other half had no part in it.
HALVES = ("choosing", "proof")
KINDS = ("all", "name", "mixed", "words", "tests")
ARMS: Mapping[str, SearchOptions] = {
    "sparse": {"weights": {"dense": 0, "sparse": 1}, "rerank": False},
    "dense": {"weights": {"dense": 1, "sparse": 0}, "rerank": False},
}
NOTHING = SignalFactors()
#: The default with no signal, with each alone, and with all.
VARIANTS: Mapping[str, SignalFactors] = {
    "no signal": NOTHING,
    "tests below": replace(NOTHING, test=DEFAULT_SIGNALS.test),
    "definitions above mentions": replace(
        NOTHING, definition=DEFAULT_SIGNALS.definition, other_case=DEFAULT_SIGNALS.other_case
    ),
    "all signals": DEFAULT_SIGNALS,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with what was found.

    Attributes:
        question: The question.
        places: Where it is answered.
        hits: Each system's hits, best first: the arms, and the default as the server gave it.
    """

    question: Question
    places: Sequence[Place]
    hits: Mapping[str, Sequence[SearchHit]]


async def run(*, work: Path | None = None, out: Path | None = None, half: str = "proof") -> Report:
    """Index the part of the library unless ``work`` has it, ask, and rank by each system.

    Args:
        work: Keeps the index between runs; a temporary directory if absent.
        out: Where ``code.json`` goes, if anywhere.
        half: Which questions are asked: ``choosing``, ``proof`` or ``all``.
    """
    async with workbench(work) as client:
        chunks = await _fill(client)
        asked = [await _ask(client, *one) for one in _questions(half)]
    ranks = {name: [_rank(one, one.hits[name]) for one in asked] for name in ARMS}
    ranks |= {name: [_rank(one, weighed(one, signals)) for one in asked] for name, signals in VARIANTS.items()}
    differing = sum(_ids(one.hits["default"]) != _ids(weighed(one, DEFAULT_SIGNALS)) for one in asked)
    report = _report(asked, ranks, chunks, half, differing)
    if out is not None:
        (out / "code.json").write_text(report.json() + "\n")
    return report


def half_of(question: Question) -> str:
    """Return the half that a question belongs to: the parity of its hash, fixed before anything was measured."""
    return HALVES[blake2b(question.query.encode(), digest_size=1).digest()[0] % 2]


def weighed(one: Asked, signals: SignalFactors) -> list[SearchHit]:
    """Return the default's hits in the order that other signals give them."""
    hits = {f"{hit.id}#{hit.chunk}": hit for hit in one.hits["default"]}
    before = {name: _score_before(hit) for name, hit in hits.items()}
    return [hits[name] for name in apply_signals(one.question.query, before, hits, signals)]


def reciprocal(rank: int | None) -> float:
    """Return 1 / rank, 0 for an answer not found."""
    return 0.0 if rank is None else 1 / rank


def within(first: int) -> Callable[[int | None], float]:
    """Return a measure: 1 for an answer among the first ones."""
    return lambda rank: float(rank is not None and rank <= first)


MEASURES: Mapping[str, Callable[[int | None], float]] = {
    "MRR": reciprocal,
    "success@1": within(1),
    "success@5": within(5),
}


def _questions(half: str) -> list[tuple[Question, list[Place]]]:
    wanted = [one for one in library.questions() if half in ("all", half_of(one))]
    found = [(one, library.places(one)) for one in wanted]
    return [(one, places) for one, places in found if places]


async def _fill(client: AsyncClient) -> int:
    """Index what is not there yet; return the number of chunks."""
    texts = library.documents()
    for first in range(0, len(texts), BATCH):
        print(f"\rindexing {first} of {len(texts)} files", end="", file=sys.stderr, flush=True)
        report = await client.index_documents(texts[first : first + BATCH])
        if report.failed:
            why = next(one.error or Problem() for one in report.documents if one.status == "failed")
            raise RuntimeError(f"{report.failed} files were not indexed: {why.message}")
    print("\r", end="", file=sys.stderr)
    return (await client.get_collection("default")).chunks


async def _ask(client: AsyncClient, question: Question, places: list[Place]) -> Asked:
    wishes: dict[str, SearchOptions] = {**ARMS, "default": {"explain": True}}
    hits = {}
    for name, wish in wishes.items():
        options: SearchOptions = {**wish, "limit": DEPTH}
        answer = await client.send(calls.search(question.query, **options).untyped())
        hits[name] = msgspec.convert(answer["hits"], list[SearchHit])
    return Asked(question, places, hits)


def _score_before(hit: SearchHit) -> float:
    """Return a hit's score before the signals were weighed in."""
    score = hit.explain["rerank"].score if isinstance(hit.explain, dict) else None
    if score is None:
        raise RuntimeError("the server does not explain its scores")
    return score


def _ids(hits: Sequence[SearchHit]) -> list[tuple[str, int]]:
    return [(hit.id, hit.chunk) for hit in hits]


def _rank(one: Asked, hits: Sequence[SearchHit]) -> int | None:
    """Return the rank of the first hit that answers, from 1."""
    whole = one.question.kind == "words"
    for rank, hit in enumerate(hits, 1):
        if any(place.is_answered_by(hit.path, hit.start_line, hit.end_line, whole=whole) for place in one.places):
            return rank
    return None


def _report(
    asked: Sequence[Asked], ranks: Mapping[str, Sequence[int | None]], chunks: int, half: str, differing: int
) -> Report:
    kinds = {kind: [n for n, one in enumerate(asked) if kind in ("all", one.question.kind)] for kind in KINDS}
    figures = [
        Figure("files", len(library.files()), "files"),
        Figure("chunks", chunks, "chunks"),
        Figure(f"questions ({half})", len(asked), "questions"),
        Figure("orders that differ from the server's", differing, "questions", "0", differing == 0),
    ]
    table: dict[str, Any] = {}
    for name, found in ranks.items():
        for kind, members in kinds.items():
            for measure, of in MEASURES.items():
                values = [of(found[n]) for n in members]
                mean = interval(values)
                rounded = [round(value, 3) for value in (mean.mean, mean.low, mean.high)]
                table.setdefault(name, {}).setdefault(kind, {})[measure] = rounded
                if kind == "all" or measure == "MRR":
                    figures.append(Figure(f"{name}, {kind}: {measure}", mean.mean, ""))
    figures += [_gain(name, ranks, kinds["all"]) for name in VARIANTS if name != "no signal"]
    return Report("code", figures, {"mean and 95 % interval": table})


def _gain(name: str, ranks: Mapping[str, Sequence[int | None]], members: Sequence[int]) -> Figure:
    """Return by how much a variant raises the mean reciprocal rank, question by question."""
    gains = [reciprocal(ranks[name][n]) - reciprocal(ranks["no signal"][n]) for n in members]
    gain = interval(gains)
    goal = f"> 0; 95 % interval {gain.low:+.3f} to {gain.high:+.3f}"
    return Figure(f"{name}: gain in MRR", gain.mean, "", goal, gain.low > 0)
