"""What counts as a promise kept under attack."""

from collections import Counter

import pytest

from bench.hostile.attack import Attack, Got
from bench.hostile.attacks import ATTACKS
from bench.hostile.results import Outcome, figures, table
from bench.hostile.target import CREDENTIALS, head, post, statuses
from bench.hostile.watch import Seen

QUIET = Seen(held_ms=10, grown_mb=5, searches=Counter({"200": 9}), search_s=0.1)


def outcome(got=None, seen=QUIET, **others):
    attack = Attack("H1", "something", "a refusal", lambda _: None, **others)
    return Outcome.of(attack, got or Got("422", kept=True, sent_bytes=1_000_000), seen)


def test_an_attack_without_effect_keeps_the_promise():
    assert outcome().met
    assert "kept" in str(outcome())


@pytest.mark.parametrize(
    ("got", "seen", "fault"),
    [
        (Got("500", kept=False), QUIET, "not a refusal"),
        (None, Seen(held_ms=51, searches=Counter({"200": 1})), "loop held 51 ms"),
        (Got("422", kept=True, sent_bytes=10_000_000), Seen(grown_mb=81), "81 MB for 10.0"),
        (Got("422", kept=True, sent_bytes=10), Seen(grown_mb=33), "33 MB for 0.0"),
        (None, Seen(searches=Counter({"200": 5, "503 circuit_open": 2})), "2 of others' searches not answered"),
    ],
)
def test_what_was_broken_is_named(got, seen, fault):
    found = outcome(got, seen)
    assert found.faults == [fault]
    assert not found.met


def test_while_many_flood_the_server_others_searches_count_instead_of_the_wait_for_a_probe():
    seen = Seen(held_ms=500, search_s=1.9)
    assert outcome(seen=seen, flood=True).met
    assert outcome(seen=Seen(search_s=2.1), flood=True).faults == ["others' searches took 2.1 s"]


def test_every_broken_promise_is_a_figure_that_is_missed():
    found = figures([outcome(), outcome(Got("500", kept=False))])
    assert [figure.met for figure in found] == [None, False, True, True, False]
    assert found[1].value == 1


def test_the_table_has_a_row_for_each_attack():
    lines = table([outcome(), outcome(Got("500", kept=False), Seen())]).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| H1 | something | a refusal | 422 | 10 ms |")


def test_every_attack_has_a_name_of_its_own():
    names = [attack.name for attack in ATTACKS]
    assert len(names) == len(set(names))


def test_requests_are_put_together_and_statuses_taken_apart():
    key = CREDENTIALS["authorization"].encode()
    assert head("GET", "/x", "A: b") == b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\nauthorization: %b\r\nA: b\r\n\r\n" % key
    assert post("/x", b"{}").endswith(b"Content-Length: 2\r\n\r\n{}")
    assert statuses(b"HTTP/1.1 200 OK\r\n\r\nabcHTTP/1.1 404 Not Found\r\n") == [200, 404]
