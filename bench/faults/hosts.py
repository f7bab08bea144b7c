"""Several hosts on one machine: network namespaces on one bridge. Needs root and iproute2; all of it is removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from bench import ROOT

#: Begins the names of everything that is made; the process's id follows.
PREFIX: Final = "ps"
#: The bridge's own address ends with it; this process is there.
OUTSIDE: Final = 254
END_S_MAX: Final = 5.0


class Missing(Exception):
    """This machine cannot be several hosts; says what lacks."""


def missing() -> str:
    """Return why this machine cannot be several hosts; empty where it can."""
    lacks = [name for name in ("ip", "setpriv") if shutil.which(name) is None]
    if lacks:
        return f"no hosts: needs {' and '.join(lacks)} (Debian: iproute2, util-linux)"
    if os.geteuid():
        return "no hosts: network namespaces need root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no hosts: needs /dev/net/tun"
    probe = f"{PREFIX}{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no hosts: {made.stderr.strip() or 'network namespaces cannot be made'}"
    _ip("netns", "del", probe)
    return ""


@dataclass(frozen=True, slots=True)
class Host:
    """One host.

    Attributes:
        name: What it is for.
        address: Its IPv4 address.
        namespace: Its network namespace.
        outer: Its link's other end, on the bridge.
    """

    name: str
    address: str
    namespace: str
    outer: str

    @property
    def within(self) -> tuple[str, ...]:
        """What comes before a command that is to run on it; it ends with the thread that starts it."""
        return ("setpriv", "--pdeathsig", "KILL", "--", "ip", "netns", "exec", self.namespace)

    def cut(self) -> None:
        """Take its link away."""
        _ip("link", "set", self.outer, "down")

    def heal(self) -> None:
        """Give it its link again."""
        _ip("link", "set", self.outer, "up")


@dataclass(slots=True)
class Network:
    """Hosts that reach each other by way of one bridge.

    Attributes:
        hosts: By name.
    """

    hosts: dict[str, Host] = field(default_factory=dict)
    _wires: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def _name(self) -> str:
        return f"{PREFIX}{os.getpid()}"

    @property
    def _subnet(self) -> str:
        return f"10.213.{os.getpid() % 250}"

    @property
    def outside(self) -> str:
        """Where this process is reached by the hosts."""
        return f"{self._subnet}.{OUTSIDE}"

    def open(self) -> None:
        """Make the bridge."""
        bridge = f"{self._name}br"
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{self.outside}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")

    def add(self, name: str, *, wired: bool = False) -> Host:
        """Make a host.

        Args:
            name: What it is for.
            wired: Whether its link can be made slow (:meth:`slow`).
        """
        number = len(self.hosts) + 1
        host = Host(name, f"{self._subnet}.{number}", f"{self._name}-{name}", f"{self._name}-{number}")
        _ip("netns", "add", host.namespace)
        self.hosts[name] = host
        inner = f"{self._name}i{number}"
        if wired:
            self._wires[name] = _wire(inner, host.outer)
        else:
            _ip("link", "add", host.outer, "type", "veth", "peer", "name", inner)
        _ip("link", "set", inner, "netns", host.namespace)
        for device in (inner, "lo"):
            _ip("-n", host.namespace, "link", "set", device, "up")
        _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", inner)
        _ip("link", "set", host.outer, "master", f"{self._name}br", "up")
        return host

    def slow(self, name: str, delay_s: float, loss: float) -> None:
        """Have each frame of a wired host delayed, and a share of them lost; in both directions."""
        wire = self._wires[name].stdin
        assert wire is not None
        wire.write(f"{delay_s} {loss}\n")
        wire.flush()

    def close(self) -> None:
        """Remove all of it."""
        for wire in self._wires.values():
            for end in (wire.stdin, wire.stdout):
                if end is not None:
                    end.close()
            try:
                wire.wait(END_S_MAX)
            except subprocess.TimeoutExpired:
                wire.kill()
                wire.wait()
        for host in self.hosts.values():
            # With its namespace alone the link would go later, and the next network could not have its name.
            for what, name in (("link", host.outer), ("netns", host.namespace)):
                with contextlib.suppress(Missing):
                    _ip(what, "del", name)
        with contextlib.suppress(Missing):
            _ip("link", "del", f"{self._name}br")


@contextmanager
def network() -> Iterator[Network]:
    """Make a network; it is removed however this ends.

    Raises:
        Missing: This machine cannot be several hosts.
    """
    if why := missing():
        raise Missing(why)
    made = Network()
    try:
        made.open()
        yield made
    finally:
        made.close()


def _wire(inner: str, outer: str) -> subprocess.Popen[str]:
    command = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "bench.faults.wire", inner, outer]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=_environment()
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise Missing("no hosts: a link could not be made")
    return process


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"no hosts: ip {' '.join(arguments)}: {done.stderr.strip()}")
