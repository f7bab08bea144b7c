"""The questions about code, and how an answer to them is recognised."""

from collections import Counter

import pytest

from bench import library
from bench.code import HALVES, KINDS, NOTHING, Asked, half_of, reciprocal, weighed, within
from bench.library import Place, Question
from penstock.ranking.signals import SignalFactors
from penstock.search.request import SearchHit
from penstock.search.request import StageRank as Rank


def test_there_are_enough_questions_of_every_kind_and_none_twice():
    questions = library.questions()
    assert len(questions) >= 80
    assert len({one.query for one in questions}) == len(questions)
    assert set(Counter(one.kind for one in questions)) == set(KINDS) - {"all"}


def test_the_halves_are_about_equal_and_do_not_depend_on_order():
    sizes = Counter(half_of(one) for one in library.questions())
    assert set(sizes) == set(HALVES)
    assert min(sizes.values()) > 0.4 * sizes.total()
    assert half_of(Question("name", "urlsplit", [])) == half_of(Question("words", "urlsplit", ["x"]))


def test_nearly_every_answer_stands_in_the_library_of_this_python():
    questions = library.questions()
    assert sum(bool(library.places(one)) for one in questions) > 0.9 * len(questions)
    files = {path.relative_to(library.ROOT).as_posix() for path in library.files()}
    assert {place.path for one in questions for place in library.places(one)} <= files


@pytest.mark.parametrize(
    ("path", "start", "end", "whole", "answered"),
    [
        ("a.py", 1, 10, True, True),
        ("a.py", 1, 9, True, False),
        ("a.py", 15, 30, True, True),
        ("a.py", 15, 30, False, False),
        ("a.py", 5, 12, False, True),
        ("b.py", 10, 20, True, False),
    ],
)
def test_a_hit_answers_by_its_lines(path, start, end, whole, answered):
    assert Place("a.py", 10, 20).is_answered_by(path, start, end, whole=whole) is answered
    assert Place("a.py").is_answered_by(path, start, end, whole=whole) is (path == "a.py")


def test_measures_count_what_was_not_found_as_nothing():
    assert [reciprocal(rank) for rank in (1, 4, None)] == [1, 0.25, 0]
    assert [within(5)(rank) for rank in (1, 5, 6, None)] == [1, 1, 0, 0]


def test_the_default_is_ranked_again_by_other_signals():
    def hit(path, score):
        return SearchHit(path, 0, 0.0, path, 1, 2, "text", "", "python", {}, {"rerank": Rank(1, score)})

    hits = [hit("b.py", 0.5), hit("tests/a.py", 0.6)]
    asked = Asked(Question("words", "how", []), [], {"default": hits})
    assert [one.path for one in weighed(asked, NOTHING)] == ["tests/a.py", "b.py"]
    assert [one.path for one in weighed(asked, SignalFactors(test=0.5))] == ["b.py", "tests/a.py"]
