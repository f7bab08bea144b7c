"""The benchmark of agents: what it asks, and what it makes of the answers."""

from bench.agents.conduct import FIRST_LINES, QUICK_TREE, ROOT, _figures, _summary, long_files, questions
from bench.agents.stdio import Call

CALM = {"calls": 3, "p50_s": 0.01, "p99_s": 0.5, "max_s": 0.6, "errors": {}, "degraded": {}}


def test_questions_are_first_lines_and_files_are_long_enough_to_read_on():
    asked = questions(QUICK_TREE)
    assert len(asked) > 50
    assert all(len(one.split()) > 3 and "\n" not in one for one in asked)
    assert all((ROOT / one).read_text().count("\n") > FIRST_LINES for one in long_files(QUICK_TREE))


def test_errors_are_counted_apart_from_times():
    degraded = {"structuredContent": {"degraded": ["no_rerank"]}}
    summary = _summary([Call(0, 1.0, ""), Call(0, 3.0, "", degraded), Call(0, 9.0, "topic_full")])
    assert (summary["calls"], summary["max_s"], summary["errors"]) == (3, 3.0, {"topic_full": 1})
    assert summary["degraded"] == {"no_rerank": 1}


def test_a_goal_that_is_missed_is_said_to_be():
    late = {**CALM, "p99_s": 1.5, "errors": {"timeout": 2}}
    memory = {"before": {"front": 200.0}, "after": {"front": 300.0}}
    got = {"start": CALM, "calm": CALM, "flood": late, "flood_same": late, "server_mb": memory}
    figures = _figures({**got, "bridges": {"rss_max_mb": 41.0, "pss_sum_mb": 400.0}})
    assert [one.name for one in figures if one.met is False] == [
        "beside a flood: 99 of 100 within",
        "beside a flood: errors of 3 calls",
        "a bridge's resident memory",
    ]
