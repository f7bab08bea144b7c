"""Which device runs the model, and what is said when it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from penstock.kernel.errors import Invalid, Unavailable
from penstock.models.dense import OnnxDense
from penstock.models.device import CPU, CUDA, available, check, choose, gpu, processor
from penstock.models.prepare import prepare
from penstock.models.quantise import Precision

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.models.source import Source

PLAIN, WITH_GPU = [CPU], ["TensorrtExecutionProvider", CUDA, CPU]


@pytest.mark.parametrize(
    ("wanted", "built_with", "name"),
    [
        ("cpu", PLAIN, "cpu"),
        ("cpu", WITH_GPU, "cpu"),
        ("auto", PLAIN, "cpu"),
        ("auto", WITH_GPU, "cuda"),
        ("cuda", WITH_GPU, "cuda"),
    ],
)
def test_a_device_is_chosen_among_those_the_runtime_has(wanted: str, built_with: list[str], name: str) -> None:
    assert choose(wanted, built_with).name == name


def test_a_gpu_that_the_runtime_was_not_built_for_is_refused_with_a_cure() -> None:
    with pytest.raises(Invalid, match="install onnxruntime-gpu") as caught:
        choose("cuda", PLAIN)
    assert (caught.value.field, caught.value.code) == ("PENSTOCK_MODEL_DEVICE", "model_device")


def test_a_session_that_fell_back_to_the_processor_is_refused() -> None:
    check(gpu(), [CUDA, CPU])
    check(processor(), [CPU])
    with pytest.raises(Unavailable, match="could not start CUDA") as caught:
        check(gpu(), [CPU])
    assert caught.value.code == "model_device"


def test_a_gpu_gets_float32_and_many_rows_at_once() -> None:
    assert gpu().precision is Precision.FLOAT32
    assert gpu().batch_tokens > 10 * processor().batch_tokens
    assert gpu().call_tokens_max > 10 * processor().call_tokens_max


def test_hosts_with_different_processors_can_be_given_the_same_precision() -> None:
    assert choose("cpu", PLAIN).precision is processor().precision
    assert choose("cpu", PLAIN, "int7").precision is Precision.INT7
    assert choose("auto", PLAIN, "float32").precision is Precision.FLOAT32
    assert choose("auto", WITH_GPU, "float32") == gpu()


def test_a_precision_that_a_gpu_does_not_have_is_refused_with_a_cure() -> None:
    with pytest.raises(Invalid, match="set it to float32") as caught:
        choose("cuda", WITH_GPU, "int7")
    assert (caught.value.field, caught.value.code) == ("PENSTOCK_MODEL_PRECISION", "model_device")


def test_the_model_runs_on_the_processor_of_this_machine(tiny: Source, tmp_path: Path) -> None:
    assert CPU in available()
    runner = OnnxDense(prepare(tiny, tmp_path, precision=processor().precision), device=choose("cpu", available()))
    assert runner.run(["la"]).shape == (1, runner.dim)


@pytest.mark.skipif(CUDA in available(), reason="this runtime may have a GPU")
def test_a_runner_without_its_gpu_says_so(tiny: Source, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="CUDA"):
        OnnxDense(prepare(tiny, tmp_path, precision=Precision.FLOAT32), device=gpu())
