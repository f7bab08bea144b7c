"""Record codec: a compact, versioned binary form of messages, replies, errors and control messages.

A record is ``MAGIC``, one byte of version, one byte of kind, and a MessagePack body. So a record of another program, or
of a newer version of this one, is distinguished from a damaged one before anything else is read. Bodies are arrays of
fields, in order: fields that a later version adds at the end are ignored by an earlier one.

Deadlines travel as the time that is left, for clocks differ between machines. Arrays travel as their bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from penstock.kernel import errors
from penstock.kernel.arrays import decode_array, encode_array
from penstock.kernel.context import Context, Criticality, Deadline
from penstock.kernel.errors import DECODE_ERRORS, Invalid, PenstockError

#: Begins every record of ours.
MAGIC: Final = b"PSTK"
VERSION: Final = 1
_HEADER_BYTES: Final = len(MAGIC) + 2


class UnreadableRecord(Invalid):
    """A record that is not one of ours, or not one that we understand.

    ``code`` says why: ``foreign``, ``newer_version``, ``truncated``, ``too_large``, ``unreadable``.
    """

    code = "unreadable"


class Message(msgspec.Struct, array_like=True, frozen=True):
    """A request or an event, with its context.

    Attributes:
        id: The request's number, unique in its instance; 0 for an event.
        address: The mailbox that waits for the reply; empty for an event.
        topic: The topic.
        remaining_s: Time left until the deadline when it was sent; ``None`` for no deadline.
        operation: The operation that set the deadline.
        criticality: See :class:`penstock.kernel.context.Context`, as the next three.
        client: Client.
        request_id: Request id.
        traceparent: Trace context.
        body: The message itself, not yet decoded.
    """

    id: int
    address: str
    topic: str
    remaining_s: float | None
    operation: str
    criticality: int
    client: str
    request_id: str
    traceparent: str
    body: msgspec.Raw

    def context(self, age_s: float, now_s: float) -> Context:
        """Return the context on our clock, for a message that was ``age_s`` on its way."""
        deadline = Deadline.never()
        if self.remaining_s is not None:
            deadline = Deadline(now_s + self.remaining_s - age_s, self.operation)
        rank = Criticality(min(max(self.criticality, Criticality.INTERACTIVE), Criticality.BULK))
        return Context(deadline, rank, self.client, self.request_id, self.traceparent)


class HandlerReply(msgspec.Struct, array_like=True, frozen=True):
    """Reply: the value that a handler returned."""

    id: int
    topic: str
    body: msgspec.Raw


class HandlerFailure(msgspec.Struct, array_like=True, frozen=True):
    """Error reply: the ``PenstockError`` that a handler raised.

    Attributes:
        id: The request's number.
        topic: The request's topic.
        family: A name in :data:`penstock.kernel.errors.FAMILIES`.
        code: The error's code.
        detail: Its sentence.
        facts: Those of :data:`penstock.kernel.errors.TRANSFERRED_ATTRIBUTES` that it has.
    """

    id: int
    topic: str
    family: str
    code: str
    detail: str
    facts: dict[str, str | float | bool]

    @classmethod
    def from_error(cls, id: int, topic: str, error: PenstockError) -> HandlerFailure:
        """Return an error in the form that travels."""
        return cls(id, topic, *errors.to_record(error))

    def to_error(self) -> PenstockError:
        """Return the error: the same family, code, detail and retry time."""
        return errors.from_record(errors.ErrorRecord(self.family, self.code, self.detail, self.facts))


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """Announcement of an instance and the channels that it serves.

    Attributes:
        address: Its mailbox.
        concurrency_by_channel: How many messages of each channel it takes at once.
        prefetch: How many more it takes of each, so that none of its handlers waits for the network.
        wants_reply: Whether the others are asked to announce themselves in return.
        leaving: Whether it takes nothing any more.
        takes_requests: Whether it takes requests from its mailbox too.
    """

    address: str
    concurrency_by_channel: dict[str, int]
    prefetch: int
    wants_reply: bool = False
    leaving: bool = False
    takes_requests: bool = False


class Cancel(msgspec.Struct, array_like=True, frozen=True):
    """Cancellation: the requester of this mailbox does not want the reply to its request of this number any more."""

    address: str
    id: int


ControlMessage = Message | HandlerReply | HandlerFailure | Hello | Cancel

_TYPES: Final[dict[int, type[ControlMessage]]] = {
    ord("M"): Message,
    ord("R"): HandlerReply,
    ord("F"): HandlerFailure,
    ord("H"): Hello,
    ord("C"): Cancel,
}
_HEADERS: Final = {kind: MAGIC + bytes((VERSION, letter)) for letter, kind in _TYPES.items()}


@dataclass(frozen=True, slots=True)
class MessageTypes:
    """Types of a topic's messages and replies."""

    message: Any = Any
    reply: Any = Any


class RecordCodec:
    """Turns messages into records and back.

    Args:
        types: The types of each topic; topics that are not named carry what MessagePack can say by itself.
        bytes_max: The largest record; larger ones are neither written nor read.
    """

    def __init__(self, types: Mapping[str, MessageTypes], bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._encoder = msgspec.msgpack.Encoder(enc_hook=encode_array)
        self._decoders = {letter: msgspec.msgpack.Decoder(kind) for letter, kind in _TYPES.items()}
        self._messages = {topic: _decoder(shape.message) for topic, shape in types.items()}
        self._replies = {topic: _decoder(shape.reply) for topic, shape in types.items()}
        self._any = _decoder(Any)

    def encode_message(
        self, id: int, address: str, topic: str, message: Any, ctx_and_now: tuple[Context, float]
    ) -> bytes:
        """Return the record of a request or an event.

        Args:
            id: Its number; 0 for an event.
            address: The mailbox for the reply; empty for an event.
            topic: The topic.
            message: The message.
            ctx_and_now: Its context, and the present on the same clock.

        Raises:
            Invalid: It cannot be written, or is larger than ``bytes_max`` (``too_large``).
        """
        ctx, now_s = ctx_and_now
        deadline = ctx.deadline
        left_s = None if deadline.at_s == math.inf else deadline.remaining_s(now_s)
        body = msgspec.Raw(self._encode_body(topic, message))
        rank, request_id = int(ctx.criticality), ctx.request_id
        return self.encode(
            Message(id, address, topic, left_s, deadline.operation, rank, ctx.client, request_id, ctx.traceparent, body)
        )

    def encode_reply(self, id: int, topic: str, result: Any) -> bytes:
        """Return the record of a reply.

        Raises:
            Invalid: As for :meth:`encode_message`.
        """
        return self.encode(HandlerReply(id, topic, msgspec.Raw(self._encode_body(topic, result))))

    def encode(self, message: ControlMessage) -> bytes:
        """Return the record of a message of any type.

        Raises:
            Invalid: It is larger than ``bytes_max`` (``too_large``).
        """
        record = _HEADERS[type(message)] + self._encoder.encode(message)
        if len(record) > self.bytes_max:
            detail = f"a record of {len(record)} bytes is too large for the bus; it carries {self.bytes_max}"
            raise Invalid(detail, code="too_large")
        return record

    def decode(self, record: bytes) -> ControlMessage:
        """Return a record's message, with its body still encoded.

        Raises:
            UnreadableRecord: It is not one of ours, of a newer version, damaged or too large.
        """
        if len(record) > self.bytes_max:
            raise UnreadableRecord(f"a record of {len(record)} bytes", code="too_large")
        if not record.startswith(MAGIC[: len(record)]):
            raise UnreadableRecord("a record of another program", code="foreign")
        if len(record) <= _HEADER_BYTES:
            raise UnreadableRecord("a record that ends in its head", code="truncated")
        version, kind = record[len(MAGIC)], record[len(MAGIC) + 1]
        if version > VERSION:
            raise UnreadableRecord(f"a record of version {version}, newer than {VERSION}", code="newer_version")
        decoder = self._decoders.get(kind)
        if decoder is None:
            raise UnreadableRecord(f"a record of unknown kind {kind}")
        try:
            return decoder.decode(memoryview(record)[_HEADER_BYTES:])
        except DECODE_ERRORS as error:
            code = "truncated" if "truncated" in str(error) else None
            raise UnreadableRecord(f"a damaged record: {error}", code=code) from None

    def decode_body(self, note: Message | HandlerReply) -> Any:
        """Return the message or the reply inside.

        Raises:
            UnreadableRecord: It is not of the topic's type.
        """
        decoder = (self._messages if isinstance(note, Message) else self._replies).get(note.topic, self._any)
        try:
            return decoder.decode(note.body)
        except DECODE_ERRORS as error:
            raise UnreadableRecord(f"a message of {note.topic} that is not of its type: {error}") from None

    def _encode_body(self, topic: str, value: Any) -> bytes:
        try:
            return self._encoder.encode(value)
        except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
            raise Invalid(f"a message of {topic} cannot be sent: {error}") from None


def _decoder(type: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(type, dec_hook=decode_array)
