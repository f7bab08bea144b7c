"""Searches on a terminal of their own: headings, links, context, and a hit that opens in an editor."""

import os
import pty
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.cli.editor import Editor, open_in_editor
from penstock.kernel.errors import Invalid
from tests.e2e.conftest import command, environment, penstock, start

Program = Callable[..., Path]

WALRUSES = "-rf $(touch gone).md"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Return a function that makes a shell script of a name."""

    def make(name: str, script: str = "exit 0") -> Path:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


def on_terminal(*arguments: str | Path, environ: dict[str, str] | None = None, cwd: Path) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its exit code and what it showed."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(cwd)
        line = command(*arguments)
        os.execvpe(line[0], line, environment() | {"TERM": "xterm-256color", "LINES": "40"} | (environ or {}))
    shown = b""
    try:
        while block := os.read(terminal, 65536):
            shown += block
    except OSError:
        # Linux says so where a terminal has no other end any more.
        pass
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), shown.decode().replace("\r\n", "\n")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree that the tests of this module share."""
    root = tmp_path_factory.mktemp("tree")
    (root / "pkg").mkdir()
    (root / "pkg" / "decoder.py").write_text(
        '"""Decode JSON."""\n\n\nclass Decoder:\n    def decode(self, text):\n'
        '        """Parse a JSON string into Python objects."""\n        return self.scan(text)\n'
    )
    (root / "pkg" / "long.py").write_text(
        "".join(f"def leaf_{n}(x):\n" + "    x += 1\n" * 60 + "\n\n" for n in range(3))
    )
    (root / WALRUSES).write_text("# Walruses\n\nWalruses lie on the ice.\n")
    (root / "penguins.md").write_text("# Penguins\n\nPenguins dive.\nThey swim.\n")
    return root


@pytest.fixture(scope="module")
def there(tree: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str | Path, ...]]:
    """Yield the arguments by which a command finds a running server that has the tree."""
    data_dir = tmp_path_factory.mktemp("data")
    shutil.copytree(models, data_dir / "models")
    server = start(data_dir)
    try:
        assert penstock("index", tree, "--data-dir", data_dir).returncode == 0
        yield "--data-dir", data_dir
    finally:
        server.terminate()


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", shown)


def test_a_terminal_has_headings_and_a_pipe_has_paths(tree, there):
    arguments = ("search", "leaf", "--path-prefix", "pkg/long", *there)
    code, shown = on_terminal(*arguments, cwd=tree)
    assert code == 0
    assert "\x1b[" in shown
    assert "\x1b]8" not in shown
    assert re.match(r"pkg/long\.py\n +#1   \d+-\d+  leaf_\d  [\d.]+\n +\d+   def leaf_\d\(x\):\n +#2   ", plain(shown))
    assert plain(shown).count("long.py") == 1
    _, linked = on_terminal(*arguments, environ={"TERM": "xterm-kitty"}, cwd=tree)
    assert re.search(rf"\x1b]8;id=\d+;file://[^/]*{tree}/pkg/long\.py\x1b\\", linked)
    piped = penstock(*arguments, cwd=tree).stdout
    assert len(re.findall(r"^pkg/long\.py:\d+-\d+  ", piped, re.MULTILINE)) >= 3
    assert penstock(*arguments, "--heading", cwd=tree).stdout == plain(shown).rpartition("\n\n")[0] + "\n"


def test_context_reaches_beyond_the_hit(tree, there):
    done = penstock("search", "leaf_1", "--path-prefix", "pkg/long", "--limit", "1", "-B", "4", *there, cwd=tree)
    assert "    60-      x += 1\n    61-      x += 1\n    62-\n    63-\n    64:  def leaf_1(x):\n" in done.stdout


def test_context_is_of_the_index_and_says_where_the_file_has_changed(tree, there):
    query = ("search", "penguins dive", "--limit", "1", "-A", "1", *there)
    fresh = penstock(*query, cwd=tree)
    assert fresh.stdout.partition("\n")[2] == (
        "     1:  # Penguins\n     2-\n     3:  Penguins dive.\n     4-  They swim.\n"
    )
    assert fresh.stderr == ""
    (tree / "penguins.md").write_text("nothing\n")
    stale = penstock(*query, cwd=tree)
    assert stale.stdout == fresh.stdout
    assert stale.stderr == "penguins.md has changed since it was indexed; its lines are shown as they were\n"


def test_a_hit_opens_in_the_editor_on_the_terminal(tree, there, program):
    vim = program("vim", 'test -t 0 && test -t 1 && printf "<%s>" "$@"')
    environ = {"VISUAL": f"{vim} -R", "EDITOR": "gone"}
    arguments = ("search", "parse a JSON string", "--path-prefix", "pkg/", *there)
    code, shown = on_terminal(*arguments, "--open", environ=environ, cwd=tree)
    assert code == 0
    assert shown.endswith(f"<-R><+6><{tree}/pkg/decoder.py>")
    second = plain(on_terminal(*arguments, cwd=tree)[1]).partition("#2   ")[0].splitlines()[-2]
    code, shown = on_terminal(*arguments, "--open", "2", environ=environ, cwd=tree)
    assert code == 0
    assert shown.endswith(f"{tree}/{second}>")


def test_an_editor_that_fails_is_an_error_and_nothing_found_opens_none(tree, there, program):
    environ = {"EDITOR": str(program("vim", "echo started; exit 3"))}
    code, shown = on_terminal("search", "--open", "json", *there, environ=environ, cwd=tree)
    assert code == 2
    assert "the editor vim ended with exit code 3" in shown
    arguments = ("search", "--open", "json", "--path-prefix", "nowhere/", *there)
    code, shown = on_terminal(*arguments, environ=environ, cwd=tree)
    assert code == 1
    assert "started" not in shown


def piped(tree: Path, editor: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("search", *arguments, "--limit", "1", "--open"),
        env=environment() | {"EDITOR": str(editor)},
        cwd=tree,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_through_a_pipe_an_editor_with_a_window_opens_and_another_says_why_not(tree, there, program):
    done = piped(tree, program("code", 'printf "<%s>" "$@"'), "parse a JSON string", *there)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"<--goto><{tree}/pkg/decoder.py:6>")
    done = piped(tree, program("vim"), "parse a JSON string", *there)
    assert (done.returncode, done.stdout) == (2, "")
    assert "vim needs a terminal" in done.stderr


def test_what_has_become_a_link_out_of_the_tree_is_not_opened(tree, there, program, tmp_path):
    code, file = program("code", 'printf "<%s>" "$@"'), tree / WALRUSES
    done = piped(tree, code, "walruses on the ice", *there)
    assert done.stdout.endswith(f"<--goto><{file}:3>")
    assert not (tree / "gone").exists()
    (secret := tmp_path / "secret").write_text("Walruses")
    file.unlink()
    file.symlink_to(secret)
    done = piped(tree, code, "walruses on the ice", *there)
    assert done.returncode == 2
    assert "<" not in done.stdout
    assert "leads out of" in done.stderr


def test_an_editor_is_run_without_a_shell_and_waited_for(program, tmp_path):
    vim = program("vim", f'printf "%s|" "$@" > {tmp_path}/told')
    file = tmp_path / "-x; touch gone\n*.py"
    open_in_editor(Editor([str(vim)], "EDITOR"), file, 3)
    assert (tmp_path / "told").read_text() == f"+3|{file}|"
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "ended with exit code 3"),
        ("kill -KILL $$", "was ended by SIGKILL"),
        ("kill -INT $$", "was ended by SIGINT"),
    ],
)
@pytest.mark.usefixtures("interruptible")
def test_an_editor_that_fails_is_named(script, said, program, tmp_path):
    with pytest.raises(Invalid, match=said) as caught:
        open_in_editor(Editor([str(program("vim", script))], "EDITOR"), tmp_path / "x", 1)
    assert caught.value.code == "editor_failed"


@pytest.mark.usefixtures("interruptible")
def test_interruptions_are_the_editors_while_it_runs(program, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    vim = program("vim", f"kill -INT {os.getpid()}; kill -QUIT {os.getpid()}")
    open_in_editor(Editor([str(vim)], "EDITOR"), tmp_path / "x", 1)
    assert signal.getsignal(signal.SIGINT) is before
