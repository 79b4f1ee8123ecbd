"""A bucket that is kept like the fed folder, and a broker with its notifications; both can fail.

An S3 server (moto) behind a proxy that can answer 503 to the job, and a real Kafka.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from confluent_kafka import Producer

from tests.brokers.kafka import KafkaBroker
from tests.stores.bucket import Bucket, s3_client
from tests.stores.servers import Proxy, moto

TOPIC, PARTITIONS = "images", 3


class NotifyingBucket:
    """The bucket and its messages.

    Args:
      bucket: The bucket, at the store itself.
      proxy: Through which the job reaches it.
      broker: Tells of it.
    """

    def __init__(self, bucket: Bucket, proxy: Proxy, broker: KafkaBroker) -> None:
        self._bucket, self._proxy, self._broker = bucket, proxy, broker
        self._client = s3_client(bucket.server)
        self._producer = Producer(
            {
                "bootstrap.servers": broker.address,
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # However long the broker is dead.
                "log_level": 0,
            }
        )

    @property
    def address(self) -> str:
        """Of the folder in it."""
        return self._bucket.uri("in")

    @property
    def options(self) -> tuple[str, ...]:
        """Of the job."""
        kafka_uri = f"kafka://{self._broker.address}/{TOPIC}?group=soak"
        return *self._proxy.server.options, "--notifications", kafka_uri

    def publish(self, what: str, path: str, data: bytes) -> None:
        """Does in the bucket what was done to a file, and publishes a notification."""
        key = f"in/{path}"
        if what == "delete":
            self._client.delete_object(Bucket=self._bucket.name, Key=key)
            self._notify("ObjectRemoved:Delete", key)
            return
        if what != "touch":  # Which becomes a message that comes once more.
            self._client.put_object(Bucket=self._bucket.name, Key=key, Body=data)
        self._notify("ObjectCreated:Put", key)

    def _notify(self, event: str, key: str) -> None:
        thing = {"bucket": {"name": self._bucket.name}, "object": {"key": quote_plus(key, "/")}}
        message: Mapping[str, Any] = {
            "Records": [{"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": event}]
        }
        message["Records"][0]["s3"] = thing
        self._producer.produce(TOPIC, json.dumps(message).encode(), key=key.encode())
        self._producer.poll(0)

    def flush(self) -> None:
        """Waits until the broker has all messages."""
        assert self._producer.flush(120) == 0, "Kafka does not take the messages"

    # ------------------------------------------------------------------ acts

    def kill_broker(self, chance: random.Random) -> None:
        """The broker dies, and comes back with what it had."""
        self._broker.kill()
        time.sleep(chance.uniform(3, 15))
        self._broker.start()

    def refuse(self, chance: random.Random) -> None:
        """The store answers 503 to the job."""
        self._proxy.decide = lambda method, path: 503
        try:
            time.sleep(chance.uniform(8, 20))
        finally:
            self._proxy.decide = lambda method, path: None


@contextlib.contextmanager
def notifying_bucket(folder: Path) -> Iterator[NotifyingBucket]:
    """Starts store and broker.

    Args:
      folder: Where the broker keeps what it has.
    """
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(moto())
        os.environ.update(server.environment)  # The workers inherit it.
        proxy = stack.enter_context(Proxy(server))
        folder.mkdir(parents=True, exist_ok=True)
        broker = KafkaBroker(folder)
        stack.callback(broker.stop)
        broker.create_topic(TOPIC, PARTITIONS)
        yield NotifyingBucket(Bucket.make(server, "soak"), proxy, broker)
