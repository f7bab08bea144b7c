"""The field's language as tests: names that mean one thing, sentences with a subject, a short way through the code."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import Any

from tools import measure

#: Files of the package that a traced request may enter.
FILES_MAX = {"search": 40, "one small document": 41, "refusal": 10}


@cache
def traces() -> dict[str, dict[str, Any]]:
    return measure.traces()


def test_no_class_name_is_used_twice() -> None:
    assert measure.repeated_classes() == {}


def test_no_docstring_begins_with_a_clause_that_has_no_subject() -> None:
    assert measure.headless_docstrings() == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert measure.circles() == []


def test_a_request_enters_few_files() -> None:
    entered = {name: one["files"] for name, one in traces().items()}
    assert {name: (count, FILES_MAX[name]) for name, count in entered.items() if count > FILES_MAX[name]} == {}


def test_the_terms_of_the_glossary_are_names_in_the_code() -> None:
    defined = {
        node.name
        for _, tree in measure.modules().values()
        for node in ast.walk(tree)
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    }
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]*) \| [^|]+ \|$", (measure.ROOT / "docs/glossary.md").read_text(), re.MULTILINE
    )
    terms = {name for _, names in rows[1:] for name in re.findall(r"`([\w.]+)`", names)}
    assert len(terms) > 30
    assert {term for term in terms if not defined.issuperset(term.split("."))} == set()


def test_an_object_is_shown_by_its_class_name() -> None:
    wrong = []
    for module, (_, tree) in measure.modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                shown = {
                    text.value[1:].split(" ")[0]
                    for method in node.body
                    if isinstance(method, ast.FunctionDef) and method.name == "__repr__"
                    for joined in ast.walk(method)
                    if isinstance(joined, ast.JoinedStr)
                    for text in joined.values[:1]
                    if isinstance(text, ast.Constant) and text.value.startswith("<")
                }
                wrong += [f"{module}: {node.name} is shown as {name}" for name in shown - {node.name, ""}]
    assert wrong == []
