"""A subscription of Pub/Sub and its clock, with all that may go wrong, and a client of it."""

from __future__ import annotations

import concurrent.futures
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from google.api_core import exceptions

MESSAGE_BYTES = 1000
_ACK_SECONDS = 60.0
_RECONNECT_SECONDS = 9.0


@dataclass
class Outstanding:
    """A message that is not acknowledged.

    Attributes:
      key: Names it, and its object.
      time: Unix time at which it was published.
      holder: The client that has it; None while it waits in Pub/Sub.
      held_since: When a process died that had it; it comes again once its deadline is over.
    """

    key: str
    time: float
    holder: SimulatedClient | None = None
    held_since: float | None = None


class SimulatedSubscription:
    """The subscription.

    Attributes:
      now: Unix time; the timer of the processes goes with it.
      rate: Messages a second that are published while time passes.
      is_away: Whether Pub/Sub can't be reached.
      outstanding: What is not acknowledged, by ack id.
      acknowledged: The keys of what is.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self.rate = 0.0
        self.is_away = False
        self.outstanding: dict[str, Outstanding] = {}
        self.acknowledged: set[str] = set()
        self._clients: list[SimulatedClient] = []
        self._published = 0
        self._connected_from = now
        self._due = 0.0

    def connect(self) -> SimulatedClient:
        if self.is_away:
            raise exceptions.ServiceUnavailable("no network")
        self._clients.append(SimulatedClient(self))
        return self._clients[-1]

    def publish(self, skew: float = 0.0) -> None:
        """A message comes; it is handed to a client once time passes."""
        self._published += 1
        key = f"{self._published}.jpg"
        self.outstanding[key] = Outstanding(key, self.now + skew)

    def pass_time(self, seconds: float) -> None:
        """Time passes, in which messages are published at the rate."""
        began, self._due = self.now, self._due + seconds * self.rate
        number = int(self._due)
        self._due -= number
        for index in range(number):
            self.now = began + seconds * (index + 1) / number
            self.publish()
        self.now = began + seconds
        self.deliver()

    def come_back(self) -> None:
        """Pub/Sub answers again; streams are connected a little later."""
        self.is_away = False
        self._connected_from = self.now + _RECONNECT_SECONDS

    def deliver(self) -> None:
        """Hands what waits to a client whose stream is open and that has room."""
        if self.is_away or self.now < self._connected_from:
            return
        held = Counter(id(entry.holder) for entry in self.outstanding.values())
        room = {}
        for client in self._clients:
            if client.is_open:
                most = min(client.most, client.most_bytes // MESSAGE_BYTES)
                client.is_paused &= held[id(client)] >= 0.8 * most
                room[id(client)] = 0 if client.is_paused else most - held[id(client)]
        for ack_id, entry in self.outstanding.items():
            if entry.held_since is not None and self.now - entry.held_since >= _ACK_SECONDS:
                entry.holder, entry.held_since = None, None
            if entry.holder is not None or entry.held_since is not None:
                continue
            for client in self._clients:
                if room.get(id(client), 0) > 0:
                    room[id(client)] -= 1
                    client.is_paused = room[id(client)] <= 0
                    entry.holder = client
                    client.callback(_message(self, ack_id, entry))
                    break

    def end_streams(self) -> None:
        """All streams end with an error."""
        for client in self._clients:
            client.fail()

    def die(self) -> None:
        """All processes that there are end."""
        for entry in self.outstanding.values():
            if entry.holder is not None:
                entry.holder, entry.held_since = None, self.now
        self._clients.clear()


def _message(subscription: SimulatedSubscription, ack_id: str, entry: Outstanding) -> Any:
    def ack() -> None:
        if subscription.outstanding.pop(ack_id, None) is not None:
            subscription.acknowledged.add(entry.key)

    return SimpleNamespace(
        ack_id=ack_id,
        attributes={"eventType": "OBJECT_FINALIZE", "bucketId": "b", "objectId": entry.key},
        data=b"",
        size=MESSAGE_BYTES,
        publish_time=datetime.fromtimestamp(entry.time, UTC),
        ack=ack,
    )


class _Stream(concurrent.futures.Future[None]):
    """An open stream, as the client's own future is done once it is closed."""

    def cancel(self) -> bool:
        if not self.done():
            self.set_result(None)
        return True


class SimulatedClient:
    """What Google's client does, as far as the source uses it. Each call takes time.

    Once it holds as much as it may, it takes no more until it holds less than 0.8 of that.
    """

    def __init__(self, subscription: SimulatedSubscription) -> None:
        self._subscription = subscription
        self.most = self.most_bytes = 0
        self.is_paused = False
        self._future = _Stream()
        self.callback: Callable[[Any], None]

    def subscribe(self, path: str, callback: Callable[[Any], None], flow_control: Any) -> Any:
        self.callback, self.most = callback, flow_control.max_messages
        self.most_bytes = flow_control.max_bytes
        return self._future

    @property
    def is_open(self) -> bool:
        return not self._future.done()

    def fail(self) -> None:
        """The stream ends; what it holds comes again once its deadline is over."""
        if not self._future.done():
            self._future.set_exception(exceptions.ServiceUnavailable("the stream has ended"))
        self._let_go()

    def _let_go(self) -> None:
        for entry in self._subscription.outstanding.values():
            if entry.holder is self:
                entry.holder, entry.held_since = None, self._subscription.now

    def get_subscription(self, **how: Any) -> None:
        self._subscription.pass_time(0.03)
        if self._subscription.is_away:
            raise exceptions.ServiceUnavailable("no network")

    def modify_ack_deadline(
        self, *, ack_ids: Sequence[str], ack_deadline_seconds: int, **how: Any
    ) -> None:
        assert ack_deadline_seconds == 0
        if self._subscription.is_away:
            self._let_go()
            raise exceptions.ServiceUnavailable("no network")
        for ack_id in ack_ids:
            entry = self._subscription.outstanding.get(ack_id)
            if entry is not None and entry.holder is self:
                entry.holder = None
