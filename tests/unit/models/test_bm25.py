"""BM25 vectors as the engine makes them, and what its tokenizers do with identifiers."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.models.bm25 import CHARACTERS_MAX, Bm25Runner, Bm25Settings
from penstock.models.cancellation import CancellationToken, RunCancelled

CODE = "def get_user_name(): return HttpParser.parseBody(os.path.join(a))"


def _matches(runner: Bm25Runner, query: str, text: str = CODE) -> bool:
    indices = runner.encode_queries([query])[0].indices
    return len(indices) > 0 and bool(np.isin(indices, runner.encode_documents([text])[0].indices).all())


def test_document_weights_follow_the_formula() -> None:
    runner = Bm25Runner(Bm25Settings(k=1.2, b=0.75, avg_len=4))
    vector = runner.encode_documents(["walrus walrus heron crane"])[0]
    assert (vector.indices.dtype.name, vector.values.dtype.name) == ("uint32", "float32")
    expected = [tf * 2.2 / (tf + 1.2) for tf in (1, 1, 2)]
    np.testing.assert_allclose(sorted(vector.values), expected, rtol=1e-5)


def test_query_terms_weigh_one_and_match_stems() -> None:
    runner = Bm25Runner(Bm25Settings())
    query = runner.encode_queries(["the running tests tests"])[0]
    assert query.values.tolist() == [1.0, 1.0]
    assert set(query.indices) == set(runner.encode_documents(["run test"])[0].indices)


@pytest.mark.parametrize("text", ["", "  \n", "the of", "!?"])
def test_text_without_terms_has_an_empty_vector(text: str) -> None:
    vector = Bm25Runner(Bm25Settings()).encode_documents([text])[0]
    assert len(vector.indices) == len(vector.values) == 0


@pytest.mark.parametrize(
    ("query", "word", "code"),
    [
        ("user", True, True),
        ("get_user_name", True, True),
        ("os.path.join", True, True),
        ("path", True, True),
        ("parsebody", True, True),
        ("parse", False, True),
        ("http parser", False, True),
        ("HTTPPARSER", True, True),
    ],
)
def test_tokenizers_cut_identifiers(query: str, word: bool, code: bool) -> None:  # noqa: FBT001 - a table
    assert _matches(Bm25Runner(Bm25Settings(tokenizer="word")), query) is word
    assert _matches(Bm25Runner(Bm25Settings(tokenizer="code")), query) is code


def test_long_and_mangled_texts_are_encoded() -> None:
    runner = Bm25Runner(Bm25Settings())
    assert len(runner.encode_documents(["walrus heron " * 80_000])[0].indices) == 2
    assert _matches(runner, "walrus", "\ud800 walrus")


def test_a_huge_text_is_read_to_a_bound_and_this_is_told() -> None:
    runner = Bm25Runner(Bm25Settings())
    text = "".join(f"{number:x} " for number in range(100_000))
    for encode in (runner.encode_documents, runner.encode_queries):
        (whole,), (cut,) = encode([text]), encode([text[:CHARACTERS_MAX]])
        assert whole.indices.tolist() == cut.indices.tolist()
    assert runner.truncated([text, "short"]) == [True, False]


def test_encoding_stops_between_two_texts() -> None:
    stop = CancellationToken()
    stop.cancel()
    with pytest.raises(RunCancelled):
        Bm25Runner(Bm25Settings()).encode_documents(["a"], stop)
