"""What commands meet: arguments, environments and trees that other programs leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from bench import ROOT
from bench.hostile.attack import Attack, Got
from bench.hostile.target import Target

PATIENCE_S: Final = 60.0
USAGE: Final = 2
PATTERNS: Final = {
    "`*a*a*a…b` on a long name": "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b",
    "a range that runs backwards": "*.[a-Z]",
    "a class that does not end": "[[:alpha:",
    "many stars": "**/" * 200 + "x",
}


def _run(*arguments: str | bytes, environment: Mapping[str, str] | None = None) -> tuple[int, str, float]:
    """Run a command; return its exit code, what it wrote, and how long it took."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    began_s = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "penstock", *arguments],
            capture_output=True,
            env={**kept, "PYTHONPATH": str(ROOT / "src"), **(environment or {})},
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, "never ended", time.monotonic() - began_s
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace"), time.monotonic() - began_s


def _said(code: int, output: str) -> str:
    lines = output.strip().splitlines()
    return f"exit {code}: {lines[-1][:100] if lines else ''}"


def _refused(arguments: tuple[str | bytes, ...], target: Target) -> Got:
    code, output, _ = _run(*arguments, "--data-dir", str(target.data_dir))
    return Got(_said(code, output), code == USAGE and "Traceback" not in output)


def _odd(arguments: tuple[str | bytes, ...], target: Target) -> Got:
    """An argument that no terminal of today sends may be refused or work."""
    code, output, _ = _run(*arguments, "--data-dir", str(target.data_dir))
    return Got(_said(code, output), code in {0, 1, USAGE} and "Traceback" not in output)


def _environment(environment: Mapping[str, str], target: Target) -> Got:
    code, output, _ = _run(
        "search", "an ordinary document", "--data-dir", str(target.data_dir), environment=environment
    )
    return Got(_said(code, output), code == 0)


def _ignored(pattern: str, target: Target) -> Got:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        subprocess.run(["git", "init", "-q", directory], check=True)
        (root / ("a" * 120)).write_text("x\n")
        (root / "kept.py").write_text("def kept(): return 1\n")
        (root / ".gitignore").write_text(pattern + "\n")
        code, output, took_s = _run("index", directory, "--collection", "ignored", "--data-dir", str(target.data_dir))
    return Got(f"{_said(code, output)} after {took_s:.1f} s", code == 0)


def _unmounted(target: Target) -> Got:
    """A tree that is empty all of a sudden is a disk that is not there."""
    where = ("--collection", "unmounted", "--data-dir", str(target.data_dir))
    with tempfile.TemporaryDirectory() as directory:
        for number in range(8):
            (Path(directory) / f"f{number}.py").write_text(f"def f{number}(): return {number}\n")
        _run("index", directory, *where)
        for path in Path(directory).iterdir():
            path.unlink()
        code, output, _ = _run("index", directory, *where)
        found, _, _ = _run("search", "f3", *where)
    return Got(f"{_said(code, output)}; a search exits with {found}", found == 0 and code != 0)


def _hang(target: Target) -> Got:
    """A file on which a parser never ends costs its own run, once."""
    where = ("--collection", "hang", "--data-dir", str(target.data_dir))
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "hang.tsx").write_text('e"t/*\n(t]e%%w::*/b')
        for number in range(20):
            (Path(directory) / f"card{number}.tsx").write_text(f"export function Card{number}() {{ return <div/> }}\n")
        code, output, first_s = _run("index", directory, *where)
        _, _, second_s = _run("index", directory, *where)
    return Got(
        f"{_said(code, output)}; {first_s:.1f} s, again {second_s:.1f} s", code == 0 and first_s < 15 and second_s < 8
    )


def _set(*variables: str) -> dict[str, str]:
    """Return an environment, a name and its value in each text."""
    return dict(one.split(" ", 1) for one in variables)


def _case(row: str, name: str, expected: str, act: partial[Got]) -> Attack:
    return Attack(row, name, expected, act, watched=False)


ATTACKS: Final = (
    _case(
        "A8",
        "HOST and PORT of other programs",
        "0",
        partial(_environment, _set("HOST x86_64-conda-linux-gnu", "PORT tcp://10.0.0.1:80")),
    ),
    _case(
        "A8",
        "WORKER_PORT, LOG_LEVEL, MAX_BODY of other programs",
        "0",
        partial(_environment, _set("WORKER_PORT tcp://10.0.0.5:8080", "LOG_LEVEL trace", "MAX_BODY 50mb")),
    ),
    _case("A8", '`penstock index ""`', "exit 2", partial(_refused, ("index", "", "--collection", "empty"))),
    _case("A8", "an argument that is not UTF-8", "no traceback", partial(_odd, ("search", b"caf\xe9"))),
    _case("A8", "a path that is not UTF-8", "no traceback", partial(_odd, ("index", b"/nowhere/caf\xe9"))),
    *(
        _case("H1", f"a line of .gitignore: {name}", "0, within seconds", partial(_ignored, pattern))
        for name, pattern in PATTERNS.items()
    ),
    Attack("S1", "a tree that is empty all of a sudden", "nothing removed, exit not 0", _unmounted, watched=False),
    Attack(
        "S5",
        "a file on which a parser never ends, by `penstock index`",
        "0, within seconds, once",
        _hang,
        watched=False,
    ),
)
