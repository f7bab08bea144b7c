"""A process of its own that does one thing after another: orders in, answers out, one JSON object a line.

What is measured beside others keeps its threads, its memory and its interpreter to itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from bench import ROOT

#: How long a worker may take to end once its orders have ended; then it is killed.
END_S_MAX = 30.0

Order = dict[str, Any]


class Failed(Exception):
    """A worker could not do what it was asked, or ended; says why."""


class Worker:
    """The near end of a worker process.

    Args:
        module: What runs in it; its ``main`` calls :func:`work`.
        arguments: Of its command line.
        python: The interpreter; this one by default.
    """

    def __init__(self, module: str, *arguments: str, python: str = sys.executable) -> None:
        paths = [str(ROOT / "src"), str(ROOT)]
        self._name = " ".join([module, *arguments])
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and wait for its answer.

        Raises:
            Failed: The worker said that it could not, or ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"{self._name} has ended") from None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self._name} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise Failed(f"{self._name}: {answer['failed']}")
        return answer

    def close(self) -> None:
        """Let the process end: it has no more orders."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def work(do: Callable[[Order], dict[str, Any]]) -> None:
    """Answer orders from standard input until there are no more; whatever else prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = do(json.loads(line))
        except Exception as error:  # noqa: BLE001 - the root of an order: whoever gave it is told
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
