"""Every regular expression of the package is linear in what it is given, whatever method it is used with.

A pattern stands at the top of its module, so that it is found here. `tests/attacks.py` says how it is tried.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import penstock
from penstock.cli.search_results import _pattern
from tests.attacks import growth

SOURCE: Final = Path(penstock.__file__).parent
MODULES: Final = sorted(SOURCE.rglob("*.py"))
#: What a module may use of `re` in a function; a pattern is made by `compile` at the top of a module.
ANYWHERE: Final = {"Pattern", "Match", "escape", "error", "IGNORECASE", "VERBOSE", "DOTALL", "ASCII", "MULTILINE"}
#: Functions that make a pattern of words, with one of theirs; `re.escape` leaves nothing in it that repeats.
MADE_OF_WORDS: Final = {"cli/search_results.py": _pattern(["a" * 8, "ab", "aabab", "a_b", "parse"])}
#: They make patterns of their own out of what they are given.
FORBIDDEN: Final = {"fnmatch", "glob", "regex", "pathspec", "re2"}

SLOW: Final = (
    r"(a+)+$",
    r"(\w+\s?)*$",
    r"(?:a|a)*b",
    r"(?:ab|abab)*c",
    r"\s*\{#[^}]*\}\s*$",
    r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t\r]*$",
    r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])|<[^>]*>",
    r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])",
    r":[\w:+.-]+:`([^`<]*)[^`]*`|[`*]+",
    r"[a-z0-9][A-Z]|[A-Z]{2,}[a-z]",
    r"#!\s*(?:\S*/)?(?:env(?:\s+-\S+)*\s+)?(?:\S*/)?([A-Za-z-]+)",
    r" - at `(?:key in )?\$\.?(.*?)`$",
    rb"<script>(.*?)</script>",
    r"(?P<name>.+)-[0-9a-f]{16}",
    r"^(?:.*/)?[^/]*a[^/]*a[^/]*a[^/]*b$",
)
LINEAR: Final = (
    r"\w+(?:-\w+)*",
    r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+",
    r"<[^<>]*>|\[[^\[\]]*\]|\s+",
    r"\A(?P<name>.+)-[0-9a-f]{16}",
    r"(?<!a)a++b",
)


def _patterns() -> dict[str, re.Pattern[Any]]:
    """Return every compiled pattern that a module or a class of the package holds, by its name."""
    found: dict[str, re.Pattern[Any]] = {}
    for path in MODULES:
        name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
        if not name.endswith("__main__"):
            module = importlib.import_module(name)
            found |= {f"{name}.{key}": value for key, value in _held(vars(module), name)}
    return found


def _held(values: dict[str, Any], module: str) -> Iterator[tuple[str, re.Pattern[Any]]]:
    for key, value in list(values.items()):
        if isinstance(value, re.Pattern):
            yield key, value
        elif isinstance(value, type) and value.__module__ == module:
            yield from ((f"{key}.{inner}", pattern) for inner, pattern in _held(dict(vars(value)), module))


PATTERNS: Final = _patterns()
TRIED: Final = {**PATTERNS, **MADE_OF_WORDS}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIED)
def test_an_expression_is_linear(name: str) -> None:
    attack = growth(TRIED[name])
    assert attack is None, f"{name} slows down on {attack}"


@pytest.mark.slow
@pytest.mark.parametrize("source", SLOW, ids=repr)
def test_an_expression_that_backtracks_is_found_out(source: str | bytes) -> None:
    assert growth(re.compile(source)) is not None


@pytest.mark.parametrize("source", LINEAR, ids=repr)
def test_an_expression_that_does_not_is_let_be(source: str) -> None:
    assert growth(re.compile(source)) is None


def test_every_expression_stands_at_the_top_of_a_module_and_has_been_tried() -> None:
    inside, compiled = [], 0
    for path in MODULES:
        tree, where = ast.parse(path.read_text()), path.relative_to(SOURCE)
        deep = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "re"):
                continue
            if node.attr == "compile" and node not in deep:
                compiled += 1
            elif node.attr not in ANYWHERE and not (node.attr == "compile" and str(where) in MADE_OF_WORDS):
                inside.append(f"{where}:{node.lineno} re.{node.attr}")
    assert inside == []
    assert len(PATTERNS) >= compiled > 0


def test_no_module_makes_expressions_in_another_way() -> None:
    imported = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                if node.module == "re":
                    imported.append(f"{path.relative_to(SOURCE)}:{node.lineno} from re")
            imported += [f"{path.relative_to(SOURCE)}:{node.lineno} {n}" for n in names if n.split(".")[0] in FORBIDDEN]
    assert imported == []
