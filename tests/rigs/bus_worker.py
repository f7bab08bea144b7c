"""A worker in a process of its own, over Kafka: answers each request of ``ml.embed`` with itself, until it is killed.

python -m tests.rigs.bus_worker BOOTSTRAP PREFIX SESSION_S
"""

import asyncio
import sys
from typing import Any

from penstock.bus.backends.kafka.broker import KafkaBroker
from penstock.bus.broker_breaker import BrokerBreaker
from penstock.bus.distributed import BrokerBus
from penstock.bus.record_codec import RecordCodec
from penstock.bus.rpc_client import BrokerTransport
from penstock.kernel.context import Context, MonotonicClock
from penstock.kernel.messages import Topic
from penstock.kernel.settings import BusSettings, GuardSettings, KafkaSettings
from penstock.pools.permits import Permits


async def bus_over_kafka(bootstrap: str, prefix: str, session_s: float) -> BrokerBus:
    """Return a bus of this process, which is to be closed."""
    settings = BusSettings(prefix=prefix)
    kafka = KafkaSettings(bootstrap=bootstrap, partitions=4, mailboxes=2, session_timeout=session_s)
    broker = KafkaBroker(settings, kafka, {})
    await broker.start()
    transport = BrokerTransport(broker, RecordCodec({}, 50_000), BrokerBreaker(broker.name, GuardSettings()))
    return BrokerBus(transport, settings, {}, MonotonicClock())


async def main(bootstrap: str, prefix: str, session_s: str) -> None:
    async def work(message: Any, _ctx: Context) -> Any:
        await asyncio.sleep(0.05)
        return message

    bus = await bus_over_kafka(bootstrap, prefix, float(session_s))
    bus.subscribe(Topic.ML_EMBED, work, Permits("embed", 8))
    await bus.wait_joined()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
