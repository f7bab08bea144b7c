"""Shells are told commands, options, and names; never an error in the middle of a line."""

import sys

import click
import pytest

from penstock.cli import main as entry
from penstock.cli.completion import COMPLETION_VARIABLE, SHELLS


@pytest.fixture
def complete(monkeypatch, capsys):
    """Return a function that completes the last of some words as bash would ask."""

    def complete(*words):
        monkeypatch.setenv(COMPLETION_VARIABLE, "bash_complete")
        monkeypatch.setenv("COMP_WORDS", "\n".join(("penstock", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        assert entry.run([]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        return [line.partition(",")[2] for line in said.out.splitlines() if line]

    return complete


def test_commands_are_completed_without_importing_them(complete, monkeypatch):
    monkeypatch.delitem(sys.modules, "penstock.cli.top", raising=False)
    assert complete("to") == ["top"]
    assert complete("") == list(entry.COMMANDS)
    assert "penstock.cli.top" not in sys.modules


def test_options_and_choices_are_completed(complete):
    assert complete("search", "--li") == ["--limit", "--like"]
    assert complete("search", "--o") == ["--offset", "--open"]
    assert complete("search", "--open", "--con") == ["--context", "--config"]
    assert complete("search", "--facet", "s") == ["source"]
    assert complete("migrate", "x", "--to", "") == ["edge", "qdrant"]


def test_names_are_none_where_no_server_answers(complete, tmp_path):
    assert complete("search", "--data-dir", str(tmp_path / "absent"), "--collection", "") == []
    (tmp_path / "bad.yaml").write_text("server: 5\n")
    assert complete("forget", "--config", str(tmp_path / "bad.yaml"), "") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_its_script(shell, capsys, monkeypatch):
    assert entry.run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"{COMPLETION_VARIABLE}={shell}_complete" in script
    monkeypatch.setenv("SHELL", f"/opt/bin/{shell}")
    assert entry.run(["completion"]) == 0
    assert capsys.readouterr().out == script


@pytest.mark.parametrize("own", ["", "/bin/tcsh"])
def test_a_shell_that_is_not_known_is_asked_for(own, capsys, monkeypatch):
    monkeypatch.setenv("SHELL", own)
    assert entry.run(["completion"]) == 2
    assert "bash, zsh, fish" in click.unstyle(capsys.readouterr().err)
