"""Arrays of numbers as bytes, for MessagePack: an extension of its own, with type and shape in front."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

#: The number of the extension.
ARRAY_EXTENSION: Final = 1
#: Whole numbers, floats and truth values; objects are code, and never travel.
DTYPE_KINDS: Final = "biuf"
#: Dimensions of an array at most.
DIMENSIONS_MAX: Final = 4
#: Types and shapes of which the form is remembered: one of each model, and one for each number of rows.
LAYOUTS_MAX: Final = 4_096


def encode_array(value: Any) -> msgspec.msgpack.Ext:
    """Return an array in the form that travels; the hook for what MessagePack does not know.

    Raises:
        NotImplementedError: It is no array of numbers.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in DTYPE_KINDS or value.ndim > DIMENSIONS_MAX:
        raise NotImplementedError(f"{type(value).__name__} does not travel")
    return msgspec.msgpack.Ext(ARRAY_EXTENSION, _head(value.dtype, value.shape) + value.tobytes())


def decode_array(type: Any, value: Any) -> Any:
    """Return the array as a copy, which may be written to and does not keep the whole record alive.

    The hook for types that MessagePack does not know.

    Args:
        type: The type wanted: ``NDArray`` of some dtype.
        value: The value received.

    Raises:
        ValueError: It is no array, not of that type, or does not fit its own shape.
    """
    if type is object:
        # What may be anything is what came: msgspec asks here for ``object``, and not for ``Any``.
        return value
    wanted = _expected_dtype(type)
    array = _view(value)
    if wanted is not None and array.dtype != wanted:
        raise ValueError(f"an array of {wanted} was expected, not of {array.dtype}")
    return array.copy()


def view_array(type: Any, value: Any) -> Any:
    """Return the array as a view of the bytes that came, converted if it has another type of numbers.

    The hook for records of the same program, which are trusted.

    Raises:
        ValueError: It is no array, or does not fit its own shape.
    """
    wanted = _expected_dtype(type)
    array = _view(value)
    return array if wanted is None or array.dtype == wanted else array.astype(wanted)


def _view(value: Any) -> NDArray[Any]:
    if not isinstance(value, msgspec.msgpack.Ext) or value.code != ARRAY_EXTENSION:
        raise ValueError("an array was expected")
    data = bytes(value.data)
    end = data[0] + 1 if data else 1
    dtype, shape, size = _layout(data[1:end])
    if size != len(data) - end:
        raise ValueError("an array that does not fit its shape")
    # Numbers at an odd address are read at half the speed: they are moved to one of their own.
    return np.ndarray(shape, dtype, data, end) if end % dtype.itemsize == 0 else np.ndarray(shape, dtype, data[end:])


@functools.lru_cache(maxsize=LAYOUTS_MAX)
def _head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    head = msgspec.msgpack.encode((dtype.str, shape))
    return bytes((len(head),)) + head


@functools.lru_cache(maxsize=LAYOUTS_MAX)
def _layout(head: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return the type of numbers, the shape and the size in bytes that a head states."""
    name, shape = msgspec.msgpack.decode(head, type=tuple[str, tuple[int, ...]])
    try:
        dtype = np.dtype(name)
    except TypeError:
        raise ValueError(f"no type of numbers: {name!r}") from None
    if dtype.kind not in DTYPE_KINDS:
        raise ValueError(f"an array of numbers was expected, not of {dtype}")
    if len(shape) > DIMENSIONS_MAX or min(shape, default=0) < 0:
        raise ValueError("an array that does not fit its shape")
    return dtype, shape, math.prod(shape) * dtype.itemsize


@functools.lru_cache(maxsize=LAYOUTS_MAX)
def _expected_dtype(type: Any) -> np.dtype[Any] | None:
    """Return the type of numbers in ``NDArray[...]``; ``None`` for any.

    Raises:
        ValueError: It is another type.
    """
    if getattr(type, "__origin__", type) is not np.ndarray:
        raise ValueError("an array was expected")
    arguments: Sequence[Any] = getattr(type, "__args__", ())
    inner: Sequence[Any] = getattr(arguments[1], "__args__", ()) if len(arguments) > 1 else ()
    return np.dtype(inner[0]) if inner and inner[0] is not Any else None
