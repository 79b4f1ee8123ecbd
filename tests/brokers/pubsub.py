"""A Pub/Sub server on the loopback: Google's own stand-in, by gRPC, written in Go."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import grpc
from google.cloud import pubsub_v1
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from tests.brokers.building import built, need

PROJECT = "test-project"
_SOURCE = Path(__file__).with_name("pubsub_server")


class PubSubServer:
    """The server.

    Attributes:
      address: For the environment variable `PUBSUB_EMULATOR_HOST`.
    """

    def __init__(self) -> None:
        need("go", what="Pub/Sub server")
        program = built(
            "pubsub_server",
            [_SOURCE / name for name in ("main.go", "go.mod", "go.sum")],
            # Without C, as Prism and Beam's boot program: what they share is compiled once.
            ["env", "CGO_ENABLED=0", "go", "build", "-o", "built/pubsub_server", "."],
        )
        self._process = subprocess.Popen(
            [program / "pubsub_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().decode().strip()
        channel = grpc.insecure_channel(self.address)
        self._publisher = pubsub_v1.PublisherClient(
            transport=PublisherGrpcTransport(channel=channel)
        )
        self._subscriber = pubsub_v1.SubscriberClient(
            transport=SubscriberGrpcTransport(channel=channel)
        )

    def create(self, name: str, **settings: object) -> str:
        """Makes a topic with a subscription of the same name; the subscription's path."""
        topic, subscription = self._topic(name), f"projects/{PROJECT}/subscriptions/{name}"
        self._publisher.create_topic(name=topic)
        self._subscriber.create_subscription(
            request={"name": subscription, "topic": topic, "ack_deadline_seconds": 10, **settings}
        )
        return subscription

    def delete_topic(self, name: str) -> None:
        self._publisher.delete_topic(topic=self._topic(name))

    def send(self, name: str, data: bytes, attributes: Mapping[str, str]) -> None:
        """Publishes a message to a topic; returns when the server has it."""
        self._publisher.publish(self._topic(name), data, **attributes).result(timeout=30)

    def pull(self, name: str) -> list[bytes]:
        """Messages that wait now; they are not acknowledged."""
        found = self._subscriber.pull(
            subscription=f"projects/{PROJECT}/subscriptions/{name}",
            max_messages=100,
            return_immediately=True,
            timeout=10,
        )
        return [received.message.data for received in found.received_messages]

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)

    def _topic(self, name: str) -> str:
        return f"projects/{PROJECT}/topics/{name}"
