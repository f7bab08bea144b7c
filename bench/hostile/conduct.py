"""``python -m bench hostile``: every attack against a real server, with what was promised beside what happened."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench import ROOT
from bench.hostile.attack import Attack, Got
from bench.hostile.attacks import ATTACKS
from bench.hostile.attacks.access import give_keys
from bench.hostile.results import TABLE, Outcome, figures, table
from bench.hostile.target import Target
from bench.hostile.watch import OTHERS_KEY, Seen, Watch, watching
from bench.report import Report, tell
from bench.serving import Server, serving

#: The machine is shared: what was seen once in several tries was not the attack's doing.
TRIES: Final = 3
REST_S: Final = 0.5
#: What is remembered of texts has bounds of its own, and is no cost of a request.
SETTINGS: Final = {"PENSTOCK_LOG_LEVEL": "error", "EMBED_CACHE_SIZE": "0", "SPARSE_CACHE_SIZE": "0"}


async def run(*, quick: bool = False, words: Sequence[str] = (), out: Path | None = None, keys: bool = False) -> Report:
    """Run every attack.

    Args:
        quick: Leave out those that take long.
        words: Rows, or words of names, of those that are run; all by default.
        out: Where ``hostile.json`` goes, and the table into ``hostile.md``; nowhere by default.
        keys: Whether the server has keys, and the attacker one of them.
    """
    chosen = [one for one in ATTACKS if one.quick or not quick]
    if words:
        chosen = [one for one in chosen if one.row in words or any(word in one.name for word in words)]
    outcomes = await asyncio.to_thread(conduct, chosen, keys=keys)
    report = Report("hostile", figures(outcomes))
    if out is not None:
        report.save(out, msgspec.to_builtins(outcomes))
        page = out / "hostile.md"
        if page.exists():
            page.write_text(page.read_text().partition(TABLE)[0] + f"{TABLE}\n\n{table(outcomes)}\n")
    return report


def conduct(attacks: Sequence[Attack], *, keys: bool = False) -> list[Outcome]:
    """Run attacks one after the other against one server; one that ended it is followed by a new one."""
    directory = Path(tempfile.mkdtemp(prefix="penstock-hostile-"))
    models = ROOT / ".penstock" / "models"
    if models.exists():
        shutil.copytree(models, directory / "models")
    others = OTHERS_KEY
    if keys:
        (others,) = give_keys(directory, "others", known=True)
    try:
        rest, outcomes = list(attacks), []
        while rest:
            with serving(directory, SETTINGS) as server:
                outcomes += _against(server, rest, others)
        return outcomes
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _against(server: Server, rest: list[Attack], others: str) -> list[Outcome]:
    """Take attacks from the front of the list until none is left or the server has ended."""
    target = Target(server.port, server.pid, server.data_dir)
    _warm(target)
    outcomes = []
    with watching(server.port, server.pid, others) as watch:
        while rest:
            outcomes.append(_tried(rest.pop(0), target, watch))
            tell(str(outcomes[-1]))
            if target.ask("GET", "/livez").status != 200:
                tell("the server does not answer any more; another one is started")
                break
    return outcomes


def _warm(target: Target) -> None:
    """Have everything started and loaded that an ordinary request starts and loads."""
    target.index(
        "default", *({"id": str(n), "text": f"an ordinary document {n}", "path": f"{n}.md"} for n in range(50))
    )
    target.index("hostile", {"id": "first", "text": "def first():\n    return 1\n", "path": "first.py"})
    for path in ("/v1/embed", "/v1/sparse"):
        target.ask("POST", path, {"texts": [f"a text {n}" for n in range(64)]})
    target.ask("POST", "/v1/rerank", {"query": "a text", "texts": ["one", "two"]})


def _tried(attack: Attack, target: Target, watch: Watch) -> Outcome:
    """Return an attack's outcome: the best of a few tries, since others use this machine too."""
    found = _once(attack, target, watch)
    for _ in range(TRIES - 1):
        if found.met or not found.kept:
            break
        found = min(found, _once(attack, target, watch), key=lambda one: (not one.met, one.held_ms))
    return found


def _once(attack: Attack, target: Target, watch: Watch) -> Outcome:
    if not attack.watched:
        return Outcome.of(attack, _got(attack, target), Seen())
    watch.begin()
    got = _got(attack, target)
    time.sleep(REST_S)
    return Outcome.of(attack, got, watch.seen())


def _got(attack: Attack, target: Target) -> Got:
    try:
        return attack.act(target)
    except Exception as error:  # noqa: BLE001 - whatever an attack breaks is its result
        return Got(f"{type(error).__name__}: {error}", kept=False)
