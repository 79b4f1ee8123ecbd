"""Google Cloud Storage's notifications by Pub/Sub.

Google's client keeps a stream of messages open in threads of its own and extends their deadlines;
a look takes what has come. The position is the number of looks: where it is another than that of
the look before, the runner has gone back to a checkpoint, and all messages that are not
acknowledged are asked for again. They come again by themselves where the process has died.
"""

from __future__ import annotations

import base64
import concurrent.futures
import logging
import math
import queue
import threading
import time
from collections.abc import Sequence

from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.message import Message as PubSubMessage

from beam_pipeline.notifications.address import PubSubAddress
from beam_pipeline.notifications.channel import Channel, ChannelError, Message, Position, Taken
from beam_pipeline.notifications.events import parse_gcs_message
from transforms.stores import json_bytes
from transforms.text import one_line

_LOGGER = logging.getLogger(__name__)

MOST_HELD = 10_000
"""Messages that are taken and not acknowledged yet; those of about two checkpoints."""

_ANSWER_SECONDS = 8.0
_CONNECTED_AFTER_SECONDS = 5.0
_IDLE_SECONDS = 120.0
_LEASE_SECONDS = 3600.0
_MOST_IN_A_REQUEST = 1000
_CONSUME = "pubsub.subscriptions.consume"
_ROLES = "roles/pubsub.subscriber and roles/pubsub.viewer"


class _Stream:
    """An open stream of messages."""

    def __init__(self, client: pubsub_v1.SubscriberClient, path: str) -> None:
        self._client = client
        self._path = path
        self.opened = self._looked = time.monotonic()
        self._arrived: queue.SimpleQueue[PubSubMessage] = queue.SimpleQueue()
        self._held: dict[str, PubSubMessage] = {}
        self._future = client.subscribe(
            path,
            callback=self._arrive,
            flow_control=pubsub_v1.types.FlowControl(
                max_messages=MOST_HELD, max_lease_duration=_LEASE_SECONDS
            ),
        )

    def _arrive(self, message: PubSubMessage) -> None:
        self._arrived.put(message)
        if time.monotonic() - self._looked > _IDLE_SECONDS and not self._future.cancelled():
            # The runner has moved the source to another process, which is to get the messages. This
            # thread is the stream's own, and can't wait for its end.
            threading.Thread(target=self.close, daemon=True).start()

    @property
    def held(self) -> int:
        """How many messages are taken and not acknowledged."""
        return len(self._held)

    def take(self, most: int) -> list[PubSubMessage]:
        """Messages that have come.

        Raises:
          ChannelError: The stream has ended.
        """
        self._looked = time.monotonic()
        if self._future.done():
            error = self._future.exception()
            raise ChannelError(
                _reason(error) if isinstance(error, Exception) else "the stream was closed"
            )
        taken = self._take_arrived(most)
        self._held.update((one.ack_id, one) for one in taken)
        return taken

    def _take_arrived(self, most: float) -> list[PubSubMessage]:
        taken: list[PubSubMessage] = []
        while len(taken) < most:
            try:
                taken.append(self._arrived.get_nowait())
            except queue.Empty:
                break
        return taken

    def acknowledge(self, messages: Sequence[PubSubMessage]) -> None:
        for one in messages:
            one.ack()
            self._held.pop(one.ack_id, None)

    def close(self) -> None:
        """Ends the stream; what it holds comes again at once, also elsewhere."""
        self._future.cancel()
        # What is given back while the stream is open may come by it again.
        concurrent.futures.wait([self._future], timeout=_ANSWER_SECONDS)
        left = [*self._held, *(one.ack_id for one in self._take_arrived(math.inf))]
        self._held.clear()
        try:
            for start in range(0, len(left), _MOST_IN_A_REQUEST):
                self._client.modify_ack_deadline(
                    subscription=self._path,
                    ack_ids=left[start : start + _MOST_IN_A_REQUEST],
                    ack_deadline_seconds=0,
                    timeout=_ANSWER_SECONDS,
                )
        except exceptions.GoogleAPICallError as error:
            _LOGGER.warning("%s: messages come again later: %s", self._path, _reason(error))


class PubSubChannel(Channel):
    """The messages of a subscription.

    Args:
      address: The subscription.
    """

    def __init__(self, address: PubSubAddress) -> None:
        super().__init__()
        self._address = address
        self._stream: _Stream | None = None
        self._looks = 0

    def check(self) -> None:
        client = _client()
        try:
            found = client.get_subscription(
                subscription=self._address.path, timeout=_ANSWER_SECONDS, retry=None
            )
            if found.push_config.push_endpoint:
                raise ChannelError("pushes its messages; create one for pulling")
            if found.bigquery_config.table or found.cloud_storage_config.bucket:
                raise ChannelError("writes its messages elsewhere; create one for pulling")
            if found.detached or found.topic == "_deleted-topic_":
                raise ChannelError("its topic is gone; create another one")
            try:
                granted = client.test_iam_permissions(
                    request={"resource": self._address.path, "permissions": [_CONSUME]},
                    timeout=_ANSWER_SECONDS,
                    retry=None,
                ).permissions
            except (exceptions.MethodNotImplemented, exceptions.NotFound):
                return  # An emulator knows no permissions.
            if _CONSUME not in granted:
                raise ChannelError(f"no permission to take messages; grant {_ROLES}")
        except (exceptions.GoogleAPICallError, GoogleAuthError) as error:
            raise ChannelError(_reason(error)) from None
        finally:
            client.close()

    def take(self, position: Position, most: int) -> Taken:
        with self._lock:
            look = dict(position).get(0, 0)
            if self._stream is not None and look != self._looks:
                self._forget_receipts()
                self._stream.close()
                self._stream = None
            if self._stream is None:
                self._stream = _Stream(_client(), self._address.path)
            try:
                taken = self._stream.take(most)
            except ChannelError:
                self._forget_receipts()
                self._stream = None
                raise
            self._looks = look + 1
            is_full = len(taken) >= most
            is_connected = time.monotonic() - self._stream.opened >= _CONNECTED_AFTER_SECONDS
            return Taken(
                [_message(one) for one in taken],
                ((0, self._looks),),
                taken or None,
                is_full=is_full,
                is_caught_up=is_connected and not is_full and self._stream.held < MOST_HELD,
            )

    def acknowledge(self, receipts: Sequence[list[PubSubMessage]]) -> None:
        if self._stream is not None:
            self._stream.acknowledge([message for receipt in receipts for message in receipt])


def _client() -> pubsub_v1.SubscriberClient:
    try:
        return pubsub_v1.SubscriberClient()
    except GoogleAuthError as error:
        raise ChannelError(_reason(error)) from None


def _message(message: PubSubMessage) -> Message:
    attributes, data = dict(message.attributes), message.data
    # As `gcloud pubsub subscriptions pull --format=json` shows it.
    shown = {
        "attributes": dict(sorted(attributes.items())),
        "data": base64.b64encode(data).decode(),
    }
    return Message(json_bytes(shown), parse_gcs_message(attributes, data))


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
