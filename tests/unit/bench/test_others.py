"""Smaller parts: the report's file, searches beside something, figures of indexing and interference."""

import json

from bench import indexing
from bench.indexing import Taken
from bench.interference.results import Results, Seen
from bench.interference.searches import before
from bench.report import Figure, Report


def test_a_report_is_saved_with_what_it_was_drawn_from_and_without_infinities(tmp_path):
    report = Report("small", [Figure("a", float("inf"), "s"), Figure("b", 1.23456789, "s")])
    report.save(tmp_path / "out", {"more": (1, float("nan"))})
    found = json.loads((tmp_path / "out" / "small.json").read_text())
    assert [figure["value"] for figure in found["figures"]] == [None, 1.23457]
    assert found["results"] == {"more": [1, None]}


def test_searches_answered_after_the_other_has_ended_do_not_count():
    told = {"began_s": 100.0, "latencies_ms": [1.0, 2.0, 3.0], "ended_s": [0.5, 1.5, 2.5]}
    assert before(102.0, told) == [1.0, 2.0]


def test_interference_is_held_against_twice_the_idle_p99():
    phases = {"idle": Seen([10.0] * 100), "indexing": Seen([10.0] * 50 + [30.0] * 50)}
    found = {figure.name: figure for figure in Results(20.0, 100, phases, [90.0], [100.0]).figures()}
    assert found["indexing, p99 / idle, p99"].value == 3.0
    assert found["indexing, p99 / idle, p99"].met is False


def test_indexing_is_held_against_the_bare_embedder_round_by_round():
    taken = Taken([10.0, 20.0, 10.0], [0.1] * 3, [9.0, 10.0, 9.5], {"front": [1.0, 1.0, 1.0]})
    found = {figure.name: figure for figure in indexing.figures(5, {"chunks": 1000, "distinct": 990}, taken)}
    assert found["end to end / bare embedder"].value == 0.9
    assert found["end to end / bare embedder"].met
    assert found["processor, front"].value == 1.0
