"""The real program sharing vectors and rates by way of Redis: with it, without it, with it again."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Server, penstock, penstock_json, start
from tests.fakes.endpoint import loopback
from tests.rigs import redis

QUERY = {"query": "string of JSON", "strict": True}


def configured(directory: Path, model: str, url: str) -> Path:
    """Write a settings file."""
    file = directory / "penstock.yaml"
    file.write_text(
        f"models:\n  dense: {{kind: openai, url: {model}, model: tiny, api_key: k, dim: 8}}\n"
        f"concurrency:\n  redis: {{url: '{url}', cache: true, rates: true}}\n"
        "  http: {rate_limit: 5, rate_burst: 20}\n  breaker: {failures: 2, timeout: 500ms, successes: 1}\n"
    )
    return file


def until(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def shared_breaker(server: Server) -> str:
    with server.client() as client:
        return {one["dependency"]: one["state"] for one in client.get("/v1/status").json()["breakers"]}["redis-shared"]


def asked(server: Server, key: str, times: int) -> list[int]:
    with server.client() as client:
        return [client.get("/v1/collections", headers={"x-api-key": key}).status_code for _ in range(times)]


def search(server: Server, number: int) -> Any:
    with server.client() as client:
        body = {**QUERY, "query": f"string of JSON {number}"}
        return client.post("/v1/collections/c/search", json=body, headers={"x-api-key": f"searcher-{number}"})


def hits_of(server: Server, cache: str) -> int:
    with server.client() as client:
        return {one["name"]: one["hits"] for one in client.get("/v1/status").json()["caches"]}[cache]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("wrong", ["nobody", "silent", "password"])
def test_a_server_starts_and_serves_whatever_is_wrong_with_the_redis_that_is_shared(wrong, tmp_path):
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url = {
            "nobody": "redis://127.0.0.1:1/0",
            "silent": f"redis://127.0.0.1:{silent.getsockname()[1]}/0",
            "password": redis.shared().url.replace("redis://", "redis://nobody:secret@"),
        }[wrong]
        server = start(tmp_path / "data", "--config", str(configured(tmp_path, stack.enter_context(loopback()), url)))
        with server.client() as client:
            client.put("/v1/collections/c").raise_for_status()
            number = 0
            while shared_breaker(server) == "closed":
                number += 1
                assert search(server, number).status_code == 200
            (alert,) = [one for one in client.get("/v1/alerts").json()["alerts"] if one["active"]]
            assert (alert["name"], alert["subject"]) == ("breaker_open", "redis-shared")
            assert client.get("/readyz").status_code == 200
        code, output = server.terminate()
        assert (code, "secret" in output, "Traceback" in output) == (0, False, False), output


@pytest.mark.timeout(180)
def test_two_servers_share_vectors_and_rates_and_outlive_redis(tmp_path):
    redis.needed()
    with redis.redis(tmp_path / "redis", persistent=False) as there, loopback() as model:
        file = configured(tmp_path, model, there.url)
        ours, theirs = (start(tmp_path / name, "--config", str(file)) for name in ("one", "two"))
        for server in (ours, theirs):
            with server.client() as client:
                client.put("/v1/collections/c").raise_for_status()
                body = {"documents": [{"id": "a", "text": "The decoder parses a string of JSON."}]}
                assert client.post("/v1/collections/c/documents", json=body).json()["indexed"] == 1
        assert hits_of(theirs, "embed-shared") >= 1, "what the first has encoded, the second has not"
        assert search(ours, 1).json()["degraded"] == []

        passed = [asked(server, "busy", 20).count(200) for server in (ours, theirs)]
        assert sum(passed) <= 20 + 2 * 5 + 15, "one rate for both, and what has come in meanwhile"

        there.kill()
        number = 10
        while shared_breaker(ours) == "closed":
            number += 1
            assert search(ours, number).status_code == 200
        with ours.client() as client:
            alerts = [one for one in client.get("/v1/alerts").json()["alerts"] if one["active"]]
            assert [one["subject"] for one in alerts] == ["redis-shared"], alerts
            assert client.get("/readyz").status_code == 200
        answer = search(ours, 99)
        assert (answer.status_code, answer.json()["degraded"]) == (200, [])
        assert asked(ours, f"alone-{os.getpid()}", 20).count(200) == 20

        there.start()
        until(lambda: search(ours, 1000 + time.monotonic_ns()).status_code == 200 and shared_breaker(ours) == "closed")
        for server in (ours, theirs):
            code, output = server.terminate()
            assert code == 0, output
            assert "Traceback" not in output, output


def status(server: Server, key: str) -> int:
    with server.client() as client:
        return client.get("/v1/status", headers={"x-api-key": key}).status_code


@pytest.mark.timeout(180)
def test_keys_in_redis_are_those_of_all_servers_and_outlive_it(tmp_path):
    with redis.redis(tmp_path / "redis") as one, loopback() as model:
        config = configured(tmp_path, model, one.url)
        shares = ("--config", str(config))
        config.write_text(config.read_text().replace("rates: true", "rates: true, keys: true"))
        first, second = (start(tmp_path / name, *shares) for name in ("one", "two"))
        assert [status(server, "") for server in (first, second)] == [401, 401]
        key = str(penstock_json("keys", "create", "ci", "--data-dir", tmp_path / "three", *shares)["secret"])
        until(lambda: status(first, key) == status(second, key) == 200)
        one.kill()
        assert [status(server, key) for server in (first, second)] == [200, 200]
        done = penstock("keys", "list", "--data-dir", tmp_path / "three", *shares)
        assert (done.returncode, "redis" in done.stderr) == (2, True)
        first.terminate()
        done = penstock("serve", "--port", "0", "--data-dir", tmp_path / "one", *shares)
        assert (done.returncode, "redis" in done.stderr) == (2, True)
        one.start()
        assert penstock("keys", "revoke", "ci", "--yes", "--data-dir", tmp_path / "three", *shares).returncode == 0
        until(lambda: status(second, key) == 401)
        second.terminate()
