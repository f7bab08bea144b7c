"""``python -m bench faults``: break one part after the other under load, and count what became of every request."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from bench.faults.accidents import FAULTS, QUICK, Fault
from bench.faults.accounting import Contents, Phase, refused_documents
from bench.faults.drawing import draw
from bench.faults.hosts import Missing, network
from bench.faults.load import Load
from bench.faults.plant import LAYOUTS, Layout, Plant, running
from bench.faults.results import Run, figures, run_of, table, with_kept
from bench.report import Report, tell

#: How often, in all, documents that were refused are sent again in the end.
TRIES: Final = 3
#: How long the server may take to be ready for that.
REST_S: Final = 2.0


async def run(*, quick: bool = False, layouts: Sequence[str] = (), out: Path | None = None) -> Report:
    """Run every fault in every layout.

    Args:
        quick: One layout, few faults.
        layouts: Which; all by default.
        out: Where ``faults.json`` and ``faults.svg`` go; what is there of other layouts stays. Nowhere by default.

    Raises:
        SystemExit: This machine cannot be several hosts, or has no such broker; says what lacks.

    Cancellation: Every process has ended and every host is gone.
    """
    names = layouts or (["redis/edge"] if quick else list(LAYOUTS))
    runs = []
    with _ended_by_signals():
        for name in names:
            tell(f"{name}: starting")
            try:
                runs.append(await conduct(LAYOUTS[name], QUICK if quick else FAULTS))
            except Missing as why:
                raise SystemExit(f"faults: {why}") from None
            tell(f"{name}: {runs[-1].lost} lost, {runs[-1].doubled} doubled\n{table(runs[-1])}")
            if out is not None:
                _keep(out, runs[-1])
    return Report("faults", figures(runs))


def _keep(out: Path, run: Run) -> None:
    """Write down a layout's run beside those of the others."""
    runs = with_kept(out, [run])
    Report("faults", figures(runs)).save(out, msgspec.to_builtins(runs))
    draw(runs, out)


async def conduct(layout: Layout, faults: Sequence[Fault]) -> Run:
    """Run faults in one layout.

    Raises:
        Missing: This machine cannot be several hosts, or has no such broker.
    """
    directory = Path(tempfile.mkdtemp(prefix="penstock-faults-"))
    with network() as hosts:
        async with running(hosts, layout, directory) as plant:
            found = await _under_load(layout, plant, faults)
    if not found.lost and not found.doubled:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        tell(f"the logs stay in {directory}")
    return found


async def _under_load(layout: Layout, plant: Plant, faults: Sequence[Fault]) -> Run:
    load = Load(plant.url)
    try:
        await load.begin()
        phases: list[Phase] = []
        for fault in faults:
            began_s = load.now_s()
            tell(f"  {began_s:5.0f} s  {fault.name}")
            said = await fault.act(plant, load)
            mended_s = load.now_s()
            await asyncio.sleep(fault.calm_s)
            phases.append(Phase(fault.name, said, began_s, mended_s, load.now_s()))
        await load.end()
        phases[-1] = msgspec.structs.replace(phases[-1], end_s=load.now_s())  # some ends came only now
        await plant.ready()
        contents = await _contents(load)
    finally:
        await load.close()
    return run_of(layout.name, phases, load.attempts, contents)


async def _contents(load: Load) -> Contents:
    """Send what was refused once more, as its senders would; then look at what is there."""
    refused = refused_documents(load.attempts)
    missing = list(refused)
    tell(f"  {load.now_s():5.0f} s  {len(missing)} documents that were not acknowledged are sent again")
    for _ in range(TRIES):
        there = set(await load.again(missing))
        missing = [id for id in missing if id not in there]
        if not missing:
            break
        await asyncio.sleep(REST_S)
    chunks, whole = await load.contents()
    return Contents(chunks, whole, len(refused) - len(missing), len(missing))


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and Ctrl-C end this task, so that hosts and processes are removed."""
    loop, here = asyncio.get_running_loop(), asyncio.current_task()
    assert here is not None
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, here.cancel)
    try:
        yield
    finally:
        for one in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(one)
