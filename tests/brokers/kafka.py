"""A real Kafka broker on the loopback: one process, with a listener for each way to log in."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from tests.brokers.building import built, need

POM = Path(__file__).with_name("kafka-pom.xml")
USER, PASSWORD = "cameras", "only-for-tests"


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


class KafkaBroker:
    """The broker.

    Attributes:
      address: Where everybody may do everything.
      sasl_address: Where :data:`USER` may do what access control lists allow.
    """

    def __init__(self, folder: Path) -> None:
        need("java", "mvn", what="Kafka")
        jars = built("kafka", [POM], ["mvn", "-B", "-q", "-f", POM.name, *_COPY])
        open_port, sasl_port, controller_port = _free_ports(3)
        self.address = f"127.0.0.1:{open_port}"
        self.sasl_address = f"127.0.0.1:{sasl_port}"
        listeners = f"OPEN://{self.address},SASL://{self.sasl_address}"
        properties = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": listeners,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "OPEN",
            "listener.security.protocol.map": (
                "CONTROLLER:PLAINTEXT,OPEN:PLAINTEXT,SASL:SASL_PLAINTEXT"
            ),
            "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": (
                "org.apache.kafka.common.security.plain.PlainLoginModule required "
                f'user_{USER}="{PASSWORD}";'
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "log.dirs": folder / "data",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 1,
            "group.initial.rebalance.delay.ms": 0,
            "auto.create.topics.enable": "true",
        }
        config = folder / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        java = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*"]
        identity = ["-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(config)]
        subprocess.run(
            [*java, "kafka.tools.StorageTool", "format", *identity], check=True, capture_output=True
        )
        self._log = folder / "broker.log"
        self._command = [*java, "kafka.Kafka", str(config)]
        self._admin = AdminClient(self._client_settings())
        self.start()

    def start(self) -> None:
        """Starts it, also again after it was killed: what it had, it has."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                self._admin.list_topics(timeout=2)
                break
            except KafkaException:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, "Kafka does not answer within 60 s"

    def _client_settings(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.address, "log_level": 0}

    def create_topic(self, name: str, partitions: int = 1) -> None:
        _wait(self._admin.create_topics([NewTopic(name, partitions, 1)]))

    def add_partitions(self, name: str, partitions: int) -> None:
        from confluent_kafka.admin import NewPartitions

        _wait(self._admin.create_partitions([NewPartitions(name, partitions)]))

    def delete_records(self, name: str, before: int) -> None:
        """Forgets what came before an offset of the first partition, as retention does."""
        from confluent_kafka import TopicPartition

        _wait(self._admin.delete_records([TopicPartition(name, 0, before)]))

    def allow(self, kind: str, name: str, *operations: str) -> None:
        """Lets :data:`USER` do something with a topic or group."""
        rules = [
            AclBinding(
                ResourceType[kind],
                name,
                ResourcePatternType.LITERAL,
                f"User:{USER}",
                "*",
                AclOperation[operation],
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]
        _wait(self._admin.create_acls(rules))

    def send(
        self,
        topic: str,
        messages: Iterable[bytes | None],
        partition: int = 0,
        *,
        times: Iterable[float] = (),
    ) -> None:
        """Writes messages; returns when the broker has them.

        Args:
          topic: Where to.
          messages: What.
          partition: Of the topic.
          times: When the messages say that they were published, in Unix seconds; else now.
        """
        producer = Producer(self._client_settings())
        for message, at in itertools.zip_longest(messages, times, fillvalue=None):
            when = {} if at is None else {"timestamp": int(at * 1000)}
            producer.produce(topic, value=message, partition=partition, **when)
        assert producer.flush(30) == 0

    @contextlib.contextmanager
    def open_transaction(self, topic: str, messages: Iterable[bytes]) -> Iterator[None]:
        """Writes messages to the first partition, in a transaction that the block's end commits."""
        producer = Producer(self._client_settings() | {"transactional.id": topic})
        producer.init_transactions(30)
        producer.begin_transaction()
        for message in messages:
            producer.produce(topic, value=message, partition=0)
        assert producer.flush(30) == 0
        yield
        producer.commit_transaction(30)

    def committed(self, topic: str, group: str, partition: int = 0) -> int:
        """The offset that a group has committed; negative where it has none."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({**self._client_settings(), "group.id": group})
        (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=10)
        consumer.close()
        return int(found.offset)

    def kill(self) -> None:
        """Ends it as a machine that dies does."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_COPY = ["dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=built"]


def _wait(futures: dict[Any, Any]) -> None:
    for future in futures.values():
        future.result(timeout=30)
