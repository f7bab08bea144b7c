"""Prompts of dense models: found by files or names, and put in front of texts by kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.kernel.messages import TextKind
from penstock.models.prompts import PROMPTS_CONFIG, Prompts, find_prompts
from penstock.models.tokenizer import TextTokenizer
from tests.fakes import graphs


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("multilingual-e5-small", "query: ", "passage: "),
        ("e5-base-v2", "query: ", "passage: "),
        ("bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("CodeRankEmbed", "Represent this query for searching relevant code: ", ""),
        ("nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("all-MiniLM-L6-v2", "", ""),
        ("my-bge-small-en-v1.5-tuned", "", ""),
    ],
)
def test_prompts_are_known_by_the_models_name(tmp_path: Path, name: str, query: str, document: str) -> None:
    assert find_prompts(tmp_path, name) == Prompts(query, document)


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"query": "q: ", "document": "d: "}, Prompts("q: ", "d: ")),
        ({"query": "q: ", "passage": "p: "}, Prompts("q: ", "p: ")),
        ({"clustering": "c: "}, Prompts()),
        ({"query": "", "document": ""}, Prompts("query: ", "passage: ")),
        ({"query": 3}, Prompts()),
        ([], Prompts("query: ", "passage: ")),
        (None, Prompts("query: ", "passage: ")),
    ],
)
def test_prompts_in_the_models_files_count_before_its_name(tmp_path: Path, told: object, found: Prompts) -> None:
    (tmp_path / PROMPTS_CONFIG).write_text(json.dumps({"prompts": told}))
    assert find_prompts(tmp_path, "e5-small-v2") == found


def test_a_prompt_stands_before_texts_of_its_kind() -> None:
    prompts = Prompts(query="query: ")
    assert prompts.applied(["a", "b"], TextKind.QUERY) == ["query: a", "query: b"]
    assert prompts.applied(["a"], TextKind.DOCUMENT) == ["a"]


def test_the_document_prompt_is_a_part_of_the_vectors_name() -> None:
    names = {Prompts("q: ", document).named("m") for document in ("", "passage: ", "doc: ")}
    assert len(names) == 3
    assert Prompts("q: ").named("m") == "m"


def test_a_prompt_takes_room_from_the_text(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(graphs.write(tmp_path / "m", "dense") / "tokenizer.json", 10)
    assert Prompts().leave_room(tokenizer) is tokenizer
    assert Prompts("alpha beta ", "alpha ").leave_room(tokenizer).tokens_max == 8
