"""``python -m bench [NAME…] [--json]``: run the named benchmarks, or all of them."""

import argparse
from collections.abc import Awaitable, Callable

import uvloop

from bench import indexing, refusal, searching
from bench.report import Report

BENCHMARKS: dict[str, Callable[[], Awaitable[Report]]] = {
    "index": indexing.run,
    "search": searching.run,
    "refusal": refusal.run,
}


async def _run(names: list[str], *, as_json: bool) -> None:
    for name in names:
        report = await BENCHMARKS[name]()
        print(report.json() if as_json else report.text(), flush=True)


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Penstock's benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each benchmark")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    uvloop.run(_run(arguments.names or list(BENCHMARKS), as_json=arguments.json))


if __name__ == "__main__":
    main()
