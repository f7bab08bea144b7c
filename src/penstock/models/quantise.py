"""Symmetric integer quantisation of weights, and the width this processor can use."""

from __future__ import annotations

import platform
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from penstock.models.contract import Floats


class Precision(StrEnum):
    """Number format of the matrix products in a prepared graph."""

    FLOAT32 = "float32"
    INT8 = "int8"
    INT7 = "int7"
    """Eight-bit products with weights in ±63: for x86 without VNNI, whose instruction adds two
    products in a saturating 16-bit sum (ONNX Runtime's quantisation guide, ``reduce_range``)."""

    @property
    def level_max(self) -> int:
        """Largest weight level used."""
        return 63 if self is Precision.INT7 else 127


def symmetric(weight: Floats, axis: int, level_max: int) -> tuple[NDArray[np.int8], Floats]:
    """Quantise with one scale per slice.

    ``w ≈ q · s`` with ``s = max|w| / level_max`` (Jacob et al. 2017, arXiv:1712.05877, with zero
    point 0).

    Args:
        weight: ``float32 [rows, columns]``.
        axis: The axis that shares a scale: 0 gives one scale per column, 1 one per row.
        level_max: Largest level, 127 for the full range.

    Returns:
        Levels ``int8 [rows, columns]`` and scales ``float32`` of the other axis' length.
    """
    scale = np.abs(weight).max(axis=axis, keepdims=True) / np.float32(level_max)
    scale[scale == 0] = 1.0  # an all-zero slice stays zero
    levels = np.rint(weight / scale).clip(-level_max, level_max).astype(np.int8)
    return levels, scale.astype(np.float32).reshape(-1)


def best_precision(cpuinfo: Path = Path("/proc/cpuinfo")) -> Precision:
    """Return the precision to prepare for: ``int8``, or ``int7`` on x86 known to lack VNNI."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return Precision.INT8
    try:
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "vnni")
    except OSError:
        return Precision.INT8
    return Precision.INT8 if "vnni" in flags else Precision.INT7
