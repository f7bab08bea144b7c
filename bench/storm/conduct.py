"""``python -m bench storm``: the real server under a foreign generator's loads, and others beside it."""

from __future__ import annotations

import random
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Final, Self

import msgspec

from bench.overload.trial import cores
from bench.report import Report, tell
from bench.storm import drawing, plan
from bench.storm.accounting import Summary, back_s, course, served_s, summary
from bench.storm.generator import Answer, Generator, Missing, find_vegeta, pinned
from bench.storm.plan import Course
from bench.storm.results import Results, Taken, read
from bench.storm.systems import Running, Systems
from bench.worker import Worker

CALLERS: Final = 16
#: More queries than the closed loop can ask.
CLOSED_PER_S: Final = 1_000
WARM_PER_S: Final = 30.0
_MOVES: Final = re.compile(r'degradation_moves_total\{[^}]*criticality="interactive"[^}]*\} ([0-9.e+]+)')


async def run(
    *,
    quick: bool = False,
    only: str = "",
    out: Path | None = None,
    work: Path | None = None,
    vegeta: Path | None = None,
    python: str = sys.executable,
) -> Report:
    """Run the course.

    Args:
        quick: Fewer loads, shorter, on a part of the tree.
        only: Parts, with commas between; all by default.
        out: Where ``storm.json`` and the curves go. With ``only``, parts that the file there has are kept.
        work: Directory to work in; a temporary one by default.
        vegeta: The generator's program; from the path by default, or built.
        python: Interpreter of an environment that has the peer.

    Raises:
        SystemExit: There is no generator and it cannot be built.
    """
    parts = plan.parts(only)
    with ExitStack() as stack:
        place = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-storm-")))
        place = place.resolve() / "storm"
        place.mkdir(parents=True, exist_ok=True)
        try:
            program = find_vegeta(vegeta, place)
        except Missing as error:
            raise SystemExit(str(error)) from None
        server_core, callers_core = cores()
        systems = Systems(place, server_core, Path(python), quick=quick)
        systems.prepare()
        generator = Generator(program, place / "attacks", callers_core)
        storm = Storm(systems, generator, callers_core, plan.QUICK if quick else plan.FULL)
        results = storm.run(parts)
    if out is not None and only and (out / "storm.json").exists():
        results = results.merged(read(out / "storm.json"))
    report = Report("storm", results.figures(), results.peers())
    if out is not None:
        report.save(out, msgspec.to_builtins(results))
        drawing.draw(results, out)
    return report


class Storm:
    """Runs the parts one after the other.

    Args:
        systems: Starts the servers.
        generator: Starts the loads.
        core: The callers' core.
        course: Loads and times.
    """

    def __init__(self, systems: Systems, generator: Generator, core: int, course: Course) -> None:
        self._systems = systems
        self._generator = generator
        self._core = core
        self._course = course
        self._chance = random.Random()
        self._capacity = 0.0
        self._parts: dict[str, Callable[[Running], Iterator[Taken]]] = {
            "rates": self._rates,
            "new": self._new,
            "steady": self._steady,
            "step": self._step,
            "hog": self._hog,
            "hangups": self._hangups,
            "slow": self._slow,
        }

    def run(self, parts: list[str]) -> Results:
        """Run parts; the first thing is to measure C."""
        results = Results(self._course.name, {}, {}, [])
        with self._systems.run(plan.OURS, full_quality=True) as running:
            self._capacity = results.closed[plan.OURS] = self._closed(running, plan.OURS)
        if own := [part for part in parts if part in self._parts]:
            with self._systems.run(plan.OURS) as running:
                self._warm(running)
                for part in own:
                    for one in self._parts[part](running):
                        results.taken.append(one)
                        tell(_line(one))
                        time.sleep(self._course.pause_s)
        for name in (part for part in parts if part in plan.PEERS):
            if why := self._systems.missing(name):
                results.left_out[name] = why
                tell(f"{name} is left out: {why}")
                continue
            results.taken += self._peer(name, results)
        return results

    def _closed(self, running: Running, name: str) -> float:
        """Return whole answers a second to callers that always wait for one."""
        count = running.repeated or int(CLOSED_PER_S * self._course.capacity_s)
        bodies = [body.decode() for body in islice(running.bodies, count)]
        with pinned(self._core), Worker("bench.calling") as callers:
            order = {"port": running.port, "path": running.path, "callers": CALLERS}
            callers.ask(**order, bodies=bodies[:200], seconds=self._course.warm_s)
            once = {"once": True} if not running.repeated else {}
            told = callers.ask(**order, **once, bodies=bodies[200:], seconds=self._course.capacity_s)
        answered = len(told["latencies_ms"]) / told["took_s"]
        degraded = f", {told['degraded']} degraded" if told["degraded"] and not running.repeated else ""
        tell(f"{name}, closed loop: {answered:.1f} answers a second, {told['refused']} refused{degraded}")
        return float(answered)

    def _warm(self, running: Running) -> None:
        targets = running.targets(self._chance)
        self._generator.start(self._generator.prepared(targets, WARM_PER_S, self._course.warm_s)).answers()

    def _load(self, part: str, running: Running, load: float, *, keep: bool = True, seconds: float = 0) -> Taken:
        """Ask a load."""
        seconds = seconds or self._course.seconds
        targets = running.targets(self._chance)
        rate = load * self._capacity
        commands = self._generator.prepared(targets, rate, seconds, keep=keep, repeated=running.repeated)
        with _Clock(running) as clock:
            attack = self._generator.start(commands)
            attack.wait()
        answers = attack.answers()
        found = summary(answers, seconds, self._capacity, clock.shares)
        return Taken(part, plan.OURS, load, keep, self._capacity, found)

    # --- Penstock's own parts

    def _rates(self, running: Running) -> Iterator[Taken]:
        for load in self._course.loads:
            yield self._load("rates", running, load)

    def _new(self, running: Running) -> Iterator[Taken]:
        for load in self._course.new_loads:
            yield self._load("new", running, load, keep=False)

    def _steady(self, running: Running) -> Iterator[Taken]:
        before = _moves(running)
        answers, shares = self._together(running, (plan.STEADY, 0.0, self._course.steady_s))
        moves = _moves(running) - before
        found = summary(answers[0], self._course.steady_s, self._capacity, shares)
        yield self._taken("steady", plan.STEADY, found, course=course(answers[0]), facts={"moves": moves})

    def _step(self, running: Running) -> Iterator[Taken]:
        before_s, step_s, after_s = self._course.step_s
        whole_s = before_s + step_s + after_s
        calm = (plan.CALM, 0.0, whole_s)
        (all_along, stepped), shares = self._together(running, calm, (plan.STEP - plan.CALM, before_s, step_s))
        ended_s = stepped[-1].at_s
        during = [*stepped, *(one for one in all_along if stepped[0].at_s <= one.at_s <= ended_s)]
        found = summary(during, step_s, self._capacity, shares)
        facts = {
            "served_s": served_s(all_along, ended_s),
            "back_s": back_s(all_along, ended_s),
            "told": found.told,
        }
        yield self._taken("step", plan.STEP, found, course=course(all_along), facts=facts)

    def _hog(self, running: Running) -> Iterator[Taken]:
        seconds = self._course.seconds
        both = ((plan.OTHERS, 0.0, seconds), (plan.HOG, 0.0, seconds))
        (others, hog), shares = self._together(running, *both, keys=("", "hog"))
        of_all = summary([*others, *hog], seconds, self._capacity, shares)
        good = [one for one in others if one.code == 200]
        apart = summary(others, seconds, self._capacity, shares)
        facts = {"answered": len(good) / max(1, len(others)), "others p99 ms": apart.p99_ms, "others told": apart.told}
        yield self._taken("hog", plan.OTHERS + plan.HOG, of_all, facts=facts)

    def _hangups(self, running: Running) -> Iterator[Taken]:
        seconds, share = self._course.seconds, plan.HANGUPS
        for load in plan.HANGUP_LOADS:
            both = ((load * (1 - share), 0.0, seconds), (load * share, 0.0, seconds))
            timeouts = (plan.DEADLINE_MS, plan.HANGUP_MS)
            (patient, hasty), shares = self._together(running, *both, timeouts=timeouts)
            found = summary(patient, seconds, self._capacity, shares)
            heard = sum(one.code > 0 for one in hasty) / max(1, len(hasty))
            yield self._taken("hangups", load, found, facts={"hasty that heard something": heard})
            time.sleep(self._course.pause_s)

    def _slow(self, running: Running) -> Iterator[Taken]:
        with pinned(self._core), Worker("bench.storm.slow") as slow:
            told = slow.ask(do="open", port=running.port, connections=self._course.slow_connections)
            one = self._load("slow", running, plan.CALM)
            closed = slow.ask(do="close")["closed"]
        facts = {
            "opened": float(told["opened"]),
            "not opened": float(told["unopened"]),
            "closed by the server": float(closed),
        }
        yield msgspec.structs.replace(one, facts=facts)

    def _together(
        self,
        running: Running,
        *loads: tuple[float, float, float],
        keys: tuple[str, ...] = ("", ""),
        timeouts: tuple[int, ...] = (plan.DEADLINE_MS, plan.DEADLINE_MS),
    ) -> tuple[list[list[Answer]], dict[str, float]]:
        """Ask several loads side by side, each ``(load, begins after, seconds)``."""
        prepared = []
        for (load, after_s, seconds), key, timeout_ms in zip(loads, keys, timeouts, strict=False):
            targets = running.targets(self._chance, key)
            rate = load * self._capacity
            prepared.append((after_s, self._generator.prepared(targets, rate, seconds, timeout_ms=timeout_ms)))
        with _Clock(running) as clock:
            began_s, attacks = time.monotonic(), []
            for after_s, commands in prepared:
                time.sleep(max(0.0, after_s - (time.monotonic() - began_s)))
                attacks.append(self._generator.start(commands))
            for attack in attacks:
                attack.wait()
        return [attack.answers() for attack in attacks], clock.shares

    def _taken(
        self,
        part: str,
        load: float,
        found: Summary,
        course: list[dict[str, float]] | None = None,
        facts: dict[str, float | None] | None = None,
    ) -> Taken:
        return Taken(part, plan.OURS, load, True, self._capacity, found, course or [], facts or {})

    # --- Beside it

    def _peer(self, name: str, results: Results) -> Iterator[Taken]:
        """Ask another system, started again for each load: what waits in one goes on for long."""
        with self._systems.run(name) as running:
            results.closed[name] = self._closed(running, name)
        ours = self._capacity
        # The same work is asked as much as ours; other work in multiples of its own capacity.
        self._capacity = results.closed[name] if name == "chroma" else ours
        loads = [(load, True) for load in self._course.peer_loads]
        loads += [(load, False) for load in self._course.new_loads if name == "semaphore"]
        for load, keep in loads:
            if load * self._capacity > plan.GENERATOR_MAX:
                tell(f"{name} at {load:g} C is left out: more than the generator can send")
                continue
            with self._systems.run(name) as running:
                self._warm(running)
                one = self._load(name, running, load, keep=keep)
            one = msgspec.structs.replace(one, system=name)
            tell(_line(one))
            yield one
        self._capacity = ours


class _Clock:
    """Processor time of a server's processes over a time, as shares of a core."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.shares: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._before, self._began_s = self._running.cpu_s(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        took_s, after = time.monotonic() - self._began_s, self._running.cpu_s()
        self.shares = {role: (value - self._before.get(role, 0.0)) / took_s for role, value in after.items()}


def _moves(running: Running) -> float:
    """Return how often the ladder has moved, for interactive work."""
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/metrics", timeout=10) as answer:
        return sum(float(number) for number in _MOVES.findall(answer.read().decode()))


def _line(one: Taken) -> str:
    found = one.summary
    facts = "".join(f", {name} {value}" for name, value in one.facts.items())
    return (
        f"{one.part:<10}{one.load:>5g} C ({found.offered:.2f} sent){'' if one.keep else ' new'}"
        f"  goodput {found.goodput:.2f} C"
        f" (whole {found.goodput_whole:.2f}), p99 {found.p99_ms:.0f} ms, refused {found.refused:.1%}"
        f" p99 {found.refusal_p99_ms:.0f} ms, 504 {found.expired:.1%}, other {found.other:.1%},"
        f" no answer {found.unanswered:.1%}, told {found.told:.2%}, cores {sum(found.cpu.values()):.2f}{facts}"
    )
