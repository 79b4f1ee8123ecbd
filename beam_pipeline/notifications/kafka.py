"""S3's events by Kafka.

The offset of each partition is the source's position, which the runner keeps: after a failure or
from a savepoint the job goes on exactly there. A group is told the offsets only once what came
before them is kept, so that a new job of that group loses nothing either.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from beam_pipeline.notifications.address import KafkaAddress
from beam_pipeline.notifications.channel import Channel, ChannelError, Message, Position, Taken
from beam_pipeline.notifications.events import parse_s3_message

CONFIG_VARIABLE = "KAFKA_CONFIG"
"""Names a file of librdkafka's settings, one `name=value` a line."""

_LOOK_SECONDS = 0.2
_ANSWER_SECONDS = 6.0
_PARTITIONS_EVERY_SECONDS = 60.0
_NO_GROUP = "beam-pipeline"  # librdkafka wants a name also where no group is joined.
_OURS = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",  # Where an offset is not kept any more, too.
}
_PASSING = (
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
)
"""What a cluster says whose leaders are being chosen, as after the start of a broker."""
_FROM_ADDRESS = ("bootstrap.servers", "metadata.broker.list", "group.id")

# What librdkafka has to say is told in one line where something fails.
_SILENT = logging.getLogger(f"{__name__}.librdkafka")
_SILENT.propagate = False
_SILENT.addHandler(logging.NullHandler())


def read_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings of the file that the environment names, if it names one.

    Raises:
      ChannelError: It can't be read, or a line of it is wrong; the line itself is not repeated.
    """
    path = environ.get(CONFIG_VARIABLE)
    if not path:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ChannelError(f"{CONFIG_VARIABLE} {path}: can't be read ({reason})") from None
    settings = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not name:
            raise ChannelError(f"{CONFIG_VARIABLE} {path}:{number}: not name=value")
        if name in _OURS or name in _FROM_ADDRESS:
            raise ChannelError(
                f"{CONFIG_VARIABLE} {path}:{number}: {name} is set by the job; leave it out"
            )
        settings[name] = value
    return settings


class KafkaChannel(Channel):
    """The events of a topic.

    Args:
      address: The topic.
      environ: Where the variable `KAFKA_CONFIG` is looked up.
    """

    def __init__(self, address: KafkaAddress, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__()
        self._address = address
        self._environ = environ
        self._consumer: Consumer | None = None
        self._at: dict[int, int] = {}
        self._partitions: frozenset[int] = frozenset()
        self._looked_for_partitions = 0.0
        self._ended: set[int] = set()
        self._trouble: str | None = None

    def _connect(self) -> Consumer:
        settings: dict[str, Any] = {
            **read_settings(self._environ),
            **_OURS,
            "bootstrap.servers": ",".join(self._address.brokers),
            "group.id": self._address.group or _NO_GROUP,
            "error_cb": self._hear,
        }
        try:
            return Consumer(settings, logger=_SILENT)
        except (KafkaException, TypeError, ValueError) as error:
            raise ChannelError(f"{CONFIG_VARIABLE}: {_reason(error)}") from None

    def _hear(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN or self._trouble is None:
            self._trouble = error.str()

    def check(self) -> None:
        consumer = self._connect()
        try:
            places = self._beginnings(consumer)
            consumer.assign([_at(place, OFFSET_END) for place in places])
            wanted = {place.partition for place in places}
            deadline = time.monotonic() + _ANSWER_SECONDS
            while wanted and time.monotonic() < deadline:
                for message in consumer.consume(len(wanted), _LOOK_SECONDS):
                    self._refuse_errors(message.error())
                    wanted.discard(message.partition())
            if wanted:
                raise ChannelError(self._trouble or f"no answer in {_ANSWER_SECONDS:g} s")
        finally:
            consumer.close()

    def take(self, position: Position, most: int) -> Taken:
        with self._lock:
            if self._consumer is None:
                self._consumer = self._connect()
            self._go_to(self._consumer, dict(position))
            messages, count = [], 0
            self._trouble = None
            for one in self._consumer.consume(most, _LOOK_SECONDS):
                # A message that was taken has both; only one that is to be sent may lack them.
                partition, offset = cast(int, one.partition()), cast(int, one.offset())
                error = one.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        self._ended.add(partition)
                    else:
                        self._partitions = frozenset()  # What came with it is taken again.
                        self._refuse_errors(error)
                    continue
                self._ended.discard(partition)
                self._at[partition] = offset + 1
                count += 1
                value = one.value()
                messages.append(Message(value or b"", parse_s3_message(value)))
            if not count and self._trouble is not None:
                raise ChannelError(self._trouble)
            return Taken(
                messages,
                tuple(sorted(self._at.items())),
                dict(self._at) if count and self._address.group else None,
                is_full=count >= most,
                is_caught_up=self._ended >= self._partitions,
            )

    def acknowledge(self, receipts: Sequence[dict[int, int]]) -> None:
        offsets = {
            partition: offset for receipt in receipts for partition, offset in receipt.items()
        }
        if self._consumer is not None:
            self._consumer.commit(
                offsets=[
                    TopicPartition(self._address.topic, partition, offset)
                    for partition, offset in offsets.items()
                ],
                asynchronous=True,
            )

    def _go_to(self, consumer: Consumer, position: dict[int, int]) -> None:
        """Puts the consumer where the look before has ended, on all partitions that there are."""
        has_gone_on = bool(self._partitions) and position == self._at
        now = time.monotonic()
        if has_gone_on:
            if now - self._looked_for_partitions < _PARTITIONS_EVERY_SECONDS:
                return
            self._looked_for_partitions = now
            try:
                places = self._beginnings(consumer)
            except ChannelError:  # If it lasts, the look itself has no messages and says so.
                return
            if self._partitions == frozenset(place.partition for place in places):
                return
        else:
            self._forget_receipts()
            places = self._beginnings(consumer)
            self._looked_for_partitions = now
        at = [_at(place, position.get(place.partition, place.offset)) for place in places]
        consumer.assign(at)
        self._at = {place.partition: place.offset for place in at if place.offset >= 0}
        self._partitions = frozenset(place.partition for place in places)
        self._ended = set()

    def _beginnings(self, consumer: Consumer) -> list[TopicPartition]:
        """All partitions, each at the group's offset, or else at its first."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            try:
                return self._beginnings_now(consumer)
            except KafkaException as error:
                if error.args[0].code() not in _PASSING or time.monotonic() > deadline:
                    for _ in range(8):  # librdkafka says why only to those that ask.
                        consumer.poll(0.05)
                    raise ChannelError(self._trouble or _reason(error)) from None
                time.sleep(_LOOK_SECONDS)

    def _beginnings_now(self, consumer: Consumer) -> list[TopicPartition]:
        topic = self._address.topic
        found = consumer.list_topics(topic, timeout=_ANSWER_SECONDS).topics[topic]
        if found.error is not None and found.error.code() in _PASSING:
            raise KafkaException(found.error)
        self._refuse_errors(found.error)
        places = [TopicPartition(topic, one, OFFSET_BEGINNING) for one in found.partitions]
        if self._address.group is None:
            return places
        told = consumer.committed(places, timeout=_ANSWER_SECONDS)
        return [_at(one, one.offset if one.offset >= 0 else OFFSET_BEGINNING) for one in told]

    def _refuse_errors(self, error: KafkaError | None) -> None:
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            return
        if error.code() in (
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError._UNKNOWN_TOPIC,
            KafkaError._UNKNOWN_PARTITION,
        ):
            raise ChannelError(f"there is no topic {self._address.topic}")
        raise ChannelError(error.str())


def _at(place: TopicPartition, offset: int) -> TopicPartition:
    return TopicPartition(place.topic, place.partition, offset)


def _reason(error: Exception) -> str:
    inner = error.args[0] if error.args else None
    return inner.str() if isinstance(inner, KafkaError) else " ".join(str(error).split())
