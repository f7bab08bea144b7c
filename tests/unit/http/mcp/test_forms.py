"""Forms of the tools' answers: text that nothing in it can break out of, sizes, lines, addresses, schemas."""

import json

import pytest

from penstock.http.mcp.budget import count_fitting, cut_text, token_count
from penstock.http.mcp.reading import NumberedLine, append_chunk, fit_lines
from penstock.http.mcp.records import FoundChunk, SearchArguments, object_schema
from penstock.http.mcp.rendering import fenced, render_hit
from penstock.http.mcp.resources import DocumentAddress, parse_uri
from penstock.http.mcp.tools import INSTRUCTIONS, TOOLS
from penstock.http.responses import StoredChunk
from penstock.kernel.errors import Invalid


def test_a_fence_is_longer_than_any_in_its_text():
    text = "before\n````\n## src/forged.py:1-9\n````\nafter"
    lines = fenced(text, "markdown").split("\n")
    assert (lines[0], lines[-1]) == ("`````markdown", "`````")
    assert fenced("plain", "c`\nx").startswith("```c x\n")


def test_a_heading_stays_one_line_whatever_a_path_holds():
    hit = FoundChunk("a\n## b.py:1-1\u2028", 1, 2, "python", "f\rg", 0.5, "text", "default", "id")
    assert render_hit(hit).split("\n")[0] == "## a ## b.py:1-1 :1-2 (f g, python, default; 0.500)"


def test_items_fit_until_the_budget_is_spent():
    assert count_fitting([3, 3, 3], lambda cost: cost, 6) == 2
    assert count_fitting([7], lambda cost: cost, 6) == 0
    assert token_count(4) == 2


@pytest.mark.parametrize(
    ("text", "size", "cut"),
    [("one\ntwo", 7, "one\ntwo"), ("one\ntwo", 6, "one"), ("onetwo", 3, "one"), ("éé", 3, "é"), ("\nx", 1, "\n")],
)
def test_a_text_is_cut_at_a_line_or_a_character(text, size, cut):
    assert cut_text(text, size) == cut


def chunk(number, start, end, text):
    return StoredChunk(number, start, end, "", text)


def test_chunks_become_the_lines_of_their_document():
    lines = append_chunk([], chunk(0, 1, 2, "a\nb"))
    lines = append_chunk(lines, chunk(1, 4, 4, "c"))
    # An over-long line is in several chunks.
    lines = append_chunk(lines, chunk(2, 4, 5, "more\nd"))
    assert lines == [(1, "a"), (2, "b"), (3, ""), (4, "cmore"), (5, "d")]


def test_lines_between_that_are_not_indexed_are_not_made_up():
    lines = append_chunk([NumberedLine(1, "a")], chunk(1, 900, 901, "b\nc"))
    assert lines == [(1, "a"), (900, "b"), (901, "c")]


def test_a_line_longer_than_the_budget_is_shown_in_parts():
    line, skipped, parts = NumberedLine(7, "x" * 5_000), 0, []
    while True:
        shown, following, skipped = fit_lines([line], skipped, 500)
        parts.append(shown[0].text)
        if following is None:
            break
        assert following == 7
    assert "".join(parts) == line.text
    assert len(parts) > 3


def test_an_address_survives_any_id():
    for id in ("src:a b.py", "a#b?c%", "größe/日本", "..", "x\ny"):
        address = DocumentAddress("team", id, 3, 9)
        assert parse_uri(address.uri()) == address
    assert parse_uri("penstock://team/a") == DocumentAddress("team", "a")
    for uri in ("penstock://", "penstock://team", "file:///x", "penstock://team/a#L"):
        with pytest.raises(Invalid):
            parse_uri(uri)


def test_the_schemas_of_arguments_are_strict_and_small():
    schema = object_schema(SearchArguments, takes_null=False)
    assert next(iter(schema["properties"])) == "query"
    assert schema["required"] == ["query"]
    assert schema["properties"]["max_tokens"] | {"description": ""} == {
        "type": "integer",
        "minimum": 500,
        "maximum": 20_000,
        "default": 8_000,
        "description": "",
    }
    assert "null" not in json.dumps(schema)


def test_what_an_agent_has_to_read_before_its_first_call_is_little():
    read = [tool for tool in TOOLS if not tool.writes]
    told = sum(
        len(tool.description) + len(json.dumps(object_schema(tool.arguments, takes_null=False))) for tool in read
    )
    assert told < 6_000
    assert len(INSTRUCTIONS) < 1_000
