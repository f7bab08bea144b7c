"""What was measured of searching becomes figures."""

import json

from bench.search.results import Results, Speed


def _speed(rate, *latencies_ms):
    return Speed(rate, list(latencies_ms) or [1.0], 0, 0)


def _results():
    speeds = {
        "http, hybrid, warm, 16": [_speed(400, 5.0, 6.0), _speed(600, 7.0)],
        "http, default, warm, 16": [_speed(200), _speed(300)],
        "engine, hybrid, batch": [_speed(500), _speed(500)],
        "engine-optimised, hybrid, batch": [_speed(400), _speed(400)],
        "open loop at 0.7 C": [_speed(100, *([10.0] * 99), 80.0)],
    }
    recalls = {"penstock": {"dense": 1.0}, "engine": {"dense": 1.0, "hybrid": 0.9}}
    return Results(20_000, [1.0, 3.0, 1.5], speeds, recalls, {"lance": "not installed"}, {"front": 2.0})


def test_ratios_are_taken_round_by_round_against_the_faster_state_of_the_engine():
    found = {figure.name: figure for figure in _results().figures()}
    hybrid = found["http, hybrid / bare engine, vectors ready"]
    assert (hybrid.value, hybrid.met) == (1.0, True)
    assert found["http, default / bare engine, vectors ready"].met is False
    assert not [name for name in found if name.endswith("with embedding")]


def test_the_start_and_the_open_loop_have_goals():
    found = {figure.name: figure for figure in _results().figures()}
    assert found["start to ready, warm model"].value == 1.5
    assert found["start to ready, warm model"].met
    assert found["open loop at 0.7 C, p99"].value == 80.0
    assert found["open loop at 0.7 C, p99"].met is False


def test_peers_have_their_speeds_and_recall_and_the_absent_their_reason():
    found = _results().peers()
    assert found["engine"] == {"hybrid, batch, 1/s": 500, "recall@10, dense": 1.0, "recall@10, hybrid": 0.9}
    assert found["lance"] == {"left out": "not installed"}


def test_everything_can_be_written_as_json():
    assert json.loads(json.dumps(_results().plain()))["rates"]["engine, hybrid, batch"] == [500, 500]
