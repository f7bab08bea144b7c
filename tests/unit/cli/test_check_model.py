import json

import pytest
from safetensors.numpy import save_file

from penstock.cli.check_model import ParityReport
from penstock.cli.main import run
from penstock.models.parity import Closeness
from tests.unit.models import tiny_bert

CLOSE = Closeness(0.995, 0.99, 0)


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_MODEL_DIR", str(tmp_path / "model"))
    return tiny_bert.write(tmp_path / "model")


@pytest.fixture
def collection(tmp_path):
    directory = tmp_path / "tiny-collection"
    (directory / "qrels").mkdir(parents=True)
    lines = [{"_id": str(n), "text": f"{word} {word} la"} for n, word in enumerate(tiny_bert.WORDS[:8])]
    (directory / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": tiny_bert.WORDS[3]}) + "\n")
    (directory / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t3\t1\n")
    return directory


def test_a_model_within_the_bounds_is_good(model, tmp_path, capsys):
    assert run(["check-model", "--json", "--data-dir", str(tmp_path / "data")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["good"]
    assert found["cosine"]["least"] > 0.98
    assert found["ndcg@10"] == {}
    assert [path.name for path in (tmp_path / "data" / "models").iterdir() if path.is_dir()] == [found["model"]]


def test_rankings_of_a_collection_are_compared(model, collection, tmp_path, capsys):
    assert run(["check-model", str(collection), "--data-dir", str(tmp_path / "data")]) == 0
    shown = capsys.readouterr().out
    assert "tiny-collection's documents" in shown
    assert "nDCG@10, lost" in shown
    assert "BROKEN" not in shown


def test_a_model_that_quantisation_ruins_exits_1(model, tmp_path, capsys):
    weights = tiny_bert.tensors(0)
    for layer in range(tiny_bert.LAYERS):
        root = f"encoder.layer.{layer}."
        # One component, looked at by nobody, so large that nothing is left of the others in eight bits.
        weights[root + "intermediate.dense.bias"][0] = 5_000
        weights[root + "output.dense.weight"][:, 0] = 0
    save_file(weights, model.weights)
    assert run(["check-model", "--data-dir", str(tmp_path / "data")]) == 1
    assert "BROKEN" in capsys.readouterr().out


@pytest.mark.parametrize(("loss", "good"), [(-0.1, True), (0.004, True), (0.006, False)])
def test_half_a_point_of_quality_may_be_lost_and_no_more(loss, good):
    outcome = ParityReport("model", "int8", CLOSE, "cranfield", {"float32": 0.4, "int8": 0.4 - loss})
    assert outcome.passed is good
