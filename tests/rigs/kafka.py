"""Real Kafka brokers on free loopback ports, in KRaft mode, each in a process of its own.

The jars come from Maven once and are kept in the user's cache. One broker serves after about three seconds, three of
them on two cores after eight; an archive of their classes would save one second of each.
"""

import asyncio
import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.rigs.hosting import free_ports, of_this_process, skip_without

HERE = Path(__file__).parent / "kafka_broker"
FETCH_S = 240
START_S = 60
#: Any 16 bytes in base64.
CLUSTER_ID = "cGVuc3RvY2sta2Fma2EtMQ"
JAVA = ("java", "-Xms64m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dlog4j2.disableJmx=true")
USER, PASSWORD = "penstock", "it is a secret"
STORE_PASSWORD = "changeit"

#: A broker for tests: few partitions and threads, no waiting for others, and a dead one is noticed within seconds.
PROPERTIES = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "background.threads": "2",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "2000",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1000",
    "replica.fetch.wait.max.ms": "100",
    "replica.lag.time.max.ms": "3000",
    "log.cleaner.enable": "false",
    "log.segment.delete.delay.ms": "1000",
}


class Missing(Exception):
    """There is no Kafka on this machine; the text says what lacks."""


@dataclass
class Broker:
    """One broker, which may be down."""

    number: int
    port: int
    controller_port: int
    directory: Path
    secure_ports: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it has written so far."""
        return (self.directory / "log").read_text(errors="replace")

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to hand its leaderships over and to end; one that hangs is killed."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Let it accept connections and answer nothing."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@dataclass
class Cluster:
    """Brokers that know each other."""

    directory: Path
    brokers: list[Broker]
    properties: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    within: tuple[str, ...] = ()

    @property
    def bootstrap(self) -> str:
        """Their addresses, as clients want them."""
        return ",".join(f"{self.host}:{broker.port}" for broker in self.brokers)

    @property
    def sasl(self) -> str:
        """Where USER with PASSWORD is let in, in the clear."""
        return f"127.0.0.1:{self.brokers[0].secure_ports[0]}"

    @property
    def sasl_tls(self) -> str:
        """The same with TLS; ``certificate`` is what to believe."""
        return f"127.0.0.1:{self.brokers[0].secure_ports[1]}"

    @property
    def certificate(self) -> Path:
        """The brokers' certificate, signed by itself."""
        return self.directory / "certificate.pem"

    def await_start(self, *numbers: int) -> None:
        """Wait until each serves."""
        for broker in self._chosen(numbers):
            _await_start(broker)

    def launch(self, *numbers: int) -> None:
        """Start brokers, all of them by default, and wait for nothing. They end with the thread that calls this."""
        for broker in self._chosen(numbers):
            with (broker.directory / "log").open("wb") as log:
                java = _java("kafka.Kafka", str(broker.directory / "server.properties"))
                command = [*_with_the_parent(), *self.within, *java]
                broker.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def _chosen(self, numbers: tuple[int, ...]) -> list[Broker]:
        return [broker for broker in self.brokers if not numbers or broker.number in numbers]

    def stop(self) -> None:
        """End all brokers at once."""
        for broker in self.brokers:
            broker.kill()


@functools.cache
def missing() -> str | None:
    """Return why there can be no broker here; ``None`` where there can."""
    try:
        _jars()
    except Missing as why:
        return str(why)
    return None


def needed() -> None:
    """Skip the test where there can be no broker."""
    skip_without(missing())


@functools.cache
def shared() -> Cluster:
    """Return this process's one broker, which starts at the first use and ends with the process.

    Tests that share it use names of their own. Where there can be no broker, the test is skipped.
    """
    needed()
    return of_this_process("kafka", lambda directory: kafka(directory / "kafka", secured=True))


@contextlib.contextmanager
def kafka(
    directory: Path,
    brokers: int = 1,
    *,
    secured: bool = False,
    properties: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    within: tuple[str, ...] = (),
) -> Iterator[Cluster]:
    """Run a cluster.

    Args:
        directory: Where it keeps its data and logs; new.
        brokers: How many; with three, one may be lost.
        secured: Whether it listens with SASL and TLS as well.
        properties: Settings that differ from ``PROPERTIES``.
        host: The address they listen on.
        within: What comes before their commands, where they are to run on a host of their own.

    Raises:
        Missing: There is no Java, no Maven, or the jars cannot be had.
    """
    _jars()
    ports = iter(free_ports(4 * brokers))
    made = [
        Broker(number, next(ports), next(ports), directory / str(number), (next(ports), next(ports)) * secured)
        for number in range(1, brokers + 1)
    ]
    cluster = Cluster(directory, made, properties or {}, host, within)
    directory.mkdir(parents=True, exist_ok=True)
    if secured:
        _make_certificate(cluster)
    formats = [_format(cluster, broker) for broker in made]
    for process in formats:
        if process.wait(START_S):
            raise RuntimeError(f"the storage could not be formatted, see {directory}")
    try:
        cluster.launch()
        cluster.await_start()
        yield cluster
    finally:
        cluster.stop()


def _format(cluster: Cluster, broker: Broker) -> subprocess.Popen[bytes]:
    broker.directory.mkdir()
    file = broker.directory / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in _properties(cluster, broker).items()))
    command = _java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(file))
    if broker.secure_ports:
        command += [
            argument
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for argument in ("--add-scram", f'{mechanism}=[name="{USER}",password="{PASSWORD}"]')
        ]
    with (broker.directory / "format").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def _properties(cluster: Cluster, broker: Broker) -> dict[str, str]:
    count = len(cluster.brokers)
    listeners = {"PLAINTEXT": broker.port, "CONTROLLER": broker.controller_port}
    listeners |= dict(zip(("SASL", "TLS"), broker.secure_ports, strict=False))
    addresses = [f"{name}://{cluster.host}:{port}" for name, port in listeners.items()]
    return {
        **PROPERTIES,
        "node.id": str(broker.number),
        "log.dirs": str(broker.directory / "data"),
        "controller.quorum.voters": ",".join(
            f"{one.number}@{cluster.host}:{one.controller_port}" for one in cluster.brokers
        ),
        "listeners": ",".join(addresses),
        "advertised.listeners": ",".join(one for one in addresses if not one.startswith("CONTROLLER")),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SASL_SSL",
        "offsets.topic.replication.factor": str(min(3, count)),
        "default.replication.factor": str(min(3, count)),
        "min.insync.replicas": str(min(2, count)),
        **(_secured(cluster) if broker.secure_ports else {}),
        **cluster.properties,
    }


def _secured(cluster: Cluster) -> dict[str, str]:
    module = "org.apache.kafka.common.security"
    made = {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "ssl.keystore.location": str(cluster.directory / "keys.p12"),
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.password": STORE_PASSWORD,
    }
    for listener in ("sasl", "tls"):
        name = f"listener.name.{listener}"
        made[f"{name}.plain.sasl.jaas.config"] = f'{module}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            made[f"{name}.{mechanism}.sasl.jaas.config"] = f"{module}.scram.ScramLoginModule required;"
    return made


def _make_certificate(cluster: Cluster) -> None:
    store = ["-keystore", str(cluster.directory / "keys.p12"), "-storepass", STORE_PASSWORD, "-alias", "broker"]
    names = ["-dname", "CN=localhost", "-ext", "san=ip:127.0.0.1,dns:localhost"]
    subprocess.run(
        ["keytool", "-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "30", *names, *store],
        check=True,
        capture_output=True,
    )
    subprocess.run(
        ["keytool", "-exportcert", "-rfc", "-file", str(cluster.certificate), *store], check=True, capture_output=True
    )


def _await_start(broker: Broker) -> None:
    end_s = time.monotonic() + START_S
    while "Kafka Server started" not in broker.log:
        if broker.process is None or broker.process.poll() is not None or time.monotonic() > end_s:
            raise RuntimeError(f"broker {broker.number} did not start:\n{broker.log[-4000:]}")
        time.sleep(0.05)


def _with_the_parent() -> list[str]:
    """Return what makes a process end with this one, however that ends."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


def _java(*command: str) -> list[str]:
    return [*JAVA, f"-Dlog4j2.configurationFile={HERE / 'log4j2.yaml'}", "-cp", f"{_jars()}/*", *command]


@functools.cache
def _jars() -> Path:
    """Return the folder of the jars, fetched if they are not there.

    Raises:
        Missing: They cannot be had.
    """
    lacks = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if lacks:
        raise Missing(f"no Kafka: needs {' and '.join(lacks)}")
    pom = (HERE / "pom.xml").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "penstock-tests" / f"kafka-{hashlib.sha256(pom).hexdigest()[:12]}"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:  # test processes side by side want them at the same moment
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "jars").is_dir():
            _fetch(home)
    return home / "jars"


def _fetch(home: Path) -> None:
    partly = home / "partly"
    shutil.rmtree(partly, ignore_errors=True)
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={partly}"]
    try:
        fetched = subprocess.run(
            [*command, "-f", str(HERE / "pom.xml")], capture_output=True, text=True, timeout=FETCH_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Missing(f"no Kafka: Maven took more than {FETCH_S} s") from error
    if fetched.returncode:
        raise Missing("no Kafka: Maven could not fetch its jars")
    partly.rename(home / "jars")


async def crash(broker: Any) -> None:
    """End one instance of ours as if its process had been killed: it says no word, to its group least of all."""
    tasks = [reader._fetch_task for reader in broker._readers] + [
        crew._commit_task for crew in [broker._workers] if crew
    ]
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    broker._workers, broker._readers, broker._consumers = None, [], {}
    await broker._cluster.abort()
    await broker.close()
