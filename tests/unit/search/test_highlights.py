"""Ranges of texts that hold words of a query."""

import asyncio
import time

import msgspec
import pytest

from penstock.models.bm25 import Bm25Runner, Bm25Settings
from penstock.search.highlights import (
    CHARACTERS_MAX,
    DISTINCT_WORDS_MAX,
    RANGES_MAX,
    WORDS_MAX,
    Highlighter,
    folded_word,
)
from tests.clock import virtual
from tests.unit.search.test_pages import house_of

BM25 = Bm25Runner(Bm25Settings())


def marked(query: str, text: str, word_terms=BM25.word_terms) -> list[str]:
    (ranges,) = asyncio.run(Highlighter(query, word_terms).ranges([text]))
    assert ranges == sorted(ranges)
    return [text[start:end] for start, end in ranges]


@pytest.mark.parametrize(
    ("query", "text", "found"),
    [
        ("parse a string", "Parsing strings, parsed: a parser", ["Parsing", "strings", "parsed"]),
        ("how does fusion fuse", "It fuses what fusion has fused", ["fuses", "fusion", "fused"]),
        ("parseHTTPResponse", "def parse_http_response(): parse", ["parse", "http", "response", "parse"]),
        ("http response", "x = parseHTTPResponse2(y)", ["HTTP", "Response"]),
        ("parseBody", "parseBody(ParseBody)", ["parseBody", "ParseBody"]),
        ("the of and", "the of and", []),
        ("cat", "concatenate scatter", []),
        ("naïve", "a naïve 😀 naïve way", ["naïve", "naïve"]),
        ("cafe", "Le Café, le cafe\u0301", ["Café", "cafe"]),
        ("搜索引擎", "一个搜索引擎很快,引擎", ["搜索引擎", "引擎"]),
        ("全文検索", "Pythonで全文検索をする", ["全文検索"]),
        ("ภาษาไทย", "เอกสารภาษาไทย", ["ภาษาไทย"]),
        ("404", "error 404, not 4040", ["404"]),
        ("cat", "", []),
        ("+-/", "+-/", []),
        ("cat", "c" * 100 + " cat", ["cat"]),
    ],
)
def test_words_stems_and_parts_of_identifiers_are_found(query, text, found):
    assert marked(query, text) == found


def test_ranges_count_code_points():
    assert asyncio.run(Highlighter("cat", BM25.word_terms).ranges(["😀😀 cat"])) == [[[3, 6]]]


def test_without_the_terms_of_a_model_words_are_compared_without_regard_to_case():
    assert marked("Straße cats", "STRASSE cat cats", folded_word) == ["STRASSE", "cats"]


def test_ranges_words_and_characters_are_bounded():
    assert len(marked("cat", "cat " * 1000)) == RANGES_MAX
    assert marked("cat", "x" * CHARACTERS_MAX + " cat") == []
    query = " ".join(f"w{n}x" for n in range(WORDS_MAX + 1))
    assert marked(query, f"w0x w{WORDS_MAX - 1}x w{WORDS_MAX}x") == ["w0x", f"w{WORDS_MAX - 1}x"]
    words = " ".join(f"w{n}" for n in range(DISTINCT_WORDS_MAX))
    assert marked("cat", f"{words} cats cat") == ["cat"]
    assert marked("c" * 65 + " cat", "c" * 65 + " cat") == ["cat"]


async def longest_pause_s(work) -> float:
    """Return the longest time for which the loop ran nothing else during the work."""
    task = asyncio.ensure_future(work)
    longest, before = 0.0, time.monotonic()
    while not task.done():
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    return longest


def test_a_long_text_of_new_words_does_not_hold_the_loop():
    text = " ".join(f"w{n}" for n in range(150_000))
    query = " ".join(f"q{n}" for n in range(3000))
    assert asyncio.run(longest_pause_s(Highlighter(query, BM25.word_terms).ranges([text]))) < 0.25


@virtual
async def test_hits_tell_their_ranges_only_where_they_are_wanted():
    house = await house_of(3)
    plain, told = await house.search("cat"), await house.search("cat", highlights=True, group="document")
    assert all(hit.highlights is msgspec.UNSET for hit in plain.hits)
    found = {hit.id: [hit.text[start:end] for start, end in hit.highlights] for hit in told.hits}
    assert (found["cat"], found["parse"]) == (["cat"], [])
