"""What travels between processes: a compact, versioned binary form of messages, replies, errors and notes.

A record is ``MAGIC``, one byte of version, one byte of kind, and a MessagePack body; so that what another program
wrote, or a newer version of this one, is told from what was damaged, before anything else is looked at. Bodies are
arrays of fields, in order: fields that a later version adds at the end are ignored by an earlier one.

Deadlines travel as the time that is left, for clocks differ between machines. Arrays travel as their bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from penstock.bus.arrays import pack, unpack
from penstock.kernel import errors
from penstock.kernel.context import Context, Criticality
from penstock.kernel.deadline import Deadline
from penstock.kernel.errors import UNREADABLE, Invalid, PenstockError

#: Begins every record of ours.
MAGIC: Final = b"PSTK"
VERSION: Final = 1
_HEAD: Final = len(MAGIC) + 2


class Unreadable(Invalid):
    """A record that is not one of ours, or not one that we understand.

    ``code`` says why: ``foreign``, ``newer_version``, ``truncated``, ``too_large``, ``unreadable``.
    """

    code = "unreadable"


class Message(msgspec.Struct, array_like=True, frozen=True):
    """A request or an event, with its label.

    Attributes:
        id: The request's number, unique in its instance; 0 for an event.
        address: The mailbox that waits for the reply; empty for an event.
        topic: The topic.
        left_s: What was left of the deadline when it was sent; ``None`` for no deadline.
        operation: Whose limit that is.
        criticality: See :class:`penstock.kernel.context.Context`, as the next three.
        client: Client.
        request_id: Request id.
        traceparent: Trace context.
        body: The message itself, not yet decoded.
    """

    id: int
    address: str
    topic: str
    left_s: float | None
    operation: str
    criticality: int
    client: str
    request_id: str
    traceparent: str
    body: msgspec.Raw

    def context(self, age_s: float, now_s: float) -> Context:
        """Return the label on our clock, for a message that was ``age_s`` on its way."""
        deadline = Deadline.never()
        if self.left_s is not None:
            deadline = Deadline(now_s + self.left_s - age_s, self.operation)
        rank = Criticality(min(max(self.criticality, Criticality.INTERACTIVE), Criticality.BULK))
        return Context(deadline, rank, self.client, self.request_id, self.traceparent)


class Reply(msgspec.Struct, array_like=True, frozen=True):
    """What a handler returned.

    Attributes:
        id: The request's number.
        topic: The request's topic.
        body: The reply itself, not yet decoded.
    """

    id: int
    topic: str
    body: msgspec.Raw


class Failure(msgspec.Struct, array_like=True, frozen=True):
    """What a handler raised.

    Attributes:
        id: The request's number.
        topic: The request's topic.
        family: A name in :data:`penstock.kernel.errors.FAMILIES`.
        code: The error's code.
        detail: Its sentence.
        about: Those of :data:`penstock.kernel.errors.ABOUT` that it has.
    """

    id: int
    topic: str
    family: str
    code: str
    detail: str
    about: dict[str, str | float | bool]

    @classmethod
    def of(cls, id: int, topic: str, error: PenstockError) -> Failure:
        """Return an error in the form that travels."""
        return cls(id, topic, errors.family_of(error), error.code, error.detail, errors.facts_of(error))

    def error(self) -> PenstockError:
        """Return the error: the same family, code, detail and retry time."""
        return errors.received(self.family, self.code, self.detail, self.about)


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """An instance tells what it serves.

    Attributes:
        address: Its mailbox.
        serves: How many messages of each topic it takes at once.
        ahead: How many more it takes of each, so that none of its handlers waits for the network.
        asks: Whether it wants to hear the same of the others.
        leaves: Whether it takes nothing any more.
    """

    address: str
    serves: dict[str, int]
    ahead: int
    asks: bool = False
    leaves: bool = False


class Cancel(msgspec.Struct, array_like=True, frozen=True):
    """A requester does not want its reply any more.

    Attributes:
        address: Its mailbox.
        id: The request's number.
    """

    address: str
    id: int


Note = Message | Reply | Failure | Hello | Cancel

_KINDS: Final[dict[int, type[Note]]] = {
    ord("M"): Message,
    ord("R"): Reply,
    ord("F"): Failure,
    ord("H"): Hello,
    ord("C"): Cancel,
}
_HEADS: Final = {kind: MAGIC + bytes((VERSION, letter)) for letter, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Shape:
    """Of which types a topic's messages and replies are.

    Attributes:
        message: The message's type.
        reply: The reply's type; ``None`` for no reply.
    """

    message: Any = Any
    reply: Any = Any


class Wire:
    """Turns messages into records and back.

    Args:
        shapes: The types of each topic; topics that are not named carry what MessagePack can say by itself.
        bytes_max: The largest record; larger ones are neither written nor read.
    """

    def __init__(self, shapes: Mapping[str, Shape], bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._encoder = msgspec.msgpack.Encoder(enc_hook=pack)
        self._notes = {letter: msgspec.msgpack.Decoder(kind) for letter, kind in _KINDS.items()}
        plain = Shape()
        self._messages = {topic: _decoder(shape.message) for topic, shape in shapes.items()}
        self._replies = {topic: _decoder(shape.reply) for topic, shape in shapes.items()}
        self._any = _decoder(plain.message)

    def message(self, id: int, address: str, topic: str, message: Any, label: tuple[Context, float]) -> bytes:
        """Return the record of a request or an event.

        Args:
            id: Its number; 0 for an event.
            address: Where the reply goes; empty for an event.
            topic: The topic.
            message: The message.
            label: Its label, and the present on the same clock.

        Raises:
            Invalid: It cannot be written, or is larger than ``bytes_max`` (``too_large``).
        """
        ctx, now_s = label
        deadline = ctx.deadline
        left_s = None if deadline.at_s == math.inf else deadline.remaining_s(now_s)
        body = msgspec.Raw(self._body(topic, message))
        rank, request_id = int(ctx.criticality), ctx.request_id
        return self.record(
            Message(id, address, topic, left_s, deadline.operation, rank, ctx.client, request_id, ctx.traceparent, body)
        )

    def reply(self, id: int, topic: str, result: Any) -> bytes:
        """Return the record of a reply.

        Raises:
            Invalid: As for ``message``.
        """
        return self.record(Reply(id, topic, msgspec.Raw(self._body(topic, result))))

    def record(self, note: Note) -> bytes:
        """Return the record of anything.

        Raises:
            Invalid: It is larger than ``bytes_max`` (``too_large``).
        """
        record = _HEADS[type(note)] + self._encoder.encode(note)
        if len(record) > self.bytes_max:
            detail = f"a record of {len(record)} bytes is too large for the bus; it carries {self.bytes_max}"
            raise Invalid(detail, code="too_large")
        return record

    def read(self, record: bytes) -> Note:
        """Return what a record says, its inner message still encoded.

        Raises:
            Unreadable: It is not one of ours, of a newer version, damaged or too large.
        """
        if len(record) > self.bytes_max:
            raise Unreadable(f"a record of {len(record)} bytes", code="too_large")
        if not record.startswith(MAGIC[: len(record)]):
            raise Unreadable("a record of another program", code="foreign")
        if len(record) <= _HEAD:
            raise Unreadable("a record that ends in its head", code="truncated")
        version, kind = record[len(MAGIC)], record[len(MAGIC) + 1]
        if version > VERSION:
            raise Unreadable(f"a record of version {version}, newer than {VERSION}", code="newer_version")
        decoder = self._notes.get(kind)
        if decoder is None:
            raise Unreadable(f"a record of unknown kind {kind}")
        try:
            return decoder.decode(memoryview(record)[_HEAD:])
        except UNREADABLE as error:
            code = "truncated" if "truncated" in str(error) else None
            raise Unreadable(f"a damaged record: {error}", code=code) from None

    def message_of(self, note: Message) -> Any:
        """Return the message inside.

        Raises:
            Unreadable: It is not of the topic's type.
        """
        return _inner(self._messages.get(note.topic, self._any), note)

    def result_of(self, note: Reply) -> Any:
        """Return the reply inside.

        Raises:
            Unreadable: It is not of the topic's type.
        """
        return _inner(self._replies.get(note.topic, self._any), note)

    def _body(self, topic: str, value: Any) -> bytes:
        try:
            return self._encoder.encode(value)
        except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
            raise Invalid(f"a message of {topic} cannot be sent: {error}") from None


def _decoder(type: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(type, dec_hook=unpack)


def _inner(decoder: msgspec.msgpack.Decoder[Any], note: Message | Reply) -> Any:
    try:
        return decoder.decode(note.body)
    except UNREADABLE as error:
        raise Unreadable(f"a message of {note.topic} that is not of its type: {error}") from None
