"""The wire formats of model endpoints: what is sent, and which answers make sense."""

from __future__ import annotations

import json

import numpy as np
import pytest

from penstock.models.remote_formats import DENSE_FORMATS, RERANK_FORMATS, SPARSE_FORMATS
from penstock.models.vector_checks import TERMS_MAX, checked_sparse_vector, finite_array

OPENAI, TEI = DENSE_FORMATS["openai"], DENSE_FORMATS["tei"]
SPARSE = SPARSE_FORMATS["tei"]
RERANK, COHERE = RERANK_FORMATS["tei"], RERANK_FORMATS["cohere"]


def body(value: object) -> bytes:
    return json.dumps(value).encode()


def test_what_is_sent():
    assert OPENAI.request_body("m", "", ["a"]) == {"model": "m", "input": ["a"], "encoding_format": "float"}
    assert TEI.request_body("m", "", ["a"]) == {"inputs": ["a"], "truncate": True, "normalize": True}
    assert SPARSE.request_body("m", "", ["a"]) == {"inputs": ["a"], "truncate": True}
    assert RERANK.request_body("m", "q", ["a"]) == {"query": "q", "texts": ["a"], "truncate": True}
    assert COHERE.request_body("m", "q", ["a"]) == {"model": "m", "query": "q", "documents": ["a"], "top_n": 1}


def test_an_index_says_which_text_an_entry_is_of():
    vectors = {"data": [{"index": 1, "embedding": [3, 4], "object": "embedding"}, {"index": 0, "embedding": [1, 2]}]}
    np.testing.assert_array_equal(OPENAI.parse_response(body(vectors), 2), np.array([[1, 2], [3, 4]], np.float32))
    ranked = [{"index": 1, "score": 0.9, "text": None}, {"index": 0, "score": 0.1}]
    np.testing.assert_allclose(RERANK.parse_response(body(ranked), 2), [0.1, 0.9])
    results = {"id": "x", "results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]}
    np.testing.assert_allclose(COHERE.parse_response(body(results), 2), [0.1, 0.9])


def test_sparse_vectors_are_sorted_and_keep_what_weighs_most():
    (one,) = SPARSE.parse_response(
        body([[{"index": 9, "value": 0.5}, {"index": 2, "value": 1.5}, {"index": 5, "value": 0}]]), 1
    )
    assert (one.indices.tolist(), one.values.tolist()) == ([2, 9], [1.5, 0.5])
    many = checked_sparse_vector(range(3 * TERMS_MAX), [1.0 + n for n in range(3 * TERMS_MAX)])
    assert many.indices.tolist() == list(range(2 * TERMS_MAX, 3 * TERMS_MAX))
    assert checked_sparse_vector([], []).indices.dtype == np.uint32


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"null",
        b"[]",
        body({"data": []}),
        body({"data": [{"index": 0, "embedding": [1.0]}]}),
        body({"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]}),
        body({"data": [{"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}]}),
        body({"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]}),
        body({"data": [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}]}),
        body({"data": [{"index": 0, "embedding": ["1"]}, {"index": 1, "embedding": [1.0]}]}),
        body({"data": [{"embedding": [1.0]}, {"embedding": [1.0]}]}),
        body({"data": [{"index": 0, "embedding": [1e300]}, {"index": 1, "embedding": [1.0]}]}),
        b'{"data":[{"index":0,"embedding":[NaN]},{"index":1,"embedding":[1.0]}]}',
        b'{"data":[{"index":0,"embedding":[1e999]},{"index":1,"embedding":[1.0]}]}',
    ],
)
def test_an_answer_that_makes_no_sense_for_two_texts_is_refused(answer):
    for shape in (OPENAI, TEI, SPARSE, RERANK, COHERE):
        with pytest.raises(ValueError, match=r".+"):
            shape.parse_response(answer, 2)


@pytest.mark.parametrize(
    "terms",
    [
        [{"index": -1, "value": 1.0}],
        [{"index": 2**32, "value": 1.0}],
        [{"index": 2**63, "value": 1.0}],
        [{"index": 1, "value": 1.0}, {"index": 1, "value": 2.0}],
        [{"index": 1, "value": 1e300}],
        [{"index": 1}],
        [{"index": 1.5, "value": 1.0}],
        {"1": 1.0},
    ],
)
def test_terms_that_make_no_sense_are_refused(terms):
    with pytest.raises(ValueError, match=r".+"):
        SPARSE.parse_response(body([terms]), 1)


def test_finite_names_what_is_not():
    with pytest.raises(ValueError, match="a score is not finite"):
        finite_array([1.0, float("nan")], "a score")
