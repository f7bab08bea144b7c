"""Processes on hosts: started, killed as a crash would, asked to end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import ROOT
from bench.faults.hosts import Host

START_S_MAX: Final = 60.0
END_S_MAX: Final = 45.0
POLL_S: Final = 0.05


@dataclass(slots=True)
class Part:
    """A process on a host, which may be down.

    Attributes:
        name: What it is.
        host: Where it runs.
        arguments: Of the interpreter.
        settings: Its environment beside the usual.
        log: Where it writes.
        sign: What it writes once it works.
        starts: How often it has been started.
    """

    name: str
    host: Host
    arguments: tuple[str, ...]
    settings: Mapping[str, str]
    log: Path
    sign: str
    starts: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        self.starts += 1
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        environment = {**kept, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **self.settings}
        command = [*self.host.within, sys.executable, *self.arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)

    async def ready(self) -> None:
        """Wait until it works.

        Raises:
            RuntimeError: It has ended, or takes too long.
        """
        until_s = time.monotonic() + START_S_MAX
        while self.log.read_text(errors="replace").count(self.sign) < self.starts:
            if self._process is None or self._process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"{self.name} did not start, see {self.log}:\n{self._tail()}")
            await asyncio.sleep(POLL_S)

    async def start(self) -> None:
        """Start it and wait until it works."""
        self.launch()
        await self.ready()

    def kill(self) -> None:
        """End it as a crash would."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(END_S_MAX)

    async def stop(self) -> int:
        """Ask it to end, and wait; return its exit code, or -9 where it had to be killed."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(process.wait, END_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]
