"""Texts, queries and vectors that every system gets."""

import numpy as np
import pytest

from bench.corpus import Corpus, around, fresh, in_rows
from penstock.kernel.vectors import SparseVector


def _rows():
    full = SparseVector(np.array([3, 9], np.uint32), np.array([1.0, 2.0], np.float32))
    return in_rows([full, SparseVector(np.array([], np.uint32), np.array([], np.float32)), full])


def test_an_empty_sparse_vector_has_an_empty_row():
    rows = _rows()
    assert len(rows) == 3
    assert [rows.row(number)[0].tolist() for number in range(3)] == [[3, 9], [], [3, 9]]
    assert rows.row(2)[1].tolist() == [1.0, 2.0]


def test_a_corpus_is_read_as_it_was_written(tmp_path):
    dense = np.eye(3, 4, dtype=np.float32)
    late = [np.full((rows, 64), rows, np.int8) for rows in (2, 1)]
    Corpus(["a", "b", "c"], ["q"], dense, dense[:1], _rows(), _rows(), late).save(tmp_path / "corpus")
    found = Corpus.load(tmp_path / "corpus")
    assert (found.texts, found.queries) == (["a", "b", "c"], ["q"])
    assert np.array_equal(found.dense, dense)
    assert np.array_equal(found.query_sparse.terms, _rows().terms)
    assert [rows.shape for rows in found.late] == [(2, 64), (1, 64)]
    assert found.late[1][0, 0] == 1


def test_fresh_queries_are_all_different_and_none_was_given():
    given = ["parse a json string", "open a file for reading"]
    found = list(fresh(given, 1))
    assert len(found) == len(set(found)) > 10
    assert not set(found) & set(given)
    assert found == list(fresh(given, 1))


def test_a_query_of_one_word_is_never_made_empty():
    assert list(fresh(["word"], 1)) == []


def test_every_tenth_vector_is_its_texts_and_the_others_lie_about_it():
    middles = np.eye(3, 64, dtype=np.float32)
    rows = around(middles, 25)
    assert rows.shape == (25, 64)
    assert np.array_equal(rows[::10], middles)
    assert rows[1:10] @ middles[0] == pytest.approx(np.full(9, 0.857), abs=0.1)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(25), abs=1e-5)
