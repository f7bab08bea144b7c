"""The wiring itself; what it does under load is in ``tests/simulation``."""

from __future__ import annotations

from tests.clock import virtual
from tests.simulation.world import World


@virtual
async def test_reasons_are_its_own_and_those_of_its_parts() -> None:
    async with World() as world:
        assert world.core.unready_reasons() == []
        world.reasons.append("the store process is not running")
        assert world.core.unready_reasons() == ["the store process is not running"]
        world.core.gate.draining = True
        assert world.core.unready_reasons() == ["the server is shutting down", "the store process is not running"]
        assert (await world.ask("GET", "/readyz")).status == 503


@virtual
async def test_its_repr_is_a_status_line() -> None:
    async with World() as world:
        assert "in flight" in repr(world.core)
        assert "interactive full" in repr(world.core)
