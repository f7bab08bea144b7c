"""Compiles the bus's hot path to native code: beside the sources, or under ``--into DIR``; ``--remove`` takes it back.

``make compile`` runs it, and the build of a compiled wheel (``tools/hatch_build.py``). Needs a C compiler and the
development environment; the sources stay what they are, and Python prefers what is compiled beside them. So it must be
run again after each change of these files.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).resolve().parent.parent / "src"

#: What runs for every message.
MODULES: Final = (
    "penstock/bus/local.py",
    "penstock/bus/fair_queue.py",
    "penstock/bus/envelope.py",
    "penstock/bus/dispatcher.py",
    "penstock/bus/topic_queue.py",
    "penstock/kernel/wheel.py",
    "penstock/policies/congestion.py",
    "penstock/policies/estimate.py",
    "penstock/pools/permits.py",
)


def compiled() -> list[Path]:
    """Return the compiled files that lie beside the sources."""
    shared = SOURCES.glob("*__mypyc*.so")
    return sorted(
        {*shared, *(so for module in MODULES for so in (SOURCES / module).parent.glob(f"{Path(module).stem}.*.so"))}
    )


def remove() -> None:
    """Delete the compiled files."""
    for path in compiled():
        path.unlink()


def build(into: Path = SOURCES) -> None:
    """Compile ``MODULES``.

    Args:
        into: Directory under which the files lie as the packages do; beside the sources by default.

    Raises:
        SystemExit: There is no compiler, or it failed.
    """
    from mypyc.build import mypycify  # noqa: PLC0415 - not needed to remove
    from setuptools import setup  # noqa: PLC0415

    target = into.resolve()
    if target == SOURCES:
        remove()
    os.chdir(SOURCES)
    with tempfile.TemporaryDirectory() as scratch:
        extensions = mypycify([*MODULES], opt_level="3", debug_level="0", target_dir=scratch)
        command = ["--quiet", "build_ext", "--build-temp", scratch, "--build-lib", str(target)]
        setup(name="penstock-compiled", ext_modules=extensions, script_args=command, py_modules=[])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--remove", action="store_true", help="delete what was compiled beside the sources")
    parser.add_argument("--into", type=Path, default=SOURCES, metavar="DIR", help="where the compiled files go")
    arguments = parser.parse_args()
    remove() if arguments.remove else build(arguments.into)
