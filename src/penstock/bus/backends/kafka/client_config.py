"""Options of every Kafka client, its errors and log records, and a check of the connection."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import errors
from aiokafka.conn import collect_hosts, create_conn

from penstock.bus.broker import BROKER_TIMEOUT_S
from penstock.kernel.errors import Invalid, PenstockError, Unavailable
from penstock.kernel.settings import KafkaSettings

NAME: Final = "kafka"
#: How long the client waits for one answer before it looks for another broker.
REQUEST_TIMEOUT_S: Final = BROKER_TIMEOUT_S
#: How long the client waits before it tries again.
BACKOFF_S: Final = 0.1

#: Meaning of the library's errors; the first row that fits counts. ``None`` for the setting: the broker is at fault.
ERROR_TABLE: Final[tuple[tuple[type[BaseException], str | None, str], ...]] = (
    (errors.UnsupportedSaslMechanismError, "kafka.sasl", "the broker does not let clients in by {sasl}"),
    (errors.IllegalSaslStateError, "kafka.sasl", "the broker wants no password here, or another way of giving it"),
    (errors.SaslAuthenticationFailed, "kafka.user", "the broker does not let {user} in: wrong name or password"),
    (ssl.SSLCertVerificationError, "kafka.ca", "the broker's certificate is not one to be believed"),
    (ssl.SSLError, "kafka.tls", "no TLS connection comes about: the broker may not speak TLS there"),
    (errors.TopicAuthorizationFailedError, "kafka.user", "{user} may not use the topics {prefix}*"),
    (errors.GroupAuthorizationFailedError, "kafka.user", "{user} may not use the groups {prefix}*"),
    (errors.ClusterAuthorizationFailedError, "kafka.user", "{user} may not make topics"),
    (errors.PolicyViolationError, "kafka.partitions", "the cluster's policy forbids a topic like ours"),
    (errors.InvalidReplicationFactorError, "kafka.replication", "the cluster cannot keep {replication} copies"),
    (errors.NotEnoughReplicasError, None, "too few copies of a partition are well"),
    (errors.NotEnoughReplicasAfterAppendError, None, "too few copies of a partition are well"),
    (errors.LeaderNotAvailableError, None, "a partition has no leader now"),
    (errors.NotLeaderForPartitionError, None, "a partition has no leader now"),
    (errors.UnknownTopicOrPartitionError, None, "a topic is gone"),
    (errors.KafkaConnectionError, None, "the broker cannot be reached"),
    (errors.NodeNotReadyError, None, "the broker cannot be reached"),
    (errors.KafkaTimeoutError, None, "the broker does not answer"),
    (errors.RequestTimedOutError, None, "the broker does not answer"),
    (TimeoutError, None, "the broker does not answer"),
    (EOFError, None, "the broker hangs up"),
    (OSError, None, "the broker cannot be reached"),
)


#: What Kafka needs in a message beside the record: its key, its headers and its own form.
MESSAGE_OVERHEAD_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class KafkaClientConfig:
    """Settings that every Kafka client shares.

    Attributes:
        kafka: Address and credentials of Kafka, and the layout of new topics.
        prefix: Begins all names there.
        record_bytes: The largest record.
    """

    kafka: KafkaSettings
    prefix: str
    record_bytes: int

    @property
    def message_bytes(self) -> int:
        """The largest message, its frame included."""
        return self.record_bytes + MESSAGE_OVERHEAD_BYTES


def translate_error(error: BaseException, config: KafkaClientConfig) -> PenstockError:
    """Return Penstock's error for an error of the library; no password is shown.

    Returns:
        ``Invalid`` where a setting is at fault (``field`` names it) or a record is too large, else ``Unavailable``.
    """
    if isinstance(error, PenstockError):
        return error
    if isinstance(error, errors.MessageSizeTooLargeError):
        detail = f"a record is larger than {config.record_bytes} bytes (bus.record_max)"
        return Invalid(detail, field="bus.record_max", code="too_large")
    settings = config.kafka
    known = {
        "sasl": settings.sasl,
        "user": settings.user or "anybody",
        "prefix": config.prefix,
        "replication": settings.replication,
    }
    for family, field, text in ERROR_TABLE:
        if isinstance(error, family):
            detail = f"Kafka at {settings.display_address}: {text.format(**known)}"
            return Invalid(detail, field=field) if field else unavailable(detail)
    return unavailable(f"Kafka at {settings.display_address}: {type(error).__name__}")


def unavailable(detail: str) -> Unavailable:
    """Return the error of a broker that is not available."""
    return Unavailable(detail, dependency=NAME)


def client_options(config: KafkaClientConfig, client_id: str) -> dict[str, Any]:
    """Return the options of every client.

    Raises:
        Invalid: The file of certificates cannot be read, or user and password are incomplete.
    """
    settings = config.kafka
    by_name = settings.sasl != "none"
    if by_name and not (settings.user and settings.password):
        raise Invalid(f"{settings.sasl} needs a user and a password", field="kafka.user")
    made: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap,
        "client_id": client_id,
        "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
        "retry_backoff_ms": int(BACKOFF_S * 1000),
        "security_protocol": ("SASL_" if by_name else "") + ("SSL" if settings.tls else "PLAINTEXT"),
    }
    if settings.tls:
        try:
            made["ssl_context"] = ssl.create_default_context(cafile=settings.ca or None)
        except OSError as error:  # an SSLError too
            raise Invalid(f"cannot read certificates from {settings.ca}", field="kafka.ca") from error
    if by_name:
        made["sasl_mechanism"] = settings.sasl
        made["sasl_plain_username"] = settings.user
        made["sasl_plain_password"] = settings.password
    return made


async def check_connection(config: KafkaClientConfig, options: dict[str, Any]) -> None:
    """Connect to one of the brokers and disconnect, to learn why it fails; the library's own start does not say.

    Raises:
        Invalid: The address makes no sense, or a broker does not let us in.
        Unavailable: None can be reached, or answers.
    """
    asked = {name: value for name, value in options.items() if name not in ("bootstrap_servers", "retry_backoff_ms")}
    try:
        hosts = collect_hosts(config.kafka.bootstrap)
    except ValueError as error:
        raise Invalid(f"not a list of host:port: {config.kafka.display_address}", field="kafka.bootstrap") from error
    tries = [asyncio.ensure_future(create_conn(host, port, **asked)) for host, port, _ in hosts]
    failed: list[PenstockError] = []
    try:
        for answer in asyncio.as_completed(tries):
            try:
                await answer
            except Exception as error:  # noqa: BLE001 - whatever it is, the table says what it means
                failed.append(translate_error(error, config))
            else:
                return
    finally:
        for one in tries:
            one.cancel()
        for connection in await asyncio.gather(*tries, return_exceptions=True):
            if not isinstance(connection, BaseException):
                connection.close()
    raise min(failed, key=lambda one: not isinstance(one, Invalid))


#: A record of one kind is written so often at most.
LOG_INTERVAL_S: Final = 10.0


class LogThrottle(logging.Filter):
    """Log filter that passes a record of each kind once per ``LOG_INTERVAL_S``, at level INFO at most.

    Every attempt to reach a dead broker is logged, and so is every broker that does not know a new topic yet. The
    library retries these by itself. What it cannot recover from is raised here, and the bus's breaker reports it.

    Args:
        logger: Decides whether INFO is enabled at all.
        now: A clock in seconds.

    Bounds: One entry for each kind of record, which is a format string in the library's source.
    """

    def __init__(self, logger: logging.Logger, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._logger = logger
        self._now = now
        self._last_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written."""
        if not self._logger.isEnabledFor(logging.INFO):
            return False
        if record.levelno > logging.INFO:
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        now_s, kind = self._now(), str(record.msg)
        if now_s - self._last_s.get(kind, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
            return False
        self._last_s[kind] = now_s
        return True


def throttle_loggers(name: str) -> None:
    """Add the filter to all loaded loggers of a library; calling it again does no harm."""
    ours = logging.getLogger(__name__)
    for logger in [one for one in logging.root.manager.loggerDict if one == name or one.startswith(f"{name}.")]:
        found = logging.getLogger(logger)
        if not any(isinstance(one, LogThrottle) for one in found.filters):
            found.addFilter(LogThrottle(ours))
