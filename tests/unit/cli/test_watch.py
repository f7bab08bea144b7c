"""The terminal in front of a watcher."""

import asyncio
import io

import pytest
from rich.console import Console

from penstock.cli.options import Setup
from penstock.cli.watch import _Terminal
from penstock.client import Source
from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import Settings


def terminal(data_dir):
    out = io.StringIO()
    return _Terminal(Setup(Settings(), {}, data_dir), Console(file=out, soft_wrap=True)), out


def test_without_a_server_it_is_waited_for(tmp_path):
    async def connect():
        async with terminal(tmp_path)[0].connect():
            raise AssertionError("there is no server")

    with pytest.raises(Unavailable, match="no server runs"):
        asyncio.run(connect())


def test_lines_are_shown_without_what_a_terminal_would_obey(tmp_path):
    shown, out = terminal(tmp_path)
    shown.tell("tree: 1 indexed\x1b[2J in 0.1 s")
    assert out.getvalue().startswith("tree: 1 indexed")
    assert "\x1b" not in out.getvalue()


def test_a_person_may_watch_any_source_of_theirs(tmp_path):
    shown, _ = terminal(tmp_path)
    assert shown.refusal(tmp_path) == ""
    assert shown.is_kept(Source("tree"), tmp_path)
