"""Freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

PEAK = """
from pathlib import Path
from penstock.kernel import allocator

def taken():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

allocator.settle()
before = taken()
bodies = [b"x" * 9_900_000 for _ in range(20)]
texts = [body.decode() for body in bodies]
kept = [bytes(60_000) for _ in range(2000)]
peak = taken()
last = kept[-1]
del bodies, texts, kept
allocator.trim()
print(before, peak, taken())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_peak_of_large_and_small_allocations_leaves_little_behind() -> None:
    ran = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    before, peak, after = map(int, ran.stdout.split())
    assert peak > before + 400_000_000
    assert after < before + 10_000_000
