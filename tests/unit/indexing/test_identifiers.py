"""Compound identifiers fall apart into the words that people search for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.indexing.model_inputs import PARTS_MAX, split_identifiers


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("parseHTTPResponse2", ["parse", "http", "response", "2"]),
        ("PascalCase", ["pascal", "case"]),
        ("snake_case_name", ["snake", "case", "name"]),
        ("SCREAMING_SNAKE", ["screaming", "snake"]),
        ("kebab-case", ["kebab", "case"]),
        ("utf8", ["utf", "8"]),
        ("XMLParser.parseXML", ["xml", "parser", "parse", "xml"]),
        ("größe_max", ["größe", "max"]),
    ],
)
def test_compound_identifiers_give_their_parts(text: str, parts: list[str]) -> None:
    assert split_identifiers(text) == parts


@pytest.mark.parametrize("text", ["", "plain words only.", "Word HTTP x", "42 0x1f3a", "__init__ _x", "naïve"])
def test_plain_words_and_numbers_give_nothing(text: str) -> None:
    assert split_identifiers(text) == []


def test_repeats_and_order_are_kept() -> None:
    assert split_identifiers("getName x getName") == ["get", "name", "get", "name"]


def test_noise_of_many_parts_gives_nothing() -> None:
    assert split_identifiers("a1" * PARTS_MAX) == []


@given(st.text())
def test_any_text_gives_lower_case_parts_without_spaces(text: str) -> None:
    assert all(part and part == part.lower() and not part.isspace() for part in split_identifiers(text))
