"""An address beyond loopback has to be allowed, and is warned of."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

from penstock.app.role import ALL_IN_ONE
from penstock.cli import serve
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings


class Bound:
    closed = False

    def __init__(self, address):
        self.address = address

    def getsockname(self):
        return self.address, 8080

    def close(self):
        self.closed = True


@pytest.fixture
def bind(monkeypatch, tmp_path):
    """Return a function that binds a server's socket to an address, as far as the server knows."""

    def bind(address, *, insecure):
        bound, settings = Bound(address), Settings()
        settings = replace(settings, server=replace(settings.server, host=address, insecure=insecure))
        monkeypatch.setattr(serve, "bind_socket", lambda *_: bound)
        setup = SimpleNamespace(data_dir=tmp_path, settings=settings)
        return bound, lambda: serve._Server(setup, ALL_IN_ONE, None).bind()

    return bind


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1", "fe80::1%eth0"])
def test_beyond_loopback_is_refused_until_it_is_allowed_and_then_warned_of(address, bind, caplog):
    bound, begin = bind(address, insecure=False)
    with pytest.raises(Invalid, match="--insecure") as caught:
        begin()
    assert (caught.value.code, caught.value.field, bound.closed) == ("not_loopback", "server.host", True)
    bound, begin = bind(address, insecure=True)
    with caplog.at_level(logging.WARNING):
        assert begin() is bound
    assert not bound.closed
    assert address in caplog.text
    assert "delete everything" in caplog.text


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("insecure", [False, True])
def test_loopback_needs_no_word_and_gets_none(address, insecure, bind, caplog):
    _, begin = bind(address, insecure=insecure)
    begin()
    assert caplog.text == ""
