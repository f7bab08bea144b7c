"""What a service manager is told: where there is one, where there is none, where it does not listen."""

import socket
from pathlib import Path

import pytest

from penstock.cli.server_process import READY, SOCKET_VARIABLE, sd_notify


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_the_manager_gets_the_state_as_one_datagram(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"@penstock-{tmp_path.name}" if kind == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if kind == "abstract" else address)
        monkeypatch.setenv(SOCKET_VARIABLE, address)
        sd_notify(READY)
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "nonsense", "/nowhere/to/be/found"])
def test_without_a_manager_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SOCKET_VARIABLE, address)
    sd_notify(READY)


def test_a_manager_that_does_not_read_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        monkeypatch.setenv(SOCKET_VARIABLE, address)
        for _ in range(2000):
            sd_notify(READY)
