"""What Penstock writes is for its owner alone, and the secrets it is given are nowhere (A6)."""

import json
import logging
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from penstock.cli import main as entry
from penstock.cli.settings_schema import setting_entries
from penstock.kernel.setting_spec import SettingUnit
from tests.e2e.conftest import Server, command, environment, penstock, start

CANARY = "c4n4ry"
#: A server takes no shorter one.
API_KEY = CANARY * 6

#: Addresses with a secret in them: as one should write it, and as people do.
FORMS = (
    "{scheme}://user:{canary}@127.0.0.1:1/0",
    "{scheme}://127.0.0.1:1/0?api_key={canary}",
    "{scheme}://127.0.0.1:1/?{canary}",
    "{scheme}://127.0.0.1:{canary}",
    "{scheme}://user:pass/{canary}@127.0.0.1:1",
    "{scheme}://user:12/{canary}@127.0.0.1:1",
    "{scheme}://user:12?{canary}@127.0.0.1:1",
    "{scheme}://user:12#{canary}@127.0.0.1:1",
    "{scheme}://[{canary}",
    "user:{canary}@127.0.0.1:1",
    "{canary}",
)


def set_secrets(form: str = FORMS[0]) -> dict[str, str]:
    """Return an environment in which everything that may be a secret is one."""
    environ = {one.spec.env: CANARY for one in setting_entries() if one.spec.unit is SettingUnit.SECRET}
    for one in setting_entries():
        if one.spec.unit is SettingUnit.ADDRESS:
            scheme = "redis" if "REDIS" in one.spec.env else "http"
            environ[one.spec.env] = form.format(scheme=scheme, canary=CANARY)
    assert len(environ) > 8
    return environ | {"PENSTOCK_API_KEY": API_KEY}


# --- Files


def modes(*places: Path) -> dict[str, int]:
    """Return what others may do with files and directories, by path; only where it is anything."""
    paths = [path for place in places for path in (place, *place.rglob("*"))]
    found = {str(path): stat.S_IMODE(path.lstat().st_mode) for path in paths if not path.is_symlink()}
    return {path: mode for path, mode in found.items() if mode & 0o077}


def test_whatever_the_umask_nobody_else_can_read_what_is_written(tmp_path, models, tree):
    old = tmp_path / "old"
    shutil.copytree(models, old / "models")
    for path in (old, *old.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    new, saved = tmp_path / "new" / "below", tmp_path / "saved.snapshot"
    for data, arguments in (
        (old, ["index", str(tree)]),
        (old, ["snapshot", "--output", str(saved)]),
        (new, ["index", str(tree)]),
        (new, ["restore", str(saved), "--force"]),
        (new, ["snapshot"]),
    ):
        line = ["sh", "-c", 'umask 000; exec "$@"', "sh", *command(*arguments, "--data-dir", data)]
        done = subprocess.run(
            line, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
    assert modes(old, new.parent, saved, *tmp_path.glob("*.snapshot")) == {}


def test_a_server_and_its_store_write_privately(serve, tree, data_dir, tmp_path):
    data_dir.chmod(0o777)
    before = os.umask(0)
    try:
        server = serve()
        penstock("index", tree, "--data-dir", data_dir)
        penstock("snapshot", "--data-dir", data_dir, "--output", tmp_path / "saved")
    finally:
        os.umask(before)
    assert modes(data_dir, tmp_path / "saved") == {}
    assert server.terminate()[0] == 0
    assert modes(data_dir) == {}


# --- Secrets


def family(pid: int) -> list[int]:
    """Return the ids of a process and of all below it."""
    children = " ".join(one.read_text() for one in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return [pid, *(one for child in children for one in family(int(child)))]


@pytest.fixture
def server(data_dir, tree) -> Server:
    """Return a server that was given secrets, has started all of its processes, and tells all it knows in its log."""
    asked = {"RERANK_KIND": "tei", "PENSTOCK_LOG_LEVEL": "debug"}
    asked |= {"RERANK_URL": f"http://127.0.0.1:1/?api_key={CANARY}"}
    one = start(data_dir, environ=set_secrets() | asked)
    yield one
    if one.process.poll() is None:
        one.kill()
    one.process.communicate()


def test_a_running_server_shows_its_secrets_nowhere(server, tree, data_dir):
    said = [
        penstock(*arguments, "--data-dir", data_dir) for arguments in (["index", tree], ["status"], ["top", "--once"])
    ]
    with server.client() as client:
        client.headers["x-api-key"] = API_KEY
        answers = [client.post("/v1/search", json={"query": "decode", "explain": True})]
        paths = ("/v1/status", "/v1/alerts", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/collections")
        answers += [client.get(path) for path in paths]
    assert answers[0].json()["degraded"], "the reranker is not there"
    pids = family(server.process.pid)
    assert len(pids) > 2
    for pid in pids:
        assert CANARY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    for pid in pids[1:]:
        assert CANARY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    _, log = server.terminate()
    assert "rerank" in log
    text = "".join([log, *(one.text for one in answers), *(one.stdout + one.stderr for one in said)])
    assert CANARY not in text
    kept = [path for path in data_dir.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert kept == []


@pytest.fixture
def told(monkeypatch, tmp_path, capfd, caplog):
    """Return a function that runs a command in this process and returns all that it told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(environ: dict[str, str], *arguments: str) -> str:
        with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG):
            for name, value in environ.items():
                patch.setenv(name, value)
            entry.run(arguments)
        out, err = capfd.readouterr()
        return out + err + caplog.text

    return run


@pytest.mark.parametrize("form", FORMS)
def test_config_shows_no_secret(form, told):
    assert CANARY not in told(set_secrets(form), "config")
    shown = told(set_secrets(form), "config", "--json")
    assert CANARY not in shown
    assert {one["name"] for one in json.loads(shown)["settings"]} == {one.yaml_name for one in setting_entries()}


FAILING = [
    pytest.param({"BUS_BACKEND": "redis"}, ["dlq", "list"], id="redis"),
    pytest.param({"BUS_BACKEND": "kafka"}, ["dlq", "list"], id="kafka"),
    pytest.param({"BUS_BACKEND": "kafka", "KAFKA_SASL": "PLAIN", "KAFKA_USER": "u"}, ["dlq", "list"], id="kafka-sasl"),
    pytest.param({}, ["migrate", "x", "--to", "qdrant"], id="migrate"),
    pytest.param({"STORE_BACKEND": "qdrant"}, ["serve", "--port", "0"], id="qdrant"),
    pytest.param(
        {"DENSE_KIND": "openai", "DENSE_MODEL": "m", "SPARSE_KIND": "tei", "SPARSE_MODEL": "m", "RERANK_KIND": "tei"},
        ["serve", "--port", "0"],
        id="endpoints",
    ),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("environ", "arguments"), FAILING)
def test_a_start_that_fails_tells_no_secret(environ, arguments, form, told):
    text = told(set_secrets(form) | environ, *arguments)
    assert "error:" in text
    assert CANARY not in text


@pytest.mark.parametrize("name", [one.yaml_name for one in setting_entries() if one.spec.confidential])
def test_a_file_that_cannot_be_used_tells_no_secret(name, told, tmp_path):
    *sections, last = name.split(".")
    lines = [f"{'  ' * depth}{section}:" for depth, section in enumerate(sections)]
    for value in (f"[{CANARY}]", f"{{a: {CANARY}}}", CANARY * 1000, f"!!int {CANARY}"):
        file = tmp_path / "penstock.yaml"
        file.write_text("\n".join([*lines, f"{'  ' * len(sections)}{last}: {value}"]))
        text = told({}, "config", "--config", str(file))
        assert "error:" in text
        assert CANARY not in text


# --- Addresses


def test_an_address_beyond_loopback_must_be_allowed(data_dir):
    done = penstock("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", data_dir)
    assert (done.returncode, "--insecure" in done.stderr, "listens" in done.stderr) == (2, True, False)
