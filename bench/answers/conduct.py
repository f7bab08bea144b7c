"""``python -m bench answers``: a fresh tree, then changes in it, with the real programs.

A server on an empty data directory and ``penstock index`` on a tree that it has never seen. From the moment that all
words are found a question a second is asked, until all vectors are there. Then ``penstock watch`` follows one file that
is saved again and again. At last the same documents are sent by requests that wait for their vectors.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Final

import msgspec

from bench import ROOT
from bench.answers.probes import COMMON, MEANING, WORDS, Probe, encoded, questions, seconds_until
from bench.answers.results import ChangeTimes, TreeTimes, figures
from bench.processes import cpu_s
from bench.report import Report, tell
from bench.serving import Server, serving
from bench.tree import copy_tracked, generate, start
from penstock.client import AsyncClient, Client
from penstock.indexing.sources.request_batches import batches
from penstock.kernel.context import run_all
from penstock.models.model_source import find_source
from penstock.models.prepare import prepare_model

#: Stands in the last file of a tree alone.
MARKER: Final = "zwetschgendatschi"
CHANGED: Final = "saved-note.md"
#: What the changed file says, one after the other: nothing that a tree of code is about.
SUBJECTS: Final = (
    "The ferry to the island sails twice a day in winter.",
    "Whisk the egg whites with sugar until they are stiff.",
    "The oboist tuned her instrument before the concert.",
    "Glaciers carve wide valleys while they move downhill.",
    "The goalkeeper saved the penalty in the last minute.",
)
QUESTIONS: Final = 60
ASK_EVERY_S: Final = 1.0
LOOK_EVERY_S: Final = 0.1
#: Requests that wait for vectors: so many at once, of such a size.
REQUESTS: Final = 2
REQUEST_BYTES_MAX: Final = 16_000
REQUEST_DOCUMENTS_MAX: Final = 100
#: Between a change that was found and the next.
PAUSE_S: Final = 1.0


async def run(
    *,
    files: int = 2000,
    changes: int = 5,
    repository: bool = True,
    tree: Path | None = None,
    work: Path | None = None,
    out: Path | None = None,
) -> Report:
    """Index, change, and index with waiting.

    Args:
        files: Files of the generated tree.
        changes: How often a file is saved.
        repository: Whether this repository is indexed too.
        tree: A tree that is indexed instead of both, as git sees it.
        work: Directory to work in; a temporary one by default.
        out: Where ``answers.json`` goes.
    """
    with ExitStack() as stack:
        place = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        place = place.resolve() / "answers"
        models, found, changed = place / "models", dict[str, TreeTimes](), ChangeTimes()
        prepare_model(find_source(), models)
        trees = _plant(place / "trees", files, ROOT if repository else None, tree)
        for name, root in trees.items():
            with _fresh(place / "data", models) as server, Client(server.url) as client:
                found[name] = _index(server, Probe(client), root)
                tell(f"{name}: words {found[name].words_s:.1f} s, vectors {found[name].vectors_s:.1f} s")
                if len(found) == 1:
                    _change(server, Probe(client), root, changes, changed)
        # Of the last one alone, since it takes as long as all that came before.
        with _fresh(place / "data", models) as server:
            before_s = sum(server.cpu_s().values())
            found[name].waiting_s = await _wait_for_vectors(server, root)
            found[name].waiting_cpu_s = sum(server.cpu_s().values()) - before_s
    report = Report("answers", figures(found, changed))
    if out is not None:
        report.save(out, {"trees": {name: asdict(one) for name, one in found.items()}, "changes": asdict(changed)})
    return report


def _plant(place: Path, files: int, repository: Path | None, tree: Path | None) -> dict[str, Path]:
    """Write the trees that are indexed; return where they are, by name."""
    if tree is not None:
        copy_tracked(tree, place / "tree")
        return {"tree": place / "tree"}
    found = {f"{files} files": place / "generated"}
    generate(place / "generated", files)
    if repository is not None:
        copy_tracked(repository, place / "repository")
        found["repository"] = place / "repository"
    return found


@contextmanager
def _fresh(data_dir: Path, models: Path) -> Iterator[Server]:
    """Start a server on a new data directory."""
    shutil.rmtree(data_dir, ignore_errors=True)
    shutil.copytree(models, data_dir / "models")
    with serving(data_dir) as server:
        yield server


def _index(server: Server, probe: Probe, root: Path) -> TreeTimes:
    """Index a fresh tree, and ask until everything is there."""
    with Path(encoded(root)[-1][0].file).open("a") as last:
        last.write(f"\n{MARKER}\n")
    documents = encoded(root)
    times, asked = TreeTimes(files=len(documents)), cycle(questions(documents, QUESTIONS) or [COMMON])
    before = server.cpu_s() | {"command": _ended_cpu_s()}
    began_s = time.perf_counter()
    with start(server.data_dir, "index", str(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:

        def check() -> None:
            if command.poll():
                raise RuntimeError(f"penstock index ended with {command.returncode}")

        def words() -> bool:
            return probe.finds(MARKER, MARKER, WORDS) and probe.documents() >= len(documents)

        times.first_s = seconds_until(lambda: bool(probe.hits(COMMON, WORDS)), began_s, check)
        times.words_s = seconds_until(words, began_s, check)
        times.words_cpu_s = _used(server, command, before)
        due_s = 0.0
        while command.poll() is None or probe.pending():
            check()
            if (now_s := time.perf_counter()) >= due_s:
                due_s = now_s + ASK_EVERY_S
                if probe.pending():
                    times.answers.append(probe.ask(next(asked)))
            time.sleep(LOOK_EVERY_S)
        times.vectors_s = time.perf_counter() - began_s
        times.vectors_cpu_s = _used(server, command, before)
    check()
    times.chunks = probe.chunks()
    return times


def _used(server: Server, command: subprocess.Popen[str], before: Mapping[str, float]) -> dict[str, float]:
    """Return the processor time of the server's processes and of the command, which may have ended."""
    ended = command.poll() is not None
    now = server.cpu_s() | {"command": _ended_cpu_s() - before["command"] if ended else cpu_s(command.pid)}
    return {role: value - (before.get(role, 0.0) if role != "command" else 0.0) for role, value in now.items()}


def _ended_cpu_s() -> float:
    """Return the processor time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _change(server: Server, probe: Probe, root: Path, count: int, found: ChangeTimes) -> None:
    """Save a file again and again while ``penstock watch`` follows the tree."""
    log_file = server.data_dir / "watch.log"
    with log_file.open("w") as log, start(server.data_dir, "watch", stdout=log, stderr=log) as command:
        try:
            seconds_until(lambda: "watching" in log_file.read_text(), time.perf_counter())
            for number, subject in zip(range(count), cycle(SUBJECTS)):
                time.sleep(PAUSE_S)
                words_s, meaning_s = _save(probe, root / CHANGED, f"{MARKER}{number}", subject)
                tell(f"  a change is found by words after {words_s:.2f} s, by meaning after {meaning_s:.2f} s")
                found.words_s.append(words_s)
                found.meaning_s.append(meaning_s)
        finally:
            command.terminate()


def _save(probe: Probe, file: Path, marker: str, subject: str) -> tuple[float, float]:
    """Save a file; return the seconds until it is found by words, and by meaning."""
    file.write_text(f"{subject} {marker}\n")
    saved_s = time.perf_counter()
    words_s = seconds_until(lambda: probe.finds(marker, marker, WORDS), saved_s)
    meaning_s = seconds_until(lambda: probe.finds(subject, marker, MEANING) and not probe.pending(), saved_s)
    return words_s, meaning_s


async def _wait_for_vectors(server: Server, root: Path) -> float:
    """Send a tree's documents by requests that wait for their vectors; return the seconds that it takes."""
    began_s = time.perf_counter()
    waiting = batches(encoded(root), REQUEST_DOCUMENTS_MAX, REQUEST_BYTES_MAX)
    async with AsyncClient(server.url) as api:
        await api.create_collection("default")

        async def send() -> None:
            for batch in waiting:
                report = await api.index_documents([msgspec.Raw(document) for _, document in batch])
                if report.failed:
                    raise RuntimeError(f"{report.failed} documents were not indexed")

        await run_all([send() for _ in range(REQUESTS)])
    return time.perf_counter() - began_s
