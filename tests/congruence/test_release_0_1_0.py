"""What release 0.1.0 wrote is read, and what it reads is written: its records on a broker, its metrics on a dashboard.

Its snapshots and data directories are read in ``tests/e2e/test_restores.py``, from archives that it made.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.app.assembly import MESSAGE_TYPES
from penstock.bus.record_codec import Cancel, HandlerFailure, HandlerReply, Hello, Message, RecordCodec
from penstock.kernel.errors import Expired, Invalid, Rejected, Unavailable
from penstock.kernel.messages import TextKind, Topic
from penstock.search.request import Like, SearchRequest
from penstock.telemetry.catalogue import CATALOGUE, FORMER_NAMES

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDS: dict[str, bytes] = {
    name: base64.b64decode(text)
    for name, text in json.loads((FIXTURES / "release-0.1.0.records.json").read_text()).items()
}


def codec() -> RecordCodec:
    return RecordCodec(MESSAGE_TYPES, 1_000_000)


def read(name: str) -> Any:
    return codec().decode(RECORDS[name])


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_read_and_written_as_it_was(name: str) -> None:
    it, record = codec(), read(name)
    if isinstance(record, Message):
        body = it.decode_body(record)
        again = msgspec.structs.replace(record, body=msgspec.Raw(it._encode_body(record.topic, body)))
    elif isinstance(record, HandlerReply):
        result = it.decode_body(record)
        again = msgspec.structs.replace(record, body=msgspec.Raw(it._encode_body(record.topic, result)))
    elif isinstance(record, HandlerFailure):
        again = HandlerFailure.from_error(record.id, record.topic, record.to_error())
    elif isinstance(record, Hello):
        # A field has come since then, at the end, where that release passes over it.
        *known, takes_requests = msgspec.msgpack.decode(it.encode(record)[6:])
        assert (known, takes_requests) == (msgspec.msgpack.decode(RECORDS[name][6:]), False)
        return
    else:
        again = record
    assert it.encode(again) == RECORDS[name]


def test_fields_that_it_does_not_know_are_written_when_they_are_given() -> None:
    it = codec()
    plain = it.decode_body(read(f"message {Topic.SEARCH_REQUEST}"))
    given = msgspec.structs.replace(
        plain, like=Like("a", 1), group="document", offset=2, cursor="x" * 32, highlights=True, facets=("language",)
    )
    written = it._encode_body(Topic.SEARCH_REQUEST, given)
    assert msgspec.msgpack.decode(written, type=SearchRequest) == given
    assert set(msgspec.msgpack.decode(it._encode_body(Topic.SEARCH_REQUEST, plain))) < set(
        msgspec.msgpack.decode(written)
    )


def test_every_topic_has_a_message_and_every_reply_that_is_not_empty_is_there() -> None:
    assert {f"message {topic}" for topic in MESSAGE_TYPES} <= set(RECORDS)
    assert {f"reply {topic}" for topic, types in MESSAGE_TYPES.items() if types.reply is not None} <= set(RECORDS)


def test_a_request_keeps_its_context() -> None:
    ctx = read(f"message {Topic.ML_EMBED}").context(0.5, 1000.0)
    assert (ctx.deadline.at_s, ctx.deadline.operation) == (1007.0, "search")
    assert (ctx.criticality.name, ctx.client, ctx.request_id, ctx.traceparent[-2:]) == (
        "STANDARD",
        "client",
        "request",
        "01",
    )


def test_a_search_and_a_batch_of_texts_say_what_they_said() -> None:
    it = codec()
    search = it.decode_body(read(f"message {Topic.SEARCH_REQUEST}"))
    assert isinstance(search, SearchRequest)
    assert (search.collection, search.query, search.limit, len(search.filter), search.rerank, search.explain) == (
        "c",
        "how",
        5,
        3,
        False,
        True,
    )
    batch = it.decode_body(read(f"message {Topic.ML_EMBED}"))
    assert (batch.texts, batch.kind, batch.late) == (["a", "b"], TextKind.QUERY, True)
    embedded = it.decode_body(read(f"reply {Topic.ML_EMBED}"))
    assert (embedded.dense.tolist()[0][1], embedded.late[0].tolist()) == (pytest.approx(0.8), [[1, -2], [3, 4]])


def test_errors_keep_their_family_and_what_they_tell() -> None:
    found = {name: read(f"failure {name}").to_error() for name in ("rejected", "unavailable", "invalid", "expired")}
    assert [type(error) for error in found.values()] == [Rejected, Unavailable, Invalid, Expired]
    assert (found["rejected"].code, found["rejected"].retry_after_s) == ("queue_full", 2.5)
    assert (found["unavailable"].dependency, found["invalid"].field) == ("store", "filter")


def test_instances_know_each_other() -> None:
    assert read("hello") == Hello("box", {"ml.embed": 4}, 2, True, False)
    assert read("cancel") == Cancel("box", 7)


def test_every_metric_that_a_dashboard_or_an_alert_of_it_reads_is_still_there() -> None:
    known = {definition.name for definition in CATALOGUE} | set(FORMER_NAMES.values())
    asked = set((FIXTURES / "release-0.1.0.metrics.txt").read_text().split())
    assert len(asked) > 20
    assert {name for name in asked if re.sub(r"_(bucket|sum|count|created)$", "", name) not in known} - known == set()
