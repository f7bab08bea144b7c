"""Memory limits are found where they are, and high memory has consequences."""

import asyncio
import os

import pytest

from penstock.policies.levels import Level
from penstock.telemetry.memory_watch import (
    PROCESSES_MAX,
    MemoryLimit,
    MemoryReleaser,
    MemoryWatch,
    find_memory_limit,
    used_bytes,
)
from tests.clock import quiet, virtual
from tests.fakes.loop_clock import LoopClock

GIB = 2**30


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def machine(root, gib=16):
    write(root, {"proc/meminfo": f"MemTotal:       {gib * GIB // 1024} kB\nMemFree: 1 kB\n"})


def test_a_machine_without_control_groups_is_the_limit(tmp_path):
    machine(tmp_path)
    assert find_memory_limit(0, tmp_path) == MemoryLimit(16 * GIB, "machine")


def test_the_setting_limits_below_the_machine(tmp_path):
    machine(tmp_path)
    assert find_memory_limit(2 * GIB, tmp_path) == MemoryLimit(2 * GIB, "setting")


def test_a_setting_above_the_machine_is_no_limit(tmp_path):
    machine(tmp_path)
    assert find_memory_limit(64 * GIB, tmp_path).source == "machine"


def test_version_two_limit_of_the_own_group_is_found(tmp_path):
    machine(tmp_path)
    write(tmp_path, {"proc/self/cgroup": "0::/app/web\n", "sys/fs/cgroup/app/web/memory.max": f"{4 * GIB}\n"})
    assert find_memory_limit(0, tmp_path) == MemoryLimit(4 * GIB, "cgroup", tmp_path / "sys/fs/cgroup/app/web")


def test_the_tightest_ancestor_counts(tmp_path):
    machine(tmp_path)
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/app/web\n",
            "sys/fs/cgroup/app/web/memory.max": "max\n",
            "sys/fs/cgroup/app/memory.max": f"{3 * GIB}\n",
        },
    )
    assert find_memory_limit(0, tmp_path) == MemoryLimit(3 * GIB, "cgroup", tmp_path / "sys/fs/cgroup/app")


def test_a_containers_limit_stands_at_the_top_though_its_path_is_the_hosts(tmp_path):
    machine(tmp_path)
    write(tmp_path, {"proc/self/cgroup": "0::/kubepods/x\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"})
    assert find_memory_limit(0, tmp_path) == MemoryLimit(GIB, "cgroup", tmp_path / "sys/fs/cgroup")


def test_version_one_limit_is_found_and_its_no_limit_is_none(tmp_path):
    machine(tmp_path)
    group = tmp_path / "sys/fs/cgroup/memory/box"
    write(tmp_path, {"proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/box\n0::/\n"})
    write(group, {"memory.limit_in_bytes": "9223372036854771712\n"})
    assert find_memory_limit(0, tmp_path).source == "machine"
    write(group, {"memory.limit_in_bytes": f"{5 * GIB}\n"})
    assert find_memory_limit(0, tmp_path) == MemoryLimit(5 * GIB, "cgroup", group)


def test_the_tighter_of_group_and_setting_wins(tmp_path):
    machine(tmp_path)
    write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{4 * GIB}\n"})
    assert find_memory_limit(2 * GIB, tmp_path).source == "setting"
    assert find_memory_limit(8 * GIB, tmp_path).source == "cgroup"
    assert find_memory_limit(4 * GIB, tmp_path).source == "setting"


def test_a_system_that_tells_nothing_is_never_full(tmp_path):
    assert used_bytes(find_memory_limit(0, tmp_path), tmp_path) / find_memory_limit(0, tmp_path).bytes == 0


@pytest.mark.parametrize(
    "names", [("memory.current", "inactive_file"), ("memory.usage_in_bytes", "total_inactive_file")]
)
def test_pages_of_files_that_can_be_dropped_do_not_count(tmp_path, names):
    write(tmp_path, {names[0]: "1000\n", "memory.stat": f"anon 1\n{names[1]} 300\n"})
    assert used_bytes(MemoryLimit(GIB, "cgroup", tmp_path)) == 700


def test_all_processes_of_the_tree_count_and_mapped_files_do_not(tmp_path):
    me = os.getpid()
    status = "Name: x\nRssAnon:  100 kB\nRssFile:  900 kB\nRssShmem:  10 kB\n"
    write(
        tmp_path,
        {
            f"proc/{me}/status": status,
            f"proc/{me}/task/{me}/children": "7 8 ",
            "proc/7/status": status,
            "proc/7/task/7/children": "",
            "proc/8/status": status,
        },
    )
    assert used_bytes(MemoryLimit(GIB, "machine"), tmp_path) == 3 * 110 * 1024


def test_a_fork_bomb_is_not_followed_for_ever(tmp_path):
    me = os.getpid()
    many = " ".join(str(me) for _ in range(PROCESSES_MAX))
    write(tmp_path, {f"proc/{me}/task/{me}/children": many})
    assert used_bytes(MemoryLimit(GIB, "machine"), tmp_path) == 0


def test_this_process_takes_up_something():
    assert used_bytes(find_memory_limit(0)) > 1_000_000


class Cache:
    def __init__(self):
        self.kept = 1.0

    def shrink(self, share):
        self.kept *= share


def test_caches_halve_at_every_look_while_memory_is_high_and_are_emptied_when_it_is_critical(caplog):
    caplog.set_level("INFO")
    used, cache = 0, Cache()
    watch = MemoryWatch(MemoryLimit(100, "setting"), (cache,), used=lambda _: used)
    course = [(50, Level.CALM, 1.0), (80, Level.HIGH, 0.5), (75, Level.HIGH, 0.25), (69, Level.CALM, 0.25)]
    for used, level, kept in course:  # noqa: B007 - read by the watch
        watch.poll()
        assert (watch.level, cache.kept) == (level, kept)
    used = 95
    watch.poll()
    assert (watch.level, cache.kept, watch.used) == (Level.CRITICAL, 0.0, 95)
    assert [record.message for record in caplog.records] == [
        "memory is high; caches shrink",
        "memory is calm again",
        "memory is high; caches shrink",
        "memory is short; large requests are refused",
    ]
    assert "critical" in repr(watch)


# What was freed is given back


def test_caches_are_left_alone_while_freed_memory_is_given_back() -> None:
    cache, giving = Cache(), True
    watch = MemoryWatch(MemoryLimit(100, "setting"), (cache,), used=lambda _: 95)
    watch.release_memory = lambda: giving
    watch.poll()
    assert cache.kept == 1.0
    giving = False
    watch.poll()
    assert cache.kept == 0.0


@virtual
async def test_memory_is_given_back_one_time_after_the_other() -> None:
    worked_s, began, done = 1.0, 0, asyncio.Event()

    async def give_back() -> None:
        nonlocal began
        began += 1
        await done.wait()

    returning = MemoryReleaser(give_back, LoopClock(), lambda: worked_s, lambda: 100)
    returning.release()
    worked_s += 1.0
    await asyncio.sleep(20)
    returning.release()
    assert not returning.release(short=True)
    assert began == 1
    done.set()
    await quiet()
    assert returning.release(short=True)
    await returning.close()
    assert began == 2


@virtual
async def test_an_error_while_giving_back_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def give_back() -> None:
        raise RuntimeError("no")

    returning = MemoryReleaser(give_back, LoopClock(), lambda: 1.0, lambda: 100)
    returning.release()
    await returning.close()
    assert "could not be given back" in caplog.text
