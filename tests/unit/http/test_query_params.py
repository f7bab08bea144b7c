import uuid
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from penstock.http.decoding import PAGE_DOCUMENTS_MAX, DeleteQuery, NoQuery, PageQuery, decode_query
from penstock.http.operations import ENDPOINTS
from penstock.kernel.errors import Invalid
from tests.clock import virtual
from tests.fakes.api import Api, assert_refused

POINT = uuid.UUID(int=7)


def test_a_query_that_says_nothing_has_the_defaults():
    assert decode_query(b"", PageQuery) == PageQuery(UNSET, 1000, "")
    assert decode_query(b"", DeleteQuery) == DeleteQuery(UNSET, UNSET)


def test_each_parameter_has_the_type_of_its_field():
    text = urlencode({"after": str(POINT), "limit": "20", "path_prefix": "a b/é&"}).encode()
    assert decode_query(text, PageQuery) == PageQuery(POINT, 20, "a b/é&")


def test_a_list_is_a_parameter_given_again_and_again():
    assert decode_query(b"ids=a&ids=&ids=b%26c", DeleteQuery).ids == ["a", "", "b&c"]


@pytest.mark.parametrize(
    ("text", "kind", "field", "words"),
    [
        (b"path_prefx=src/", PageQuery, "path_prefx", "it takes after, limit, path_prefix"),
        (b"x=1", NoQuery, "x", "it takes none"),
        (b"limit=1&limit=2", PageQuery, "limit", "twice"),
        (b"path_prefix=a&path_prefix=", DeleteQuery, "path_prefix", "twice"),
        (b"limit=", PageQuery, "limit", "whole number"),
        (b"limit=0", PageQuery, "limit", ">= 1"),
        (b"limit=%d" % (PAGE_DOCUMENTS_MAX + 1), PageQuery, "limit", "<= 10000"),
        (b"limit=1_0", PageQuery, "limit", "whole number"),
        ("limit=٥".encode(), PageQuery, "query", "UTF-8"),
        (b"after=null", PageQuery, "after", "UUID"),
        (b"after=", PageQuery, "after", "UUID"),
        (b"path_prefix=%ff", PageQuery, "query", "UTF-8"),
        (b"path_prefix=%ed%a0%80", DeleteQuery, "query", "UTF-8"),
        (b"path_prefix=" + b"x" * 4097, PageQuery, "path_prefix", "length <= 4096"),
    ],
)
def test_what_is_wrong_is_named(text, kind, field, words):
    with pytest.raises(Invalid, match=words) as wrong:
        decode_query(text, kind)
    assert (wrong.value.field, wrong.value.code) == (field, "invalid")


@given(st.binary(max_size=200), st.sampled_from([NoQuery, PageQuery, DeleteQuery]))
def test_any_bytes_are_a_query_or_told_to_be_none(text, kind):
    field = ""
    try:
        decoded = decode_query(text, kind)
    except Invalid as error:
        field = error.field
    assert field or isinstance(decoded, kind)


@given(st.lists(st.text(max_size=20), max_size=20))
def test_whatever_can_be_encoded_comes_out_as_it_was(ids):
    decoded = decode_query(urlencode([("ids", one) for one in ids]).encode(), DeleteQuery)
    assert (decoded.ids or []) == ids


@virtual
async def test_every_endpoint_refuses_a_parameter_that_it_does_not_know():
    api = await Api().with_collection("notes")
    for endpoint in ENDPOINTS:
        answer = await api.ask(endpoint.method, endpoint.path.replace("{name}", "notes") + "?misspelt=1")
        assert_refused(answer, endpoint, 422, "misspelt")


@virtual
async def test_every_endpoint_holds_the_headers_to_the_same_rules():
    api = await Api().with_collection("notes")
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace("{name}", "notes")
        for name, value in (("X-Request-Timeout-Ms", "soon"), ("X-Criticality", "never")):
            body = None if endpoint.body is None else _BODIES.get(endpoint.operation, {})
            answer = await api.ask(endpoint.method, path, body, {name: value})
            assert_refused(answer, endpoint, 422, name)


_BODIES = {
    "search": {"query": "x", "timeout_ms": 1000},
    "index_documents": {"documents": [], "timeout_ms": 1000},
    "delete_documents": {"ids": ["a"]},
    "embed": {"texts": ["x"], "timeout_ms": 1000},
    "sparse": {"texts": ["x"], "timeout_ms": 1000},
    "rerank": {"query": "x", "texts": ["x"], "timeout_ms": 1000},
}
