import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.http import bodies
from penstock.http.diagnosis import DIAGNOSED_BYTES_MAX, find_fault
from penstock.kernel.errors import Invalid

GOOD = {"id": "a", "text": "t"}


def refusal(data: bytes | str | Any, kind: type = bodies.SearchBody) -> Invalid:
    if not isinstance(data, bytes):
        data = (data if isinstance(data, str) else json.dumps(data)).encode()
    decode = bodies.decode_documents if kind is bodies.DocumentsBody else lambda body: bodies.decode(body, kind)
    with pytest.raises(Invalid) as caught:
        decode(data)
    return caught.value


def documents(*those: Any) -> Any:
    return {"documents": list(those)}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ([], "body"),
        (1, "body"),
        ({"query": None}, "query"),
        ({"query": 5}, "query"),
        ({"query": "q", "limit": "10"}, "limit"),
        ({"query": "q", "limit": 1.5}, "limit"),
        ({"query": "q", "limit": True}, "limit"),
        ({"query": "q", "filter": []}, "filter"),
        ({"query": "q", "rerank": 1}, "rerank"),
        ({"query": "q", "timeout_ms": 0}, "timeout_ms"),
        ({"query": "q", "timeout_ms": 3_600_001}, "timeout_ms"),
        ({"query": "q", "timeout_ms": True}, "timeout_ms"),
        ({"query": "q", "fusion": "best"}, "fusion"),
        ({"query": "q", "fusion": 1}, "fusion"),
        ({"query": "q", "weights": 1}, "weights"),
        ({"query": "q", "weights": {"dense": "1"}}, "weights.dense"),
        ({"query": "q", "weights": {"dense": -1}}, "weights.dense"),
        ({"query": "q", "weights": {"sparse": 1001}}, "weights.sparse"),
        ({"query": "q", "weights": {"dnse": 1}}, "weights.dnse"),
        ({"query": "q", "quary": 1}, "quary"),
    ],
)
def test_a_bad_search_names_its_field(body, field):
    error = refusal(body)
    assert (error.field, error.code) == (field, "invalid")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "documents"),
        ({"documents": None}, "documents"),
        ({"documents": {}}, "documents"),
        ({"document": []}, "document"),
        (documents(GOOD, 5), "documents[1]"),
        (documents(GOOD, None), "documents[1]"),
        (documents(GOOD, {"id": "b"}), "documents[1].text"),
        (documents({"text": "t"}), "documents[0].id"),
        (documents(GOOD, GOOD, GOOD | {"text": 5}), "documents[2].text"),
        (documents(GOOD | {"id": ""}), "documents[0].id"),
        (documents(GOOD | {"id": 7}), "documents[0].id"),
        (documents(GOOD | {"id": "x" * 4097}), "documents[0].id"),
        (documents(GOOD | {"path": "x" * 4097}), "documents[0].path"),
        (documents(GOOD | {"language": "x" * 65}), "documents[0].language"),
        (documents(GOOD | {"metadata": []}), "documents[0].metadata"),
        (documents(GOOD, GOOD | {"extra": 1}), "documents[1].extra"),
        (documents() | {"timeout_ms": 0}, "timeout_ms"),
    ],
)
def test_bad_documents_name_the_field_of_the_one_that_is_wrong(body, field):
    error = refusal(body, bodies.DocumentsBody)
    assert (error.field, error.code) == (field, "invalid")


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b"", "body", "empty"),
        (b" \n", "body", "empty"),
        (b"{", "body", "truncated"),
        (b'{"query":"q",}', "body", "malformed"),
        (b'{"query":"\xff"}', "body", "UTF-8"),
        (b'{"query":"a\x00b"}', "body", "malformed"),
        (b"\xff\xfe{\x00}\x00", "body", "malformed"),
        (b'{"query":"q","weights":{"dense":NaN}}', "weights.dense", "NaN"),
        (b'{"query":"q","weights":{"dense":-Infinity}}', "weights.dense", "-Infinity"),
        (b'{"query":"q","limit":Infinity}', "limit", "Infinity"),
        (b'{"query":"cut \\ud83d"}', "query", "surrogate"),
        (b'{"query":"q","filter":{"metadata.k":["x","\\udc00"]}}', "filter.metadata.k[1]", "surrogate"),
        (b'{"query":"q","filter":{"\\ud800":1}}', "filter", "surrogate"),
        (b'{"query":"q","filter":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "body", "nested too deeply"),
        (b'{"query":"q","filter":{"a":' + b'{"a":' * 50_000, "body", "nested too deeply"),
    ],
)
def test_what_is_no_json_is_malformed_and_says_why(body, field, words):
    error = refusal(body)
    assert (error.field, error.code) == (field, "malformed")
    assert words in error.detail


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400])
def test_a_number_out_of_range_names_its_field(number):
    assert refusal('{"query":"q","weights":{"dense":%s}}' % number).field == "weights.dense"  # noqa: UP031


def test_a_huge_limit_names_its_field():
    assert refusal('{"query":"q","limit":%s}' % ("9" * 5000)).field == "limit"


def test_half_a_surrogate_pair_names_its_document():
    assert refusal(r'{"documents":[{"id":"a","text":"t"},{"id":"\ud800","text":"t"}]}', bodies.DocumentsBody).field == (
        "documents[1].id"
    )


def test_a_whole_surrogate_pair_is_a_character():
    assert bodies.decode(rb'{"query":"\ud83d\ude00"}', bodies.SearchBody).query == "😀"


def test_nul_and_any_unicode_are_ordinary_characters():
    found, _ = bodies.decode_documents(json.dumps(documents({"id": "\0\u202e\uffff😀", "text": "a\0b"})).encode())
    assert (found[0].id, found[0].text) == ("\0\u202e\uffff😀", "a\0b")


def test_an_id_of_4096_characters_passes():
    found, _ = bodies.decode_documents(json.dumps(documents(GOOD | {"id": "😀" * 4096})).encode())
    assert len(found[0].id) == 4096


def test_no_documents_are_no_documents():
    assert bodies.decode_documents(b'{"documents":[],"timeout_ms":5}') == ([], 5)


def test_the_language_is_lower_case():
    assert bodies.decode_documents(json.dumps(documents(GOOD | {"language": "GO"})).encode())[0][0].language == "go"


def test_duplicate_ids_name_both():
    error = refusal(documents(GOOD, {"id": "b", "text": ""}, GOOD), bodies.DocumentsBody)
    assert (error.field, error.code) == ("documents[2].id", "duplicate_id")
    assert "documents[0]" in error.detail


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = {"k": value} if level % 2 else [value]
    return {"k": value}


def test_metadata_may_be_nested_so_deep_and_no_deeper():
    deepest = bodies.METADATA_DEPTH_MAX - 1
    bodies.decode_documents(json.dumps(documents(GOOD | {"metadata": nested(deepest)})).encode())
    error = refusal(documents(GOOD, GOOD | {"id": "b", "metadata": nested(deepest + 1)}), bodies.DocumentsBody)
    assert error.field == "documents[1].metadata"


def test_metadata_too_large_is_refused():
    error = refusal(documents(GOOD | {"metadata": {"k": "x" * bodies.METADATA_BYTES_MAX}}), bodies.DocumentsBody)
    assert error.field == "documents[0].metadata"


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (bodies.EmbedBody, {"texts": []}, "texts"),
        (bodies.EmbedBody, {"texts": ["a", 5]}, "texts[1]"),
        (bodies.EmbedBody, {"texts": ["a"] * 1001}, "texts"),
        (bodies.EmbedBody, {"texts": ["a"], "kind": "other"}, "kind"),
        (bodies.RerankBody, {"query": "", "texts": ["a"]}, "query"),
        (bodies.RerankBody, {"texts": ["a"]}, "query"),
        (bodies.DeleteBody, {"ids": "a"}, "ids"),
        (bodies.DeleteBody, {"ids": ["a"] * 10_001}, "ids"),
        (bodies.DeleteBody, {"ids": [1]}, "ids[0]"),
        (bodies.CollectionBody, {"dim": 3}, "dim"),
    ],
)
def test_other_bodies_name_their_fields(kind, body, field):
    assert refusal(body, kind).field == field


# NDJSON


def lines(data: bytes) -> list[tuple[int, Any]]:
    return [(n, (e.field, e.code) if isinstance(e, Invalid) else e.id) for n, e in bodies.decode_lines(data)]


def test_lines_may_end_in_crlf_be_blank_and_lack_a_last_newline():
    assert lines(b'{"id":"a","text":""}\r\n\r\n \n{"id":"b","text":""}') == [(1, "a"), (4, "b")]
    assert lines(b"") == lines(b"\n\n") == []


def test_a_broken_line_leaves_its_neighbours_alone():
    good = [json.dumps({"id": id, "text": "t"}).encode() for id in "abcd"]
    for broken in (b"{", b"\xff", b'{"id":"x"', b"null", b'"\\ud800"', b"[" * 100_000):
        read = lines(b"\n".join([*good[:2], broken, *good[2:]]))
        assert [entry for n, entry in read if n != 3] == list("abcd")
        field, code = read[2][1]
        assert field.startswith("line 3")
        assert code in ("malformed", "invalid")


@pytest.mark.parametrize(
    ("line", "field", "code"),
    [
        (b'{"id":"x","text":5}', "line 1: text", "invalid"),
        (b'{"id":"x","text":"","zz":1}', "line 1: zz", "invalid"),
        (b'{"text":""}', "line 1: id", "invalid"),
        (b'{"id":"x","text":"","metadata":{"k":NaN}}', "line 1: metadata.k", "malformed"),
        (b"5", "line 1", "invalid"),
    ],
)
def test_a_bad_line_names_itself_and_its_field(line, field, code):
    assert lines(line) == [(1, (field, code))]


def test_the_second_line_of_an_id_fails_and_the_first_stands():
    assert lines(b'{"id":"a","text":""}\n{"id":"a","text":""}') == [(1, "a"), (2, ("line 2: id", "duplicate_id"))]


# Numbers in headers and queries


@pytest.mark.parametrize("text", ["1", "100", "007"])
def test_a_whole_number_is_read(text):
    assert bodies.whole_number(text, "limit", 100) == int(text)


@pytest.mark.parametrize("text", ["", "0", "101", "-1", "1.0", " 1", "²", "١", "1e2", "9" * 5000])
def test_anything_else_is_refused_with_its_bounds(text):
    with pytest.raises(Invalid, match="between 1 and 100") as caught:
        bodies.whole_number(text, "limit", 100)
    assert caught.value.field == "limit"


# Diagnosis


def test_a_body_too_long_is_not_looked_at():
    assert find_fault(b'{"a":NaN,"b":"' + b"x" * DIAGNOSED_BYTES_MAX + b'"}') is None


def test_the_first_fault_is_told():
    fault = find_fault(rb'{"a":[1,{"b":NaN}],"c":"\ud800"}')
    assert fault is not None
    assert fault.field == "a[1].b"


def refused_field(data: bytes, kind: type) -> str | None:
    """Return the field that is refused, ``None`` where the body is taken."""
    try:
        bodies.decode(data, kind)
    except Invalid as error:
        return error.field
    return None


@given(st.binary())
def test_any_bytes_are_read_or_refused(data):
    for kind in (bodies.SearchBody, bodies.DeleteBody):
        assert refused_field(data, kind) != ""
    for _, entry in bodies.decode_lines(data):
        assert isinstance(entry, Invalid)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
)


@given(st.dictionaries(st.sampled_from(["query", "limit", "filter", "weights", "timeout_ms", "x"]), json_values))
def test_any_json_is_read_or_refused(value):
    assert refused_field(json.dumps(value).encode(), bodies.SearchBody) != ""
