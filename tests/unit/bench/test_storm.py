"""The benchmark of the storm: what it asks, what it counts, and what it makes of it."""

import base64
import json
from itertools import islice

import pytest

from bench.storm import plan
from bench.storm.accounting import Summary, back_s, course, served_s, summary
from bench.storm.generator import Answer, Generator, Missing, find_vegeta, read_answer
from bench.storm.results import Results, Taken, rungs
from bench.storm.tables import tables


def taken(part: str = "rates", load: float = 20.0, system: str = plan.OURS, **changed: object) -> Taken:
    found = summary([Answer(0, 200, 10.0), Answer(1, 503, 5.0, returns=True)], 1.0, 1.0, {"front": 0.5})
    values = {name: changed.pop(name) for name in list(changed) if name in Summary.__struct_fields__}
    whole = Summary(**{name: values.get(name, getattr(found, name)) for name in Summary.__struct_fields__})
    return Taken(part, system, load, changed.pop("keep", part != "new"), 100.0, whole, **changed)


def result(code: int, body: object = None, *, head: dict[str, list[str]] | None = None, error: str = "") -> bytes:
    packed = None if body is None else base64.b64encode(json.dumps(body).encode()).decode()
    line = {"code": code, "timestamp": "2026-12-01T05:16:54.149094391Z", "latency": 2_500_000, "error": error}
    return json.dumps({"attack": "", "seq": 0, **line, "body": packed, "headers": head}).encode()


def test_queries_have_three_to_seven_words_and_never_come_twice() -> None:
    vocabulary = plan.words(["One of `Three`, words.", "another one"])
    assert vocabulary == ["another", "one", "three", "words"]
    asked = list(islice(plan.queries([f"word{number}" for number in range(9)], seed=1), 2_000))
    assert len(set(asked)) == 2_000
    assert {len(query.split()) for query in asked} == {3, 4, 5, 6, 7}


def test_a_target_holds_body_key_and_deadline() -> None:
    told = json.loads(plan.target("http://h/v1/search", plan.search_body("a b c"), "key-1"))
    assert json.loads(base64.b64decode(told["body"])) == {"query": "a b c", "limit": plan.HITS}
    assert told["header"]["X-API-Key"] == ["key-1"]
    assert told["header"]["X-Request-Timeout-Ms"] == ["1000"]


def test_parts_come_in_their_order_and_unknown_ones_are_named() -> None:
    assert plan.parts("") == [*plan.PARTS]
    assert plan.parts("chroma,new") == ["new", "chroma"]
    with pytest.raises(ValueError, match="no part gale"):
        plan.parts("gale")


def test_results_of_the_generator_are_read() -> None:
    assert read_answer(result(200, {"hits": [], "degraded": ["query_truncated"]})).rung == ""
    assert read_answer(result(200, {"degraded": ["no_rerank", "no_dense"]})).rung == "no_rerank,no_dense"
    assert read_answer(result(200, {"ids": [["1"]]})).rung == ""
    told = read_answer(result(503, {"code": "overloaded"}, head={"Retry-After": ["1"]}))
    assert (told.code, told.ms, told.returns) == (503, 2.5, True)
    silent = read_answer(result(0, error="Post: context deadline exceeded"))
    assert (silent.code, silent.error) == (0, "Post: context deadline exceeded")


def test_ends_are_told_apart() -> None:
    answers = [
        Answer(0, 200, 10.0),
        Answer(0, 200, 30.0, rung="one_arm"),
        Answer(0, 429, 1.0, returns=True),
        Answer(0, 503, 3.0, returns=True),
        Answer(0, 503, 3.0),
        Answer(0, 504, 900.0),
        Answer(0, 0, 1000.0, error="dial: time is over"),
        Answer(0, 500, 2.0),
    ]
    found = summary(answers, 2.0, 2.0, {"front": 0.5})
    assert found.answers == {"whole": 1, "one_arm": 1}
    assert (found.goodput, found.goodput_whole, found.offered) == (0.5, 0.25, 2.0)
    assert found.refusals == {"429": 1, "503": 1}
    assert (found.told, found.refused, found.expired, found.other, found.unanswered) == (0.5, 0.25, 0.125, 0.25, 0.125)
    assert (found.p99_ms, found.refusal_p99_ms) == (30.0, 3.0)
    assert found.errors == {"time is over": 1}


def test_nothing_sent_is_nothing_told() -> None:
    found = summary([], 1.0, 100.0, {})
    assert (found.sent, found.goodput, found.told, found.p99_ms) == (0, 0.0, 0.0, 0.0)
    assert course([]) == []


def test_a_course_has_the_shares_of_each_second() -> None:
    answers = [Answer(10.0, 200, 1), Answer(10.9, 200, 1, rung="one_arm"), Answer(11.5, 0, 1), Answer(11.6, 504, 1)]
    assert course(answers) == [{"one_arm": 0.5, "whole": 0.5}, {"504": 0.5, "none": 0.5}]
    assert set(rungs([taken(course=course(answers))])) == {"one_arm", "whole", "none", "504"}


def test_whole_answers_are_back_when_a_second_of_them_is() -> None:
    answers = [Answer(at / 10, 200, 1, rung="one_arm" if at < 25 else "") for at in range(60)]
    assert served_s(answers, 0.0) == 0.0
    assert back_s(answers, 0.0) == 2.5
    assert back_s(answers[:30], 0.0) is None


def test_goals_are_of_the_storm_and_of_the_calm() -> None:
    calm = taken(load=0.7, p99_ms=51.0)
    results = Results("full", {plan.OURS: 100.0}, {}, [calm, taken(told=0.97, goodput=2.5, refusal_p99_ms=101.0)])
    missed = [figure.name.strip() for figure in results.figures() if figure.met is False]
    assert missed == ["p99", "20 C: told in time", "refusals p99"]
    assert [figure.met for figure in results.figures() if figure.name == "0.7 C: told in time"] == [None]


def test_a_run_of_parts_keeps_the_others_of_the_run_before() -> None:
    before = Results("full", {plan.OURS: 90.0}, {"chroma": "absent"}, [taken(load=1.0), taken("new")])
    now = Results("full", {plan.OURS: 100.0}, {}, [taken("chroma", 5.0, "chroma"), taken(load=2.0)])
    merged = now.merged(before)
    assert [(one.part, one.load) for one in merged.taken] == [("rates", 2.0), ("new", 20.0), ("chroma", 5.0)]
    assert (merged.closed, merged.left_out) == ({plan.OURS: 100.0}, {})


def test_tables_name_every_part_and_what_was_left_out() -> None:
    parts = [
        taken("steady", 1.2, facts={"moves": 3.0}, course=[{"whole": 1.0}] * 12),
        taken("step", 10.0, facts={"served_s": 0.5, "back_s": None, "told": 0.9}),
        taken("hog", 10.6, facts={"answered": 0.9}),
        taken("hangups", 5.0),
        taken("slow", 0.7, facts={"opened": 10_000.0}),
        taken("semaphore", 5.0, "semaphore"),
    ]
    results = Results("full", {plan.OURS: 100.0}, {"chroma": "absent"}, [taken(), taken("new"), *parts])
    page = "\n".join(tables(results))
    assert "## semaphore, kept connections" in page
    assert "back_s never" in page
    assert "| 10 to 12 s | 100.0 % |" in page
    assert results.peers()["chroma"] == {"left out": "absent"}
    assert results.peers()["semaphore"]["told at 5 C"] == 1.0
    assert [figure.value for figure in results.figures() if figure.name == "beside a hog, the others answered"] == [0.9]


def test_new_connections_come_from_several_addresses_that_change(tmp_path) -> None:
    generator = Generator(tmp_path / "vegeta", tmp_path, 0)
    kept = generator.prepared(iter("abcdefghijklmnopqrstuvwxyz"), 10, 1)
    assert [command[command.index("-rate") + 1] for command in kept] == ["10000/1000s"]
    first, second = ([generator.prepared(iter("a" * 99), 8, 1, keep=False)] for _ in range(2))
    addresses = [command[command.index("-laddr") + 1] for commands in (*first, *second) for command in commands]
    assert len(set(addresses)) == 8


def test_a_missing_generator_says_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match="--vegeta FILE"):
        find_vegeta(None, tmp_path)
    with pytest.raises(Missing, match="there is no file"):
        find_vegeta(tmp_path / "absent", tmp_path)
