from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.bus.broker import Channel, ChannelKind, DeadLetter
from penstock.bus.record_codec import RecordCodec
from penstock.cli import dlq
from penstock.cli.main import penstock
from penstock.kernel.context import Context
from tests.clock import virtual
from tests.fakes.broker import FakeBroker, Server

WORK = Channel("ml.embed", ChannelKind.QUEUE)
RECORD = RecordCodec({}, 1000).encode_message(1, "a", "ml.embed", "m", (Context.background("alice"), 0.0))


async def with_letters(count: int) -> FakeBroker:
    broker = FakeBroker(Server())
    await broker.start()
    reader = await broker.join(WORK)
    for _ in range(count):
        await broker.send(WORK, RECORD, "", 0.0)
    for delivery in await reader.poll(count, 0.0):
        await reader.dead_letter(delivery, "tries")
    return broker


@virtual
async def test_letters_are_acted_on_by_their_ids_and_missing_ones_told():
    broker = await with_letters(3)
    first, second, third = [letter.id for letter in await broker.dead_letters(10)]
    found = await dlq.apply_to_each(broker, [first, "none"], FakeBroker.delete_dead_letter)
    assert found == {"done": [first], "missing": ["none"]}
    found = await dlq.apply_to_each(broker, None, FakeBroker.requeue_dead_letter)
    assert found == {"done": [second, third], "missing": []}
    assert await broker.depth(WORK) == 2


def letter(record: bytes, **changes: object) -> DeadLetter:
    known = {
        "id": "1-0",
        "channel": Channel("ml.embed", ChannelKind.QUEUE),
        "group": "",
        "reason": "tries",
        "attempts": 4,
        "dead_lettered_at_s": 100.0,
    }
    return DeadLetter(**{**known, "size": len(record), "record": record, **changes})


def test_a_letter_tells_whose_it_was_if_it_can_be_read():
    assert dlq.dead_letter_record(letter(RECORD))["client"] == "alice"
    assert dlq.dead_letter_record(letter(b"another program's"))["client"] is None


def test_the_table_shows_a_row_for_each():
    row = dlq.dead_letter_row(letter(RECORD), 160.0)
    assert row[:5] == ["1-0", "ml.embed", "tries", "4", "60 s"]
    assert row[6] == "alice"
    assert dlq.dead_letter_row(letter(b"x", group="hooks", reason="foreign"), 160.0)[1] == "ml.embed (hooks)"


@pytest.mark.parametrize("arguments", [["retry"], ["drop"], ["drop", "1-0", "--all"]])
def test_it_must_be_said_which_letters_are_meant(arguments: list[str]):
    result = CliRunner().invoke(penstock, ["dlq", *arguments])
    assert result.exit_code == 2
    assert "--all" in result.output


def test_one_process_keeps_no_dead_letters(tmp_path: Path):
    result = CliRunner().invoke(penstock, ["dlq", "list", "--data-dir", str(tmp_path)])
    assert "BUS_BACKEND=memory" in str(result.exception)
