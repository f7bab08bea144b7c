"""How soon answers come: what a server tells of its progress, and the figures."""

import json
import time

import httpx
import pytest

from bench.answers.probes import WORDS, Answer, Probe, encoded, questions, seconds_until
from bench.answers.results import ChangeTimes, TreeTimes, figures
from penstock.client import Client


def probe(answer, status=200):
    def handle(_request):
        return httpx.Response(status, json=answer)

    return Probe(Client("http://server", transport=httpx.MockTransport(handle)))


def test_what_lacks_vectors_is_what_the_server_tells():
    assert probe({"name": "default", "documents": 3, "chunks": 7, "pending": 5}).pending() == 5
    assert probe({"hits": [], "coverage": 0.25}).ask("how").coverage == 0.25
    assert probe({"hits": []}).ask("how").coverage == 1


def test_a_question_is_answered_by_a_hit_that_holds_it():
    hits = [{"id": "a", "score": 1.0, "text": "def f():\n    '''Fold the map.'''"}]
    assert probe({"hits": hits}).ask("Fold the map.").found
    assert not probe({"hits": hits}).ask("Unfold the map.").found


def test_there_are_no_hits_while_there_is_no_collection():
    assert probe({"code": "collection_not_found"}, 404).hits("a", WORDS) == []
    with pytest.raises(Exception, match="too long"):
        probe({"code": "query_too_long", "detail": "too long"}, 422).hits("a", WORDS)


def test_what_will_never_be_true_is_not_waited_for():
    def ended():
        raise RuntimeError("it ended")

    assert seconds_until(lambda: True, time.perf_counter(), ended) < 1
    with pytest.raises(RuntimeError, match="it ended"):
        seconds_until(lambda: False, time.perf_counter(), ended)


def test_questions_are_sentences_of_docstrings_in_the_documents(tmp_path):
    (tmp_path / "a.py").write_text(
        'def f():\n    """Fold the map along its longest side."""\n\n\ndef g():\n    """Go."""\n'
    )
    (tmp_path / "b.md").write_text("Nothing here.\n")
    documents = encoded(tmp_path)
    assert [one.path for one, _ in documents] == ["a.py", "b.md"]
    assert json.loads(documents[1][1])["text"] == "Nothing here.\n"
    assert questions(documents, 5) == ["Fold the map along its longest side."]


def test_trees_and_changes_are_held_against_their_goals():
    trees = {
        "2000 files": TreeTimes(files=2000, words_s=21.0, vectors_s=100.0, words_cpu_s={"front": 3.0}),
        "repository": TreeTimes(files=9, words_s=7.0, vectors_s=10.0, waiting_s=8.0, answers=[Answer(4.0, True, 0.5)]),
    }
    found = {one.name: one for one in figures(trees, ChangeTimes([0.5, 2.5], [1.0, 3.0]))}
    assert found["2000 files, all words"].met is False
    assert found["repository, all words"].met
    assert found["repository, all vectors / waiting"].met is False
    assert (found["change by words, median"].met, found["change by words, worst"].met) == (True, False)
    assert found["change by meaning, worst"].met
    assert found["  coverage at the first"].value == 0.5


def test_a_tree_without_a_goal_is_held_against_none():
    found = {one.name: one for one in figures({"60 files": TreeTimes(files=60, words_s=99.0)}, ChangeTimes())}
    assert found["60 files, all words"].met is None
