"""Receives the events of an S3 bucket from a Kafka topic.

The runner keeps the offset of each partition: after a failure or from a savepoint the job goes on
exactly there. A group's offsets are committed only once what came before them is in a checkpoint,
so that a new job of that group misses no message. But without a savepoint it loses what was only in
the state of the job before it: alerts that are held for a digest, or that wait for another try or a
paused target.

Each pull asks the broker where a partition ends, and reads messages from its offset on. So it knows
whether all messages were pulled. That no message comes, or that librdkafka reports the end of a
partition, does not show it: the broker may be away, and a busy partition has no end that lasts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar, cast

from confluent_kafka import (
    OFFSET_END,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka import Message as KafkaMessage

from beam_pipeline.sources.notifications.address import KafkaAddress
from beam_pipeline.sources.notifications.channel import (
    Channel,
    ChannelError,
    Notification,
    PartitionPosition,
    PulledBatch,
)
from beam_pipeline.sources.notifications.events import parse_s3_message
from transforms.runtime.counters import count

_LOGGER = logging.getLogger(__name__)

T = TypeVar("T")

CONFIG_VARIABLE = "KAFKA_CONFIG"
"""Names a file of librdkafka's settings, one `name=value` a line."""

_FETCH_SECONDS = 0.2
_FETCHES = 5
_ANSWER_SECONDS = 2.0
_CHECK_SECONDS = 6.0
_IDLE_SECONDS = 1800.0
_NO_GROUP = "beam-pipeline"  # librdkafka wants a name also where no group is joined.
_DEFAULTS = {
    # Each partition has a consumer, and these bound what it fetches ahead.
    "queued.min.messages": 2000,
    "queued.max.messages.kbytes": 4096,
    # A message that is committed late has an early time. One that is aborted does no harm.
    "isolation.level": "read_uncommitted",
}
_FIXED_SETTINGS = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",  # Where an offset is not kept any more, too.
}
_TRANSIENT = (
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
)
"""What a cluster says whose leaders are being chosen, as after the start of a broker."""
_NO_ANSWER = (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN)
_NO_TOPIC = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
)
_FROM_ADDRESS = ("bootstrap.servers", "metadata.broker.list", "group.id")

# What librdkafka has to say is reported in one line where something fails.
_SILENT_LOGGER = logging.getLogger(f"{__name__}.librdkafka")
_SILENT_LOGGER.propagate = False
_SILENT_LOGGER.addHandler(logging.NullHandler())


def read_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the settings of the file that the environment names, if it names one.

    Raises:
      ChannelError: It can't be read, or a line of it is wrong; the line itself is not repeated.
    """
    path = environ.get(CONFIG_VARIABLE)
    if not path:
        return {}
    if not os.path.isabs(path):
        raise ChannelError(
            f"{CONFIG_VARIABLE} {path}: each worker would look for it in its own working "
            "directory; give an absolute path"
        )
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
        if name in _FIXED_SETTINGS or name in _FROM_ADDRESS:
            raise ChannelError(
                f"{CONFIG_VARIABLE} {path}:{number}: {name} is set by the job; leave it out"
            )
        settings[name] = value
    return settings


class _TransientError(ChannelError):
    """What passes once leaders are chosen."""


class _Connection:
    """A consumer, and what it last had to say of trouble."""

    def __init__(
        self,
        address: KafkaAddress,
        environ: Mapping[str, str],
        connect: Callable[..., Consumer],
        *,
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> None:
        self._answer_seconds = answer_seconds
        self.topic = address.topic
        self.group = address.group
        self.last_error: str | None = None
        settings: dict[str, Any] = {
            **_DEFAULTS,
            **read_settings(environ),
            **_FIXED_SETTINGS,
            "bootstrap.servers": ",".join(address.brokers),
            "group.id": address.group or _NO_GROUP,
            "error_cb": self._remember_error,
        }
        try:
            self.consumer = connect(settings, logger=_SILENT_LOGGER)
        except (KafkaException, TypeError, ValueError) as error:
            raise ChannelError(f"{CONFIG_VARIABLE}: {_reason(error)}") from None

    def _remember_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN or self.last_error is None:
            self.last_error = error.str()

    def _request(self, question: Callable[..., T | None], *arguments: Any) -> T:
        """Returns what the brokers answer."""
        self.last_error = None
        try:
            answer = question(*arguments, timeout=self._answer_seconds)
        except KafkaException as error:
            self._raise(error.args[0])
        if answer is None:
            self._raise(KafkaError(KafkaError._TIMED_OUT))
        return answer

    def raise_for(self, error: KafkaError | None) -> None:
        """Raises a :class:`ChannelError` that says what is wrong, if something is."""
        if error is not None:
            self._raise(error)

    def _raise(self, error: KafkaError) -> NoReturn:
        if error.code() in _NO_TOPIC:
            raise ChannelError(f"there is no topic {self.topic}")
        if error.code() in _TRANSIENT:
            raise _TransientError(error.str())
        if error.code() not in _NO_ANSWER:
            raise ChannelError(error.str())
        for _ in range(8):  # librdkafka says why only to those that ask.
            if self.last_error is None:
                self.consumer.poll(0.05)
        raise ChannelError(self.last_error or f"no answer in {self._answer_seconds:g} s")

    def partitions(self) -> list[int]:
        """Returns the numbers of the topic's partitions."""
        topic = self._request(self.consumer.list_topics, self.topic).topics[self.topic]
        self.raise_for(topic.error)
        return sorted(topic.partitions)

    def ends(self, partition: int) -> tuple[int, int]:
        """Returns the offset of a partition's first message, and the one after its last."""
        topic_partition = TopicPartition(self.topic, partition)
        return self._request(self.consumer.get_watermark_offsets, topic_partition)

    def committed(self, partitions: Sequence[int]) -> dict[int, int]:
        """Returns the offsets that the group has committed, where it has, by partition."""
        if self.group is None or not partitions:
            return {}
        topic_partitions = [TopicPartition(self.topic, partition) for partition in partitions]
        committed = self._request(self.consumer.committed, topic_partitions)
        for topic_partition in committed:
            self.raise_for(topic_partition.error)
        return {
            topic_partition.partition: topic_partition.offset
            for topic_partition in committed
            if topic_partition.offset >= 0
        }


class _Reader:
    """Reads one partition from the offset of each pull.

    Args:
      connection: A consumer for this partition alone.
      partition: Its number.
      clock: Gives Unix time in seconds.
    """

    def __init__(self, connection: _Connection, partition: int, clock: Callable[[], float]) -> None:
        self.lock = threading.Lock()
        self.used_at = time.monotonic()
        self.last_pull = 0
        """The id of the last pull that had an answer."""
        self._connection = connection
        self._partition = partition
        self._clock = clock
        self._next: int | None = None  # The offset that the consumer hands out next.

    def pull(self, offset: int | None, max_messages: int) -> PulledBatch:
        """Returns the messages from an offset on; None for the group's, or the first."""
        self.used_at = time.monotonic()
        try:
            batch = self._pull(offset, max_messages)
        except Exception:
            self._next = None  # What came with the error is taken again.
            raise
        self.last_pull = batch.position.last_pull
        return batch

    def _pull(self, offset: int | None, max_messages: int) -> PulledBatch:
        now = self._clock()
        first, end = self._connection.ends(self._partition)
        offset = self._available_offset(
            self._start_offset(first) if offset is None else offset, first, end
        )
        if offset != self._next:
            start = TopicPartition(self._connection.topic, self._partition, offset)
            self._connection.consumer.assign([start])
            self._next = offset
        messages: list[Notification] = []
        published: float | None = None
        for _ in range(_FETCHES):
            for message in self._fetch(max_messages - len(messages), end):
                kind, milliseconds = message.timestamp()
                published = None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000
                value = message.value()
                messages.append(Notification(value or b"", parse_s3_message(value)))
            if self._next >= end or len(messages) >= max_messages:
                break
        is_at_end = self._next >= end
        if is_at_end:
            until: float | None = now
        else:
            until = None if published is None else min(published, now)
        receipt = self._next if messages and self._connection.group else None
        is_full = len(messages) >= max_messages
        return PulledBatch(
            *(messages, PartitionPosition.after_pull(self._next), receipt, until),
            is_full=is_full,
            is_at_end=is_at_end,
        )

    def _start_offset(self, first: int) -> int:
        return self._connection.committed([self._partition]).get(self._partition, first)

    def _available_offset(self, offset: int, first: int, end: int) -> int:
        """Returns where to go on, as not all messages may be there any more."""
        if first <= offset <= end:
            return offset
        where = f"partition {self._partition} of {self._connection.topic}"
        if offset < first:
            count("notifications.expired", first - offset)
            _LOGGER.error(
                "--notifications: the broker has deleted messages of %s that were not read yet, "
                "offsets %d to %d; keep the topic's messages for longer",
                *(where, offset, first - 1),
            )
        else:
            _LOGGER.error(
                "--notifications: %s ends at offset %d, but was already read up to %d: it was "
                "recreated or has lost messages, and is read from its first message",
                *(where, end, offset),
            )
        return first

    def _fetch(self, max_messages: int, end: int) -> Iterator[KafkaMessage]:
        """Yields messages up to a partition's end, and perhaps the one after it."""
        assert self._next is not None
        remaining = end - self._next
        # Without messages to wait for, errors that librdkafka reports are received all the same.
        wait = _FETCH_SECONDS if remaining else 0
        for message in self._connection.consumer.consume(min(max_messages, remaining) or 1, wait):
            error = message.error()
            # A message that was taken has an offset; only one that is to be sent may lack it.
            offset = cast(int, message.offset())
            if error is None:
                self._next = offset + 1
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                self._next = offset  # Offsets before it hold no message: a transaction's end.
            else:
                self._connection.raise_for(error)

    def commit(self, offset: int) -> None:
        """Commits an offset for the group."""
        topic_partition = TopicPartition(self._connection.topic, self._partition, offset)
        try:
            self._connection.consumer.commit(offsets=[topic_partition], asynchronous=True)
        except KafkaException as error:
            _LOGGER.warning("--notifications: no offset is committed: %s", _reason(error))

    def close(self) -> None:
        self._connection.consumer.close()


class KafkaChannel(Channel):
    """The events of a topic.

    Args:
      address: The topic.
      environ: Where the variable `KAFKA_CONFIG` is looked up.
      connect: Makes a consumer of settings.
      clock: Gives Unix time in seconds.
    """

    def __init__(
        self,
        address: KafkaAddress,
        environ: Mapping[str, str] = os.environ,
        *,
        connect: Callable[..., Consumer] = Consumer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._address = address
        self._connect = partial(_Connection, address, environ, connect)
        self._clock = clock
        self._lock = threading.Lock()
        self._listing = threading.Lock()
        self._listing_connection: _Connection | None = None
        self._readers: dict[int, _Reader] = {}

    def check(self) -> None:
        connection = self._connect(answer_seconds=_CHECK_SECONDS)
        try:
            deadline = time.monotonic() + _CHECK_SECONDS
            unanswered = set(self._readable_partitions(connection, deadline))
            consumer, topic = connection.consumer, self._address.topic
            consumer.assign(
                [TopicPartition(topic, partition, OFFSET_END) for partition in unanswered]
            )
            while unanswered and time.monotonic() < deadline:
                for message in consumer.consume(len(unanswered), _FETCH_SECONDS):
                    error = message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        connection.raise_for(error)
                    unanswered.discard(cast(int, message.partition()))
            if unanswered:
                raise ChannelError(connection.last_error or f"no answer in {_CHECK_SECONDS:g} s")
        finally:
            connection.consumer.close()

    def _readable_partitions(self, connection: _Connection, deadline: float) -> list[int]:
        """Returns all partitions, once their leaders are chosen."""
        while True:
            try:
                partitions = connection.partitions()
                connection.committed(partitions)
                return partitions
            except _TransientError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_FETCH_SECONDS)

    def partitions(self) -> Sequence[int]:
        with self._listing:
            if self._listing_connection is None:
                self._listing_connection = self._connect()
            return self._listing_connection.partitions()

    def pull(self, partition: int, position: PartitionPosition, max_messages: int) -> PulledBatch:
        with self._lock:
            if partition not in self._readers:
                self._readers[partition] = _Reader(self._connect(), partition, self._clock)
            reader = self._readers[partition]
            self._close_idle()
        with reader.lock:
            if position.last_pull != reader.last_pull:
                self._forget_receipts(partition)
            return reader.pull(position.offset, max_messages)

    def acknowledge(self, partition: int, receipts: Sequence[int]) -> None:
        with self._lock:
            reader = self._readers.get(partition)
        if reader is not None:
            with reader.lock:
                reader.commit(receipts[-1])

    def _close_idle(self) -> None:
        """Closes consumers of partitions that the runner has moved to other processes."""
        for partition, reader in list(self._readers.items()):
            is_idle = time.monotonic() - reader.used_at > _IDLE_SECONDS
            if is_idle and reader.lock.acquire(blocking=False):
                with contextlib.closing(reader):
                    del self._readers[partition]
                    reader.lock.release()


def _reason(error: Exception) -> str:
    inner = error.args[0] if error.args else None
    return inner.str() if isinstance(inner, KafkaError) else " ".join(str(error).split())
