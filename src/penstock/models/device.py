"""Device of the built-in model, processor or GPU, with the precision and batch sizes that suit it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from penstock.kernel.errors import Invalid, Unavailable
from penstock.models.batching import ONE_TEXT, SLICE_TOKENS_MAX
from penstock.models.quantise import Precision, best_precision

if TYPE_CHECKING:
    from collections.abc import Sequence

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
AUTO: Final = "auto"

GPU_TOKENS_MAX: Final = 16_384
"""Padded tokens of one call on a GPU: 64 texts of full length, whose largest tensor takes 200 MB of its memory."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device, with its precision and batch sizes.

    Attributes:
        name: ``cpu`` or ``cuda``.
        providers: ONNX Runtime's execution providers, the wanted one first.
        precision: Number format of the prepared graph.
        call_tokens_max: Padded tokens of one call of the model; ``ONE_TEXT`` for a call of each text.
        padding_tokens_max: Padding worth having in one call.
        batch_tokens: Padded tokens of one message to the pool.
    """

    name: str
    providers: tuple[str, ...]
    precision: Precision
    call_tokens_max: int
    padding_tokens_max: int
    batch_tokens: int


def cpu_device() -> Device:
    """Return this machine's processor: eight-bit products, each text by itself."""
    return Device("cpu", (CPU,), best_precision(), ONE_TEXT, ONE_TEXT, SLICE_TOKENS_MAX)


def gpu_device() -> Device:
    """Return the GPU: it wants many rows at once, and padding costs it little; float32, for want of dynamic int8."""
    return Device("cuda", (CUDA, CPU), Precision.FLOAT32, GPU_TOKENS_MAX, GPU_TOKENS_MAX // 4, GPU_TOKENS_MAX)


def available_providers() -> list[str]:
    """Return the execution providers that the installed runtime was built with."""
    # Imported here: it takes a moment, and a program that only reads settings need not wait for it.
    import onnxruntime  # noqa: PLC0415 - see above

    found: list[str] = onnxruntime.get_available_providers()
    return found


def choose_device(wanted: str, available: Sequence[str], precision: str = AUTO) -> Device:
    """Return the device to run on.

    Args:
        wanted: ``cpu``, ``cuda``, or ``auto`` for the GPU where the runtime knows one.
        available: Execution providers that the installed runtime was built with.
        precision: A :class:`~penstock.models.quantise.Precision`, or ``auto`` for what suits the device. Vectors of
            different ones are not compared, so hosts that share work need the same.

    Raises:
        Invalid: ``cuda`` is wanted, and the runtime was built without it; or a precision that a GPU does not have.
    """
    if wanted == "cpu" or (wanted == AUTO and CUDA not in available):
        device = cpu_device()
        return device if precision == AUTO else replace(device, precision=Precision(precision))
    if CUDA not in available:
        raise Invalid(
            f"PENSTOCK_MODEL_DEVICE is cuda, but the installed ONNX Runtime has only {', '.join(available)}; "
            "install onnxruntime-gpu in its place, or set PENSTOCK_MODEL_DEVICE to cpu",
            field="PENSTOCK_MODEL_DEVICE",
            code="model_device",
        )
    if precision not in {AUTO, Precision.FLOAT32}:
        raise Invalid(
            f"PENSTOCK_MODEL_PRECISION is {precision}, which is not computed on a GPU; set it to float32 there, "
            "and on all hosts that share work with it",
            field="PENSTOCK_MODEL_PRECISION",
            code="model_device",
        )
    return gpu_device()


def check_device(device: Device, working: Sequence[str]) -> None:
    """Check that a session runs on the wanted device: the runtime falls back to the processor and only logs it.

    Raises:
        Unavailable: The wanted one is not among them.
    """
    if device.providers[0] not in working:
        raise Unavailable(
            f"ONNX Runtime could not start {device.providers[0]}: the GPU, its driver, CUDA or cuDNN is missing; "
            "set PENSTOCK_MODEL_DEVICE to cpu to go on without",
            dependency="embed model",
            code="model_device",
        )
