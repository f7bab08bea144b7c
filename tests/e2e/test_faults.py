"""The fault proof's harness: hosts that come and go, and a worker that dies among them."""

import asyncio
import socket
import subprocess
from pathlib import Path

import pytest

from bench.faults.accidents import Fault, kill_worker
from bench.faults.conduct import conduct
from bench.faults.hosts import PREFIX, missing, network
from bench.faults.plant import LAYOUTS
from tests.rigs import redis


@pytest.fixture(autouse=True)
def hosts() -> None:
    if why := missing():
        pytest.skip(why)


def left() -> list[str]:
    """Return what of this process's network is still there."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return [*Path("/run/netns").glob(f"{PREFIX}*"), *(line for line in links.splitlines() if f" {PREFIX}" in line)]


def reached(address: str) -> bool:
    """Return whether a host answers: it refuses, for nobody listens there."""
    try:
        socket.create_connection((address, 9), 0.5).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def test_hosts_are_reached_unless_cut_off_and_nothing_is_left_of_them() -> None:
    before = left()
    with network() as made:
        plain, wired = made.add("one"), made.add("two", wired=True)
        assert reached(plain.address)
        assert reached(wired.address)
        wired.cut()
        assert not reached(wired.address)
        wired.heal()
        assert reached(wired.address)
        assert len(left()) > len(before)
    assert left() == before


def test_a_worker_killed_among_hosts_costs_nothing_that_was_accepted() -> None:
    redis.needed()
    run = asyncio.run(conduct(LAYOUTS["redis/edge"], [Fault("a worker killed", kill_worker, 2.0)]))
    assert (run.lost, run.doubled, run.missing) == (0, 0, 0)
    assert run.tallies[0].answered > 0
