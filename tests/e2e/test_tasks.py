"""Tasks of a real server: kill -9, a drain, a damaged spool, and followers over a real connection."""

import contextlib
import json
import signal
import socket
import stat
import subprocess
import threading

import httpx
import pytest

from tests.e2e.conftest import command, environment, penstock, penstock_json, start

DOCUMENTS = "/v1/collections/default/documents"


def body(first, count):
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    texts = [" ".join(words[(n * k) % 5] for k in range(1, 9)) + f" number{n}" for n in range(first, first + count)]
    return {"documents": [{"id": f"doc-{first + n}", "text": text} for n, text in enumerate(texts)]}


def submitted(client, first, count, times=1):
    documents = body(first, count)
    for one in documents["documents"]:
        one["text"] = f"{one['text']} " * times
    answer = client.post(f"{DOCUMENTS}?wait=false", json=documents)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def ended(client, id):
    """Follow a task to its end, over as many streams as it takes."""
    while True:
        with client.stream("GET", f"/v1/tasks/{id}/events") as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    task = json.loads(line[6:])
        if task["status"] not in ("waiting", "running"):
            return client.get(f"/v1/tasks/{id}").json()


def stored(client):
    found, after = set(), None
    while True:
        page = client.get(DOCUMENTS, params={"after": after} if after else {}).json()
        found |= {one["id"] for one in page["documents"] if one["hash"]}
        if (after := page["next"]) is None:
            return found


def in_flight(client):
    """Return how many requests are in flight, that of the question included."""
    return client.get("/v1/status").json()["in_flight"]


def until(condition):
    while not condition():
        threading.Event().wait(0.02)


@pytest.mark.slow
def test_accepted_tasks_survive_kill_9_twice_and_none_is_lost_or_done_twice(serve):
    server = serve()
    with server.client() as client:
        client.put("/v1/collections/default").raise_for_status()
        ids = [submitted(client, n * 60, 60) for n in range(5)]
        until(lambda: client.get(f"/v1/tasks/{ids[0]}").json()["done"] >= 5)
    server.kill()
    again = serve()
    with again.client() as client:
        listed = [one["id"] for one in client.get("/v1/tasks").json()["tasks"]]
        assert listed == ids[::-1]
        until(lambda: client.get(f"/v1/tasks/{ids[1]}").json()["done"] >= 5)
    again.kill()
    last = serve()
    with last.client() as client:
        tasks = [ended(client, id) for id in ids]
        assert [one["status"] for one in tasks] == ["succeeded"] * 5
        for one in tasks:
            result = one["result"]
            assert (result["indexed"] + result["unchanged"], result["failed"]) == (60, 0)
        assert stored(client) == {f"doc-{n}" for n in range(300)}
        described = client.get("/v1/collections/default").json()
        assert (described["documents"], described["chunks"]) == (300, 300)
    spool = last.data_dir / "tasks"
    assert {path.suffix for path in spool.iterdir()} == {".json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in spool.iterdir()} == {0o600}
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700


def test_a_drain_puts_running_tasks_back_ends_streams_and_a_damaged_file_is_set_aside(serve):
    server = serve()
    with server.client() as client:
        client.put("/v1/collections/default").raise_for_status()
        ids = [submitted(client, 0, 400), submitted(client, 400, 3), submitted(client, 403, 3)]
        streamed = []

        def follow():
            with client.stream("GET", f"/v1/tasks/{ids[0]}/events") as stream:
                streamed.extend(line for line in stream.iter_lines() if line.startswith("data: "))

        follower = threading.Thread(target=follow)
        follower.start()
        until(lambda: client.get(f"/v1/tasks/{ids[0]}").json()["done"] >= 1)
        code, output = server.terminate()
        follower.join(10)
    assert code == 0
    assert "Traceback" not in output
    assert not follower.is_alive()
    assert json.loads(streamed[-1][6:])["status"] in ("running", "waiting")
    spool = server.data_dir / "tasks"
    kept = json.loads((spool / f"{ids[0]}.json").read_text())
    assert (kept["status"], kept["attempts"]) == ("waiting", 0)
    (spool / f"{ids[1]}.json").write_bytes(b"\x00\xff")
    again = serve()
    with again.client() as client:
        assert client.get(f"/v1/tasks/{ids[1]}").status_code == 404
        cancelled = client.post(f"/v1/tasks/{ids[0]}/cancel").json()
        assert (cancelled["cancelled"], cancelled["task"]["status"]) == (True, "cancelled")
        assert client.post(f"/v1/tasks/{ids[0]}/cancel").json()["cancelled"] is False
        assert ended(client, ids[2])["result"]["indexed"] == 3
    assert (spool / "damaged" / f"{ids[1]}.json").exists()
    _, output = again.terminate()
    assert ids[1] in output


def test_a_follower_that_never_reads_or_resets_is_let_go(serve):
    server = serve()
    with server.client() as client, contextlib.ExitStack() as stack:
        client.put("/v1/collections/default").raise_for_status()
        # It must not end by itself: that would let all of them go at once.
        id = submitted(client, 0, 2000, times=20)
        host, port = httpx.URL(server.url).host, httpx.URL(server.url).port
        deaf = []
        for _ in range(5):
            one = stack.enter_context(socket.create_connection((host, port)))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            one.sendall(f"GET /v1/tasks/{id}/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            deaf.append(one)
        until(lambda: in_flight(client) == 6)
        for one in deaf[:3]:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            one.close()
        until(lambda: in_flight(client) == 3)
        client.post(f"/v1/tasks/{id}/cancel").raise_for_status()
        until(lambda: in_flight(client) == 1)


@pytest.mark.usefixtures("interruptible")
def test_the_command_lists_shows_follows_and_cancels_with_and_without_a_server(serve, data_dir):
    server = serve()
    with server.client() as client:
        client.put("/v1/collections/default").raise_for_status()
        done = submitted(client, 0, 3)
        args = ("--data-dir", data_dir)
        followed = penstock("tasks", "follow", done, *args)
        assert (followed.returncode, "status: succeeded" in followed.stdout) == (0, True), followed.stderr
        assert "indexed: 3" in followed.stdout
        listed = penstock_json("tasks", "list", "--status", "succeeded", *args)["tasks"]
        assert [one["id"] for one in listed] == [done]
        long = submitted(client, 10, 2000, times=20)
        following = subprocess.Popen(
            command("tasks", "follow", long, *args), stderr=subprocess.PIPE, text=True, env=environment()
        )
        until(lambda: client.get(f"/v1/tasks/{long}").json()["done"] >= 1)
        threading.Event().wait(2)
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=30)
        assert (following.returncode, "The task goes on" in said) == (130, True), said
        assert client.get(f"/v1/tasks/{long}").json()["status"] == "running"
    server.terminate()
    again = penstock("tasks", "follow", long, *args)
    assert (again.returncode, "penstock serve" in again.stderr) == (2, True), again.stderr
    assert penstock("tasks", "cancel", long, *args).returncode == 0
    assert penstock("tasks", "cancel", long, *args).returncode == 1
    assert "status: cancelled" in penstock("tasks", "show", long, *args).stdout
    unknown = penstock("tasks", "show", "0" * 20, *args)
    assert (unknown.returncode, "penstock tasks list" in unknown.stderr) == (2, True)


def test_a_full_disk_accepts_nothing(models, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "none", small], check=False).returncode:
        pytest.skip("this user may not mount a tmpfs")
    server = None
    try:
        (small / "data").mkdir()
        (small / "data" / "models").symlink_to(models)
        server = start(small / "data")
        with server.client() as client:
            client.put("/v1/collections/default").raise_for_status()
            kept = submitted(client, 0, 3)
            assert ended(client, kept)["status"] == "succeeded"
            (small / "ballast").write_bytes(b"x" * 110_000_000)
            answer = client.post(f"{DOCUMENTS}?wait=false", json=body(3, 3))
            assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
            assert [one["id"] for one in client.get("/v1/tasks").json()["tasks"]] == [kept]
            (small / "ballast").unlink()
            assert ended(client, submitted(client, 3, 3))["status"] == "succeeded"
    finally:
        if server is not None:
            server.terminate()
        subprocess.run(["umount", "-l", small], check=True)


def test_with_keys_a_task_is_its_own_key_s_and_an_administrator_s(serve, data_dir):
    keys = {
        name: penstock_json("keys", "create", name, *options, "--data-dir", data_dir)["secret"]
        for name, options in {
            "admin": ("--scope", "admin"),
            "one": ("--scope", "write"),
            "two": ("--scope", "write"),
            "reader": ("--scope", "search"),
        }.items()
    }
    server = serve()

    def ask(key, method, path, **more):
        with server.client() as client:
            return client.request(method, path, headers={"authorization": f"Bearer {keys[key]}"}, **more)

    assert ask("one", "PUT", "/v1/collections/default").status_code == 200
    accepted = ask("one", "POST", f"{DOCUMENTS}?wait=false", json=body(0, 400))
    task = accepted.json()["id"]
    for path, method in ((f"/v1/tasks/{task}", "GET"), (f"/v1/tasks/{task}/cancel", "POST")):
        assert ask("two", method, path).json()["code"] == "task_not_found"
        assert ask("reader", method, path).json()["code"] == "scope_missing"
    assert ask("two", "GET", f"/v1/tasks/{task}/events").status_code == 404
    assert ask("two", "GET", "/v1/tasks").json()["tasks"] == []
    assert [one["id"] for one in ask("one", "GET", "/v1/tasks").json()["tasks"]] == [task]
    assert ask("two", "POST", "/v1/snapshots?wait=false").json()["code"] == "scope_missing"
    assert ask("admin", "GET", f"/v1/tasks/{task}").json()["client"] == accepted.json()["client"]
    server.kill()
    server = serve()
    assert ask("two", "GET", f"/v1/tasks/{task}").status_code == 404
    assert ask("admin", "POST", f"/v1/tasks/{task}/cancel").json()["cancelled"] is True
    assert ask("one", "POST", f"/v1/tasks/{task}/cancel").json()["cancelled"] is False
    listed = penstock_json("tasks", "list", "--data-dir", data_dir)["tasks"]
    assert [one["status"] for one in listed] == ["cancelled"]
