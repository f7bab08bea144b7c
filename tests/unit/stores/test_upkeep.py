import dataclasses
import math

import pytest

from penstock.stores.backends.edge.upkeep import RETRY_S, Condition, Rule, due, room_needed

RULE = Rule(points=1000, quiet_s=5.0)
QUIET = Condition(points=50_000, loose=0, changed=0, quiet_s=5.0, failed_s=math.inf)
BUSY = dataclasses.replace(QUIET, quiet_s=4.9)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (QUIET, False),
        (dataclasses.replace(QUIET, loose=5000), True),
        (dataclasses.replace(QUIET, loose=4999), False),
        (dataclasses.replace(QUIET, points=1000, loose=1000), True),
        (dataclasses.replace(QUIET, points=999, loose=999), False),
        (dataclasses.replace(QUIET, changed=15_000), True),
        (dataclasses.replace(QUIET, changed=14_999), False),
        (dataclasses.replace(QUIET, points=10, changed=999), False),
        (dataclasses.replace(BUSY, loose=24_999), False),
        (dataclasses.replace(BUSY, loose=25_000), True),
        (dataclasses.replace(BUSY, changed=10**9), False),
        (dataclasses.replace(QUIET, loose=50_000, failed_s=RETRY_S - 1), False),
        (dataclasses.replace(QUIET, loose=50_000, failed_s=RETRY_S), True),
    ],
)
def test_a_generation_is_due_when_enough_is_outside_the_last_one(condition, expected):
    assert due(condition, RULE) is expected


def test_a_rule_of_no_points_never_makes_one():
    assert not due(dataclasses.replace(QUIET, loose=50_000, changed=10**6), Rule(points=0))


def test_a_long_run_of_writing_makes_few_generations():
    made, indexed = 0, 0
    for points in range(0, 1_000_000, 500):
        if due(dataclasses.replace(BUSY, points=points, loose=points - indexed), RULE):
            made, indexed = made + 1, points
    assert made <= math.log2(1_000_000 / RULE.points) + 1


def test_the_room_for_a_generation_is_more_than_a_copy_needs():
    assert room_needed(100) > 200
