"""Preparation happens once, whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import tiny_bert

from penstock.kernel.errors import Invalid, Unavailable
from penstock.models import graph
from penstock.models import prepare as preparation
from penstock.models.model_source import ModelSource
from penstock.models.prepare import prepare_model
from penstock.models.quantise import Precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _forbid_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed(_self: ModelSource, _progress: Callable[[int, int], None]) -> dict[str, str]:
        raise AssertionError("the weights were hashed")

    monkeypatch.setattr(ModelSource, "checksums", hashed)


def test_cold_preparation_reports_its_stages(tiny: ModelSource, tmp_path: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    prepared = prepare_model(tiny, tmp_path / "models", lambda *stage: stages.append(stage))
    assert (prepared.dim, prepared.tokens_max, prepared.name) == (
        tiny_bert.HIDDEN,
        tiny_bert.TOKENS_MAX,
        "tiny",
    )
    assert prepared.path.parent.name == f"tiny-{prepared.fingerprint}"
    assert [stage for stage in stages if stage[0] == "building"] == [
        ("building", 1, 2),
        ("building", 2, 2),
    ]
    checked = [done for stage, done, _ in stages if stage == "checking"]
    assert checked == sorted(checked)
    assert checked[-1] == sum(path.stat().st_size for path in tiny.files.values())
    assert stages[-1] == ("writing", 1, 1)


def test_warm_start_does_not_hash_the_weights(
    tiny: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare_model(tiny, tmp_path)
    _forbid_hashing(monkeypatch)
    assert prepare_model(tiny, tmp_path) == first


def test_touched_weights_are_hashed_again_but_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny_bert.write(tmp_path / "source")
    first = prepare_model(source, tmp_path / "models")
    os.utime(source.weights, (1, 1))
    monkeypatch.setattr(graph, "write_graph", None)
    assert prepare_model(source, tmp_path / "models") == first
    _forbid_hashing(monkeypatch)
    assert prepare_model(source, tmp_path / "models") == first


def test_fingerprint_follows_weights_and_precision(tmp_path: Path) -> None:
    a, b = (tiny_bert.write(tmp_path / str(seed), seed) for seed in (1, 2))
    prints = {prepare_model(source, tmp_path / "models").fingerprint for source in (a, b)}
    prints.add(prepare_model(a, tmp_path / "models", precision=Precision.FLOAT32).fingerprint)
    assert len(prints) == 3


def test_crash_halfway_is_swept_and_done_again(
    tiny: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / f"{preparation.TEMPORARY}dead"
    left.mkdir()
    (left / "model.onnx").write_bytes(b"half")
    with monkeypatch.context() as patch:
        patch.setattr(graph, "write_graph", _stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_model(tiny, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert prepare_model(tiny, tmp_path).path.is_file()


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("damage", ["truncated", "altered", "absent", "manifest"])
def test_damaged_directory_is_built_again(tiny: ModelSource, tmp_path: Path, damage: str) -> None:
    first = prepare_model(tiny, tmp_path)
    whole = first.path.read_bytes()
    if damage == "truncated":
        first.path.write_bytes(whole[:-1])
    elif damage == "altered":
        first.path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "absent":
        first.tokenizer_path.unlink()
    else:
        (first.path.parent / preparation.MANIFEST).write_text("{")
    assert prepare_model(tiny, tmp_path) == first
    assert first.path.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", first.path.parent.name]


def test_full_disk_names_the_directory(tiny: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(graph, "write_graph", full)
    with pytest.raises(Unavailable, match="is full") as caught:
        prepare_model(tiny, tmp_path / "models")
    assert caught.value.code == "disk_full"
    assert str(tmp_path / "models") in caught.value.detail


def test_unusable_directory_is_named(tiny: ModelSource, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(Unavailable, match=re.escape(str(tmp_path / "models"))) as caught:
        prepare_model(tiny, tmp_path / "models")
    assert caught.value.code == "model_directory"


def test_second_process_waits_no_longer_than_its_bound(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Unavailable) as caught, preparation.lock_directory(tmp_path, wait_s_max=0):
            pytest.fail("two processes hold the lock")
    assert caught.value.code == "model_locked"
    with preparation.lock_directory(tmp_path, wait_s_max=0):
        pass


def test_altered_package_is_refused(tiny: ModelSource, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"model\.safetensors is not the published file") as caught:
        prepare_model(replace(tiny, origin="package"), tmp_path)
    assert caught.value.code == "model_checksum"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "roberta"}, "model_type"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"num_attention_heads": 5}, "do not fit"),
        ({"hidden_size": "wide"}, "not a number"),
        ({"num_hidden_layers": 3}, "lacks the tensor encoder.layer.2"),
        ({"intermediate_size": 32}, "has shape"),
    ],
)
def test_other_architecture_is_refused(tmp_path: Path, change: dict[str, object], word: str) -> None:
    source = tiny_bert.write(tmp_path / "source")
    source.config.write_text(json.dumps(tiny_bert.config() | change))
    with pytest.raises(Invalid, match=word):
        prepare_model(source, tmp_path / "models")


def test_other_pooling_is_refused(tmp_path: Path) -> None:
    source = tiny_bert.write(tmp_path / "source")
    pooling = source.config.parent / "1_Pooling" / "config.json"
    pooling.parent.mkdir()
    pooling.write_text(json.dumps({"word_embedding_dimension": 32, "pooling_mode_max_tokens": True}))
    with pytest.raises(Invalid, match="mean and CLS pooling"):
        prepare_model(source, tmp_path / "models")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_unreadable_file_is_named(tmp_path: Path, name: str) -> None:
    source = tiny_bert.write(tmp_path / "source")
    source.files[name].write_text("[]")
    with pytest.raises(Invalid, match=re.escape(name)):
        prepare_model(source, tmp_path / "models")
