"""What a text holds is found slice by slice, as a parser finds it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.http import decoding
from tests.clock import run

texts = st.text(st.sampled_from('a\\",:[]{}é😀\n'), max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


def counted(value: Any) -> int:
    """Return how many values there are, one more for each list or object."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(1, sum(map(counted, inner)))
    return 1


@given(st.lists(values, max_size=5), st.booleans(), st.sampled_from([None, 1]), st.integers(1, 9))
def test_elements_are_those_a_parser_finds_wherever_slices_end(value, ascii, indent, slice_bytes):
    data = json.dumps(value, ensure_ascii=ascii, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "SLICE_BYTES", slice_bytes)
        places = run(decoding.split_elements(memoryview(data), 5))
    assert [json.loads(data[begins:ends]) for begins, ends in places] == value


@given(values, st.integers(1, 9))
def test_values_are_counted_and_never_too_few(value, slice_bytes):
    data = json.dumps(value).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "SLICE_BYTES", slice_bytes)
        assert not run(decoding.exceeds_values(data, counted(value) + 1))
        assert counted(value) < 3 or run(decoding.exceeds_values(data, counted(value) // 2 - 1))


def test_more_elements_than_wanted_are_none():
    assert run(decoding.split_elements(memoryview(b"[1,2,3]"), 2)) is None


@given(st.binary(max_size=50))
def test_what_is_no_json_is_read_all_the_same(data):
    run(decoding.exceeds_values(data, 1))
    run(decoding.split_elements(memoryview(b"[" + data), 3))
