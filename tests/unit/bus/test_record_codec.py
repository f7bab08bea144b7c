import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.bus.record_codec import (
    MAGIC,
    VERSION,
    Cancel,
    HandlerFailure,
    HandlerReply,
    Hello,
    Message,
    MessageTypes,
    RecordCodec,
    UnreadableRecord,
)
from penstock.kernel.arrays import ARRAY_EXTENSION, decode_array
from penstock.kernel.context import Context, Criticality, Deadline
from penstock.kernel.errors import Broken, Expired, Invalid, PenstockError, Rejected, Unavailable
from penstock.kernel.messages import EmbedBatch, TextKind
from penstock.kernel.vectors import Embeddings, SparseVector

WIRE = RecordCodec(
    {"embed": MessageTypes(EmbedBatch, Embeddings), "scores": MessageTypes(Any, NDArray[np.float32])}, 10_000
)
LABEL = (Context(Deadline(105.0, "search"), Criticality.BULK, "alice", "r1", "00-a-b-01"), 100.0)


def carried(message: object, topic: str = "t") -> Any:
    note = WIRE.decode(WIRE.encode_message(7, "here", topic, message, LABEL))
    assert isinstance(note, Message)
    return WIRE.decode_body(note)


def returned(result: object, topic: str = "t") -> Any:
    note = WIRE.decode(WIRE.encode_reply(7, topic, result))
    assert isinstance(note, HandlerReply)
    return WIRE.decode_body(note)


def test_a_message_arrives_with_its_label():
    note = WIRE.decode(WIRE.encode_message(7, "here", "embed", EmbedBatch(["ä"], TextKind.QUERY, late=True), LABEL))
    assert isinstance(note, Message)
    assert (note.id, note.address, note.topic) == (7, "here", "embed")
    assert WIRE.decode_body(note) == EmbedBatch(["ä"], TextKind.QUERY, late=True)
    # Two seconds on its way, and another clock there.
    ctx = note.context(2.0, 5000.0)
    assert ctx == Context(Deadline(5003.0, "search"), Criticality.BULK, "alice", "r1", "00-a-b-01")


def test_no_deadline_stays_none():
    note = WIRE.decode(WIRE.encode_message(0, "", "t", None, (Context.background(), 100.0)))
    assert isinstance(note, Message)
    assert note.remaining_s is None
    assert note.context(2.0, 0.0).deadline.at_s == math.inf


def test_arrays_arrive_as_they_were_and_may_be_written_to():
    dense = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = returned(Embeddings(dense, [np.ones((1, 2), np.int8)] * 2), "embed")
    assert isinstance(found, Embeddings)
    assert np.array_equal(found.dense, dense)
    assert found.dense.dtype == np.float32
    assert found.late is not None
    assert [one.shape for one in found.late] == [(1, 2)] * 2
    found.dense[0, 0] = 9


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(3), np.zeros(3, "O"), np.zeros((1,) * 5, np.float32), "text", [1.0], None],
    ids=["float64", "objects", "five dimensions", "text", "list", "nothing"],
)
def test_what_is_no_array_of_the_type_is_not_taken_for_one(wrong: object):
    with pytest.raises(Invalid):
        returned(wrong, "scores")


@pytest.mark.parametrize("shape", [(4,), (2,), (-3,), (3, 2), (1, 1, 1, 1, 3)])
def test_an_array_that_does_not_fit_its_shape_is_noticed(shape: tuple[int, ...]):
    head = msgspec.msgpack.encode(("<f4", shape))
    data = bytes((len(head),)) + head + np.zeros(3, np.float32).tobytes()
    with pytest.raises(ValueError, match="shape"):
        decode_array(NDArray[np.float32], msgspec.msgpack.Ext(ARRAY_EXTENSION, data))


@pytest.mark.parametrize("data", [b"", b"\x05", b"\x04\x92\xa1O\x90", b"\x05\x92\xa2zz\x90"])
def test_what_only_looks_like_an_array_is_noticed(data: bytes):
    with pytest.raises((ValueError, msgspec.DecodeError)):
        decode_array(NDArray[np.float32], msgspec.msgpack.Ext(ARRAY_EXTENSION, data))


@dataclass
class Foreign:
    x: object


@pytest.mark.parametrize(
    "message",
    [object(), Foreign(object()), "\ud800", 2**70],
    ids=["an object", "a foreign record", "half a pair", "a long number"],
)
def test_what_cannot_be_written_is_invalid(message: object):
    with pytest.raises(Invalid):
        WIRE.encode_message(7, "here", "t", message, LABEL)


def test_what_is_too_large_is_neither_written_nor_read():
    with pytest.raises(Invalid) as caught:
        WIRE.encode_message(7, "here", "t", "x" * 10_000, LABEL)
    assert caught.value.code == "too_large"
    with pytest.raises(UnreadableRecord) as read:
        WIRE.decode(b"x" * 10_001)
    assert read.value.code == "too_large"


GOOD = WIRE.encode_message(7, "here", "t", "m", LABEL)


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (b"", "truncated"),
        (MAGIC[:2], "truncated"),
        (GOOD[:6], "truncated"),
        (GOOD[:-1], "truncated"),
        (GOOD[:12], "truncated"),
        (b"\x89PNG of another program", "foreign"),
        (MAGIC + bytes((VERSION + 1,)) + GOOD[5:], "newer_version"),
        (GOOD[:5] + b"Z" + GOOD[6:], "unreadable"),
        (GOOD[:6] + b"\xc1" + GOOD[7:], "unreadable"),
        (GOOD + b"\x00", "unreadable"),
        # An array that holds more than its record is read on, and this one is nested without end.
        (GOOD[:6] + bytes((GOOD[6] + 1,)) + GOOD[7:] + b"\x91" * 5000, "unreadable"),
    ],
)
def test_why_a_record_cannot_be_read_is_told(record: bytes, code: str):
    with pytest.raises(UnreadableRecord) as caught:
        WIRE.decode(record)
    assert caught.value.code == code


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_unreadable(noise: bytes):
    for record in (noise, GOOD[:6] + noise, GOOD[: len(noise) % len(GOOD)] + noise):
        try:
            note = WIRE.decode(record)
            if isinstance(note, Message):
                WIRE.decode_body(note)
                note.context(0.0, 0.0)
            elif isinstance(note, HandlerFailure):
                note.to_error()
        except UnreadableRecord:
            pass


class Special(Unavailable):
    """A family of some room's own."""


@pytest.mark.parametrize(
    "error",
    [
        Rejected("no", code="topic_full", retry_after_s=3.5, by_client=True),
        Expired("embed"),
        Unavailable("down", dependency="store"),
        Special("down", dependency="store", code="disk_full"),
        Invalid("bad", field="query", code="empty_query"),
        Broken("bug"),
        PenstockError("other"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_travels_as_its_family_with_what_the_caller_needs(error: PenstockError):
    note = WIRE.decode(WIRE.encode(HandlerFailure.from_error(7, "t", error)))
    assert isinstance(note, HandlerFailure)
    back = note.to_error()
    assert type(back) in type(error).__mro__
    assert (back.code, back.detail, str(back), back.retryable) == (
        error.code,
        error.detail,
        str(error),
        error.retryable,
    )
    assert vars(back) | vars(error) == vars(back)


def test_a_family_of_a_later_version_is_broken():
    assert isinstance(HandlerFailure(7, "t", "weary", "x", "y", {"secret": 1.0}).to_error(), Broken)
    assert "secret" not in vars(HandlerFailure(7, "t", "weary", "x", "y", {"secret": 1.0}).to_error())


def test_notes_travel():
    for note in (Hello("here", {"t": 4}, 2, wants_reply=True), Cancel("here", 7)):
        assert WIRE.decode(WIRE.encode(note)) == note


def test_sparse_vectors_travel_in_lists():
    wire = RecordCodec({"sparse": MessageTypes(Any, list[SparseVector])}, 10_000)
    note = wire.decode(
        wire.encode_reply(1, "sparse", [SparseVector(np.array([1], np.uint32), np.array([2], np.float32))])
    )
    assert isinstance(note, HandlerReply)
    (found,) = wire.decode_body(note)
    assert (found.indices.tolist(), found.values.tolist()) == ([1], [2.0])


def test_every_topic_s_types_can_travel():
    from penstock.app.assembly import MESSAGE_TYPES
    from penstock.kernel.messages import Topic

    assert set(MESSAGE_TYPES) == set(Topic)
    RecordCodec(MESSAGE_TYPES, 1000)


def test_plain_values_travel_as_they_are():
    for value in (None, 1, -2.5, "text", b"bytes", [1, "a"], {"k": [None]}):
        assert carried(value) == returned(value) == value
