"""``python -m bench [NAME…] [--json]``: run the named benchmarks, or all of them."""

import argparse
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import uvloop

from bench import bus, indexing, refusal, searching
from bench.overload import conduct, plan
from bench.report import Report

BENCHMARKS: dict[str, Callable[..., Awaitable[Report]]] = {
    "index": indexing.run,
    "search": searching.run,
    "refusal": refusal.run,
    "bus": bus.run,
    "overload": conduct.run,
}


async def _run(benchmarks: list[Callable[[], Awaitable[Report]]], *, as_json: bool) -> None:
    for benchmark in benchmarks:
        report = await benchmark()
        print(report.json() if as_json else report.text(), flush=True)


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Penstock's benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each benchmark")
    overload = parser.add_argument_group("overload")
    overload.add_argument("--quick", action="store_true", help="4 minutes instead of 25")
    overload.add_argument("--only", default="", metavar="PARTS", help=f"some of {','.join(plan.PARTS)}")
    overload.add_argument("--out", type=Path, metavar="DIR", help="write overload.json and the plots there")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if unknown := sorted({*filter(None, arguments.only.split(","))} - {*plan.PARTS}):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(plan.PARTS)}")
    options = {"overload": partial(conduct.run, quick=arguments.quick, only=arguments.only, out=arguments.out)}
    names = arguments.names or list(BENCHMARKS)
    uvloop.run(_run([options.get(name, BENCHMARKS[name]) for name in names], as_json=arguments.json))


if __name__ == "__main__":
    main()
