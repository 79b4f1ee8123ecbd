"""Reads the addresses of `--notifications`. It imports neither Beam nor a client."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

FORMS = "projects/PROJECT/subscriptions/SUBSCRIPTION or kafka://HOST:PORT[,HOST:PORT]/TOPIC"

_PUBSUB = re.compile(r"(?:pubsub://)?projects/([^/]+)/subscriptions/([^/]+)")
_PROJECT = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_SUBSCRIPTION = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
_BROKER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True)
class PubSubAddress:
    """A Pub/Sub subscription to a bucket's notifications.

    Attributes:
      project: The project's id.
      subscription: The subscription's id.
    """

    project: str
    subscription: str

    @property
    def path(self) -> str:
        """The name by which Pub/Sub knows it."""
        return f"projects/{self.project}/subscriptions/{self.subscription}"

    @property
    def uri(self) -> str:
        """Where its messages come from, for a record."""
        return f"pubsub://{self.path}"

    @property
    def scheme(self) -> str:
        """What the addresses of its objects begin with."""
        return "gs://"


@dataclass(frozen=True)
class KafkaAddress:
    """A Kafka topic with a bucket's events.

    Attributes:
      brokers: `HOST:PORT` of some brokers, by which the others are found.
      topic: Its name.
      group: The group whose offsets are the start, and are committed; None for none.
    """

    brokers: tuple[str, ...]
    topic: str
    group: str | None = None

    @property
    def uri(self) -> str:
        """Where its messages come from, for a record."""
        return f"kafka://{','.join(self.brokers)}/{self.topic}"

    @property
    def scheme(self) -> str:
        """What the addresses of its objects begin with."""
        return "s3://"


Address = PubSubAddress | KafkaAddress


def parse_address(text: str) -> Address:
    """Returns the address that a text says.

    Raises:
      ValueError: It says none; with what is wrong.
    """
    if text.startswith("kafka://"):
        return _kafka(text.removeprefix("kafka://"))
    match = _PUBSUB.fullmatch(text)
    if match is None:
        raise ValueError(f"not an address like {FORMS}")
    project, subscription = match.groups()
    if not _PROJECT.fullmatch(project):
        raise ValueError(f"{project!r} is not the id of a Google Cloud project")
    if not _SUBSCRIPTION.fullmatch(subscription):
        raise ValueError(f"{subscription!r} is not the id of a subscription")
    return PubSubAddress(project, subscription)


def _kafka(text: str) -> KafkaAddress:
    if "@" in text:  # What is before it may be a password: it is not repeated.
        raise ValueError(
            "an address of Kafka holds no user or password; they belong into the file that the "
            "environment variable KAFKA_CONFIG names"
        )
    topic_path, _, query = text.partition("?")
    brokers, _, topic = topic_path.partition("/")
    for broker in brokers.split(","):
        port = _BROKER.fullmatch(broker)
        if port is None or not 0 < int(port[1]) < 65536:
            raise ValueError(f"{broker!r} is not HOST:PORT")
    if not _TOPIC.fullmatch(topic):
        raise ValueError(f"{unquote(topic)!r} is not the name of a topic")
    settings = parse_qsl(query, keep_blank_values=True)
    if [name for name, _ in settings if name != "group"] or len(settings) > 1:
        raise ValueError("after the topic only ?group=GROUP may follow")
    group = settings[0][1] if settings else None
    if group == "" or (query and group is None):
        raise ValueError("?group= names no group")
    return KafkaAddress(tuple(brokers.split(",")), topic, group)
