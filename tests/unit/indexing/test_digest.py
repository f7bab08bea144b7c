import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.indexing.document_records import HASH_VERSION, document_hash, hash_input


def test_the_order_of_metadata_does_not_matter():
    assert document_hash("t", "p", "l", {"a": 1, "b": 2}) == document_hash("t", "p", "l", {"b": 2, "a": 1})


def test_everything_that_shapes_the_points_counts():
    hashes = {
        document_hash("t", "p", "l", {}),
        document_hash("u", "p", "l", {}),
        document_hash("t", "q", "l", {}),
        document_hash("t", "p", "m", {}),
        document_hash("t", "p", "l", {"a": 1}),
    }
    assert len(hashes) == 5


def test_fields_cannot_run_into_each_other():
    assert document_hash("ab", "c", "", {}) != document_hash("a", "bc", "", {})


@given(st.text(max_size=40), st.text(max_size=5), st.dictionaries(st.text(max_size=3), st.integers(), max_size=3))
def test_pieces_make_the_hash_of_the_whole(text, path, metadata):
    whole = msgspec.json.Encoder(order="deterministic").encode([HASH_VERSION, text, path, "l", metadata])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.indexing.document_records.SLICE_CHARACTERS", 3)
        assert b"".join(hash_input(text, path, "l", metadata)) == whole
    assert document_hash(text, path, "l", metadata) == hashlib.blake2b(whole, digest_size=16).hexdigest()
