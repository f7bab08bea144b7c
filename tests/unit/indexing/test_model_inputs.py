from hypothesis import given
from hypothesis import strategies as st

from penstock.indexing.model_inputs import (
    HEADER_CHARACTERS_MAX,
    context_header,
    dense_text,
    header_tokens,
    sparse_query,
    sparse_text,
)
from penstock.models.text_folding import LETTERS_FOLLOW, spell_out
from penstock.stores.data_model import TEXT_PLAIN


def test_a_place_is_the_path_and_symbol_in_words():
    assert (
        context_header("src/json/decoder.py", "JSONDecoder.raw_decode") == "src json decoder py JSONDecoder raw decode"
    )


def test_a_long_path_loses_its_beginning():
    where = context_header("very/" * 40 + "deep/file.py", "symbol")
    assert len(where) <= HEADER_CHARACTERS_MAX
    assert where.endswith("deep file py symbol")


def test_a_document_without_a_path_is_embedded_as_it_is():
    assert dense_text("some words", "", "Heading") == "some words"
    assert header_tokens("") == 0


def test_a_chunk_of_a_file_is_embedded_with_its_place():
    assert dense_text("return 1", "a/b.py", "f") == "a b py f\nreturn 1"
    assert header_tokens("a/b.py") > 0


def test_sparse_text_carries_path_symbol_and_the_parts_of_identifiers():
    words = sparse_text("parseHTTPResponse(x)", "net/client.py", "Client.send").split()
    assert {"net/client.py", "Client.send", "parse", "http", "response"} <= set(words)


def test_a_query_keeps_its_words_and_gains_parts():
    assert sparse_query("plain words") == "plain words"
    assert sparse_query("fix parseBody") == "fix parseBody parse body"


@given(st.text(max_size=200), st.text(max_size=300), st.text(max_size=100))
def test_a_place_never_outgrows_what_is_kept_free(text, path, symbol):
    assert len(dense_text(text, path, symbol)) <= len(spell_out(text)) + HEADER_CHARACTERS_MAX + 1


def test_a_dense_model_is_given_letters_that_it_knows():
    assert dense_text("the \ufb01le is of\ufb01cial", "", "") == "the file is official"
    assert dense_text("\uff21\uff22\uff23", "\uff41.py", "\uff42") == "a py b\nABC"


def test_a_text_follows_the_version_of_its_collection():
    assert sparse_query("数据库", TEXT_PLAIN) == "数据库"
    assert sparse_query("数据库").split() == ["数据", "据库"]
    assert sparse_text("résumé", "a.md", "", TEXT_PLAIN).split() == ["a.md", "résumé"]
    assert sparse_text("résumé", "a.md", "").split() == ["a.md", "resume"]


def test_identifiers_beside_chinese_letters_are_split():
    assert {"loadTenantConfig", "load", "tenant", "config"} <= set(
        sparse_text("调用loadTenantConfig加载", "", "").partition(LETTERS_FOLLOW)[0].split()
    )
    assert {"parseBody", "parse", "body"} <= set(sparse_query("调用parseBody").split())
