"""The fault proof's counting, and its slow link."""

import math
import os
import socket

from bench.faults.accounting import Contents, Phase, doubled, refused_documents, tally
from bench.faults.load import CUT, SILENT, UNREACHED, Attempt
from bench.faults.results import figures, run_of, table
from bench.faults.wire import Wire

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
    assert (found.sent, found.answered, found.lesser, found.unreached, found.lost) == (7, 2, 1, 1, 2)
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
    found = tally(PHASE, attempts, NOTHING)
    assert math.isinf(found.recovery_s)
    assert "not in the phase" in table(run_of("redis/edge", [(PHASE, found)], NOTHING, 0))


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
    run = run_of("redis/edge", [(PHASE, tally(PHASE, [search(10.0, CUT)], NOTHING))], NOTHING, 0)
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
