"""``python -m bench agents``: thirty agents on one server, alone and beside a flood, and on a peer's servers."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench import ROOT
from bench.agents.stdio import Agent, Call, environment, memory_mb
from bench.report import Figure, Report, percentile, tell
from bench.serving import Server, serving

AGENTS: Final = 30
SECONDS: Final = 30.0
#: Mean of an agent's pauses between two calls, drawn from an exponential distribution.
THINK_S: Final = 1.0
#: Shares of the calls.
SEARCHES: Final = 0.7
RELATED: Final = 0.1
#: What the default is: here other benchmarks switch it off.
SETTINGS: Final = {"PENSTOCK_RATE_LIMIT": "100", "PENSTOCK_LOG_LEVEL": "error"}
TREE: Final = ROOT / "src" / "penstock"
QUICK_TREE: Final = TREE / "search"
#: Where an agent begins to read at most.
FIRST_LINES: Final = 40
GOAL_P99_S: Final = 1.0
GOAL_MB: Final = 40.0

Make = Callable[[random.Random], tuple[str, dict[str, Any]]]


async def run(*, quick: bool = False, out: Path | None = None, python: str = sys.executable) -> Report:
    """Run all phases.

    Args:
        quick: A few seconds each.
        out: Where ``agents.json`` goes.
        python: Interpreter of an environment that has the peer.
    """
    seconds, tree = (5.0, QUICK_TREE) if quick else (SECONDS, TREE)
    directory = Path(tempfile.mkdtemp(prefix="penstock-agents-"))
    try:
        results: dict[str, Any] = {"penstock": await _penstock(directory, tree, seconds)}
        results["peer"] = await _peer(directory, tree, seconds, Path(python))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report = Report("agents", _figures(results["penstock"]), {"semble": results["peer"]})
    if out is not None:
        report.save(out, results)
    return report


def long_files(tree: Path) -> list[str]:
    """Return the files from whose first lines an agent can read on."""
    found = (one for one in sorted(tree.rglob("*.py")) if one.read_text().count("\n") > FIRST_LINES)
    return [str(one.relative_to(ROOT)) for one in found]


def questions(tree: Path) -> list[str]:
    """Return questions: the first lines of docstrings, of which there are thousands."""
    found: list[str] = []
    for path in sorted(tree.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                text = (ast.get_docstring(node) or "").partition("\n")[0]
                if len(text.split()) > 3:
                    found.append(text.rstrip("."))
    return found


async def _penstock(directory: Path, tree: Path, seconds: float) -> dict[str, Any]:
    data = directory / "data"
    models = ROOT / ".penstock" / "models"
    if models.exists():
        shutil.copytree(models, data / "models")
    with serving(data, SETTINGS) as server:
        await asyncio.to_thread(index_tree, tree, data)
        before_mb = server.memory_mb()
        asked, paths = questions(tree), long_files(tree)

        def make(rng: random.Random) -> tuple[str, dict[str, Any]]:
            kind = rng.random()
            if kind < SEARCHES:
                return "search", {"query": rng.choice(asked), "limit": 10}
            path = rng.choice(paths)
            if kind < SEARCHES + RELATED:
                return "find_related", {"path": path, "limit": 5}
            first = rng.randrange(1, FIRST_LINES)
            return "read", {"path": path, "start_line": first, "end_line": first + 60}

        command = [sys.executable, "-m", "penstock", "mcp", "--data-dir", str(data)]
        began_s = time.monotonic()
        agents, firsts = await _start(command, environment(PYTHONPATH=str(ROOT / "src")), make)
        results = {"start": {"all_s": time.monotonic() - began_s, **_summary(firsts)}}
        try:
            results["calm"] = await _phase("calm", agents, make, seconds)
            results["bridges"] = _memory(agents)
            for name, address in (("flood", "127.0.0.2"), ("flood_same", "127.0.0.1")):
                results[name] = await _flooded(name, address, server, agents, make, seconds)
            results["server_mb"] = {"before": before_mb, "after": server.memory_mb()}
        finally:
            await asyncio.gather(*(agent.end() for agent in agents))
    return results


def index_tree(tree: Path, data: Path) -> None:
    """Index a tree into the server of a data directory, vectors and all."""
    tell("indexing")
    command = [sys.executable, "-m", "penstock", "index", str(tree), "--data-dir", str(data)]
    subprocess.run(command, check=True, env=environment(PYTHONPATH=str(ROOT / "src")), capture_output=True)


async def _start(
    command: Sequence[str], environ: Mapping[str, str], make: Make, *, modern: bool = True
) -> tuple[list[Agent], list[Call]]:
    """Start all agents at once; return them and the first call of each."""

    async def one(number: int) -> tuple[Agent, Call]:
        began_s = time.monotonic()
        agent = await Agent.started(command, environ, modern=modern and number % 2 == 0)
        first = await agent.call(*make(random.Random(number)))
        return agent, Call(began_s, time.monotonic() - began_s, first.error)

    tell(f"starting {AGENTS} agents at once")
    both = await asyncio.gather(*map(one, range(AGENTS)))
    return [agent for agent, _ in both], [call for _, call in both]


async def _phase(name: str, agents: Sequence[Agent], make: Make, seconds: float) -> dict[str, Any]:
    """Let agents call and think; return what became of the calls."""
    until_s = time.monotonic() + seconds

    async def work(agent: Agent, rng: random.Random) -> list[Call]:
        calls = list[Call]()
        await asyncio.sleep(rng.random() * THINK_S)
        while time.monotonic() < until_s:
            calls.append(await agent.call(*make(rng)))
            await asyncio.sleep(rng.expovariate(1 / THINK_S))
        return calls

    seeds = range(len(agents))
    works = (work(one, random.Random(f"{name} {seed}")) for seed, one in zip(seeds, agents, strict=True))
    each = await asyncio.gather(*works)
    summary = _summary([call for calls in each for call in calls])
    tell(f"{name}: {summary}")
    return summary


async def _flooded(
    name: str, address: str, server: Server, agents: Sequence[Agent], make: Make, seconds: float
) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.agents.flood", str(server.port), address]
    flooding = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        await asyncio.sleep(1)
        summary = await _phase(name, agents, make, seconds)
    finally:
        told, _ = await flooding.communicate(b"")
    return {**summary, "flooder": json.loads(told or b"{}")}


def _summary(calls: Sequence[Call]) -> dict[str, Any]:
    took = [call.took_s for call in calls if not call.error] or [0.0]
    errors = Counter(call.error for call in calls if call.error)
    degraded = Counter(
        what for call in calls for what in (call.answer.get("structuredContent") or {}).get("degraded", ())
    )
    return {
        "calls": len(calls),
        "p50_s": percentile(took, 0.5),
        "p99_s": percentile(took, 0.99),
        "max_s": max(took),
        "errors": dict(errors),
        "degraded": dict(degraded),
    }


def _memory(agents: Sequence[Agent]) -> dict[str, float]:
    each = [memory_mb(agent.pid) for agent in agents]
    return {
        "rss_max_mb": max(rss for rss, _ in each),
        "pss_max_mb": max(pss for _, pss in each),
        "pss_sum_mb": sum(pss for _, pss in each),
    }


async def _peer(directory: Path, tree: Path, seconds: float, python: Path) -> dict[str, Any]:
    """Run thirty stdio servers of semble on the same tree, where it is installed."""
    program = python.with_name("semble")
    if not program.exists():
        tell("semble is not installed; it is left out")
        return {}
    model = os.environ.get("SEMBLE_MODEL_NAME", "")
    environ = environment(SEMBLE_CACHE_LOCATION=str(directory / "semble"), HF_HUB_OFFLINE="1")
    if model:
        environ["SEMBLE_MODEL_NAME"] = model
    asked = questions(tree)

    def make(rng: random.Random) -> tuple[str, dict[str, Any]]:
        return "search", {"query": rng.choice(asked), "repo": str(tree), "top_k": 10}

    # One makes the index, which the others find on the disk.
    first = await Agent.started([str(program)], environ)
    began_s = time.monotonic()
    made = await first.call(*make(random.Random(0)))
    results: dict[str, Any] = {
        "model": Path(model).name or "its own",
        "index_s": time.monotonic() - began_s,
        "error": made.error,
    }
    await first.end()
    began_s = time.monotonic()
    agents, firsts = await _start([str(program)], environ, make, modern=False)
    try:
        results["start"] = {"all_s": time.monotonic() - began_s, **_summary(firsts)}
        results["calm"] = await _phase("semble", agents, make, seconds)
        results["servers"] = _memory(agents)
    finally:
        await asyncio.gather(*(agent.end() for agent in agents))
    return results


def _figures(got: Mapping[str, Any]) -> list[Figure]:
    figures = [Figure("thirty that start at once, the last first answer", got["start"]["max_s"], "s")]
    phases = {"calm": "alone", "flood": "beside a flood", "flood_same": "beside a flood of their address"}
    for name, told in phases.items():
        one, goal = got[name], name != "flood_same"
        errors = sum(one["errors"].values())
        figures += [
            Figure(f"{told}: median", one["p50_s"] * 1000, "ms"),
            Figure(
                f"{told}: 99 of 100 within",
                one["p99_s"] * 1000,
                "ms",
                f"<= {GOAL_P99_S * 1000:g} ms" if goal else "",
                one["p99_s"] <= GOAL_P99_S if goal else None,
            ),
            Figure(
                f"{told}: errors of {one['calls']} calls", errors, "", "0" if goal else "", not errors if goal else None
            ),
        ]
    bridge = got["bridges"]["rss_max_mb"]
    figures += [
        Figure("a bridge's resident memory", bridge, "MB", f"<= {GOAL_MB:g} MB", bridge <= GOAL_MB),
        Figure("thirty bridges, shared pages once", got["bridges"]["pss_sum_mb"], "MB"),
        Figure("the server before the first agent", sum(got["server_mb"]["before"].values()), "MB"),
        Figure("the server after all", sum(got["server_mb"]["after"].values()), "MB"),
    ]
    return figures
