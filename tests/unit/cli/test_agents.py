"""``penstock agents``: files of clients, written once they were shown."""

import json
import tomllib
from pathlib import Path

import pytest

from penstock.cli import main as entry
from penstock.cli.agent_clients import CLIENTS, SKILL_FILE


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory, with a home beside it."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "CODEX_HOME", "PENSTOCK_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "project"


def parsed(path: Path) -> dict:
    text = path.read_text()
    return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)


FILES = {
    "claude-code": (".mcp.json", ".claude.json"),
    "cursor": (".cursor/mcp.json", ".cursor/mcp.json"),
    "vscode": (".vscode/mcp.json", ".config/Code/User/mcp.json"),
    "codex": (".codex/config.toml", ".codex/config.toml"),
    "opencode": ("opencode.json", ".config/opencode/opencode.json"),
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("scope", ["project", "user"])
@pytest.mark.parametrize("shape", [[], ["--http", "--url", "http://127.0.0.1:8080"]], ids=["bridge", "http"])
def test_a_client_is_told_and_told_off(project, client, scope, shape, capsys):
    place = project if scope == "project" else project.parent / "home"
    path = place / FILES[client][scope == "user"]
    common = [client, "--scope", scope, *shape, "--key", "--yes"]
    assert entry.run(["agents", "install", *common]) == 0
    shown = capsys.readouterr().out
    assert "+" in shown
    assert f"wrote {path}" in shown
    written = parsed(path)[CLIENTS[client].container]["penstock"]
    assert ("http://127.0.0.1:8080/mcp" in written.values()) == bool(shape)
    assert "PENSTOCK_API_KEY" in path.read_text() or "${input:penstock-api-key}" in path.read_text()
    assert path.stat().st_mode & 0o777 == (0o644 if scope == "project" else 0o600)
    assert entry.run(["agents", "install", *common]) == 0
    assert "is as it should be" in capsys.readouterr().out
    assert entry.run(["agents", "uninstall", client, "--scope", scope, "--yes"]) == 0
    assert not path.exists() or "penstock" not in parsed(path).get(CLIENTS[client].container, {})


def test_what_was_there_stays_and_a_copy_lies_beside_it(project):
    path = project / ".mcp.json"
    path.write_text('{"mcpServers": {"other": {"command": "x"}}, "more": [1]}')
    path.chmod(0o640)
    assert entry.run(["agents", "install", "claude-code", "--yes"]) == 0
    assert list(parsed(path)["mcpServers"]) == ["other", "penstock"]
    assert parsed(path)["more"] == [1]
    assert path.stat().st_mode & 0o777 == 0o640
    assert '"penstock"' not in (project / ".mcp.json.penstock-backup").read_text()
    assert sorted(one.name for one in project.iterdir()) == [".mcp.json", ".mcp.json.penstock-backup"]


def test_a_link_stays_a_link(project):
    real = project / "dotfiles.json"
    real.write_text("{}")
    (project / ".mcp.json").symlink_to(real)
    assert entry.run(["agents", "install", "claude-code", "--yes"]) == 0
    assert (project / ".mcp.json").is_symlink()
    assert "penstock" in parsed(real)["mcpServers"]


def test_a_file_with_comments_is_left_and_its_lines_are_told(project, capsys):
    text = '{\n  // mine\n  "mcp": {}\n}\n'
    (project / "opencode.jsonc").write_text(text)
    assert entry.run(["agents", "install", "opencode", "--yes"]) == 2
    told = capsys.readouterr().err
    assert "comments" in told
    assert '"type": "local"' in told
    assert (project / "opencode.jsonc").read_text() == text
    assert not (project / "opencode.json").exists()


def test_nothing_is_written_without_a_yes(project, capsys):
    assert entry.run(["agents", "install", "cursor"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert list(project.iterdir()) == []


def test_the_skill_is_written_and_removed(project, capsys):
    assert entry.run(["agents", "install", "skill", "--yes"]) == 0
    text = (project / SKILL_FILE).read_text()
    assert text.startswith("---\nname: penstock\ndescription: ")
    assert entry.run(["agents", "uninstall", "skill", "--yes"]) == 0
    assert not (project / SKILL_FILE).exists()
    capsys.readouterr()
    assert entry.run(["agents", "show", "skill"]) == 0
    assert capsys.readouterr().out == text


def test_http_without_a_server_asks_for_its_url(project, capsys):
    assert entry.run(["agents", "install", "cursor", "--http", "--yes"]) == 2
    assert "--url" in capsys.readouterr().err
    assert entry.run(["agents", "install", "cursor", "--http", "--url", "http://k:secret@h/", "--yes"]) == 2
    assert "secret" not in capsys.readouterr().err


def test_a_data_directory_that_is_named_is_named_to_the_agent(project, capsys):
    assert entry.run(["agents", "show", "codex", "--data-dir", "data"]) == 0
    shown = tomllib.loads(capsys.readouterr().out)["mcp_servers"]["penstock"]
    assert shown["args"] == ["mcp", "--data-dir", str(project / "data")]
