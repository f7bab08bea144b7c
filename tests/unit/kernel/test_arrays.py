"""Arrays of numbers travel whole, with their type and shape, and what is none is refused."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from penstock.kernel.arrays import ARRAY_EXTENSION, DIMENSIONS_MAX, decode_array, encode_array, view_array

DTYPES = ("<f4", "<f8", "|i1", "<u4", "<i8", "|b1", ">f4")
SHAPES = st.lists(st.integers(0, 4), max_size=DIMENSIONS_MAX).map(tuple)


def ext(head: Any, body: bytes, code: int = ARRAY_EXTENSION) -> msgspec.msgpack.Ext:
    written = msgspec.msgpack.encode(head)
    return msgspec.msgpack.Ext(code, bytes((len(written),)) + written + body)


@pytest.mark.parametrize("read", [decode_array, view_array])
@given(dtype=st.sampled_from(DTYPES), shape=SHAPES)
def test_an_array_comes_back_as_it_was(read: Any, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    found = read(np.ndarray, encode_array(array))
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)


def test_a_copy_may_be_written_to_and_a_view_may_not() -> None:
    sent = encode_array(np.ones(3, "<f4"))
    assert decode_array(NDArray[np.float32], sent).flags.writeable
    assert not view_array(NDArray[np.float32], sent).flags.writeable


def test_a_copy_of_another_type_is_refused_and_a_view_is_converted() -> None:
    sent = encode_array(np.ones(3, "<f8"))
    with pytest.raises(ValueError, match="an array of float32 was expected, not of float64"):
        decode_array(NDArray[np.float32], sent)
    assert view_array(NDArray[np.float32], sent).dtype == np.float32
    assert view_array(NDArray[Any], sent).dtype == np.float64


@pytest.mark.parametrize(
    "value", [[1.0], "text", np.array([object()]), np.array(["a"]), np.zeros((1,) * (DIMENSIONS_MAX + 1))]
)
def test_what_is_no_array_of_numbers_does_not_travel(value: object) -> None:
    with pytest.raises(NotImplementedError, match="does not travel"):
        encode_array(value)


def test_what_may_be_anything_is_what_came() -> None:
    assert decode_array(object, [1]) == [1]


@pytest.mark.parametrize("wanted", [int, NDArray[np.float32]])
@pytest.mark.parametrize("read", [decode_array, view_array])
def test_another_value_or_type_is_refused(read: Any, wanted: Any) -> None:
    sent = encode_array(np.ones(1, "<f4")) if wanted is int else [1.0]
    with pytest.raises(ValueError, match="an array was expected"):
        read(wanted, sent)


@pytest.mark.parametrize(
    "sent",
    [
        ext(("<f4", (2,)), bytes(8), code=ARRAY_EXTENSION + 1),
        ext(("<f4", (2,)), bytes(7)),
        ext(("<f4", (-2,)), bytes(8)),
        ext(("<f4", (1,) * (DIMENSIONS_MAX + 1)), bytes(4)),
        ext(("|O", (1,)), bytes(8)),
        ext(("nothing", (1,)), bytes(8)),
        ext(("<f4",), bytes(8)),
        msgspec.msgpack.Ext(ARRAY_EXTENSION, b""),
    ],
)
@pytest.mark.parametrize("read", [decode_array, view_array])
def test_bytes_that_are_no_array_are_refused(read: Any, sent: msgspec.msgpack.Ext) -> None:
    with pytest.raises((ValueError, msgspec.DecodeError)):
        read(np.ndarray, sent)
