"""A stream's delivery of alerts in one process, whose state and timers are kept by the test."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from apache_beam.utils.shared import Shared

from transforms import send_alerts
from transforms.alerting import delivery
from transforms.alerting.alerts import Alert
from transforms.alerting.delivery import RetryPolicy
from transforms.runtime.live_rules import LiveRules
from transforms.send_alerts import PENDING_ALERTS, SendOptions, _DeliverInStream


class Clock:
    """A simulated clock; it takes the place of `time` in the modules that deliver alerts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_770_000_000.0
        for module in (delivery, send_alerts):
            monkeypatch.setattr(module, "time", self)

    def time(self) -> float:
        """Seconds since 1970."""
        return self.now

    def monotonic(self) -> float:
        """The same: it never goes back."""
        return self.now


@dataclass
class _Key:
    """State and timer of one alert, as a runner keeps them."""

    bytes: bytes | None = None
    due: float | None = None
    at: float | None = field(default=None)

    def read(self) -> Any:
        return None if self.bytes is None else PENDING_ALERTS.decode(self.bytes)

    def write(self, value: Any) -> None:
        self.bytes = PENDING_ALERTS.encode(value)

    def clear(self) -> None:
        self.bytes = None

    def set(self, timestamp: Any) -> None:
        self.due = float(timestamp)


class Stream:
    """The step of a stream.

    Args:
      output: Where `alerts/` is.
      ruleset: The rules.
      urls: Those of `--alert_url`.
      keep_trying_seconds: For how long an alert is tried.
      policy: How long a target is waited for.
    """

    def __init__(
        self,
        output: Any,
        ruleset: Any,
        *urls: str,
        policy: RetryPolicy,
        keep_trying_seconds: float = 3600,
        max_concurrent: int = 4,
    ) -> None:
        options = SendOptions(
            *(str(output), LiveRules.of(ruleset), urls),
            policy=policy,
            max_concurrent=max_concurrent,
            max_age_seconds=None,
        )
        self._step = _DeliverInStream(options, keep_trying_seconds, 60)
        self._keys: dict[str, _Key] = {}
        self._last = ""
        self.start()

    def start(self) -> None:
        """A process begins; what the one before had in its memory is gone."""
        self._step._shared = Shared()
        self._step.setup()

    def feed(self, alert: Alert) -> None:
        """An alert comes."""
        self._last = alert.alert_id
        key = self._keys.setdefault(alert.alert_id, _Key())
        before = replace(key)
        try:
            self._step.process((alert.alert_id, alert), key, key)
        except BaseException:
            self._keys[alert.alert_id] = before  # The runner tries the bundle again.
            raise

    def fire(self, alert_id: str) -> None:
        """The timer of an alert fires."""
        key = self._keys[alert_id]
        before = replace(key)
        key.due = None
        try:
            self._step.on_look_timer(key, key)
        except BaseException:
            self._keys[alert_id] = before
            raise

    @property
    def timers(self) -> dict[str, float]:
        """When the alerts that are not settled are to be looked at, by their ids."""
        return {
            alert_id: key.due
            for alert_id, key in self._keys.items()
            if key.bytes is not None and key.due is not None
        }

    def pending(self, alert_id: str) -> set[str | None]:
        """The targets for which an alert is not settled."""
        state = self._keys[alert_id].read()
        return set() if state is None else {target.name for target in state.targets}

    def settle_threads(self) -> None:
        """Waits for what is on its way."""
        for future in list(self._step._in_flight._futures.values()):
            future.exception()

    # Of the alert that came last.

    @property
    def is_settled(self) -> bool:
        """Whether nothing is kept of it any more."""
        return self._keys[self._last].bytes is None

    @property
    def due(self) -> float:
        """When it is to be looked at."""
        return self.timers[self._last]

    def tries(self) -> dict[str | None, int]:
        """How often each target has failed it."""
        return {target.name: target.tries for target in self._keys[self._last].read().targets}

    def wake(self, *, until: Callable[[], bool]) -> None:
        """Lets its timer fire, as if its time had come, until something is so."""
        key = self._keys[self._last]
        ends = time.monotonic() + 20
        while True:
            pending = key.read()
            key.write(
                replace(
                    pending, targets=tuple(replace(target, due=0) for target in pending.targets)
                )
            )
            self.fire(self._last)
            if self.is_settled or until() or time.monotonic() > ends:
                return
            time.sleep(0.01)
