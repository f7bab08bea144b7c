import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from penstock.http import decoding, documents, request_bodies
from penstock.http.json_errors import SCANNED_BYTES_MAX, SCANNED_VALUES_MAX, find_invalid_json
from penstock.http.request_context import SCOPE_KEY, RequestState, read_context_headers, request_state
from penstock.indexing.document_records import Document, DocumentStatus, IndexOutcome
from penstock.kernel.context import Criticality
from penstock.kernel.errors import Expired, Invalid
from penstock.search.request import SearchBody
from tests.clock import run
from tests.fakes.loop_clock import LoopClock

GOOD = {"id": "a", "text": "t"}


def encoded(data: bytes | str | Any) -> bytes:
    if isinstance(data, bytes):
        return data
    return (data if isinstance(data, str) else json.dumps(data)).encode()


def request(data: bytes, kind: str = "application/json", **headers: str) -> Request:
    """Return a request as its route lets it through."""

    async def receive() -> Any:
        return {"type": "http.request", "body": data}

    said = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    fields = [(name.encode(), value.encode("latin-1")) for name, value in said.items()]
    scope: dict[str, Any] = {"type": "http", "headers": fields}
    scope[SCOPE_KEY] = RequestState("c", "r", "", now_s := asyncio.get_running_loop().time(), now_s)
    made = Request(scope, receive)
    read_context_headers(made, Criticality.BULK)
    return made


def taken(data: bytes | str | Any, kind: str = "application/json", **headers: str) -> documents.DocumentBatch:
    """Read a body of documents."""

    async def main() -> documents.DocumentBatch:
        return await documents.read_documents(request(encoded(data), kind, **headers), LoopClock())

    return run(main())


def refusal(data: bytes | str | Any, kind: type = SearchBody) -> Invalid:
    read = (
        taken if kind is request_bodies.DocumentsBody else lambda body: run(decoding.decode_body(encoded(body), kind))
    )
    with pytest.raises(Invalid) as caught:
        read(data)
    return caught.value


def many(*those: Any) -> Any:
    return {"documents": list(those)}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        (1, "body"),
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
    ("body", "detail"),
    [
        (b'{"query": "q", "limit": "5"}', "Expected `number | null`, got `string`"),
        (b'{"query": true}', "Expected `string | null`, got `boolean`"),
        (b'{"query": 5}', "Expected `string | null`, got `whole number`"),
        (b'{"query": "q", "weights": []}', "Expected `object | null`, got `array`"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"query": "q", "fusion": "int"}', "Invalid enum value 'int'"),
        (b'{"query": "q", "Expected `str`": 1}', "Object contains unknown field `Expected `str``"),
    ],
)
def test_a_wrong_type_is_told_by_its_name_in_json(body, detail):
    with pytest.raises(Invalid) as caught:
        decoding.decode_json(body, SearchBody)
    assert caught.value.detail == detail


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "documents"),
        ({"documents": None}, "documents"),
        ({"documents": {}}, "documents"),
        ({"document": []}, "document"),
        (many(GOOD, 5), "documents[1]"),
        (many(GOOD, None), "documents[1]"),
        (many(GOOD, {"id": "b"}), "documents[1].text"),
        (many({"text": "t"}), "documents[0].id"),
        (many(GOOD, GOOD | {"id": "b"}, {"id": "c", "text": 5}), "documents[2].text"),
        (many(GOOD | {"id": ""}), "documents[0].id"),
        (many(GOOD | {"id": 7}), "documents[0].id"),
        (many(GOOD | {"id": "x" * 4097}), "documents[0].id"),
        (many(GOOD | {"path": "x" * 4097}), "documents[0].path"),
        (many(GOOD | {"language": "x" * 65}), "documents[0].language"),
        (many(GOOD | {"replaces": "x" * 4097}), "documents[0].replaces"),
        (many(GOOD | {"same_as": "x" * 4097}), "documents[0].same_as"),
        (many(GOOD | {"same_as": 5}), "documents[0].same_as"),
        (many(GOOD | {"same_as": ["a"]}), "documents[0].same_as"),
        (many(GOOD | {"metadata": []}), "documents[0].metadata"),
        (many(GOOD, GOOD | {"extra": 1}), "documents[1].extra"),
        (many() | {"timeout_ms": 0}, "timeout_ms"),
    ],
)
def test_bad_documents_name_the_field_of_the_one_that_is_wrong(body, field):
    error = refusal(body, request_bodies.DocumentsBody)
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
        (b'{"query":"q","filter":{"a":' + b"[" * 3000 + b"]" * 3000 + b"}}", "body", "nested too deeply"),
        (b'{"query":"q","filter":{"a":' + b'{"a":' * 3000, "body", "nested too deeply"),
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
    assert refusal(
        r'{"documents":[{"id":"a","text":"t"},{"id":"\ud800","text":"t"}]}', request_bodies.DocumentsBody
    ).field == ("documents[1].id")


def test_a_whole_surrogate_pair_is_a_character():
    assert decoding.decode_json(rb'{"query":"\ud83d\ude00"}', SearchBody).query == "😀"


def test_nul_and_any_unicode_are_ordinary_characters():
    found = taken(json.dumps(many({"id": "\0\u202e\uffff😀", "text": "a\0b"})).encode())
    assert (found.documents[0].id, found.documents[0].text) == ("\0\u202e\uffff😀", "a\0b")


def test_an_id_of_4096_characters_passes():
    found = taken(json.dumps(many(GOOD | {"id": "😀" * 4096})).encode())
    assert len(found.documents[0].id) == 4096


def test_no_documents_are_no_many():
    for body in (b'{"documents":[],"timeout_ms":5}', b'{"documents" : [ \n ] }'):
        found = taken(body)
        assert (len(found.documents), found.entries) == (0, [])


def test_the_language_is_lower_case():
    assert taken(json.dumps(many(GOOD | {"language": "GO"})).encode()).documents[0].language == "go"


def test_duplicate_ids_name_both():
    error = refusal(many(GOOD, {"id": "b", "text": ""}, GOOD), request_bodies.DocumentsBody)
    assert (error.field, error.code) == ("documents[2].id", "duplicate_id")
    assert "documents[0]" in error.detail


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = {"k": value} if level % 2 else [value]
    return {"k": value}


def test_metadata_may_be_nested_so_deep_and_no_deeper():
    deepest = request_bodies.METADATA_DEPTH_MAX - 1
    taken(json.dumps(many(GOOD | {"metadata": nested(deepest)})).encode())
    error = refusal(many(GOOD, GOOD | {"id": "b", "metadata": nested(deepest + 1)}), request_bodies.DocumentsBody)
    assert error.field == "documents[1].metadata"


def test_metadata_too_large_is_refused():
    error = refusal(
        many(GOOD | {"metadata": {"k": "x" * request_bodies.METADATA_BYTES_MAX}}), request_bodies.DocumentsBody
    )
    assert error.field == "documents[0].metadata"


@pytest.mark.parametrize("limit", ["5", "5.0", "50e-1"])
def test_a_whole_number_may_be_written_with_a_point(limit):
    body = decoding.decode_json(f'{{"query": "x", "limit": {limit}, "timeout_ms": 1e3}}'.encode(), SearchBody)
    assert (body.limit, body.timeout_ms) == (5, 1000)


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (request_bodies.TextsBody, {"texts": []}, "texts"),
        (request_bodies.TextsBody, {"texts": ["a", 5]}, "texts[1]"),
        (request_bodies.TextsBody, {"texts": ["a"] * 1001}, "texts"),
        (request_bodies.TextsBody, {"texts": ["a"], "kind": "other"}, "kind"),
        (request_bodies.RerankBody, {"query": "", "texts": ["a"]}, "query"),
        (request_bodies.RerankBody, {"texts": ["a"]}, "query"),
        (request_bodies.DeleteBody, {"ids": "a"}, "ids"),
        (request_bodies.DeleteBody, {"ids": ["a"] * 10_001}, "ids"),
        (request_bodies.DeleteBody, {"ids": [1]}, "ids[0]"),
        (request_bodies.CollectionBody, {"dim": 3}, "dim"),
        (SearchBody, {"query": "x", "limit": 5.5}, "limit"),
        (SearchBody, {"query": "x", "timeout_ms": 0.5}, "timeout_ms"),
        (SearchBody, {"query": "x", "limit": True}, "limit"),
    ],
)
def test_other_bodies_name_their_fields(kind, body, field):
    assert refusal(body, kind).field == field


# Bounds: nothing is made of what is too much


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (SearchBody, b'{"query":"q","filter":{"metadata.a":[' + b"[]," * 100_000 + b"1]}}", "filter"),
        (
            SearchBody,
            json.dumps({"query": "q", "filter": dict.fromkeys(map(str, range(20_000)), 1)}),
            "filter",
        ),
        (request_bodies.TextsBody, b'{"texts":[' + b'"",' * 1_000_000 + b'""]}', "texts"),
        (request_bodies.TextsBody, b'{"texts":[' + b'"",' * 5000 + b'""]}', "texts"),
        (request_bodies.RerankBody, b'{"query":"q","texts":[' + b'"",' * 5000 + b'""]}', "texts"),
        (request_bodies.DeleteBody, b'{"ids":[' + b'"",' * 50_000 + b'""]}', "ids"),
        (request_bodies.RestoreBody, b'{"force":[' + b"1," * 50_000 + b"1]}", "body"),
        (request_bodies.CollectionBody, b'{"a":[' + b"{}," * 50_000 + b"1]}", "body"),
    ],
    ids=lambda part: part.__name__ if isinstance(part, type) else "",
)
def test_a_body_of_too_many_values_is_refused_before_it_is_decoded(kind, body, field, monkeypatch):
    monkeypatch.setattr(decoding, "decode_json", lambda *_: pytest.fail("decoded"))
    error = refusal(body, kind)
    assert (error.field, error.code) == (field, "invalid")
    assert "too many values" in error.detail


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
def test_ten_thousand_documents_pass_and_one_more_does_not(kind):
    def body(count: int) -> bytes:
        each = [b'{"id":"%d","text":"{[,"}' % number for number in range(count)]
        return b"\n".join(each) if "nd" in kind else b'{"documents":[' + b",".join(each) + b"]}"

    found = taken(body(request_bodies.DOCUMENTS_MAX), kind)
    assert [found.documents[number].id for number in (0, 9_999)] == ["0", "9999"]
    with pytest.raises(Invalid) as caught:
        taken(body(request_bodies.DOCUMENTS_MAX + 1) + b"\n", kind)
    assert caught.value.code == "too_many_documents"


@pytest.mark.parametrize("name", ["x" * 100_000, " - at `$" * 10_000 + "\n", "`" * 50_000, " - at `$.a`"])
@pytest.mark.parametrize("body", [{"query": "q"}, {"query": "q", "weights": {}}], ids=["body", "weights"])
def test_a_name_is_never_told_at_length_whatever_it_looks_like(body, name):
    inner = body.get("weights", body)
    inner[name] = 1
    error = refusal(body)
    assert error.code == "invalid"
    assert len(error.field) + len(error.detail) < 300


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (SearchBody, {"query": "q"}),
        (request_bodies.TextsBody, {"texts": ["a"]}),
        (request_bodies.RerankBody, {"query": "q", "texts": ["a"]}),
        (request_bodies.DeleteBody, {}),
        (request_bodies.RestoreBody, {}),
        (request_bodies.CollectionBody, {}),
        (Document, GOOD),
    ],
)
def test_null_for_an_optional_field_is_its_default(kind, body):
    plain = decoding.decode_json(encoded(body), kind)
    optional = [field.name for field in msgspec.structs.fields(kind) if not field.required]
    assert decoding.decode_json(encoded(dict.fromkeys(optional) | body), kind) == plain


def test_null_for_a_weight_is_its_default():
    body = decoding.decode_json(b'{"query":"q","weights":{"dense":null,"sparse":2}}', SearchBody)
    assert (body.weights.dense, body.weights.sparse) == (1.0, 2.0)


# Documents


def test_null_for_a_document_s_optional_field_is_its_default():
    body = many(GOOD | {"path": None, "language": None, "metadata": None, "same_as": None})
    (document,) = taken(body).documents
    assert (document.path, document.language, document.metadata, document.same_as) == ("", "", {}, "")


def test_documents_are_decoded_when_their_turn_comes_and_are_the_same_each_time():
    found = taken(many(GOOD, {"id": "b", "text": "u", "metadata": {"k": [1]}}))
    assert [document.id for document in found.documents] == ["a", "b"]
    assert [document.id for document in found.documents[1:]] == ["b"]
    assert found.documents[1] is not found.documents[1]
    assert found.documents[1].metadata == {"k": [1]}


@pytest.mark.parametrize(
    ("said", "kept"), [("Python", "python"), ("C++", "cpp"), ("golang", "go"), ("Klingon", "klingon")]
)
def test_a_language_has_one_name(said, kept):
    assert taken(many(GOOD | {"language": said})).documents[0].language == kept


@pytest.mark.parametrize("number", [-(2**63), 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 1e308, 5e-324, -0.0])
def test_a_number_that_can_be_kept_passes_as_it_is(number):
    (document,) = taken(many(GOOD | {"metadata": {"n": number}})).documents
    assert document.metadata == {"n": number}
    assert type(document.metadata["n"]) is type(number)


@pytest.mark.parametrize(
    "number", ["18446744073709551616", "-9223372036854775809", "9" * 400, "9" * 5000, "1e400", "-1e999"]
)
@pytest.mark.parametrize(("metadata", "field"), [('{"n":%s}', "n"), ('{"a":[0,{"b":%s}]}', "a[1].b")])
def test_a_number_that_cannot_be_kept_fails_its_own_document_and_no_other(number, metadata, field):
    bad = '{"id":"bad","text":"t","metadata":%s}' % (metadata % number)
    good = [json.dumps({"id": id, "text": "t"}) for id in "ab"]
    for body, kind in (
        ('{"documents":[%s]}' % ",".join([good[0], bad, good[1]]), "application/json"),  # noqa: UP031
        ("\n".join([good[0], bad, good[1]]), "application/x-ndjson"),
    ):
        found = taken(body, kind)
        assert [document.id for document in found.documents] == ["a", "b"]
        (refused,) = [entry for entry in found.entries if entry.error]
        assert (refused.id, refused.error.code) == ("bad", "number_out_of_range")
        assert "metadata" in refused.error.field
        if len(number) < 30 and "e" not in number:
            assert refused.error.field.endswith(f"metadata.{field}")


def test_of_bad_lines_a_hundred_are_told_and_all_are_counted():
    data = b"1\n" * 5000 + b'{"id":"a","text":"t"}'
    found = taken(data, "application/x-ndjson")
    assert [entry.line for entry in found.entries] == [*range(1, documents.REPORTED_LINES_MAX + 1), 5001]
    assert found.unreported == 4900
    told = run(found.report_outcomes([IndexOutcome("a", DocumentStatus.INDEXED, 1)]))
    assert len(told) == documents.REPORTED_LINES_MAX + 1
    assert told[-1].status is DocumentStatus.INDEXED


def test_the_loop_runs_on_while_documents_are_read_and_their_deadline_ends_them():
    data = b'{"documents":[%s],"timeout_ms":50}' % b",".join(b'{"id":"%d","text":""}' % n for n in range(9000))
    turns = 0

    async def main() -> None:
        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        with pytest.raises(Expired, match="while the documents were read"):
            await documents.read_documents(request(data), SlowClock())
        beside.cancel()

    class SlowClock:
        """A clock on which each turn of the loop takes ten milliseconds."""

        def now(self) -> float:
            return asyncio.get_running_loop().time() + turns * 0.01

    run(main())
    assert turns > 3


# NDJSON


def lines(data: bytes) -> list[tuple[int, Any]]:
    found = taken(data, "application/x-ndjson")
    return [(e.line, (e.error.field, e.error.code) if e.error else e.id) for e in found.entries]


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


# Time limits in headers


@pytest.mark.parametrize("text", ["1", "3600000", "007", " 1"])
def test_a_time_limit_in_a_header_is_read(text):
    async def main() -> None:
        assert request_state(request(b"", x_request_timeout_ms=text).scope).timeout_ms == int(text)

    run(main())


@pytest.mark.parametrize("text", ["", "0", "3600001", "-1", "1.0", "²", "1e2", "9" * 5000])
def test_any_other_time_limit_is_refused_with_its_bounds(text):
    async def main() -> None:
        request(b"", x_request_timeout_ms=text)

    with pytest.raises(Invalid, match="between 1 and 3600000") as caught:
        run(main())
    assert caught.value.field == "X-Request-Timeout-Ms"


# Diagnosis


def test_a_body_too_long_is_not_looked_at():
    assert find_invalid_json(b'{"a":NaN,"b":"' + b"x" * SCANNED_BYTES_MAX + b'"}') is None


@pytest.mark.parametrize("value", ["0", "[]", "{}", '""', "[[0]]", '{"a":0}'])
def test_a_body_of_many_values_is_not_looked_at(value):
    body = '{"a":[%s,NaN]}'
    assert find_invalid_json((body % value).encode()) is not None
    assert find_invalid_json((body % ",".join([value] * SCANNED_VALUES_MAX)).encode()) is None


def test_lines_that_are_not_told_are_not_looked_at(monkeypatch):
    looked_at = []
    monkeypatch.setattr(decoding, "find_invalid_json", looked_at.append)
    taken(b'{"id":"a","text":NaN}\n' * 5000, "application/x-ndjson")
    assert len(looked_at) == documents.REPORTED_LINES_MAX


def test_the_first_fault_is_told():
    fault = find_invalid_json(rb'{"a":[1,{"b":NaN}],"c":"\ud800"}')
    assert fault is not None
    assert fault.field == "a[1].b"


def refused_field(data: bytes, kind: type) -> str | None:
    """Return the field that is refused, ``None`` where the body is taken."""
    try:
        decoding.decode_json(data, kind)
    except Invalid as error:
        return error.field
    return None


@given(st.binary())
def test_any_bytes_are_read_or_refused(data):
    for kind in (SearchBody, request_bodies.DeleteBody):
        assert refused_field(data, kind) != ""
    assert len(taken(data, "application/x-ndjson").documents) <= data.count(b"\n") + 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
)


@given(st.dictionaries(st.sampled_from(["query", "limit", "filter", "weights", "timeout_ms", "x"]), json_values))
def test_any_json_is_read_or_refused(value):
    assert refused_field(json.dumps(value).encode(), SearchBody) != ""


def test_the_outcome_names_the_document_whose_vectors_were_taken():
    found = taken({"documents": [GOOD | {"same_as": "b"}, {"id": "c", "text": "t"}]})
    assert found.documents[0].same_as == "b"
    became = [IndexOutcome("a", DocumentStatus.INDEXED, 1, same_as="b"), IndexOutcome("c", DocumentStatus.INDEXED, 1)]
    told = msgspec.to_builtins(run(found.report_outcomes(became)))
    assert told == [
        {"status": "indexed", "chunks": 1, "id": "a", "same_as": "b"},
        {"status": "indexed", "chunks": 1, "id": "c"},
    ]
