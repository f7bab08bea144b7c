"""The flow of a real server: frames over a real connection, keys that are revoked, a drain, a full server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx

from tests.e2e.conftest import penstock, penstock_json, start

KEY_NOTICED_S = 20


def frames(stream: httpx.Response) -> Iterator[Any]:
    return (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))


def test_frames_come_one_a_second_and_the_last_says_that_the_server_shuts_down(serve):
    server = serve()
    with server.client() as client, client.stream("GET", "/v1/flow") as stream:
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        seen = frames(stream)
        first = next(seen)
        assert client.post("/v1/search", json={"query": "x"}).status_code == 404
        apart_s = [next(seen)["uptime_s"], next(seen)["uptime_s"]]
        assert 0.5 < apart_s[1] - apart_s[0] < 5
        assert (first["ready"], first["draining"], first["viewers"]) == (True, False, 1)
        ended: list[Any] = []
        end = threading.Thread(target=lambda: ended.append(server.terminate()))
        end.start()
        assert [frame["draining"] for frame in seen][-1] is True
        end.join(30)
    code, output = ended[0]
    assert code == 0
    assert "Traceback" not in output


def test_a_full_server_shows_what_it_refuses(data_dir):
    server = start(data_dir, environ={"PENSTOCK_RATE_LIMIT": "1", "PENSTOCK_RATE_BURST": "1"})
    try:
        with server.client() as client, client.stream("GET", "/v1/flow") as stream:
            answers = [client.get("/v1/collections").status_code for _ in range(20)]
            assert answers.count(429) >= 15
            seen = frames(stream)
            while (frame := next(seen))["traffic"]["refused"].get("rate_limited", 0) < answers.count(429):
                pass
            assert frame["clients"][0]["refused"] == answers.count(429)
    finally:
        server.kill()
        server.process.communicate()


def test_a_revoked_key_sees_no_more(data_dir, serve):
    made = penstock_json("keys", "create", "screen", "--data-dir", data_dir)
    server = serve()
    headers = {"authorization": f"Bearer {made['secret']}"}
    with server.client() as client, client.stream("GET", "/v1/flow", headers=headers) as stream:
        seen = frames(stream)
        next(seen)
        assert penstock("keys", "revoke", "screen", "--yes", "--data-dir", data_dir).returncode == 0
        frame_count = 0
        try:
            for _ in seen:
                frame_count += 1
                assert frame_count < KEY_NOTICED_S
        except httpx.RemoteProtocolError:
            # Broken off in the middle: the end of a chunked body is lacking.
            pass
        else:
            raise AssertionError("the stream has ended as if all was well")
        assert client.get("/v1/flow", headers=headers).json()["code"] == "key_unknown"
