"""A notebook is cut cell by cell, in the languages of its cells and with the lines of its file."""

import json

from penstock.indexing.chunk import PLAIN_NOTEBOOK
from penstock.indexing.notebook import condense

LOAD = [
    "import pandas as pd\n",
    "%matplotlib inline\n",
    "\n",
    "def load(path):\n",
    "    return pd.read_parquet(path)\n",
]
CELLS = [
    {"cell_type": "markdown", "metadata": {}, "source": ["# Churn\n", "\n", "Who leaves?"]},
    {"cell_type": "code", "metadata": {}, "outputs": [{"text": ["a\n"] * 40}], "source": LOAD},
    {"cell_type": "code", "metadata": {}, "outputs": [], "source": ["!ls data\n", "load('a')"]},
]
TEXT = json.dumps({"cells": CELLS, "metadata": {"language_info": {"name": "python"}}, "nbformat": 4}, indent=1)


def test_each_cell_is_cut_as_what_it_is(cut):
    assert [(one.language, one.symbol, one.text) for one in cut(TEXT, "notebook")] == [
        ("markdown", "Churn", "# Churn\n\nWho leaves?"),
        ("python", "load", "".join(LOAD).rstrip()),
        ("python", "", "!ls data\nload('a')"),
    ]


def test_lines_of_a_chunk_are_those_of_the_file(cut):
    rows = TEXT.split("\n")
    for text in (TEXT, condense(TEXT)):
        for one in cut(text, "notebook", 10):
            written = [json.loads(row.strip().rstrip(",")) for row in rows[one.start_line - 1 : one.end_line]]
            assert "".join(written).rstrip() == one.text


def test_outputs_are_no_chunk(cut):
    assert not any("a\na" in one.text for one in cut(TEXT, "notebook"))


def test_a_notebook_whose_grammar_failed_is_its_cells_all_the_same(cut):
    chunks = cut(TEXT, PLAIN_NOTEBOOK)
    assert [one.language for one in chunks] == ["markdown", "python", "python"]
    assert {one.symbol for one in chunks} == {""}


def test_a_broken_notebook_is_cut_as_json(cut):
    chunks = cut(TEXT[:-30], "notebook")
    assert {one.language for one in chunks} == {"json"}
    assert "def load(path)" in "".join(one.text for one in chunks)


def test_an_empty_notebook_has_no_chunk(cut):
    assert cut('{"cells": [], "metadata": {}}', "notebook") == []


def test_a_notebook_of_many_cells_is_cut_in_little_time(cut):
    cells = [{"cell_type": "code", "source": [f"x{n} = {n}\n"], "outputs": []} for n in range(3000)]
    chunks = cut(json.dumps({"cells": cells}, indent=1), "notebook")
    assert [one.text for one in chunks] == [f"x{n} = {n}" for n in range(3000)]
    assert len({one.start_line for one in chunks}) == 3000
