from dataclasses import dataclass

import pytest

from penstock.ranking.signals import SignalFactors, apply_signals


@dataclass(frozen=True)
class Piece:
    path: str = ""
    symbol: str = ""
    text: str = ""


def order(query, pieces, scores, signals=None):
    candidates = dict(zip(pieces, scores, strict=True))
    weighed = (
        apply_signals(query, candidates, pieces)
        if signals is None
        else apply_signals(query, candidates, pieces, signals)
    )
    return list(weighed)


def test_a_definition_stands_above_its_uses():
    pieces = {
        "use": Piece("a.py", "main", "value = urlsplit(url)\nprint(urlsplit(other))"),
        "definition": Piece("parse.py", "urlsplit", "def urlsplit(url):\n    return url"),
        "apart": Piece("b.py", "other", "nothing"),
    }
    assert order("urlsplit", pieces, [0.6, 0.55, 0.5]) == ["definition", "use", "apart"]


def test_a_test_falls_below_what_it_tests_when_both_score_alike():
    pieces = {"a": Piece("tests/test_csv.py"), "b": Piece("reader.py"), "c": Piece("x.py")}
    assert order("read rows", pieces, [0.60, 0.58, 0.40]) == ["b", "a", "c"]


def test_a_query_about_tests_leaves_tests_where_they_are():
    pieces = {"a": Piece("tests/test_csv.py"), "b": Piece("reader.py")}
    assert order("tests of the reader's rows", pieces, [0.60, 0.59], SignalFactors(test=0.5)) == ["a", "b"]


def test_a_negative_score_is_lowered_too():
    pieces = {"a": Piece("tests/a.py"), "b": Piece("x.py")}
    assert order("read rows", pieces, [-0.1, -0.1]) == ["b", "a"]


@pytest.mark.parametrize("query", ["information retrieval by computers", "Mach number 2.5, e.g. at sea", "query"])
def test_prose_without_path_and_symbol_is_left_in_its_order(query):
    pieces = {name: Piece(text=f"About retrieval {name} in general.") for name in "abc"}
    assert order(query, pieces, [0.3, 0.2, 0.1]) == ["a", "b", "c"]
