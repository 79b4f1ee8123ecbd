"""A Kafka broker and its clock, with all that may go wrong, and a consumer of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    KafkaException,
    TopicPartition,
)

TOPIC = "events"


@dataclass(frozen=True)
class Published:
    """A message as the broker has it.

    Attributes:
      key: Names it, and its object.
      time: Unix time at which it was published, by the clock of who published it.
    """

    key: str
    time: float

    @property
    def value(self) -> bytes:
        thing = {"key": self.key, "size": 1}
        record = {
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "b"}, "object": thing},
        }
        return json.dumps({"Records": [record]}).encode()


@dataclass
class Log:
    """A partition: an offset has a message, or None for a marker of a transaction."""

    first: int = 0
    entries: list[Published | None] = field(default_factory=list)

    @property
    def end(self) -> int:
        return len(self.entries)


class SimulatedBroker:
    """The broker.

    Attributes:
      now: Unix time.
      logs: The partitions.
      rate: Messages a second that are published while time passes, in all.
      skew: How far ahead the clock of the next publisher is.
      has_times: Whether messages have a time.
      failing: What fails: `list`, `ends`, `ends 1` for one partition, `committed`, `answer` for a
        query that runs into its timeout, `fetch` for an error in place of the next message.
      stalls: How many fetches bring nothing.
      committed: The offset of the group, by partition.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self.logs = {0: Log()}
        self.rate = 0.0
        self.skew = 0.0
        self.has_times = True
        self.failing: set[str] = set()
        self.stalls = 0
        self.committed: dict[int, int] = {}
        self._published = 0
        self._due = 0.0

    def connect(self, settings: Mapping[str, Any], logger: Any) -> SimulatedConsumer:
        assert settings["enable.auto.commit"] is False
        return SimulatedConsumer(self)

    def publish(self, partition: int) -> None:
        self._published += 1
        log = self.logs[partition]
        log.entries.append(Published(f"{partition}/{self._published}.jpg", self.now + self.skew))

    def pass_time(self, seconds: float) -> None:
        """Time passes, in which messages are published at the rate, to all partitions in turn."""
        began, self._due = self.now, self._due + seconds * self.rate
        number = int(self._due)
        self._due -= number
        for index in range(number):
            self.now = began + seconds * (index + 1) / number
            self.publish(sorted(self.logs)[self._published % len(self.logs)])
        self.now = began + seconds

    def messages(self) -> dict[str, float]:
        """The time of each message that is there."""
        return {
            entry.key: entry.time
            for log in self.logs.values()
            for entry in log.entries[log.first :]
            if entry is not None
        }

    def refuse(self, *what: str, error: int) -> None:
        if self.failing & set(what):
            raise KafkaException(KafkaError(error))


class SimulatedConsumer:
    """What librdkafka's consumer does, as far as the source uses it. Each call takes time."""

    def __init__(self, broker: SimulatedBroker) -> None:
        self._broker = broker
        self._partition = 0
        self._next: int | None = None
        self._says_end = False

    def list_topics(self, topic: str, timeout: float) -> Any:
        self._broker.pass_time(0.03)
        self._broker.refuse("list", error=KafkaError._TRANSPORT)
        return SimpleNamespace(
            topics={TOPIC: SimpleNamespace(error=None, partitions=dict.fromkeys(self._broker.logs))}
        )

    def get_watermark_offsets(
        self, topic_partition: TopicPartition, timeout: float
    ) -> tuple[int, int] | None:
        self._broker.refuse(
            "ends", f"ends {topic_partition.partition}", error=KafkaError.LEADER_NOT_AVAILABLE
        )
        if "answer" in self._broker.failing:
            self._broker.pass_time(timeout)
            return None
        log = self._broker.logs[topic_partition.partition]
        answer = (log.first, log.end)
        self._broker.pass_time(0.03)
        return answer

    def committed(self, positions: Sequence[TopicPartition], timeout: float) -> list[Any]:
        self._broker.pass_time(0.03)
        self._broker.refuse("committed", error=KafkaError.COORDINATOR_NOT_AVAILABLE)
        committed = self._broker.committed
        return [
            SimpleNamespace(
                partition=position.partition,
                offset=committed.get(position.partition, -1001),
                error=None,
            )
            for position in positions
        ]

    def assign(self, positions: Sequence[TopicPartition]) -> None:
        (topic_partition,) = positions
        self._partition, self._next, self._says_end = (
            topic_partition.partition,
            topic_partition.offset,
            True,
        )

    def consume(self, number: int, timeout: float) -> list[Any]:
        broker, messages = self._broker, []
        assert number >= 1
        assert self._next is not None
        broker.pass_time(0.02)
        if broker.stalls:
            broker.stalls -= 1
            broker.pass_time(timeout)
            return []
        log = broker.logs[self._partition]
        self._next = max(self._next, log.first)
        while len(messages) < number:
            while self._next < log.end and log.entries[self._next] is None:
                self._next, self._says_end = self._next + 1, True
            if self._next == log.end:
                if self._says_end:
                    messages.append(self._event(KafkaError._PARTITION_EOF))
                    self._says_end = False
                break
            if "fetch" in broker.failing:
                broker.failing.discard("fetch")
                messages.append(self._event(KafkaError.NOT_LEADER_FOR_PARTITION))
                continue
            messages.append(self._message(log.entries[self._next]))
            self._next, self._says_end = self._next + 1, True
        return messages

    def _message(self, entry: Published | None) -> Any:
        assert entry is not None
        milliseconds = round(entry.time * 1000)
        has_time = self._broker.has_times
        return SimpleNamespace(
            error=lambda: None,
            offset=lambda offset=self._next: offset,
            partition=lambda: self._partition,
            value=lambda: entry.value,
            timestamp=lambda: (
                (TIMESTAMP_CREATE_TIME, milliseconds) if has_time else (TIMESTAMP_NOT_AVAILABLE, 0)
            ),
        )

    def _event(self, code: int) -> Any:
        return SimpleNamespace(
            error=lambda: KafkaError(code),
            offset=lambda offset=self._next: offset,
            partition=lambda: self._partition,
        )

    def poll(self, timeout: float) -> None:
        """Nothing is said of trouble."""

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        for offset in offsets:
            self._broker.committed[offset.partition] = offset.offset

    def close(self) -> None:
        self._next = None
