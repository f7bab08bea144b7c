"""A storm over the whole server, on virtual time, with the books checked between all steps of the loop.

A failure names its seed: ``PENSTOCK_SEED=17 pytest tests/simulation/test_storm.py`` runs that one alone,
``PENSTOCK_SEEDS=500`` runs as many.
"""

from __future__ import annotations

import os

import pytest

from tests.clock import run
from tests.simulation.storm import Storm

_ONE, _MANY = os.environ.get("PENSTOCK_SEED"), os.environ.get("PENSTOCK_SEEDS", "12")
SEEDS = [int(_ONE)] if _ONE else range(int(_MANY))


@pytest.fixture
def storm(request: pytest.FixtureRequest) -> Storm:
    seed = request.node.callspec.params["seed"]
    print(f"PENSTOCK_SEED={seed}")  # noqa: T201 - shown when the test fails
    return Storm(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_request_ends_once_and_nothing_is_left_whatever_happens(seed: int, storm: Storm) -> None:
    run(storm.through())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drain_in_the_middle_of_the_storm_answers_everybody(seed: int, storm: Storm) -> None:
    run(storm.into_the_drain())
