"""A notebook is its cells; each line is found in the file where it is said to be."""

import base64
import json
import random

import pytest

from penstock.indexing.notebook import condense, read_cells

PICTURE = base64.b64encode(random.Random(1).randbytes(90_000)).decode()
CELLS = [
    {"cell_type": "markdown", "metadata": {}, "source": ["# Churn\n", "\n", "Who leaves?"]},
    {
        "cell_type": "code",
        "execution_count": 1,
        "metadata": {},
        "outputs": [{"data": {"image/png": PICTURE}, "output_type": "display_data", "source": ["x = 1"]}],
        "source": ["def load(path):\n", "    return path\n"],
    },
    {"cell_type": "code", "metadata": {}, "outputs": [], "source": ["x = 1"]},
    {"cell_type": "raw", "metadata": {}, "source": "one\ntwo"},
    {"cell_type": "code", "metadata": {}, "outputs": [], "source": []},
]
METADATA = {"kernelspec": {"name": "python3"}, "language_info": {"name": "python"}}


def notebook(cells=CELLS, metadata=METADATA, **options) -> str:
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4}, **options)


def lines(text: str) -> list[tuple[str, str, int]]:
    cells = read_cells(text)
    assert cells is not None
    return [(cell.language, line, number) for cell in cells for line, number in zip(*cell.lines(), strict=True)]


def test_cells_come_in_order_with_their_languages() -> None:
    assert [(language, line) for language, line, _ in lines(notebook())] == [
        ("markdown", "# Churn"),
        ("markdown", ""),
        ("markdown", "Who leaves?"),
        ("python", "def load(path):"),
        ("python", "    return path"),
        ("python", ""),
        ("python", "x = 1"),
        ("text", "one"),
        ("text", "two"),
        ("python", ""),
    ]


@pytest.mark.parametrize("indent", [1, 4, None])
def test_lines_are_those_of_the_file(indent: int | None) -> None:
    text = notebook(indent=indent)
    rows = text.split("\n")
    for _, line, number in lines(text):
        assert json.dumps(line)[1:-1] in rows[number]


@pytest.mark.parametrize("indent", [1, 4, None])
def test_a_condensed_notebook_is_its_cells_in_the_same_lines(indent: int | None) -> None:
    text = notebook(indent=indent)
    short = condense(text)
    assert short is not None
    assert lines(short) == lines(text)
    assert PICTURE[:50] not in short
    assert len(short) < 1000
    assert condense(short) == short


def test_other_outputs_change_nothing() -> None:
    again = [{**cell, "execution_count": 9} for cell in CELLS]
    assert condense(notebook(again, indent=1)) == condense(notebook([*again], indent=1))
    printed = [
        {**cell, "outputs": [{"text": ["a much longer output"]}]} if "outputs" in cell else cell for cell in again
    ]
    assert condense(notebook(printed)) == condense(notebook())


@pytest.mark.parametrize(
    ("metadata", "language"),
    [
        ({"language_info": {"name": "R"}}, "r"),
        ({"kernelspec": {"language": "julia", "name": "julia-1.9"}}, "julia"),
        ({"kernelspec": {"name": "julia-1.9"}}, "julia"),
        ({"kernelspec": {"name": "ir"}}, "r"),
        ({"kernelspec": {"name": "python3"}}, "python"),
        ({"kernelspec": None, "language_info": None}, "python"),
        ({"kernelspec": [], "language_info": 3}, "python"),
        ({}, "python"),
    ],
)
def test_code_has_the_language_of_the_kernel(metadata: dict, language: str) -> None:
    text = notebook([{"cell_type": "code", "source": "x"}], metadata)
    assert [cell.language for cell in read_cells(text) or []] == [language]
    assert [cell.language for cell in read_cells(condense(text) or "") or []] == [language]


def test_the_third_format_is_read() -> None:
    cells = [
        {"cell_type": "code", "language": "python", "input": ["a = 1"], "outputs": []},
        {"cell_type": "heading", "level": 1, "source": ["Title"]},
    ]
    text = json.dumps({"worksheets": [{"cells": cells}], "metadata": {"name": ""}, "nbformat": 3}, indent=1)
    assert [(language, line) for language, line, _ in lines(text)] == [("python", "a = 1"), ("markdown", "Title")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain words",
        "[]",
        "{}",
        '{"cells": 3}',
        '{"cells": [3]}',
        '{"cells": [{"cell_type": "code", "source": 3}]}',
        '{"cells": [{"cell_type": "code", "source": ["a", 3]}]}',
        '{"cells": [{"cell_type": "code", "source": "\\ud800"}]}',
        notebook()[:-20],
        '{"cells": [' + "[" * 200_000,
        '{"cells": [{"source": ' + "[" * 100_000 + "]" * 100_000 + "}]}",
        '{"metadata": ' + '{"a": ' * 100_000 + "1" + "}" * 100_000 + ', "cells": []}',
    ],
)
def test_what_is_no_notebook_is_told(text: str) -> None:
    assert read_cells(text) is None
    assert condense(text) is None
