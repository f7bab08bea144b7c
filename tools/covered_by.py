"""Map of the modules that have no unit test of their own name to the tests that reach them.

    python tools/covered_by.py           # print the page
    python tools/covered_by.py --write   # write it to tests/covered-by.md

The nearest tests of a module are those that import it. Where none does, they are those that import a module that
imports it, and so on. Helpers of the tests count as modules. A test that starts the program imports nothing of it.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "src" / "penstock"
TESTS: Final = ROOT / "tests"
PAGE: Final = TESTS / "covered-by.md"

#: Tests named for each module at most.
NAMED_MAX: Final = 3

#: The suites, the most telling first.
SUITES: Final = ("unit", "contract", "simulation", "congruence", "e2e", "docs", "architecture")

#: Commands that the command line loads by their name, and the tests that run them.
RUN_BY_NAME: Final = {
    "cli/collections.py": ("unit/cli/test_main.py", "e2e/test_sources.py"),
    "cli/config.py": ("unit/cli/test_main.py", "e2e/test_command_line.py"),
    "cli/evaluate.py": ("e2e/test_command_line.py",),
    "cli/mcp.py": ("unit/cli/test_main.py", "e2e/test_mcp_bridge.py"),
    "cli/migrate.py": ("unit/cli/test_main.py", "e2e/test_migration.py"),
    "cli/worker.py": ("unit/cli/test_main.py", "e2e/test_roles.py"),
}

HEADER: Final = """# Which test covers a module without a unit test of its own name?

`python tools/covered_by.py --write` makes this page.
`tests/architecture/test_habits.py` fails when a module is missing here, or when a test that is named does not reach it.
The nearest tests stand first: those that import the module, else those that import what imports it.
Tests that start the program reach nearly every module, and are named only where they import something.

| module | nearest tests |
|---|---|
"""


def modules() -> list[Path]:
    """Return the modules of the package, without the files that only say what a package is."""
    return sorted(one for one in PACKAGE.rglob("*.py") if not one.stem.startswith("__"))


def has_unit_test(module: Path) -> bool:
    """Return whether the unit tests of the module's room have a file of its name."""
    room = module.relative_to(PACKAGE).parts[0]
    return any((TESTS / "unit" / room).rglob(f"test_{module.stem}.py"))


def uncovered() -> list[Path]:
    """Return the modules that need a row."""
    return [one for one in modules() if not has_unit_test(one)]


def _is_test(file: Path) -> bool:
    return file.name.startswith("test_")


def _resolve(name: str) -> Iterator[Path]:
    """Yield the file of a dotted name, if it is one of ours."""
    first = name.partition(".")[0]
    if first not in {"penstock", "tests"}:
        return
    path = (ROOT / "src" if first == "penstock" else ROOT).joinpath(*name.split("."))
    yield from (one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file())


def _imports(file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _resolve(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [path for alias in node.names for path in _resolve(f"{node.module}.{alias.name}")]
            yield from found
            if len(found) < len(node.names):
                yield from _resolve(node.module)
    # A conftest is imported by pytest for every test below it.
    if TESTS in file.parents and file.name != "conftest.py":
        yield from (one for one in (file.parent / "conftest.py",) if one.is_file() and one.parent != TESTS)


@cache
def _graph() -> tuple[dict[Path, set[Path]], dict[Path, set[Path]]]:
    """Return what each file imports, and by which files each is imported."""
    imports = {file: set(_imports(file)) for top in (PACKAGE, TESTS) for file in top.rglob("*.py")}
    importers: dict[Path, set[Path]] = defaultdict(set)
    for file, imported in imports.items():
        for one in imported:
            importers[one].add(file)
    return imports, importers


def _levels(module: Path) -> Iterator[set[Path]]:
    """Yield the tests that reach a module, the nearest first."""
    _, importers = _graph()
    seen, frontier = {module}, {module}
    while frontier:
        frontier = set().union(*(importers.get(one, set()) for one in frontier)) - seen
        seen |= frontier
        yield {one for one in frontier if _is_test(one)}


def reaching(module: Path) -> set[Path]:
    """Return every test that reaches a module."""
    return set().union(_run_by_name(module), *_levels(module))


def _run_by_name(module: Path) -> list[Path]:
    return [TESTS / one for one in RUN_BY_NAME.get(_short(module, PACKAGE), ())]


def nearest(module: Path) -> list[Path]:
    """Return a few of the nearest tests: of the module's own room first, then the most specific."""
    imports, _ = _graph()
    room = module.relative_to(PACKAGE).parts[0]

    def rank(test: Path) -> tuple[bool, int, int, str]:
        parts = test.relative_to(TESTS).parts
        return (parts[:2] != ("unit", room), SUITES.index(parts[0]), len(imports[test]), str(test))

    return next((sorted(level, key=rank)[:NAMED_MAX] for level in _levels(module) if level), _run_by_name(module))


def page() -> str:
    """Return the page."""
    rows = (f"| `{_short(one, PACKAGE)}` | {_listed(nearest(one))} |\n" for one in uncovered())
    return HEADER + "".join(rows)


def _short(file: Path, below: Path) -> str:
    return file.relative_to(below).as_posix()


def _listed(tests: Iterable[Path]) -> str:
    return ", ".join(f"`{_short(one, TESTS)}`" for one in tests) or "none"


def main() -> None:
    """Print the page, or write it."""
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())


if __name__ == "__main__":
    main()
