"""The pure parts of the embedding benchmark."""

from __future__ import annotations

import pytest

from bench.embed import texts
from bench.embed.results import Results, Taken

WHOLE = "".join(f"line {number} of a long text, with seven words and more\n" for number in range(400))


def test_texts_are_the_same_for_the_same_seed_and_of_very_different_lengths() -> None:
    found = texts.mixed(WHOLE, 50, seed=3)
    assert found == texts.mixed(WHOLE, 50, seed=3)
    sizes = sorted(map(len, found))
    assert texts.CHARACTERS_MIN <= sizes[0] < sizes[-1] <= texts.CHARACTERS_MAX
    assert sizes[-1] > 5 * sizes[0]


def test_even_texts_have_about_the_tokens_asked_for() -> None:
    def words(ones):
        return [len(one.split()) for one in ones]

    assert all(28 <= count <= 33 for count in words(texts.even(WHOLE, 20, 30, words)))


def test_a_query_is_a_few_words_of_one_line() -> None:
    assert all(len(query.split()) == texts.QUERY_WORDS for query in texts.queries(WHOLE, 10))


def _results(**bulk: list[float]) -> Results:
    taken = [Taken(system.replace("_", " "), "mixed", seconds) for system, seconds in bulk.items()]
    for task in ("idle", "beside"):
        taken += [Taken(system.replace("_", " "), task, [0.001, 0.002]) for system in bulk]
    return Results("int7", {"mixed": [10, 30]}, taken, {"penstock": [0.99, 0.98]})


def test_the_ratio_is_to_the_better_of_the_peers_ways_in_each_round() -> None:
    found = _results(penstock=[1.0, 2.0, 1.0], fastembed_256=[9.0, 3.0, 4.0], fastembed_32=[3.0, 8.0, 5.0])
    assert found.ratio("mixed") == pytest.approx(3.0)  # of 3, 1.5 and 4


def test_without_the_peer_there_is_no_ratio_and_no_goal() -> None:
    found = _results(penstock=[1.0], onnxruntime=[2.0])
    assert found.ratio("mixed") is None
    assert not any(figure.goal for figure in found.figures())


def test_figures_are_medians_and_the_goal_is_judged() -> None:
    found = _results(penstock=[1.0, 4.0, 2.0], fastembed=[3.0, 12.0, 3.0])
    figures = {figure.name: figure for figure in found.figures()}
    assert figures["mixed texts, bulk"].value == pytest.approx(1.0)
    assert figures["mixed texts, bulk, tokens"].value == pytest.approx(20.0)
    assert figures["mixed texts, ours / fastembed"].met
    assert found.peers()["fastembed"]["mixed"] == pytest.approx(0.67)
