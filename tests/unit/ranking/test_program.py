"""The course of a retrieval, driven by hand."""

import itertools

import numpy as np
import pytest

from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable
from penstock.kernel.late_interaction import quantize
from penstock.kernel.vectors import SparseVector
from penstock.ranking.program import LATE_INTERACTION, RERANK_STAGE, RESCORED_CANDIDATES, advance, retrieval_program
from penstock.ranking.retrieval import (
    Arm,
    CompareTokensStep,
    ReadPayloadsStep,
    RetrievalOutcome,
    RetrievalQuery,
    SearchStep,
    StageRank,
)

DENSE = np.array([1, 0], np.float32)
SPARSE = SparseVector(np.array([1], np.uint32), np.array([1], np.float32))
TOKENS = quantize(np.eye(2, dtype=np.float32))
WANTED = RetrievalQuery(2, 10, DENSE, SPARSE, TOKENS)
DOWN = Unavailable("down", dependency="store")


class Piece:
    """A chunk without a name or a place."""

    path = symbol = ""
    text = "text"


def reads(step):
    """Return the answer to a step that reads."""
    assert isinstance(step, ReadPayloadsStep)
    return dict.fromkeys(step.points, Piece())


def arms_asked(step):
    assert isinstance(step, SearchStep)
    return [str(ask.arm) for ask in step.searches]


def test_the_steps_of_a_whole_search():
    going = retrieval_program(WANTED)
    step = advance(going)
    assert (arms_asked(step), [ask.limit for ask in step.searches]) == (["dense", "sparse"], [10, 10])
    step = advance(going, [{"a": 0.9, "b": 0.8}, {"c": 7.0, "a": 5.0}])
    assert arms_asked(step) == ["dense", "sparse"]
    assert [list(ask.among) for ask in step.searches] == [["c"], ["b"]]
    step = advance(going, [{"c": 0.85}, {}])
    assert isinstance(step, CompareTokensStep)
    assert set(step.points) == {"a", "b", "c"}
    step = advance(going, {point: np.array([0.5, 0.5], np.float32) for point in "abc"})
    outcome = advance(going, reads(step))
    assert isinstance(outcome, RetrievalOutcome)
    assert list(outcome.ranked) == ["a", "c"]
    assert list(outcome.stages) == ["dense", "sparse", "fusion", RERANK_STAGE, LATE_INTERACTION]
    assert outcome.failures == {}
    assert outcome.stage_ranks()["c"]["dense"] == StageRank(None, 0.85)
    assert outcome.stage_ranks()["a"]["sparse"] == StageRank(2, 5.0)


def test_of_many_candidates_the_best_of_the_fusion_are_rescored():
    going = retrieval_program(WANTED)
    advance(going)
    many = {f"p{number:03}": 1 - number / 1000 for number in range(200)}
    step = advance(going, [many, dict(many)])
    assert isinstance(step, CompareTokensStep)
    assert list(step.points) == list(many)[:RESCORED_CANDIDATES]


def test_more_hits_wanted_than_are_compared_get_both_exact_scores_in_whole_blocks():
    going = retrieval_program(RetrievalQuery(100, 200, DENSE, SPARSE, TOKENS))
    advance(going)
    dense, sparse = ({f"{arm}{number:03}": 1 - number / 1000 for number in range(200)} for arm in "ds")
    step = advance(going, [dense, sparse])
    assert [len(ask.among) for ask in step.searches] == [64, 64]
    step = advance(going, [dict.fromkeys(ask.among, 0.1) for ask in step.searches])
    assert len(step.points) == RESCORED_CANDIDATES
    step = advance(going, {})
    assert len(step.points) == 100


def test_more_hits_wanted_than_the_arms_found_are_asked_for_in_twice_as_many():
    going = retrieval_program(RetrievalQuery(3, 2, DENSE, SPARSE, rerank=False))
    assert [ask.limit for ask in advance(going).searches] == [2, 2]
    assert [ask.limit for ask in advance(going, [{"a": 0.9, "b": 0.8}, {"b": 7.0, "a": 5.0}]).searches] == [4, 4]
    step = advance(going, [{"a": 0.9, "b": 0.8, "d": 0.7}, {"c": 8.0, "b": 7.0, "a": 5.0}])
    assert step.points == ["b", "a", "c"]
    outcome = advance(going, reads(step))
    assert list(outcome.ranked.values()) == sorted(outcome.ranked.values(), reverse=True)


def test_arms_that_have_nothing_more_are_not_asked_again():
    going = retrieval_program(RetrievalQuery(9, 4, DENSE, SPARSE, rerank=False))
    advance(going)
    assert isinstance(advance(going, [{"a": 0.9, "b": 0.8}, {"c": 7.0}]), ReadPayloadsStep)


def test_equal_scores_of_an_arm_are_ranked_by_id():
    going = retrieval_program(RetrievalQuery(3, 4, DENSE, None))
    advance(going)
    assert advance(going, [{"c": 0.5, "b": 0.5, "a": 0.1}]).points == ["b", "c", "a"]


class House:
    """Arms over some points with random scores, and how a program over them ends."""

    def __init__(self, rng, points):
        self.scores = {arm: {f"p{n:04}": round(float(rng.random()), 2) for n in range(points)} for arm in Arm}
        self.tests = {point for point in self.scores[Arm.DENSE] if rng.random() < 0.5}

    def outcome(self, query):
        going = retrieval_program(query)
        step = advance(going)
        while not isinstance(step, RetrievalOutcome):
            if isinstance(step, SearchStep):
                step = advance(going, [self.found(ask) for ask in step.searches])
            elif isinstance(step, CompareTokensStep):
                step = advance(going, {p: np.full(2, self.scores[Arm.DENSE][p], np.float32) for p in step.points})
            else:
                step = advance(going, {p: self.piece(p) for p in step.points})
        return step

    def found(self, ask):
        scores = self.scores[ask.arm]
        among = list(scores) if ask.among is None else ask.among
        # Equal scores come in an order that depends on how many are asked for.
        best = sorted(among, key=lambda point: (-scores[point], hash((point, ask.limit))))
        return {point: scores[point] for point in best[: ask.limit]}

    def piece(self, point):
        piece = Piece()
        piece.path = f"tests/{point}.py" if point in self.tests else f"{point}.py"
        return piece


@pytest.mark.parametrize("candidates", [5, 64, 100])
@pytest.mark.parametrize("points", [3, 30, 300])
@pytest.mark.parametrize(
    "wishes", [{}, {"rerank": False}, {"sparse": None}, {"text": "words"}, {"text": "a_name of it"}], ids=str
)
def test_a_longer_answer_begins_as_the_shorter(candidates, points, wishes):
    house = House(np.random.default_rng(points + candidates), points)
    query = {"dense": DENSE, "sparse": SPARSE, "token_vectors": TOKENS, **wishes}
    limits = (1, 7, 10, 33, 64, 65, 290)
    answers = [house.outcome(RetrievalQuery(limit, candidates, **query)).ranked for limit in limits]
    for shorter, longer in itertools.pairwise(answers):
        assert list(longer.items())[: len(shorter)] == list(shorter.items())
        assert list(longer.values()) == sorted(longer.values(), reverse=True)
    assert len(answers[-1]) == min(290, points)


def test_without_rerank_the_fusion_is_read_at_once():
    going = retrieval_program(RetrievalQuery(1, 10, DENSE, SPARSE, TOKENS, rerank=False))
    advance(going)
    step = advance(going, [{"a": 0.9}, {"b": 3.0}])
    assert step == ReadPayloadsStep(["a"])


def test_one_arm_keeps_its_scores():
    going = retrieval_program(RetrievalQuery(5, 10, None, SPARSE, TOKENS))
    assert arms_asked(advance(going)) == ["sparse"]
    outcome = advance(going, reads(advance(going, [{"b": 3.0, "a": 1.0}])))
    assert (outcome.ranked, list(outcome.stages)) == ({"b": 3.0, "a": 1.0}, ["sparse"])


def test_where_nothing_is_found_nothing_is_read():
    going = retrieval_program(WANTED)
    advance(going)
    outcome = advance(going, [{}, {}])
    while not isinstance(outcome, RetrievalOutcome):
        outcome = advance(going, {})
    assert outcome.ranked == {}


def test_points_that_are_gone_when_they_are_read_are_left_out():
    going = retrieval_program(RetrievalQuery(5, 10, DENSE, None))
    advance(going)
    advance(going, [{"a": 0.9, "b": 0.8}])
    assert list(advance(going, {"b": Piece()}).ranked) == ["b"]


@pytest.mark.parametrize("error", [DOWN, Rejected("busy"), Expired("store"), Broken("bug")], ids=repr)
def test_a_question_that_spoils_both_arms_is_found_by_asking_one_by_one(error):
    going = retrieval_program(RetrievalQuery(5, 10, DENSE, SPARSE))
    advance(going)
    assert arms_asked(advance(going, error=Broken("both"))) == ["dense"]
    assert arms_asked(advance(going, error=error)) == ["sparse"]
    outcome = advance(going, reads(advance(going, [{"a": 1.0}])))
    assert (list(outcome.ranked), outcome.failures) == (["a"], {"dense": error})


@pytest.mark.parametrize("error", [DOWN, Rejected("busy"), Expired("store")], ids=repr)
def test_who_is_down_or_busy_is_not_asked_again(error):
    going = retrieval_program(WANTED)
    advance(going)
    with pytest.raises(type(error)):
        advance(going, error=error)


def test_no_arm_answering_is_the_first_ones_error():
    going = retrieval_program(WANTED)
    advance(going)
    advance(going, error=Broken("both"))
    advance(going, error=DOWN)
    with pytest.raises(Unavailable):
        advance(going, error=Broken("sparse"))


def test_the_requests_own_fault_ends_it():
    going = retrieval_program(WANTED)
    advance(going)
    with pytest.raises(Invalid):
        advance(going, error=Invalid("no such collection"))


@pytest.mark.parametrize("completed", [False, True])
def test_a_rescoring_that_fails_leaves_the_order_of_the_fusion(completed):
    going = retrieval_program(WANTED)
    advance(going)
    step = advance(going, [{"a": 0.9, "b": 0.8}, {"c": 7.0, "a": 5.0}])
    if completed:
        step = advance(going, [{"c": 0.85}, {}])
    outcome = advance(going, reads(advance(going, error=DOWN)))
    assert outcome.failures == {RERANK_STAGE: DOWN}
    assert outcome.ranked == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 61})
    assert isinstance(step, CompareTokensStep if completed else SearchStep)


def test_a_failure_to_read_ends_it():
    going = retrieval_program(RetrievalQuery(5, 10, DENSE, None))
    advance(going)
    advance(going, [{"a": 1.0}])
    with pytest.raises(Unavailable):
        advance(going, error=DOWN)
