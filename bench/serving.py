"""A real server in processes of its own, as ``penstock serve`` starts it, and what its processes use."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import ROOT
from bench.processes import by_role, cpu_s, memory_mb
from penstock.stores.lock import find_lock_holder

START_S_MAX: Final = 120.0
END_S_MAX: Final = 60.0
POLL_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        url: Where it listens.
        pid: The front's process.
        data_dir: Its data directory.
        ready_s: From starting the process to the first ``200`` of ``/readyz``.
    """

    url: str
    pid: int
    data_dir: Path
    ready_s: float

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rpartition(":")[2])

    def cpu_s(self) -> dict[str, float]:
        """Return the processor time used so far, by role: ``front``, ``store``, ``chunkers``."""
        return by_role(self.pid, cpu_s)

    def memory_mb(self) -> dict[str, float]:
        """Return the memory in use by role, shared pages in parts (PSS)."""
        return by_role(self.pid, memory_mb)


@contextmanager
def serving(
    data_dir: Path, settings: Mapping[str, str] | None = None, log_file: Path | None = None
) -> Iterator[Server]:
    """Start a server on a data directory, wait until it is ready, end it afterwards.

    Args:
        data_dir: The data directory; made if absent.
        settings: Environment settings beside the defaults; the rate limit is off.
        log_file: Where it writes its log; ``serve.log`` in the data directory by default.

    Raises:
        RuntimeError: It did not become ready; its log stands in ``serve.log`` in the directory.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "penstock", "serve", "--port", "0", "--data-dir", str(data_dir)]
    with (log_file or data_dir / "serve.log").open("a") as log:
        began_s = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment(settings or {}))
    try:
        url = _ready(process, data_dir, began_s)
        yield Server(url, process.pid, data_dir, time.perf_counter() - began_s)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return a clean environment: no setting of the machine may change what is measured."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(ROOT / "src"),
        "PENSTOCK_RATE_LIMIT": "0",
        "PENSTOCK_LOG_LEVEL": "warning",
        **settings,
    }


def _ready(process: subprocess.Popen[bytes], data_dir: Path, began_s: float) -> str:
    """Return the server's URL once it answers that it is ready."""
    while time.perf_counter() - began_s < START_S_MAX and process.poll() is None:
        held = find_lock_holder(data_dir)
        if held is not None and held.pid == process.pid and held.url:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{held.url}/readyz", timeout=5) as answer:
                if answer.status == 200:
                    return held.url
        time.sleep(POLL_S)
    raise RuntimeError(f"the server did not become ready; see {data_dir / 'serve.log'}")
