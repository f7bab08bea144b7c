"""Where the files of a ready ONNX graph are, and what makes one model another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.kernel.errors import Invalid, Unavailable
from penstock.models import hub
from penstock.models.onnx_files import find_directory, find_on_hub
from tests.fakes import graphs

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return graphs.write(tmp_path / "tiny", "dense")


def test_a_directory_has_graph_and_tokenizer_and_is_the_model_s_name(directory):
    found = find_directory(directory, "models.dense")
    assert (found.name, found.graph, found.tokens_max) == ("tiny", directory / "model.onnx", graphs.TOKENS_MAX)


def test_a_graph_may_lie_where_the_hub_has_it(tmp_path):
    directory = graphs.write(tmp_path / "tiny", "dense", nested=True)
    assert find_directory(directory, "models.dense").graph == directory / "onnx" / "model.onnx"


@pytest.mark.parametrize(
    ("gone", "said"), [("model.onnx", "lacks model.onnx or onnx/model.onnx"), ("tokenizer.json", "lacks tokenizer")]
)
def test_what_is_missing_is_named_with_its_setting(directory, gone, said):
    (directory / gone).unlink()
    with pytest.raises(Invalid, match=f"^models.dense.path: .*{said}") as caught:
        find_directory(directory, "models.dense")
    assert (caught.value.field, caught.value.code) == ("models.dense.path", "model_directory")


@pytest.mark.parametrize(
    ("config", "tokenizer", "tokens"),
    [
        (None, None, 512),
        ({"max_position_embeddings": 8192}, None, 512),
        ({"max_position_embeddings": 128}, {"model_max_length": 1e30}, 128),
        ({"max_position_embeddings": 514, "model_type": "roberta"}, {"model_max_length": 512}, 512),
        ({"max_position_embeddings": 66, "model_type": "xlm-roberta"}, None, 64),
        ({"max_position_embeddings": 0}, {"model_max_length": 32}, 32),
    ],
)
def test_the_longest_text_is_what_the_files_say(directory, config, tokenizer, tokens):
    (directory / "config.json").unlink()
    for name, record in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        if record is not None:
            (directory / name).write_text(json.dumps(record))
    assert find_directory(directory, "models.dense").tokens_max == tokens


@pytest.mark.parametrize(
    ("modes", "pooling"),
    [({}, "mean"), ({"pooling_mode_mean_tokens": True}, "mean"), ({"pooling_mode_cls_token": True}, "cls")],
)
def test_pooling_is_what_the_files_say(directory, modes, pooling):
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8, **modes}))
    assert find_directory(directory, "models.dense").pooling == pooling


def test_pooling_of_another_kind_is_refused(directory):
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(Invalid, match="only mean and cls pooling"):
        find_directory(directory, "models.dense")


@pytest.mark.parametrize("content", ["{", "\udcff".encode("utf-8", "surrogateescape")])
def test_a_file_that_cannot_be_read_is_named(directory, content):
    (directory / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Invalid, match=r"cannot read .*config\.json"):
        find_directory(directory, "models.dense")


def test_a_record_that_is_none_says_nothing(directory):
    (directory / "config.json").write_text("[]")
    assert find_directory(directory, "models.dense").tokens_max == 512


def test_the_fingerprint_changes_with_whatever_makes_the_vectors(directory):
    prints = [find_directory(directory, "models.dense").fingerprint()]
    (directory / "model.onnx_data").write_bytes(b"weights beside the graph")
    prints.append(find_directory(directory, "models.dense").fingerprint())
    (directory / "tokenizer_config.json").write_text('{"model_max_length": 8}')
    prints.append(find_directory(directory, "models.dense").fingerprint())
    (directory / "model.onnx").write_bytes(b"another graph")
    prints.append(find_directory(directory, "models.dense").fingerprint())
    assert len(set(prints)) == 4
    assert {len(one) for one in prints} == {16}


# --- On the hub


def test_a_model_of_the_hub_is_found_at_its_commit(directory, monkeypatch):
    asked = []

    def files(repository, patterns, revision):
        asked.append((repository, revision))
        assert "tokenizer.json" in patterns
        return directory

    monkeypatch.setattr(hub, "download_files", files)
    found = find_on_hub("owner/name", COMMIT, "models.rerank")
    assert (found.name, found.graph, asked) == ("name", directory / "model.onnx", [("owner/name", COMMIT)])


@pytest.mark.parametrize("revision", ["", "main", "v1.0", COMMIT[:-1], COMMIT.upper()])
def test_a_revision_that_may_change_is_refused(revision):
    with pytest.raises(Invalid, match=r"^models\.rerank\.revision: "):
        find_on_hub("owner/name", revision, "models.rerank")


@pytest.mark.parametrize("repository", ["", "../etc", "a/b/c", "a b", "/x"])
def test_a_name_that_is_no_repository_is_refused(repository):
    with pytest.raises(Invalid, match=r"^models\.rerank\.model: "):
        find_on_hub(repository, COMMIT, "models.rerank")


def test_a_hub_that_does_not_answer_says_what_to_do(monkeypatch):
    def files(*_):
        raise hub.HubUnavailable("the hub did not answer")

    monkeypatch.setattr(hub, "download_files", files)
    with pytest.raises(Unavailable, match=r"did not answer; set models\.rerank\.path"):
        find_on_hub("owner/name", COMMIT, "models.rerank")


def test_a_repository_without_a_graph_is_no_model(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "download_files", lambda *_: tmp_path)
    with pytest.raises(Unavailable, match=r"lacks model\.onnx"):
        find_on_hub("owner/name", COMMIT, "models.rerank")
