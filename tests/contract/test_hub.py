"""The Hugging Face hub as it fails: refused, silent, busy; and as it answers."""

import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_api

from penstock.models import hub

COMMIT = "0123456789" * 4


class Handler(BaseHTTPRequestHandler):
    """Answers every request with a status and headers, and keeps its path and its agent."""

    status, headers_sent, asked = 200, {}, []

    def do_GET(self):
        self.asked.append((self.path, self.headers["user-agent"]))
        self.send_response(self.status)
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET" and self.status == 200:
            self.wfile.write(b"{}")

    do_HEAD = do_GET  # noqa: N815 - the name that the library calls

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "RETRY_DELAY_S", 0)
    monkeypatch.setattr(hub, "TIMEOUT_S", dict.fromkeys(hub.TIMEOUT_S, 0.2))
    monkeypatch.setattr(hub, "RETRY_WINDOW_S", 0.1)


def at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hf_api.api, "endpoint", url)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    handler = type("One", (Handler,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        at(f"http://127.0.0.1:{listening.server_address[1]}", monkeypatch)
        yield handler
        listening.shutdown()
        thread.join()


ASKED = [
    pytest.param(lambda cache: hub.download_file("owner/name", "model.onnx", COMMIT, cache), id="file"),
    pytest.param(lambda cache: hub.download_files("owner/name", ["*"], COMMIT, cache), id="files"),
]


@pytest.mark.parametrize("ask", ASKED)
def test_a_hub_that_is_not_there_is_told_in_one_reason(ask, tmp_path, monkeypatch, caplog, capfd):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        at(f"http://127.0.0.1:{free.getsockname()[1]}", monkeypatch)
        with (
            caplog.at_level(logging.DEBUG),
            pytest.raises(hub.HubUnavailable, match=r"did not answer \(ConnectionRefusedError"),
        ):
            ask(tmp_path)
    assert [record for record in caplog.records if record.name.startswith("huggingface_hub")] == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ask", ASKED)
def test_a_silent_hub_is_not_waited_for(ask, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        began_s = time.monotonic()
        with pytest.raises(hub.HubUnavailable, match="timed out"):
            ask(tmp_path)
        assert time.monotonic() - began_s < 10


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_tried_a_few_times_whatever_it_asks_for(ask, status, tmp_path, server):
    server.status, server.headers_sent = status, {"Retry-After": "3600"}
    with pytest.raises(hub.HubUnavailable, match=f"HTTP {status} from 127.0.0.1"):
        ask(tmp_path)
    assert len(server.asked) == hub.ATTEMPTS_MAX


def test_the_hub_hears_nothing_of_the_programs_around(tmp_path, server):
    server.status = 404
    with pytest.raises(hub.HubUnavailable):
        hub.download_file("owner/name", "model.onnx", COMMIT, tmp_path)
    assert [path for path, _ in server.asked] == [f"/owner/name/resolve/{COMMIT}/model.onnx"]
    assert not any(word in agent for _, agent in server.asked for word in ("agent/", "torch", "onnxruntime"))


def test_without_the_library_it_says_so(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(hub.HubUnavailable, match="huggingface-hub is not installed"):
        hub.download_file("owner/name", "model.onnx", COMMIT, tmp_path)
