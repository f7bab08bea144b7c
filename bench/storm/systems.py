"""The servers under the storm: Penstock, the same pipeline behind plain uvicorn, Chroma's server. Each on one core."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import ROOT
from bench.agents.conduct import QUICK_TREE, TREE, index_tree, questions
from bench.processes import by_role, cpu_s
from bench.report import tell
from bench.serving import serving
from bench.storm import plan
from bench.storm.generator import pinned
from bench.tree import dense_texts
from penstock.kernel.cores import available_cores
from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.model_source import find_source
from penstock.models.prepare import prepare_model
from penstock.models.tokenizer import TextTokenizer

TEXTS: Final = {
    "penstock": "penstock serve, its defaults but no rate limit",
    "semaphore": "uvicorn, a semaphore of 64, the same pipeline",
    "plain": "uvicorn, any number at once, the same pipeline",
    "chroma": "chroma run: dense only, by given vectors, no model",
}
#: Searches at once behind the semaphore.
PERMITS: Final = 64
#: Different queries by vector; Chroma remembers no answers.
VECTOR_QUERIES: Final = 2_000
#: Texts that a thread embeds at a time.
SLICE_TEXTS: Final = 16
START_S_MAX: Final = 60.0
FULL_QUALITY: Final = {"DEGRADATION_HIGHEST": "full"}


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs.

    Attributes:
        port: Where it listens.
        path: Where it is asked.
        bodies: Bodies to ask with, without end.
        cpu_s: Processor time used so far, by process.
        repeated: So many of the bodies are asked again and again; 0: each once.
    """

    port: int
    path: str
    bodies: Iterator[bytes]
    cpu_s: Callable[[], dict[str, float]]
    repeated: int = 0

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.port}{self.path}"

    def targets(self, chance: random.Random, key: str = "") -> Iterator[str]:
        """Yield requests of all keys, or of one."""
        for body in self.bodies:
            yield plan.target(self.url, body, key or f"key-{chance.randrange(plan.KEYS)}")


class Systems:
    """Starts the servers on one core.

    Args:
        place: Where data directories are kept.
        core: The servers' core.
        python: Interpreter of an environment that has the peer.
        quick: A part of the tree only.
    """

    def __init__(self, place: Path, core: int, python: Path, *, quick: bool) -> None:
        self._tree = QUICK_TREE if quick else TREE
        self._place = place / ("quick" if quick else "full")
        self._core = core
        self._python = python
        self._data = self._place / "data"
        self._seeds = itertools.count(time.time_ns())
        self._words = plan.words(questions(self._tree))

    def prepare(self) -> None:
        """Index the tree, unless that was done before."""
        done = self._place / "indexed"
        if done.exists():
            return
        shutil.rmtree(self._data, ignore_errors=True)
        models = ROOT / ".penstock" / "models"
        if models.exists():
            shutil.copytree(models, self._data / "models")
        with serving(self._data):
            index_tree(self._tree, self._data)
        done.touch()

    def missing(self, name: str) -> str:
        """Return why a system cannot be run, empty if it can."""
        if name == "chroma" and not self._python.with_name("chroma").exists():
            return f"there is no chroma beside {self._python.name}; see requirements/bench.txt and --python"
        return ""

    def run(self, name: str, *, full_quality: bool = False) -> AbstractContextManager[Running]:
        """Start a system; it is ended afterwards."""
        if name == plan.OURS:
            return self._penstock(FULL_QUALITY if full_quality else {})
        if name == "chroma":
            return self._chroma()
        return self._inside(PERMITS if name == "semaphore" else 0)

    @contextmanager
    def _penstock(self, settings: Mapping[str, str]) -> Iterator[Running]:
        with contextlib.ExitStack() as stack:
            with pinned(self._core):
                server = stack.enter_context(serving(self._data, settings))
            yield Running(server.port, "/v1/search", self._searches(), server.cpu_s)

    @contextmanager
    def _inside(self, permits: int) -> Iterator[Running]:
        command = [sys.executable, "-m", "bench.storm.inside", str(self._data), str(permits)]
        with self._process(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("bench.storm.inside did not start")
            yield Running(int(line), "/v1/search", self._searches(), lambda: by_role(process.pid, cpu_s))

    @contextmanager
    def _chroma(self) -> Iterator[Running]:
        place = self._place / "chroma"
        if not (place / "id").exists():
            self._fill_chroma(place)
        collection = (place / "id").read_text().strip()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = str(self._python.with_name("chroma"))
        command = [program, "run", "--path", str(place / "data"), "--host", "127.0.0.1", "--port", str(port)]
        with self._process(command, stdout=subprocess.DEVNULL) as process:
            _wait_for(f"http://127.0.0.1:{port}/api/v2/heartbeat")
            path = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{collection}/query"
            bodies = itertools.cycle(self._vector_bodies(place))
            yield Running(port, path, bodies, lambda: by_role(process.pid, cpu_s), VECTOR_QUERIES)

    @contextmanager
    def _process(self, command: list[str], stdout: int) -> Iterator[subprocess.Popen[bytes]]:
        """Start a server; kill it afterwards: what waits in it would go on for minutes."""
        with pinned(self._core), (self._place / "peer.log").open("a") as log:
            process = subprocess.Popen(command, stdout=stdout, stderr=log, cwd=ROOT, env=_environment())
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _searches(self) -> Iterator[bytes]:
        return map(plan.search_body, plan.queries(self._words, next(self._seeds)))

    def _fill_chroma(self, place: Path) -> None:
        """Give Chroma the chunks and vectors that Penstock makes of the tree."""
        tell("embedding the same chunks for chroma")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        prepared = prepare_model(find_source(), self._data / "models")
        texts = dense_texts(self._tree, TextTokenizer(prepared.tokenizer_path, prepared.tokens_max))
        dense = BuiltinDenseEncoder(prepared)
        slices = [texts[first : first + SLICE_TEXTS] for first in range(0, len(texts), SLICE_TEXTS)]
        with ThreadPoolExecutor(available_cores()) as threads:
            vectors = np.concatenate(list(threads.map(dense.run, slices)))
        np.savez(place / "vectors.npz", vectors=vectors, texts=np.array(texts))
        command = [str(self._python), "-m", "bench.storm.chroma", str(place / "vectors.npz"), str(place / "data")]
        told = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        (place / "id").write_text(told.strip().splitlines()[-1])

    def _vector_bodies(self, place: Path) -> list[bytes]:
        """Return queries that lie between two chunks each."""
        with np.load(place / "vectors.npz") as stored:
            vectors = stored["vectors"]
        chance = np.random.default_rng(next(self._seeds))
        pairs = chance.integers(0, len(vectors), (VECTOR_QUERIES, 2))
        middles = vectors[pairs[:, 0]] + vectors[pairs[:, 1]]
        middles /= np.linalg.norm(middles, axis=1, keepdims=True)
        wanted: dict[str, Any] = {"n_results": plan.HITS, "include": ["documents", "distances"]}
        rows = ([round(float(value), 4) for value in row] for row in middles)
        return [json.dumps({"query_embeddings": [row], **wanted}).encode() for row in rows]


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "ANONYMIZED_TELEMETRY": "False"}


def _wait_for(url: str) -> None:
    began_s = time.monotonic()
    while time.monotonic() - began_s < START_S_MAX:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer")
