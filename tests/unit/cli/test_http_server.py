import asyncio
import socket

import pytest

from penstock.cli.http_server import ShutdownSignal, bind_socket, socket_url
from penstock.cli.serve import examples
from penstock.cli.server_process import shut_down
from penstock.kernel.errors import Invalid, Unavailable


class FakeApp:
    def __init__(self, *, finishes):
        self.draining = False
        self.finishes = finishes

    def begin_drain(self):
        self.draining = True

    async def wait_drained(self, timeout_s):
        if not self.finishes:
            await asyncio.Event().wait()
        return True


class FakeServer:
    force_exit = False
    should_exit = False


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Unavailable, match="in use") as caught:
        bind_socket("127.0.0.1", taken.getsockname()[1])
    assert caught.value.code == "port_in_use"


def test_an_address_of_another_machine_is_told():
    with pytest.raises(Invalid, match="cannot listen"):
        bind_socket("192.0.2.1", 0)


class FakeSocket:
    def __init__(self, *name):
        self.name = name

    def getsockname(self):
        return self.name


@pytest.mark.parametrize(
    ("name", "url"),
    [
        (("127.0.0.1", 80), "http://127.0.0.1:80"),
        (("0.0.0.0", 80), "http://127.0.0.1:80"),
        (("::", 80, 0, 0), "http://[::1]:80"),
        (("::1", 80, 0, 0), "http://[::1]:80"),
    ],
)
def test_the_url_is_one_that_this_machine_reaches(name, url):
    assert socket_url(FakeSocket(*name)) == url


def test_a_free_port_is_found():
    with bind_socket("127.0.0.1", 0) as bound:
        assert isinstance(bound, socket.socket)
        assert not socket_url(bound).endswith(":0")


def test_the_end_drains_first_and_then_stops():
    app, server = FakeApp(finishes=True), FakeServer()
    assert asyncio.run(ended(app, server, signals=1))
    assert app.draining
    assert server.should_exit
    assert not server.force_exit


def test_a_second_signal_ends_at_once():
    app, server = FakeApp(finishes=False), FakeServer()
    assert not asyncio.run(ended(app, server, signals=2))
    assert server.should_exit
    assert server.force_exit


async def ended(app, server, signals):
    stop = ShutdownSignal()
    for _ in range(signals):
        stop.request()
    return await shut_down(app, server, stop, app.wait_drained(30))


def test_examples_name_the_command_and_the_data_directory_where_they_must(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = examples("http://127.0.0.1:1", ".venv/bin/penstock", tmp_path / ".penstock")
    assert ".venv/bin/penstock search 'how are search results fused'\n" in shown
    assert "curl -s http://127.0.0.1:1/v1/search" in shown
    assert "--data-dir /data" in examples("http://127.0.0.1:1", "penstock", tmp_path.__class__("/data"))
