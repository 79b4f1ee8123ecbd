"""Google Cloud Storage's notifications by Pub/Sub.

Google's client keeps a stream of messages open in threads of its own and extends their deadlines;
a pull returns what has arrived. The offset is the number of pulls. If the last pull was another one
than this connection's, the runner has gone back to a checkpoint, and all messages that are not
acknowledged are requested again. They are delivered again by themselves after a process died, once
their deadline is over.

Pub/Sub does not say which messages are still to come. A pull supposes that all published messages
have arrived if nothing waits in the client, the client has room for more, Pub/Sub answers, and the
stream was open for longer than the deadline of a message that another worker may still hold.
"""

from __future__ import annotations

import base64
import collections
import concurrent.futures
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.message import Message as PubSubMessage

from beam_pipeline.sources.notifications.address import PubSubAddress
from beam_pipeline.sources.notifications.channel import (
    Channel,
    ChannelError,
    Notification,
    PartitionPosition,
    PulledBatch,
)
from beam_pipeline.sources.notifications.events import parse_gcs_message
from transforms.records.text import one_line
from transforms.storage.stores import json_bytes

_LOGGER = logging.getLogger(__name__)

MAX_UNACKNOWLEDGED = 50_000
"""Messages that are taken and not acknowledged yet; those of about two checkpoints."""
MAX_UNACKNOWLEDGED_BYTES = 256 << 20
"""The size of their data and attributes."""

_RESUME_SHARE = 0.8
"""Google's client that has reached a limit takes more messages once it holds less than this share
of it."""
_ANSWER_SECONDS = 8.0
_PROBE_SECONDS = 3.0
_SETTLED_AFTER_SECONDS = 65.0
_IDLE_SECONDS = 120.0
_LEASE_SECONDS = 3600.0
_MOST_IN_A_REQUEST = 1000
_CONSUME = "pubsub.subscriptions.consume"
_ROLES = "roles/pubsub.subscriber and roles/pubsub.viewer"


class _Stream:
    """An open stream of messages."""

    def __init__(
        self, client: pubsub_v1.SubscriberClient, path: str, timer: Callable[[], float]
    ) -> None:
        self._client = client
        self._path = path
        self._timer = timer
        self._polled_at = timer()
        self._settled_from = timer()
        self._arrived: collections.deque[tuple[float, PubSubMessage]] = collections.deque()
        self._arrived_lock = threading.Lock()
        self._unacknowledged: dict[str, int] = {}  # Sizes by ack id.
        self._unacknowledged_bytes = 0
        self._future = client.subscribe(
            path,
            callback=self._on_message,
            flow_control=pubsub_v1.types.FlowControl(
                max_messages=MAX_UNACKNOWLEDGED,
                max_bytes=MAX_UNACKNOWLEDGED_BYTES,
                max_lease_duration=_LEASE_SECONDS,
            ),
        )

    def _on_message(self, message: PubSubMessage) -> None:
        published = message.publish_time.timestamp()
        with self._arrived_lock:
            self._arrived.append((published, message))
        if self._timer() - self._polled_at > _IDLE_SECONDS and not self._future.cancelled():
            # The runner has moved the source to another process, which is to get the messages. This
            # thread is the stream's own, and can't wait for its end.
            threading.Thread(target=self.close, daemon=True).start()

    def pull(self, max_messages: int) -> list[PubSubMessage]:
        """Returns messages that have come.

        Raises:
          ChannelError: The stream has ended.
        """
        self._polled_at = self._timer()
        if self._future.done():
            error = self._future.exception()
            raise ChannelError(
                _reason(error) if isinstance(error, Exception) else "the stream was closed"
            )
        messages = self._take_arrived(max_messages)
        for message in messages:
            self._forget(message)
            self._unacknowledged[message.ack_id] = message.size
            self._unacknowledged_bytes += message.size
        return messages

    def _forget(self, message: PubSubMessage) -> None:
        self._unacknowledged_bytes -= self._unacknowledged.pop(message.ack_id, 0)

    def _take_arrived(self, max_messages: float) -> list[PubSubMessage]:
        with self._arrived_lock:
            number = int(min(max_messages, len(self._arrived)))
            return [self._arrived.popleft()[1] for _ in range(number)]

    def oldest_waiting(self) -> float | None:
        """Returns when the oldest message was published that has come and is not taken, in Unix
        seconds; None where none waits.
        """
        with self._arrived_lock:
            return min((published for published, _ in self._arrived), default=None)

    @property
    def is_settled(self) -> bool:
        """Whether what others held when the stream was opened has come again."""
        return self._timer() - self._settled_from >= _SETTLED_AFTER_SECONDS

    @property
    def has_room(self) -> bool:
        """Whether more messages may come before some are acknowledged, also if a limit was reached
        before."""
        return (
            len(self._unacknowledged) < _RESUME_SHARE * MAX_UNACKNOWLEDGED
            and self._unacknowledged_bytes < _RESUME_SHARE * MAX_UNACKNOWLEDGED_BYTES
        )

    def probe(self) -> None:
        """Asks Pub/Sub for anything, as the stream itself does not say that it is cut off.

        Raises:
          ChannelError: Pub/Sub does not answer.
        """
        try:
            self._client.get_subscription(
                subscription=self._path, timeout=_PROBE_SECONDS, retry=None
            )
        except (exceptions.GoogleAPICallError, GoogleAuthError) as error:
            self._settled_from = self._timer()
            raise ChannelError(_reason(error)) from None

    def acknowledge(self, messages: Sequence[PubSubMessage]) -> None:
        for message in messages:
            message.ack()
            self._forget(message)

    def close(self) -> None:
        """Ends the stream; what it holds comes again at once, also elsewhere."""
        self._future.cancel()
        # What is given back while the stream is open may come by it again.
        concurrent.futures.wait([self._future], timeout=_ANSWER_SECONDS)
        ack_ids = [
            *self._unacknowledged,
            *(message.ack_id for message in self._take_arrived(math.inf)),
        ]
        self._unacknowledged.clear()
        self._unacknowledged_bytes = 0
        try:
            for start in range(0, len(ack_ids), _MOST_IN_A_REQUEST):
                self._client.modify_ack_deadline(
                    subscription=self._path,
                    ack_ids=ack_ids[start : start + _MOST_IN_A_REQUEST],
                    ack_deadline_seconds=0,
                    timeout=_ANSWER_SECONDS,
                )
        except exceptions.GoogleAPICallError as error:
            _LOGGER.warning("%s: messages will be delivered again: %s", self._path, _reason(error))


class PubSubChannel(Channel):
    """The messages of a subscription.

    Args:
      address: The subscription.
      connect: Makes a client.
      clock: Gives Unix time in seconds.
      timer: Gives seconds since any time.
    """

    longest_pause_seconds = _IDLE_SECONDS / 2

    def __init__(
        self,
        address: PubSubAddress,
        *,
        connect: Callable[[], pubsub_v1.SubscriberClient] | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._address = address
        self._connect = connect or _client
        self._clock = clock
        self._timer = timer
        self._lock = threading.Lock()
        self._stream: _Stream | None = None
        self._last_pull = 0

    def check(self) -> None:
        client = self._connect()
        try:
            subscription = client.get_subscription(
                subscription=self._address.path, timeout=_ANSWER_SECONDS, retry=None
            )
            if subscription.push_config.push_endpoint:
                raise ChannelError("pushes its messages; create one for pulling")
            if subscription.bigquery_config.table or subscription.cloud_storage_config.bucket:
                raise ChannelError("writes its messages elsewhere; create one for pulling")
            if subscription.detached or subscription.topic == "_deleted-topic_":
                raise ChannelError("its topic was deleted; create another one")
            try:
                granted = client.test_iam_permissions(
                    request={"resource": self._address.path, "permissions": [_CONSUME]},
                    timeout=_ANSWER_SECONDS,
                    retry=None,
                ).permissions
            except (exceptions.MethodNotImplemented, exceptions.NotFound):
                return  # An emulator knows no permissions.
            if _CONSUME not in granted:
                raise ChannelError(f"no permission to read messages; grant {_ROLES}")
        except (exceptions.GoogleAPICallError, GoogleAuthError) as error:
            raise ChannelError(_reason(error)) from None
        finally:
            client.close()

    def partitions(self) -> Sequence[int]:
        return [0]

    def pull(self, partition: int, position: PartitionPosition, max_messages: int) -> PulledBatch:
        with self._lock:
            now = self._clock()
            if position.last_pull != self._last_pull:
                self._forget_receipts(partition)
                if self._stream is not None:
                    self._stream.close()
                    self._stream = None
            if self._stream is None:
                self._stream = _Stream(self._connect(), self._address.path, self._timer)
            try:
                messages = self._stream.pull(max_messages)
            except ChannelError:
                self._forget_receipts(partition)
                self._stream = None
                raise
            try:
                self._stream.probe()
            except ChannelError:
                if not messages:
                    raise
            oldest_waiting = self._stream.oldest_waiting()
            is_at_end = oldest_waiting is None and self._stream.is_settled and self._stream.has_room
            until = now if is_at_end else None
            if oldest_waiting is not None and self._stream.is_settled:
                until = min(oldest_waiting, now)
            following = PartitionPosition.after_pull((position.offset or 0) + 1)
            self._last_pull = following.last_pull
            return PulledBatch(
                [_notification(message) for message in messages],
                following,
                messages or None,
                until,
                is_full=len(messages) >= max_messages,
                is_at_end=is_at_end,
            )

    def acknowledge(self, partition: int, receipts: Sequence[list[PubSubMessage]]) -> None:
        with self._lock:
            if self._stream is not None:
                self._stream.acknowledge([message for receipt in receipts for message in receipt])


def _client() -> pubsub_v1.SubscriberClient:
    try:
        return pubsub_v1.SubscriberClient()
    except GoogleAuthError as error:
        raise ChannelError(_reason(error)) from None


def _notification(message: PubSubMessage) -> Notification:
    attributes, data = dict(message.attributes), message.data
    # As `gcloud pubsub subscriptions pull --format=json` shows it.
    shown = {
        "attributes": dict(sorted(attributes.items())),
        "data": base64.b64encode(data).decode(),
    }
    return Notification(json_bytes(shown), parse_gcs_message(attributes, data))


def _reason(error: Exception) -> str:
    if isinstance(error, exceptions.NotFound):
        return "there is no such subscription"
    if isinstance(error, exceptions.Forbidden):
        return f"no permission; grant {_ROLES}"
    if isinstance(error, GoogleAuthError | exceptions.Unauthorized):
        return (
            "no credentials for Google Cloud; run `gcloud auth application-default login`, or set "
            "GOOGLE_APPLICATION_CREDENTIALS"
        )
    if isinstance(error, exceptions.GoogleAPICallError):
        return f"{type(error).__name__}: {' '.join(error.message.split())}"[:200]
    return one_line(error)
