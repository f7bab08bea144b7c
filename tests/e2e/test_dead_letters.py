"""Dead letters at a real Redis, by way of the command line."""

import asyncio
import json
import uuid
from pathlib import Path

from click.testing import CliRunner

from penstock.bus.backends.redis.broker import RedisBroker
from penstock.bus.broker import Channel, ChannelKind
from penstock.bus.record_codec import RecordCodec
from penstock.cli.main import penstock
from penstock.kernel.context import Context
from penstock.kernel.settings import BusSettings, RedisSettings
from tests.rigs import redis

WORK = Channel("ml.embed", ChannelKind.QUEUE)
RECORD = RecordCodec({}, 1000).encode_message(1, "a", "ml.embed", "m", (Context.background("alice"), 0.0))


def test_letters_at_a_real_redis_are_listed_retried_and_dropped(tmp_path: Path):
    url, prefix = redis.shared().url, f"test-{uuid.uuid4().hex[:8]}"
    environment = {"BUS_BACKEND": "redis", "REDIS_URL": url, "BUS_PREFIX": prefix}

    async def bury() -> None:
        broker = RedisBroker(BusSettings(prefix=prefix), RedisSettings(url=url), {})
        await broker.start()
        reader = await broker.join(WORK)
        for _ in range(2):
            await broker.send(WORK, RECORD, "", 1.0)
            (delivery,) = await reader.poll(1, 2.0)
            await reader.dead_letter(delivery, "tries")
        await broker.close()

    def ran(*arguments: str) -> dict[str, list]:
        result = CliRunner().invoke(
            penstock, ["dlq", *arguments, "--json", "--data-dir", str(tmp_path)], env=environment
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return json.loads(result.stdout)

    asyncio.run(bury())
    first, second = ran("list")["letters"]
    assert (first["topic"], first["reason"], first["client"]) == ("ml.embed", "tries", "alice")
    assert ran("retry", first["id"]) == {"retried": [first["id"]], "missing": []}
    assert ran("drop", first["id"], second["id"]) == {"dropped": [second["id"]], "missing": [first["id"]]}
    assert ran("list") == {"letters": []}
