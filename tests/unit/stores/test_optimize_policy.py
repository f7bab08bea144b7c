import dataclasses
import math

import pytest

from penstock.stores.backends.edge.optimize_policy import (
    BUILD_RETRY_S,
    IndexFreshness,
    OptimizePolicy,
    build_bytes_needed,
    should_optimize,
)

RULE = OptimizePolicy(points=1000, quiet_s=5.0)
QUIET = IndexFreshness(points=50_000, unindexed=0, changed=0, quiet_s=5.0, since_failure_s=math.inf)
BUSY = dataclasses.replace(QUIET, quiet_s=4.9)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (QUIET, False),
        (dataclasses.replace(QUIET, unindexed=5000), True),
        (dataclasses.replace(QUIET, unindexed=4999), False),
        (dataclasses.replace(QUIET, points=1000, unindexed=1000), True),
        (dataclasses.replace(QUIET, points=999, unindexed=999), False),
        (dataclasses.replace(QUIET, changed=15_000), True),
        (dataclasses.replace(QUIET, changed=14_999), False),
        (dataclasses.replace(QUIET, points=10, changed=999), False),
        (dataclasses.replace(BUSY, unindexed=24_999), False),
        (dataclasses.replace(BUSY, unindexed=25_000), True),
        (dataclasses.replace(BUSY, changed=10**9), False),
        (dataclasses.replace(QUIET, unindexed=50_000, since_failure_s=BUILD_RETRY_S - 1), False),
        (dataclasses.replace(QUIET, unindexed=50_000, since_failure_s=BUILD_RETRY_S), True),
    ],
)
def test_a_generation_is_due_when_enough_is_outside_the_last_one(condition, expected):
    assert should_optimize(condition, RULE) is expected


def test_a_rule_of_no_points_never_makes_one():
    assert not should_optimize(dataclasses.replace(QUIET, unindexed=50_000, changed=10**6), OptimizePolicy(points=0))


def test_a_long_run_of_writing_makes_few_generations():
    made, indexed = 0, 0
    for points in range(0, 1_000_000, 500):
        if should_optimize(dataclasses.replace(BUSY, points=points, unindexed=points - indexed), RULE):
            made, indexed = made + 1, points
    assert made <= math.log2(1_000_000 / RULE.points) + 1


def test_the_room_for_a_generation_is_more_than_a_copy_needs():
    assert build_bytes_needed(100) > 200
