"""Plots: matplotlib is optional, and what is asked of it is what it has."""

import contextlib
import sys
import types
from pathlib import Path

import pytest

from bench import drawing


def matplotlib(used):
    """Return modules that have only the names which matplotlib has and a plot needs."""
    module, pyplot = types.ModuleType("matplotlib"), types.ModuleType("matplotlib.pyplot")
    module.use, module.rc_context, module.pyplot = used.append, contextlib.nullcontext, pyplot
    pyplot.close = used.append
    return {"matplotlib": module, "matplotlib.pyplot": pyplot}


class Figure:
    def savefig(self, path: Path, **_):
        path.write_text("<svg/>")


def test_a_figure_is_drawn_without_a_screen_and_closed(tmp_path, monkeypatch):
    used, figure = [], Figure()
    for name, module in matplotlib(used).items():
        monkeypatch.setitem(sys.modules, name, module)
    assert drawing.save(tmp_path / "new" / "x.svg", lambda _: figure)
    assert (tmp_path / "new" / "x.svg").read_text() == "<svg/>"
    assert used == ["svg", figure]


def test_without_matplotlib_nothing_is_drawn_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not drawing.save(tmp_path / "x.svg", pytest.fail)
    assert "matplotlib is not installed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
