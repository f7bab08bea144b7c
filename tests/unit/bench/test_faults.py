"""The fault proof's counting, and its slow link."""

import json
import os
import socket

import msgspec

from bench.faults.accounting import Contents, Phase, course, doubled, refused_documents, tally
from bench.faults.load import CUT, SILENT, UNREACHED, Attempt
from bench.faults.results import figures, run_of, table, with_kept
from bench.faults.wire import Wire
from bench.report import Report

PHASE = Phase("a fault", "what was done", 10.0, 12.0, 20.0)
NOTHING = Contents({}, 0)


def search(at_s, status=200, **others):
    return Attempt(int(at_s * 100), "search", at_s, at_s + 0.1, status, **others)


def index(at_s, chunks, status=200):
    documents = list(chunks)
    there = {id: count for id, count in chunks.items() if count}
    return Attempt(int(at_s * 100), "index", at_s, at_s + 0.2, status, documents=documents, acknowledged=there)


def test_every_request_of_a_phase_has_one_end():
    attempts = [
        search(9.9, SILENT),
        search(10.0),
        search(11.0, lesser=True),
        search(12.0, 503, code="unavailable"),
        search(13.0, UNREACHED),
        search(14.0, CUT),
        search(15.0, SILENT),
        index(16.0, {"a": 2, "b": 0}, 207),
        search(20.0, 503),
    ]
    found = tally(PHASE, attempts, Contents({"a": 2}, 2))
    assert (found.requests, found.answered, found.lesser, found.unreached, found.lost) == (7, 2, 1, 1, 2)
    assert found.refused == {"503 unavailable": 1, "207 ": 1}


def test_what_was_acknowledged_and_is_not_there_is_lost():
    attempts = [index(10.0, {"a": 2}), index(11.0, {"b": 2})]
    assert tally(PHASE, attempts, Contents({"a": 2}, 2)).lost == 1


def test_recovery_ends_with_the_last_bad_second():
    attempts = [search(10.2, 503), search(11.5), search(12.3, 503), *(search(13.0 + n) for n in range(7))]
    found = tally(PHASE, attempts, NOTHING)
    assert (found.bad_s, found.recovery_s, found.after_mending_s) == (2, 3.0, 1.0)


def test_what_has_not_recovered_within_its_phase_is_said_not_to_have():
    attempts = [search(10.0 + n) for n in range(9)] + [search(19.5, 503)]
    run = run_of("redis/edge", [PHASE], attempts, NOTHING)
    assert (run.tallies[0].recovery_s, run.tallies[0].after_mending_s) == (None, None)
    assert "not in the phase" in table(run)
    report = Report("faults", figures([run]))
    assert json.loads(report.json())["figures"][2]["value"] is None
    assert "Infinity" not in report.json()
    assert "none" in report.text()


def test_a_request_counts_when_it_failed_not_when_it_was_sent():
    attempts = [Attempt(1, "search", 9.0, 10.5, 503), search(12.0), Attempt(3, "search", 19.5, 20.5, 200)]
    found = tally(PHASE, attempts, NOTHING)
    assert (found.requests, found.refused, found.bad_s) == (2, {"503 ": 1}, 1)


def test_what_never_ended_counts_when_it_was_sent():
    assert tally(PHASE, [Attempt(1, "search", 19.0, 64.0, SILENT)], NOTHING).lost == 1


def test_the_longest_time_without_an_answer_is_told():
    attempts = [search(11.0), search(15.0, 503), search(18.0), search(19.9)]
    assert round(tally(PHASE, attempts, NOTHING).still_s, 1) == 7.0


def test_each_second_tells_what_ended_in_it():
    attempts = [search(0.1), search(0.95, 503), search(1.2, 503), search(1.3, UNREACHED), search(1.4, CUT)]
    assert course(attempts) == [[1, 0, 0], [0, 2, 2]]


def test_what_was_kept_of_other_layouts_stays_and_of_this_one_is_replaced(tmp_path):
    def run(layout, phases):
        return run_of(layout, phases, [], NOTHING)

    first = with_kept(tmp_path, [run("redis/edge", [PHASE])])
    Report("faults", figures(first)).save(tmp_path, msgspec.to_builtins(first))
    second = with_kept(tmp_path, [run("kafka/qdrant", [PHASE])])
    assert [one.layout for one in second] == ["kafka/qdrant", "redis/edge"]
    assert second[1] == first[0]
    assert with_kept(tmp_path, [run("redis/edge", [])])[0].phases == []


def test_results_of_another_form_are_not_kept(tmp_path):
    (tmp_path / "faults.json").write_text('{"results": [{"layout": "redis/edge"}]}')
    assert with_kept(tmp_path, []) == []


def test_an_undisturbed_phase_has_nothing_to_recover_from():
    found = tally(PHASE, [search(10.0 + n) for n in range(10)], NOTHING)
    assert (found.bad_s, found.recovery_s, found.after_mending_s) == (0, 0.0, 0.0)


def test_chunks_beyond_those_told_are_doubled_effects():
    attempts = [index(10.0, {"a": 2, "b": 3})]
    assert doubled(attempts, Contents({"a": 2, "b": 3}, 5)) == 0
    assert doubled(attempts, Contents({"a": 2, "b": 4}, 6)) == 1
    assert doubled(attempts, Contents({"a": 2, "b": 3}, 7)) == 2


def test_documents_not_acknowledged_are_sent_again():
    assert refused_documents([index(10.0, {"a": 2, "b": 0}, 207), index(11.0, {"c": 0}, 503)]) == ["b", "c"]


def test_the_goals_are_nothing_lost_and_nothing_done_twice():
    run = run_of("redis/edge", [PHASE], [search(10.0, CUT)], NOTHING)
    assert [(one.name, one.met) for one in figures([run])[:2]] == [
        ("redis/edge: lost", False),
        ("redis/edge: doubled effects", True),
    ]


def test_a_wire_carries_frames_late_in_order_and_both_ways():
    (near, wire_near), (far, wire_far) = pair(), pair()
    wire = Wire((wire_near.fileno(), wire_far.fileno()))
    wire.delay_s = 0.2
    near.send(b"one")
    near.send(b"two")
    far.send(b"back")
    wire.take(wire_near.fileno(), 5.0)
    wire.take(wire_far.fileno(), 5.1)
    assert wire.deliver(5.1) > 0.05
    wire.deliver(5.25)
    assert (far.recv(9), far.recv(9)) == (b"one", b"two")
    wire.deliver(5.35)
    assert near.recv(9) == b"back"
    for end in (near, wire_near, far, wire_far):
        end.close()


def test_a_wire_that_loses_all_delivers_nothing():
    (near, wire_near), (far, wire_far) = pair(), pair()
    wire = Wire((wire_near.fileno(), wire_far.fileno()))
    wire.loss = 1.0
    near.send(b"gone")
    wire.take(wire_near.fileno(), 5.0)
    assert wire.deliver(6.0) == 1.0
    for end in (near, wire_near, far, wire_far):
        end.close()


def pair():
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        os.set_blocking(end.fileno(), False)
    return ends
