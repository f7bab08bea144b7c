"""Which device runs the model, and what is said when it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from penstock.kernel.errors import Invalid, Unavailable
from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.device import CPU, CUDA, available_providers, check_device, choose_device, cpu_device, gpu_device
from penstock.models.prepare import prepare_model
from penstock.models.quantise import Precision

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.models.model_source import ModelSource

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
    assert choose_device(wanted, built_with).name == name


def test_a_gpu_that_the_runtime_was_not_built_for_is_refused_with_a_cure() -> None:
    with pytest.raises(Invalid, match="install onnxruntime-gpu") as caught:
        choose_device("cuda", PLAIN)
    assert (caught.value.field, caught.value.code) == ("PENSTOCK_MODEL_DEVICE", "model_device")


def test_a_session_that_fell_back_to_the_processor_is_refused() -> None:
    check_device(gpu_device(), [CUDA, CPU])
    check_device(cpu_device(), [CPU])
    with pytest.raises(Unavailable, match="could not start CUDA") as caught:
        check_device(gpu_device(), [CPU])
    assert caught.value.code == "model_device"


def test_a_gpu_gets_float32_and_many_rows_at_once() -> None:
    assert gpu_device().precision is Precision.FLOAT32
    assert gpu_device().batch_tokens > 10 * cpu_device().batch_tokens
    assert gpu_device().call_tokens_max > 10 * cpu_device().call_tokens_max


def test_hosts_with_different_processors_can_be_given_the_same_precision() -> None:
    assert choose_device("cpu", PLAIN).precision is cpu_device().precision
    assert choose_device("cpu", PLAIN, "int7").precision is Precision.INT7
    assert choose_device("auto", PLAIN, "float32").precision is Precision.FLOAT32
    assert choose_device("auto", WITH_GPU, "float32") == gpu_device()


def test_a_precision_that_a_gpu_does_not_have_is_refused_with_a_cure() -> None:
    with pytest.raises(Invalid, match="set it to float32") as caught:
        choose_device("cuda", WITH_GPU, "int7")
    assert (caught.value.field, caught.value.code) == ("PENSTOCK_MODEL_PRECISION", "model_device")


def test_the_model_runs_on_the_processor_of_this_machine(tiny: ModelSource, tmp_path: Path) -> None:
    assert CPU in available_providers()
    runner = BuiltinDenseEncoder(
        prepare_model(tiny, tmp_path, precision=cpu_device().precision),
        device=choose_device("cpu", available_providers()),
    )
    assert runner.run(["la"]).shape == (1, runner.dim)


@pytest.mark.skipif(CUDA in available_providers(), reason="this runtime may have a GPU")
def test_a_runner_without_its_gpu_says_so(tiny: ModelSource, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="CUDA"):
        BuiltinDenseEncoder(prepare_model(tiny, tmp_path, precision=Precision.FLOAT32), device=gpu_device())
