"""The faults: what is done to the hosts while they work, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from bench.faults.load import Load
from bench.faults.plant import VICTIM, Plant

#: Before the first blow, and after each mending.
CALM_S: Final = 8.0
#: How long a worker is dead, a link cut or slow, a broker down.
DEAD_S: Final = 3.0
CUT_S: Final = 8.0
SLOW_S: Final = 10.0
DOWN_S: Final = 4.0
#: As asked of the kernel's netem elsewhere: each way.
DELAY_S: Final = 0.2
LOSS: Final = 0.01
#: Index requests that keep every worker busy when one is killed, and the time until it is.
BURST: Final = 3
BURST_DOCUMENTS: Final = 8
BURST_S: Final = 0.5

#: Does its worst and mends it; returns what was done, in words.
Act = Callable[[Plant, Load], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        name: What it is called.
        act: Does it.
        calm_s: How long nothing is done afterwards.
    """

    name: str
    act: Act
    calm_s: float = CALM_S


async def calm(_plant: Plant, _load: Load) -> str:
    """Do nothing."""
    return "nothing"


async def kill_worker(plant: Plant, load: Load) -> str:
    """Kill a worker that is in the middle of batches; start it again."""
    for _ in range(BURST):
        load.index(BURST_DOCUMENTS)
    await asyncio.sleep(BURST_S)
    worker = plant.workers[VICTIM]
    worker.kill()
    await asyncio.sleep(DEAD_S)
    await worker.start()
    return (
        f"kill -9 of {VICTIM} {BURST_S:g} s into {BURST * BURST_DOCUMENTS} documents; started again {DEAD_S:g} s later"
    )


async def cut_link(plant: Plant, _load: Load) -> str:
    """Take a worker's link away, and give it back."""
    host = plant.workers[VICTIM].host
    host.cut()
    try:
        await asyncio.sleep(CUT_S)
    finally:
        host.heal()
    return f"the link of {VICTIM} down for {CUT_S:g} s"


async def slow_link(plant: Plant, _load: Load) -> str:
    """Make a worker's link slow and lossy, and heal it."""
    plant.network.slow(VICTIM, DELAY_S, LOSS)
    try:
        await asyncio.sleep(SLOW_S)
    finally:
        plant.network.slow(VICTIM, 0.0, 0.0)
    return f"{DELAY_S * 1000:.0f} ms and {LOSS:.0%} loss each way on the link of {VICTIM} for {SLOW_S:g} s"


async def strike_broker(plant: Plant, _load: Load) -> str:
    """Kill the broker, or of several the leader; start it again."""
    struck = await plant.broker.strike()
    await asyncio.sleep(DOWN_S)
    await plant.broker.mend()
    return f"kill -9 of {struck}; started again {DOWN_S:g} s later"


async def roll(plant: Plant, _load: Load) -> str:
    """Restart every process, one after the other: the workers, the broker, the server."""
    codes = {}
    for worker in plant.workers.values():
        codes[worker.name] = await worker.stop()
        await worker.start()
    await plant.broker.roll()
    await plant.ready()
    codes["api"] = await plant.api.stop()
    await plant.api.start()
    await plant.ready()
    wrong = ", ".join(f"{name} ended with {code}" for name, code in codes.items() if code)
    return f"SIGTERM and start: {', '.join(plant.workers)}, the broker's processes, api{f' ({wrong})' if wrong else ''}"


FAULTS: Final = (
    Fault("no fault", calm),
    Fault("a worker killed", kill_worker),
    Fault("a link cut", cut_link),
    Fault("a link slow", slow_link),
    Fault("the broker killed", strike_broker, 12.0),
    Fault("all restarted in turn", roll, 12.0),
)
QUICK: Final = (Fault("no fault", calm, 2.0), Fault("a worker killed", kill_worker, 6.0))
