import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import penstock
from penstock import __version__
from penstock.cli import main as entry
from penstock.kernel.errors import Broken, Invalid
from penstock.stores.lock import DirectoryLock, LockHolder


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """A current directory, a home and an environment without anything of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("PENSTOCK_DATA_DIR", "XDG_DATA_HOME", "PENSTOCK_PORT", "PENSTOCK_HOST", "PENSTOCK_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def failing(monkeypatch, error):
    def command():
        raise error

    monkeypatch.setattr(entry.LazyGroup, "get_command", lambda *_: click.Command("x", callback=command))
    return entry.run(["status"])


def test_every_command_of_the_table_exists_and_carries_its_name():
    context = click.Context(entry.penstock)
    for name, (_, text) in entry.COMMANDS.items():
        command = entry.penstock.get_command(context, name)
        assert command.name == name
        assert command.get_short_help_str(200)
        assert text.endswith(".")


GROUPS = {
    "dlq": ("list", "retry", "drop"),
    "snapshots": ("list", "delete"),
    "collections": ("list", "delete"),
    "keys": ("create", "list", "revoke", "rotate"),
    "tasks": ("list", "show", "cancel", "follow"),
}


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in entry.COMMANDS if name not in (*GROUPS, "completion", "mcp", "agents")),
        *(f"{name} {one}" for name, below in GROUPS.items() for one in below),
    ],
)
def test_every_command_has_help_and_the_common_options(name, capsys):
    assert entry.run([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--config" in shown
    assert "--data-dir" in shown
    assert "--index-self" not in shown


def test_the_version_is_told(capsys):
    assert entry.run(["--version"]) == 0
    assert capsys.readouterr().out == f"penstock {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nope"], ["search"], ["status", "--nope"], ["search", "x", "--limit", "y"]])
def test_usage_errors_exit_2(arguments, capsys):
    assert entry.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err


def leaves(command=entry.penstock, path=()):
    """Yield every command with its words, those of groups included."""
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            yield from leaves(command.get_command(click.Context(command), name), (*path, name))
    else:
        yield path, command


PARAMETERS = [
    pytest.param(path, one, id=f"{' '.join(path)} {one.name}")
    for path, command in leaves()
    for one in command.params
    if not getattr(one, "is_flag", False)
]


@pytest.mark.parametrize("value", ["", " ", "caf\udce9"])
@pytest.mark.parametrize(("path", "one"), PARAMETERS)
def test_no_argument_is_empty_or_not_utf8(path, one, value, capsys, tmp_path):
    forms = [[one.opts[-1], value], [f"{one.opts[-1]}={value}"]] if isinstance(one, click.Option) else [[value]]
    for form in forms:
        assert entry.run([*path, *form]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert ("is not UTF-8" if value.strip() else "is empty") in err
        assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["status"], ["index", "."], ["serve"], ["worker", "--pool", "all"], ["config"]])
def test_a_data_directory_whose_name_is_no_text_is_refused_before_anything_is_made(command, capsys, monkeypatch):
    odd = Path(os.fsdecode(b"caf\xe9"))
    odd.mkdir()
    monkeypatch.chdir(odd)
    Path(".penstock").mkdir()
    assert entry.run(command) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: the data directory '")
    assert err.endswith("caf\\xe9/.penstock' is not UTF-8; choose another with --data-dir\n")
    assert list(Path(".penstock").iterdir()) == []


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "POSIX"}]
)
def test_text_is_utf8_whatever_the_locale(locale, tmp_path):
    (tmp_path / "grün.py").write_text("x = 1\n", "utf-8")
    environment = {"PYTHONPATH": str(Path(penstock.__file__).parent.parent), "HOME": str(tmp_path), **locale}
    line = [sys.executable, "-m", "penstock", "index", "grün.py", "--dry-run"]
    done = subprocess.run(line, capture_output=True, check=True, timeout=60, env=environment, cwd=tmp_path)
    assert done.stdout.decode() == f"index  {tmp_path}/grün.py\n"


def test_what_is_searched_for_may_hold_an_equals_sign(capsys):
    assert entry.run(["search", "--", "a="]) == 2
    assert "nothing is indexed yet" in capsys.readouterr().err


def test_errors_are_one_line_and_a_hint(monkeypatch, capsys):
    assert failing(monkeypatch, Invalid("no such collection", code="collection_not_found")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: no such collection"
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2


def test_a_full_disk_is_an_error_without_a_traceback(monkeypatch, capsys):
    assert failing(monkeypatch, OSError(28, "No space left on device", "/x")) == 2
    assert capsys.readouterr().err == "error: /x: No space left on device\n"


def test_a_bug_shows_where_it_is(monkeypatch, capsys):
    assert failing(monkeypatch, ZeroDivisionError("oops")) == 2
    assert "Traceback" in capsys.readouterr().err
    assert failing(monkeypatch, Broken("odd")) == 2
    assert "bug" in capsys.readouterr().err


def test_an_interruption_is_quiet_and_exits_130(monkeypatch, capsys):
    assert failing(monkeypatch, KeyboardInterrupt()) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_config_shows_every_setting_with_its_origin(monkeypatch, capsys):
    monkeypatch.setenv("PENSTOCK_PORT", "99")
    assert entry.run(["config", "--data-dir", "here"]) == 0
    shown = capsys.readouterr().out
    assert any(
        line.split() == ["server.port", "99", "environment", "PENSTOCK_PORT", "PENSTOCK_PORT"]
        for line in shown.splitlines()
    )
    assert "--data-dir" in shown


def test_config_as_json(capsys, tmp_path):
    assert entry.run(["config", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["data_dir"] == str(tmp_path / "home/.local/share/penstock")
    timeout = next(one for one in shown["settings"] if one["name"] == "concurrency.http.read_timeout")
    assert (timeout["value"], timeout["origin"], timeout["env"]) == ("30s", "default", "HTTP_READ_TIMEOUT")


def test_a_bad_setting_stops_a_command_that_uses_it(monkeypatch, capsys):
    monkeypatch.setenv("ML_THREADS", "many")
    assert entry.run(["status"]) == 2
    assert "environment ML_THREADS: 'many' is not a whole number" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["status"], ["index", ".", "--dry-run"], ["search", "x"], ["migrate", "x"]])
def test_what_listens_does_not_concern_other_commands(command, monkeypatch, capsys):
    for name in ("PENSTOCK_PORT", "PENSTOCK_WORKER_PORT"):
        monkeypatch.setenv(name, "many")
    entry.run(command)
    assert "PORT" not in capsys.readouterr().err


@pytest.mark.parametrize("command", [["serve"], ["worker", "--pool", "all"], ["config"]])
def test_it_stops_those_that_listen(command, monkeypatch, capsys):
    monkeypatch.setenv("PENSTOCK_WORKER_PORT", "many")
    assert entry.run(command) == 2
    assert "environment PENSTOCK_WORKER_PORT: 'many' is not a whole number" in capsys.readouterr().err


def test_beside_a_server_only_what_a_command_itself_reads_can_be_wrong(monkeypatch, capsys, tmp_path):
    lock = DirectoryLock(tmp_path / "data")
    lock.acquire()
    lock.publish(LockHolder(os.getpid(), "http://127.0.0.1:1"))
    monkeypatch.setenv("HTTP_MAX_CONCURRENT", "many")
    try:
        assert entry.run(["top", "--once", "--data-dir", "data"]) == 2
        assert "HTTP_MAX_CONCURRENT" not in capsys.readouterr().err
        assert entry.run(["index", ".", "--dry-run", "--data-dir", "data"]) == 2
        assert "HTTP_MAX_CONCURRENT" in capsys.readouterr().err
    finally:
        lock.release()


def test_a_mistyped_variable_stops_a_server_and_is_told_by_other_commands(monkeypatch, capsys):
    monkeypatch.setenv("PENSTOCK_PROT", "81")
    assert entry.run(["serve"]) == 2
    assert "environment PENSTOCK_PROT: is no known setting; did you mean PENSTOCK_PORT?" in capsys.readouterr().err
    assert entry.run(["status"]) == 0
    told = capsys.readouterr().err
    assert told.count("PENSTOCK_PROT") == 1
    assert told.startswith("warning: ")


def test_status_and_search_create_nothing_where_nothing_is(capsys, tmp_path):
    assert entry.run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["collections"] == []
    assert entry.run(["search", "x"]) == 2
    assert "nothing is indexed yet" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_lists_files_and_reasons_and_creates_nothing(capsys, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.py").write_text("x = 1\n")
    (tree / "image.png").write_bytes(b"x")
    assert entry.run(["index", "tree", "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"index  {tree}/a.py\nskip   {tree}/image.png  (binary)\n"
    assert entry.run(["index", "tree", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["would_index"] == [{"path": f"{tree}/a.py", "bytes": 6}]
    assert list(tmp_path.iterdir()) == [tree]


def test_a_broken_pipe_is_quiet(monkeypatch):
    monkeypatch.setattr(entry, "_pipe_broken", lambda: entry.BROKEN_PIPE)
    assert failing(monkeypatch, BrokenPipeError(32, "Broken pipe")) == entry.BROKEN_PIPE


def test_help_imports_nothing_heavy():
    heavy = {"httpx", "rich", "uvicorn", "numpy", "onnx", "yaml", "asyncio"}
    script = "import sys; from penstock.cli.main import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    environment = os.environ | {"PYTHONPATH": str(Path(penstock.__file__).parent.parent)}
    arguments = [sys.executable, "-c", script]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60, env=environment)
    assert not heavy & set(done.stderr.split())


def test_colour_only_on_terminals_and_never_against_no_color(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, environment, coloured in ((Terminal, "", True), (Terminal, "1", False), (io.StringIO, "", False)):
        monkeypatch.setenv("NO_COLOR", environment)
        monkeypatch.setattr(sys, "stderr", stream())
        entry.print_error("words")
        assert ("\x1b" in sys.stderr.getvalue()) is coloured


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PENSTOCK_HOST": "192.0.2.1"}, "(environment PENSTOCK_HOST: 192.0.2.1)"),
        ({"PENSTOCK_TRUSTED_PROXIES": "foo"}, "PENSTOCK_TRUSTED_PROXIES: 'foo'"),
        ({"PENSTOCK_MODEL_DIR": "none"}, "(environment PENSTOCK_MODEL_DIR: none)"),
        ({"PENSTOCK_MODEL_DEVICE": "cuda"}, "PENSTOCK_MODEL_DEVICE is cuda"),
        ({"BUS_BACKEND": "redis", "PENSTOCK_REDIS_URL": "s3cret"}, "(environment PENSTOCK_REDIS_URL)"),
        ({"REDIS_CACHE": "true", "REDIS_SHARED_URL": "s3cret"}, "(environment REDIS_SHARED_URL)"),
        ({"BUS_BACKEND": "kafka", "KAFKA_BOOTSTRAP": ":"}, "(environment KAFKA_BOOTSTRAP)"),
        ({"BUS_BACKEND": "kafka", "KAFKA_TLS": "true", "KAFKA_CA": "/no"}, "(environment KAFKA_CA: /no)"),
        ({"STORE_BACKEND": "qdrant", "QDRANT_URL": "s3cret"}, "QDRANT_URL"),
        (
            {"STORE_BACKEND": "qdrant", "QDRANT_URL": "http://h", "QDRANT_API_KEY": "a b"},
            "(environment QDRANT_API_KEY)",
        ),
        (
            {"STORE_BACKEND": "qdrant", "QDRANT_URL": "https://127.0.0.1", "QDRANT_CA_FILE": "/no"},
            "(environment QDRANT_CA_FILE: /no)",
        ),
        ({"DENSE_KIND": "tei", "DENSE_MODEL": "m", "DENSE_URL": "s3cret"}, "(environment DENSE_URL)"),
        ({"DENSE_KIND": "onnx", "DENSE_PATH": "/no"}, "(environment DENSE_PATH: /no)"),
        ({"DENSE_KIND": "onnx", "DENSE_MODEL": "m", "DENSE_REVISION": "x"}, "(environment DENSE_REVISION: x)"),
    ],
)
def test_a_value_found_wrong_later_is_named_with_its_variable_too(environ, said, capsys, monkeypatch):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert entry.run(["serve", "--port", "0"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "s3cret" not in err


def test_a_value_of_a_file_found_wrong_later_is_named_with_its_place(capsys, tmp_path):
    (tmp_path / "penstock.yaml").write_text("model: {dir: none}")
    assert entry.run(["serve", "--port", "0", "--config", "penstock.yaml"]) == 2
    assert "(penstock.yaml: model.dir: none)" in capsys.readouterr().err
