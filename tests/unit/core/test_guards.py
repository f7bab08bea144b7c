"""How long each dependency may take before it counts as hanging."""

from __future__ import annotations

from penstock.core.guards import hang_timeouts
from penstock.kernel.settings import TimeoutSettings


def test_a_dependency_that_hangs_is_found_out_by_searches_too() -> None:
    told = hang_timeouts(TimeoutSettings(search=10, embed=30, store=60, rerank=8))
    assert told == {"store": 5, "embed": 5, "sparse": 5, "rerank": 4}
    assert hang_timeouts(TimeoutSettings(search=100, store=10))["store"] == 5
