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
    assert order("read rows", pieces, [0.60, 0.58, 0.30]) == ["b", "a", "c"]


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


def test_a_definition_as_typed_stands_above_one_in_letters_of_another_case():
    pieces = {
        "other": Piece("a.go", "context", "type context struct {"),
        "typed": Piece("b.go", "Context", "type Context struct {"),
    }
    assert order("Context", pieces, [0.6, 0.58]) == ["typed", "other"]


def test_a_file_named_by_the_query_stands_above_others():
    pieces = {"a": Piece("src/engine.go"), "b": Piece("src/tree.go"), "c": Piece("src/path.go")}
    assert order("radix tree matching", pieces, [0.60, 0.55, 0.40]) == ["b", "a", "c"]


def test_several_good_chunks_raise_the_best_of_their_file():
    pieces = {"alone": Piece("a.py")} | {name: Piece("b.py") for name in ("first", "second", "third")}
    assert next(iter(order("read rows", pieces, [0.60, 0.58, 0.57, 0.56]))) == "first"
    few = {"alone": Piece("a.py"), "first": Piece("b.py"), "far": Piece("c.py")}
    assert next(iter(order("read rows", few, [0.60, 0.58, 0.40]))) == "alone"


def test_further_chunks_of_a_file_leave_room_for_others():
    pieces = {name: Piece("a.py") for name in ("a1", "a2", "a3")} | {"b1": Piece("b.py")}
    assert order("read rows", pieces, [0.60, 0.59, 0.58, 0.56])[:2] == ["a1", "b1"]


@pytest.mark.parametrize(
    ("query", "first"), [("how are rows read", "code"), ("documentation of reading rows", "docs"), ("README", "docs")]
)
def test_documentation_is_below_code_unless_it_is_asked_for(query, first):
    pieces = {"docs": Piece("docs/guide.md"), "code": Piece("x.py")}
    assert order(query, pieces, [0.60, 0.55])[0] == first


def test_documentation_alone_keeps_its_scores():
    pieces = {"a": Piece("a.md"), "b": Piece("b.md")}
    weighed = apply_signals("how are rows read", {"a": 0.6, "b": 0.5}, pieces, SignalFactors(documentation=0.5))
    assert weighed == {"a": 0.6, "b": 0.5}


def test_what_holds_an_exact_term_of_the_query_comes_first():
    pieces = {"near": Piece(text="ORA-01018: no such table"), "right": Piece(text="ORA-01017: no such cursor")}
    assert order("what is ORA-01017", pieces, [0.8, 0.6]) == ["right", "near"]


def test_no_candidates_stay_none():
    assert apply_signals("x", {}, {}) == {}
