"""The page on agents shows what ``penstock agents`` writes."""

import re
import stat
from pathlib import Path

import pytest

from penstock.cli import main as entry
from penstock.cli.agent_clients import CLIENTS

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "agents.md").read_text()
BLOCK = re.compile(r"```(?:json|toml)\n(.*?)```", re.DOTALL)


def blocks(title: str) -> list[str]:
    """Return the configurations in a section of the page."""
    return BLOCK.findall(PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0])


@pytest.mark.parametrize("client", CLIENTS)
def test_the_page_shows_each_clients_configuration(client, tmp_path, monkeypatch, capsys):
    program = tmp_path / "bin" / "penstock"
    program.parent.mkdir()
    program.write_text("")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PENSTOCK_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    shown = []
    for shape in ([], ["--http", "--url", "http://127.0.0.1:8080"]):
        assert entry.run(["agents", "show", client, "--key", *shape]) == 0
        shown.append(capsys.readouterr().out)
    assert blocks(CLIENTS[client].title) == shown
