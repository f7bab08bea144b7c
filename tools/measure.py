"""Measures of the code that say how far a reader has to go: sizes, names, circles, files that one request touches.

    python tools/measure.py           # of the tree that it stands in
    python tools/measure.py --json

Run in the environment of that tree. The paths are traced in the simulated server of ``tests/simulation``: the real core
between the gate and fakes of the models and the store. The heartbeat is left out: it runs without requests as well.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import io
import json
import statistics
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "src" / "penstock"

#: Openings of a docstring that leave its subject to the reader.
HEADLESS: Final = ("How", "What", "When", "Where", "Whether", "Which", "Who", "Whose", "Why")

_BRANCHES: Final = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.comprehension,
    ast.Assert,
)
_DEFINITIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def modules() -> dict[str, tuple[Path, ast.Module]]:
    """Return the package's modules by their dotted names."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = (path, ast.parse(path.read_text()))
    return found


def repeated_classes() -> dict[str, list[str]]:
    """Return the class names that are used more than once, each with the modules that define it."""
    places = defaultdict(list)
    for name, (_, tree) in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name)
    return {name: where for name, where in sorted(places.items()) if len(where) > 1}


def headless_docstrings() -> list[str]:
    """Return where a docstring begins with a clause that has no subject."""
    found = []
    for name, (_, tree) in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, *_DEFINITIONS)):
                words = (ast.get_docstring(node) or " ").split()
                if words and words[0] in HEADLESS:
                    found.append(f"{name}:{getattr(node, 'name', '')}")
    return found


def circles() -> list[list[str]]:
    """Return groups of modules that import each other in a circle, for types alone included: a reader follows both."""
    graph = {name: set(_imports(name, tree)) for name, (_, tree) in modules().items()}
    return [group for group in _strongly_connected(graph) if len(group) > 1]


def _imports(name: str, tree: ast.Module) -> Iterator[str]:
    known = modules()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                target = f"{node.module}.{alias.name}"
                target = target if target in known else node.module
                if target in known and target != name:
                    yield target
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def _strongly_connected(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected parts of a graph (Kosaraju 1978)."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(start: str, edges: dict[str, set[str]], out: list[str]) -> None:
        stack = [(start, iter(sorted(edges[start])))]
        seen.add(start)
        while stack:
            node, rest = stack[-1]
            following = next((one for one in rest if one not in seen), None)
            if following is None:
                out.append(node)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(sorted(edges[following]))))

    for node in graph:
        if node not in seen:
            visit(node, graph, order)
    turned: dict[str, set[str]] = {name: set() for name in graph}
    for name, targets in graph.items():
        for target in targets:
            turned[target].add(name)
    seen.clear()
    groups = []
    for node in reversed(order):
        if node not in seen:
            group: list[str] = []
            visit(node, turned, group)
            groups.append(sorted(group))
    return groups


def sizes() -> dict[str, Any]:
    """Return lines of modules and functions, arguments, branches, and the shares of docstrings and comments."""
    lengths = [len(path.read_text().splitlines()) for path, _ in modules().values()]
    functions = [node for _, tree in modules().values() for node in ast.walk(tree) if isinstance(node, _DEFINITIONS)]
    lines = [(node.end_lineno or 0) - node.lineno + 1 for node in functions]
    arguments = [_arguments(node) for node in functions]
    branches = [1 + sum(isinstance(inner, _BRANCHES) for inner in ast.walk(node)) for node in functions]
    code, comments, documented = _lines()
    return {
        "modules": len(lengths),
        "lines": sum(lengths),
        "code lines": code,
        "module lines, median / p95 / max": _spread(lengths),
        "function lines, median / p95 / max": _spread(lines),
        "functions over 40 / over 70 lines": f"{sum(n > 40 for n in lines)} / {sum(n > 70 for n in lines)}",
        "arguments, median / p95 / max": _spread(arguments),
        "branches, p95 / max": _spread(branches).partition(" / ")[2],
        "docstring lines, share": f"{documented / sum(lengths):.1%}",
        "comment lines per 100 lines of code": round(100 * comments / code, 1),
        "lines of tests per line": round(_test_lines() / sum(lengths), 2),
    }


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return sum(one.arg not in ("self", "cls") for one in named)


def _lines() -> tuple[int, int, int]:
    """Return lines of code, of comments, and of docstrings."""
    code = comments = documented = 0
    for path, tree in modules().values():
        strings: set[int] = set()
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                strings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        used: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type == tokenize.COMMENT:
                comments += not token.line[: token.start[1]].strip()
            elif token.string.strip() and token.type != tokenize.ENDMARKER:
                used.update(range(token.start[0], token.end[0] + 1))
        documented += len(strings)
        code += len(used - strings)
    return code, comments, documented


def _test_lines() -> int:
    return sum(len(path.read_text().splitlines()) for path in (ROOT / "tests").rglob("*.py"))


def _spread(values: list[int]) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered):g} / {ordered[int(0.95 * len(ordered))]} / {ordered[-1]}"


class Trace:
    """Profile function for ``sys.setprofile``: the files, functions and calls of the package that a request enters.

    What the store runs is left out: it is a process of its own, and only the fake that stands for it runs here.
    """

    def __init__(self, left_out: Callable[[], bool]) -> None:
        self.files: Counter[str] = Counter()
        self.functions: set[tuple[str, str, int]] = set()
        self._left_out = left_out

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Count a call."""
        code = frame.f_code
        ours = event == "call" and code.co_filename.startswith(str(SOURCE))
        if ours and not self._left_out() and not _in_store(frame):
            self.files[str(Path(code.co_filename).relative_to(SOURCE))] += 1
            self.functions.add((code.co_filename, code.co_qualname, code.co_firstlineno))

    @property
    def told(self) -> dict[str, Any]:
        """Counts, and the files by name."""
        counts = {"files": len(self.files), "functions": len(self.functions), "calls": self.files.total()}
        return counts | {"names": sorted(self.files)}


def _in_store(frame: FrameType | None) -> bool:
    """Return whether a call comes from the fake store."""
    while frame is not None and not frame.f_code.co_filename.endswith("fakes/memory_store.py"):
        frame = frame.f_back
    return frame is not None


def traces() -> dict[str, dict[str, Any]]:
    """Trace a search, a small document's way into the index, and a refusal, from the HTTP scope to the response."""
    sys.path[:0] = [str(ROOT), str(SOURCE.parent)]
    from tests.clock import virtual  # noqa: PLC0415 - of the tree that is measured
    from tests.simulation.world import World  # noqa: PLC0415

    seen: dict[str, dict[str, Any]] = {}

    async def traced(name: str, status: int, request: Callable[[], Awaitable[Any]]) -> None:
        def heartbeat() -> bool:
            try:
                task = asyncio.current_task()
            except RuntimeError:
                return False
            return task is not None and "heartbeat" in f"{task.get_name()} {task.get_coro()!r}".lower()

        trace = Trace(heartbeat)
        sys.setprofile(trace)
        try:
            reply = await request()
        finally:
            sys.setprofile(None)
        if reply.status != status:
            raise RuntimeError(f"{name} got {reply.status}, not {status}")
        seen[name] = trace.told

    @virtual
    async def main() -> None:
        async with World() as world:
            world.loop.watch(lambda: None)
            document = {"documents": [{"id": "a", "path": "a.py", "text": "x = 1"}]}
            await world.search("warm")
            await traced("search", 200, lambda: world.search("alpha and more"))
            path = "/v1/collections/default/documents"
            await traced("one small document", 200, lambda: world.ask("POST", path, document))
            world.core.traffic.draining = True
            await traced("refusal", 503, lambda: world.search("refused"))

    main()
    return seen


def main() -> None:
    """Print the measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object, with names")
    options = parser.parse_args()
    told: dict[str, Any] = {
        **sizes(),
        "class names used more than once": repeated_classes(),
        "headless docstrings": headless_docstrings(),
        "circles": circles(),
        **{f"path: {name}": one for name, one in traces().items()},
    }
    if options.json:
        print(json.dumps(told, indent=1))  # noqa: T201
        return
    for name, value in told.items():
        if isinstance(value, dict) and "files" in value:
            shown = f"{value['files']} files, {value['functions']} functions, {value['calls']} calls"
        else:
            shown = str(len(value) if isinstance(value, (dict, list)) else value)
        print(f"{name:<44}{shown}")  # noqa: T201


if __name__ == "__main__":
    main()
