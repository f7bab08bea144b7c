"""Arrays of numbers as bytes, for MessagePack: an extension of its own, with type and shape in front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

#: The number of the extension.
ARRAY_EXTENSION: Final = 1
#: Whole numbers, floats and truth values; objects are code, and never travel.
DTYPE_KINDS: Final = "biuf"
#: Dimensions of an array at most.
DIMENSIONS_MAX: Final = 4


def encode_array(value: Any) -> msgspec.msgpack.Ext:
    """Return an array in the form that travels; the hook for what MessagePack does not know.

    Raises:
        NotImplementedError: It is no array of numbers.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in DTYPE_KINDS or value.ndim > DIMENSIONS_MAX:
        raise NotImplementedError(f"{type(value).__name__} does not travel")
    head = msgspec.msgpack.encode((value.dtype.str, value.shape))
    return msgspec.msgpack.Ext(ARRAY_EXTENSION, bytes((len(head),)) + head + value.tobytes())


def decode_array(type: Any, value: Any) -> Any:
    """Return the array; the hook for types that MessagePack does not know.

    Args:
        type: The type wanted: ``NDArray`` of some dtype.
        value: The value received.

    Raises:
        ValueError: It is no array, not of that type, or does not fit its own shape.
    """
    if type is object:
        # What may be anything is what came: msgspec asks here for ``object``, and not for ``Any``.
        return value
    origin = getattr(type, "__origin__", type)
    if origin is not np.ndarray or not isinstance(value, msgspec.msgpack.Ext) or value.code != ARRAY_EXTENSION:
        raise ValueError("an array was expected")
    data = memoryview(value.data)
    end = data[0] + 1 if data else 1
    name, shape = msgspec.msgpack.decode(data[1:end], type=tuple[str, tuple[int, ...]])
    try:
        dtype = np.dtype(name)
    except TypeError:
        raise ValueError(f"no type of numbers: {name!r}") from None
    wanted = _expected_dtype(type)
    if dtype.kind not in DTYPE_KINDS or (wanted is not None and dtype != wanted):
        raise ValueError(f"an array of {wanted} was expected, not of {dtype}")
    if len(shape) > DIMENSIONS_MAX or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - end:
        raise ValueError("an array that does not fit its shape")
    # A copy: what is received may be written to, and does not keep the whole record alive.
    return np.frombuffer(data[end:], dtype).reshape(shape).copy()


def _expected_dtype(type: Any) -> np.dtype[Any] | None:
    """Return the type of numbers in ``NDArray[...]``; ``None`` for any."""
    arguments: Sequence[Any] = getattr(type, "__args__", ())
    inner: Sequence[Any] = getattr(arguments[1], "__args__", ()) if len(arguments) > 1 else ()
    return np.dtype(inner[0]) if inner and inner[0] is not Any else None
