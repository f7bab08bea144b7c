"""``python -m bench [NAME…] [--json]``: run the named benchmarks, or all of them."""

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from bench import bus, code, indexing, page, quality, refusal
from bench.agents import conduct as agents
from bench.answers import conduct as answers
from bench.distributed import conduct as distributed
from bench.embed import conduct as embed
from bench.faults import conduct as faults
from bench.faults.plant import LAYOUTS
from bench.hostile import conduct as hostile
from bench.interference import conduct as interference
from bench.overload import conduct, plan
from bench.peers import serve as peers
from bench.report import Report
from bench.scale import conduct as scale
from bench.search import conduct as search
from bench.storm import conduct as storm
from bench.storm import plan as storm_plan

BENCHMARKS: dict[str, Callable[..., Awaitable[Report]]] = {
    "code": code.run,
    "index": indexing.run,
    "answers": answers.run,
    "search": search.run,
    "embed": embed.run,
    "interference": interference.run,
    "quality": quality.run,
    "scale": scale.run,
    "refusal": refusal.run,
    "bus": bus.run,
    "overload": conduct.run,
    "distributed": distributed.run,
    "faults": faults.run,
    "hostile": hostile.run,
    "agents": agents.run,
    "page": page.run,
    "storm": storm.run,
}
#: What ``--only`` may name, of each benchmark that has parts.
PARTS: dict[str, Sequence[str]] = {"overload": plan.PARTS, "storm": storm_plan.PARTS}


async def _run(benchmarks: list[Callable[[], Awaitable[Report]]], *, as_json: bool) -> bool:
    """Run benchmarks; return whether every goal is met."""
    met = True
    for benchmark in benchmarks:
        report = await benchmark()
        met &= all(figure.met is not False for figure in report.figures)
        print(report.json() if as_json else report.text(), flush=True)
    return met


def main() -> None:
    """Parse the arguments and run."""
    parser = _parser()
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    parts = [part for name in arguments.names or PARTS for part in PARTS.get(name, ())]
    if unknown := sorted({*filter(None, arguments.only.split(","))} - {*parts}):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(parts) or 'none'}")
    if unknown := sorted({*filter(None, arguments.layouts.split(","))} - {*LAYOUTS}):
        parser.error(f"no layout {', '.join(unknown)}; there are {', '.join(LAYOUTS)}")
    options = _options(arguments)
    names = arguments.names or list(BENCHMARKS)
    benchmarks = [partial(BENCHMARKS[name], **options.get(name, {})) for name in names]
    met = uvloop.run(_run(benchmarks, as_json=arguments.json))
    if arguments.strict and not met:
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Penstock's benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each benchmark")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write NAME.json and the plots there")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal is missed")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep there what takes long to prepare")
    retrieval = parser.add_argument_group("search, interference, scale")
    retrieval.add_argument(
        "--chunks", type=_counts, metavar="N,…", help="size of the collection; of scale, several with commas between"
    )
    retrieval.add_argument("--peers", default=",".join(peers.NAMES), metavar="NAMES", help="which peers; default: all")
    retrieval.add_argument("--python", default=sys.executable, metavar="FILE", help="interpreter that has the peers")
    retrieval.add_argument("--collections", metavar="NAMES", help="of quality: which; default: all")
    asked = parser.add_argument_group("code")
    asked.add_argument("--half", default="proof", choices=(*code.HALVES, "all"), help="which questions are asked")
    first = parser.add_argument_group("answers")
    first.add_argument("--tree", type=Path, metavar="DIR", help="index this one, as git sees it")
    overload = parser.add_argument_group("overload, storm")
    parts = "; ".join(f"of {name}: {','.join(parts)}" for name, parts in PARTS.items())
    overload.add_argument("--only", default="", metavar="PARTS", help=f"some of the parts; {parts}")
    overload.add_argument("--vegeta", type=Path, metavar="FILE", help="of storm: the generator; from PATH, or built")
    broken = parser.add_argument_group("faults")
    broken.add_argument("--layouts", default="", metavar="NAMES", help=f"some of {','.join(LAYOUTS)}")
    hurt = parser.add_argument_group("hostile")
    hurt.add_argument(
        "--attacks", default="", metavar="WORDS", help="those of these rows, or with these words in their names"
    )
    hurt.add_argument("--keys", action="store_true", help="of a server with keys; the attacker has one")
    return parser


def _options(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return what each benchmark is told besides its name."""
    quick, kept = arguments.quick, {"work": arguments.work, "out": arguments.out}
    sized = {"chunks": arguments.chunks[0]} if arguments.chunks else {"chunks": 2_000} if quick else {}
    short = {"rounds": 1} if quick else {}
    named = [name for name in arguments.peers.split(",") if name]
    return {
        "code": {**kept, "half": arguments.half},
        "overload": {"quick": quick, "only": _named(arguments.only, "overload"), "out": arguments.out},
        "storm": {
            **kept,
            "quick": quick,
            "only": _named(arguments.only, "storm"),
            "vegeta": arguments.vegeta,
            "python": arguments.python,
        },
        "embed": {"quick": quick, "out": arguments.out},
        "distributed": {"quick": quick, "out": arguments.out},
        "faults": {"quick": quick, "out": arguments.out, "layouts": [*filter(None, arguments.layouts.split(","))]},
        "agents": {"quick": quick, "out": arguments.out, "python": arguments.python},
        "page": {"quick": quick, "out": arguments.out},
        "hostile": {
            "quick": quick,
            "out": arguments.out,
            "words": [*filter(None, arguments.attacks.split(","))],
            "keys": arguments.keys,
        },
        "search": {**kept, **sized, **short, "peers": named, "python": arguments.python},
        "interference": {**kept, **sized, **short},
        "index": {**kept, **short, **({"files": 20} if quick else {})},
        "answers": {
            **kept,
            "tree": arguments.tree,
            **({"files": 60, "changes": 1, "repository": False} if quick else {}),
        },
        "quality": {**kept, **({"collections": arguments.collections.split(",")} if arguments.collections else {})},
        "scale": {**kept, **({"sizes": arguments.chunks} if arguments.chunks else {})},
    }


def _named(only: str, benchmark: str) -> str:
    """Return those of the named parts that a benchmark has."""
    return ",".join(part for part in only.split(",") if part in PARTS[benchmark])


def _counts(text: str) -> list[int]:
    """Return whole numbers with commas between."""
    return [int(one.replace("_", "")) for one in text.split(",")]


if __name__ == "__main__":
    main()
