"""Freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock.kernel import allocator

PEAK = """
from pathlib import Path
from penstock.kernel import allocator

def taken():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

allocator.configure_malloc()
before = taken()
bodies = [b"x" * 9_900_000 for _ in range(20)]
texts = [body.decode() for body in bodies]
kept = [bytes(60_000) for _ in range(2000)]
peak = taken()
last = kept[-1]
del bodies, texts, kept
allocator.trim_heap()
print(before, peak, taken())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_peak_of_large_and_small_allocations_leaves_little_behind() -> None:
    ran = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    before, peak, after = map(int, ran.stdout.split())
    assert peak > before + 400_000_000
    assert after < before + 10_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_told_and_given_back_in_any_process() -> None:
    allocator.configure_malloc()
    # What earlier tests freed goes back first, or the new objects lie in pages that count already.
    allocator.trim_heap()
    before = allocator.resident_bytes()
    kept = [bytes(60_000) for _ in range(1000)]
    grown = allocator.resident_bytes()
    del kept
    allocator.trim_heap()
    assert grown > before + 30_000_000
    assert allocator.resident_bytes() < grown


def test_a_library_that_cannot_give_memory_back_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_library", lambda: None)
    allocator.configure_malloc()
    allocator.trim_heap()


def test_no_memory_is_told_where_the_system_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(allocator, "Path", lambda _: tmp_path / "absent")
    assert allocator.resident_bytes() == 0
