"""The house's rules as tests (DESIGN §1, STYLE): who may import whom, sizes, names, what a room says of itself.

Each test names every offender at once.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

import penstock

SOURCE: Final = Path(penstock.__file__).parent
ROOT: Final = SOURCE.parent.parent
MODULES: Final = sorted(SOURCE.rglob("*.py"))
ROOMS: Final = sorted(path for path in SOURCE.glob("*/__init__.py"))

LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 70
FORBIDDEN_MODULES: Final = re.compile(r"utils?|managers?|helpers?|impl|base|common|misc", re.IGNORECASE)
FORBIDDEN_CLASSES: Final = re.compile(r"(Utils?|Manager|Helper|Impl)$|^_?Base[A-Z]")
LEFT_FOR_LATER: Final = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


@cache
def _tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text())


def _nodes() -> Iterator[tuple[str, ast.AST]]:
    for module in MODULES:
        for node in ast.walk(_tree(module)):
            yield f"{module.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}", node


def _said(room: Path) -> str:
    return ast.get_docstring(_tree(room)) or ""


def test_imports_only_point_down_and_only_one_module_of_the_app_imports_backends() -> None:
    # A process of its own: import-linter sets up logging anew and silences every logger it finds.
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    linted = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": "src"}, capture_output=True, text=True, check=False
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "Contracts: 3 kept, 0 broken" in linted.stdout


def test_a_module_is_no_longer_than_one_can_read() -> None:
    lines = {str(module.relative_to(SOURCE)): len(module.read_text().splitlines()) for module in MODULES}
    assert not {name: count for name, count in lines.items() if count > LINES_MAX}


def test_a_function_fits_on_a_screen() -> None:
    lines = {
        f"{place} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for place, node in _nodes()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lines) > 100
    assert not {name: count for name, count in lines.items() if count > FUNCTION_LINES_MAX}


def test_a_module_says_what_it_is() -> None:
    assert not [str(module) for module in MODULES if not ast.get_docstring(_tree(module))]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.parent.name)
def test_a_room_says_what_enters_what_leaves_what_it_refuses_and_where_to_read_next(room: Path) -> None:
    said = _said(room)
    assert [said.count(word) for word in ("Enters:", "Leaves:", "May refuse:", "Read next:")] == [1, 1, 1, 1]


def test_where_to_read_next_exists() -> None:
    named = {name for room in ROOMS for name in re.findall(r":mod:`([\w.]+)`", _said(room))}
    paths = {name: SOURCE.parent / name.replace(".", "/") for name in named}
    found = {n for n, path in paths.items() if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()}
    assert named
    assert sorted(named - found) == []


def test_only_the_cli_prints() -> None:
    assert not [
        place
        for place, node in _nodes()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"print", "input"}
        and not place.startswith("cli/")
    ]


def test_nothing_is_left_for_later() -> None:
    left = []
    for module in MODULES:
        with tokenize.open(module) as file:
            left += [
                f"{module.relative_to(SOURCE)}:{token.start[0]} {token.string}"
                for token in tokenize.generate_tokens(file.readline)
                if token.type == tokenize.COMMENT and LEFT_FOR_LATER.search(token.string)
            ]
    assert not left


def test_a_module_is_named_after_what_it_holds() -> None:
    names = [module.relative_to(SOURCE) for module in MODULES]
    assert not [
        str(name)
        for name in names
        for part in name.with_suffix("").parts
        if any(FORBIDDEN_MODULES.fullmatch(word) for word in part.split("_"))
    ]


def test_a_class_is_named_after_what_it_is() -> None:
    assert not [
        f"{place} {node.name}"
        for place, node in _nodes()
        if isinstance(node, ast.ClassDef) and FORBIDDEN_CLASSES.search(node.name)
    ]


def test_libraries_are_kept_from_reporting_before_any_is_loaded() -> None:
    script = (
        "import sys, penstock, os; early = set(sys.modules); from penstock.models import factory;"
        "print(sorted({'onnxruntime', 'huggingface_hub', 'httpx2'} & early), os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    command = [sys.executable, "-c", script]
    environ = os.environ | {"PYTHONPATH": "src", "ORT_DISABLE_TELEMETRY": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "[] 1\n"


@pytest.mark.parametrize("first", ["bench/__init__.py", "tests/conftest.py"])
def test_what_is_no_part_of_the_package_begins_with_it(first: str) -> None:
    names = {name.name for node in ast.walk(ast.parse((ROOT / first).read_text())) for name in _imported(node)}
    assert "penstock" in names


def test_one_module_asks_the_hub() -> None:
    asking = {place.partition(":")[0] for place, node in _nodes() for name in _imported(node) if "hugging" in name.name}
    asking |= {
        place.partition(":")[0]
        for place, node in _nodes()
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("huggingface_hub")
    }
    assert asking == {"models/hub.py"}


def _imported(node: ast.AST) -> list[ast.alias]:
    return node.names if isinstance(node, ast.Import) else []


def test_what_cannot_be_read_is_expected_whole() -> None:
    # Broken, not UTF-8 and nested without end are three errors of msgspec; one of them alone was forgotten eight times.
    named = {"DecodeError", "MsgspecError"}
    assert not [
        place
        for place, node in _nodes()
        if isinstance(node, ast.ExceptHandler) and node.type is not None
        for one in ast.walk(node.type)
        if isinstance(one, ast.Attribute) and one.attr in named
    ]
