"""Cores: the affinity, and the control group's quota where that is less."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from penstock.kernel.cores import available_cores, cpu_quota


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


SECOND = {"proc/self/cgroup": "0::/app/web\n"}
FIRST = {"proc/self/cgroup": "12:memory:/x\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, math.inf),
        (SECOND, math.inf),
        (SECOND | {"sys/fs/cgroup/app/web/cpu.max": "150000 100000\n"}, 1.5),
        (SECOND | {"sys/fs/cgroup/app/web/cpu.max": "max 100000\n"}, math.inf),
        (SECOND | {"sys/fs/cgroup/app/web/cpu.max": "max 1\n", "sys/fs/cgroup/app/cpu.max": "200000 100000"}, 2.0),
        (SECOND | {"sys/fs/cgroup/app/web/cpu.max": "800 100", "sys/fs/cgroup/app/cpu.max": "900 100"}, 8.0),
        (SECOND | {"sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),  # a container: the path is the host's
        (SECOND | {"sys/fs/cgroup/cpu.max": "junk"}, math.inf),
        (SECOND | {"sys/fs/cgroup/cpu.max": "0 0"}, math.inf),
        (SECOND | {"sys/fs/cpu.max": "1 1"}, math.inf),  # outside the hierarchy
        (
            FIRST
            | {
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (FIRST | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "30", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "10"}, 3.0),
        (FIRST | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "10"}, math.inf),
    ],
)
def test_the_tightest_quota_of_the_group_and_its_ancestors_counts(
    files: dict[str, str], expected: float, tmp_path: Path
) -> None:
    assert cpu_quota(write(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [("max", 8), ("50000", 1), ("100000", 1), ("150000", 2), ("9900000", 8)]
)
def test_a_quota_is_rounded_up_and_never_more_than_the_affinity(
    limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert available_cores(write(tmp_path, SECOND | {"sys/fs/cgroup/cpu.max": f"{limit} 100000"})) == expected


def test_without_a_quota_the_cores_are_those_this_process_may_run_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert available_cores(tmp_path) == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS has none
    assert available_cores(tmp_path) == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores(tmp_path) == 1


def test_this_machine_has_a_core() -> None:
    assert available_cores() >= 1
