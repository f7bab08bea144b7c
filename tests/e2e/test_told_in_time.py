"""A server elsewhere that cannot be used, at a start: exit code 2 and the setting, five seconds after the command.

Whole processes are measured, imports included.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import penstock
from tests.rigs import kafka, redis

TOLD_S = 5.0
SECRET = "not-the-password"
REFUSAL = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"

QDRANT = "store: {backend: qdrant}\nconcurrency: {qdrant: {url: '%s'}}\n"
REDIS = "concurrency: {bus: {backend: redis}, redis: {url: '%s'}}\n"
KAFKA = "concurrency: {bus: {backend: kafka}, kafka: {bootstrap: '%s'}}\n"
KAFKA_TLS = "concurrency: {bus: {backend: kafka}, kafka: {bootstrap: '%s', tls: true}}\n"
KAFKA_SASL = (
    "concurrency: {bus: {backend: kafka},"
    f" kafka: {{bootstrap: '%s', sasl: PLAIN, user: {kafka.USER}, password: {SECRET}}}}}\n"
)
BOTH = (
    "store: {backend: qdrant}\n"
    "concurrency: {bus: {backend: redis}, redis: {url: 'redis://%s'}, qdrant: {url: 'http://%s'}}\n"
)


@contextmanager
def door(answer: str = "") -> Iterator[str]:
    """Yield the address of one that accepts, reads, and answers this to anything, or never."""
    callers: list[socket.socket] = []

    def converse(caller: socket.socket) -> None:
        try:
            while caller.recv(65_536):
                caller.sendall(answer.encode())
        except OSError:
            return

    def accept() -> None:
        while True:
            try:
                caller, _ = listening.accept()
            except OSError:
                return
            callers.append(caller)
            threading.Thread(target=converse, args=(caller,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield "{}:{}".format(*listening.getsockname())
        listening.shutdown(socket.SHUT_RDWR)
    for caller in callers:
        caller.close()


def told(directory: Path, settings: str, *command: str) -> str:
    """Start what cannot start; return what it says, on one line."""
    file = directory / "settings.yaml"
    file.write_text(settings)
    began_s = time.monotonic()
    done = penstock(*command, "--data-dir", directory / "data", "--config", file)
    took_s = time.monotonic() - began_s
    said = " ".join(done.stderr.split())
    assert done.returncode == 2, said
    assert took_s < TOLD_S, said
    assert SECRET not in said
    return said


@pytest.mark.parametrize(
    ("command", "settings", "says"),
    [
        (("serve", "--port", "0"), QDRANT % "http://{}", "QDRANT_URL): http://{} has not answered"),
        (("serve", "--port", "0"), QDRANT % "https://{}", "QDRANT_URL): https://{} has not answered"),
        (("worker", "--pool", "embed"), REDIS % "redis://{}", "REDIS_URL): {}: redis cannot be asked: it does not"),
        (("worker", "--pool", "embed"), REDIS % "rediss://{}", "REDIS_URL): {}: redis cannot be asked: it does not"),
        (
            ("serve", "--port", "0", "--role", "api", "--pool", "search,index"),
            KAFKA % "{}",
            "Kafka at {}: the broker does not answer",
        ),
        (("worker", "--pool", "embed"), KAFKA_TLS % "{}", "Kafka at {}: the broker does not answer"),
        (("worker", "--pool", "embed"), KAFKA_SASL % "{}", "Kafka at {}: the broker does not answer"),
        (("worker", "--pool", "all"), BOTH % ("{}", "{}"), "{}"),
        (("migrate", "code", "--to", "qdrant"), QDRANT % "http://{}", "QDRANT_URL): http://{} has not answered"),
        (("dlq", "list"), REDIS % "redis://{}", "REDIS_URL): {}: redis cannot be asked: it does not"),
    ],
)
def test_one_that_accepts_and_never_answers_is_told_in_time(tmp_path, command, settings, says):
    with door() as address:
        said = told(tmp_path, settings.replace("{}", address), *command)
        assert says.replace("{}", address) in said


@pytest.mark.parametrize(
    ("command", "settings", "says"),
    [
        (("serve", "--port", "0"), QDRANT % "http://{}", "http://{} cannot be used"),
        (("serve", "--port", "0"), QDRANT % "https://{}", "https://{}: the Qdrant server does not answer: [SSL"),
        (("worker", "--pool", "embed"), REDIS % "redis://{}", "REDIS_URL): {}: redis cannot be asked: Protocol Error"),
        (("worker", "--pool", "embed"), REDIS % "rediss://{}", "REDIS_URL): {}: redis cannot be asked"),
        (("worker", "--pool", "embed"), KAFKA % "{}", "Kafka at {}"),
        (("worker", "--pool", "embed"), KAFKA_TLS % "{}", "Kafka at {}: no TLS connection comes about"),
    ],
)
def test_another_program_and_one_without_tls_are_told_in_time(tmp_path, command, settings, says):
    with door(REFUSAL) as address:
        said = told(tmp_path, settings.replace("{}", address), *command)
        assert says.replace("{}", address) in said


def test_a_wrong_password_of_redis_is_told_in_time(tmp_path):
    redis.needed()
    with redis.redis(tmp_path, options=("--requirepass", "right")) as server:
        url = server.url.replace("redis://", f"redis://:{SECRET}@")
        assert "redis does not let us in" in told(tmp_path, REDIS % url, "worker", "--pool", "embed")


def test_a_wrong_password_of_kafka_and_a_door_of_kafkas_that_wants_one_are_told_in_time(tmp_path):
    cluster = kafka.shared()
    said = told(tmp_path, KAFKA_SASL % cluster.sasl, "worker", "--pool", "embed")
    assert f"the broker does not let {kafka.USER} in: wrong name or password" in said
    assert f"Kafka at {cluster.sasl}" in told(tmp_path, KAFKA % cluster.sasl, "worker", "--pool", "embed")
    assert f"Kafka at {cluster.bootstrap}" in told(tmp_path, KAFKA_TLS % cluster.bootstrap, "worker", "--pool", "embed")
