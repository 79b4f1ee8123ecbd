"""Delivering alerts: each target has threads, retries and a breaker of its own.

What is sent to one target waits for no other: a `PostOffice` has a queue and threads for each, and
gives back a future for each alert and target. The courier makes one try; here it is decided when
there is another one.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import rules
from transforms.alerts import Alert, is_too_old
from transforms.couriers import (
    Courier,
    Sent,
    TimeLimits,
    courier_for,
    target_name,
    url_courier,
)
from transforms.ledger import DELIVERED, FAILED, NOT_SENT, SUPPRESSED, Ledger, Outcome
from transforms.live_rules import LiveRules
from transforms.messages import Message, bare, compose
from transforms.storms import digest_message

TOKEN_VARIABLE = "ALERT_TOKEN"
"""Environment variable that holds a bearer token for the services of `--alert_url`."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long a target is waited for.

    Attributes:
      attempts: Tries an alert, one after the other.
      first_pause_seconds: Before the second try; doubled before each further one.
      longest_pause_seconds: A `Retry-After` beyond this one ends the tries.
      give_up_after: Alerts in a row that a target fails before the others are not tried on it.
      try_again_seconds: After that long one alert is tried again.
      limits: How long one try may take.
    """

    attempts: int = 3
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30
    give_up_after: int = 5
    try_again_seconds: float = 30
    limits: TimeLimits = field(default_factory=TimeLimits)


STREAM_POLICY = RetryPolicy(attempts=1, give_up_after=2, try_again_seconds=5)
"""For streams: an alert that fails once is held, and sent again by a timer."""


def pause_before(attempt: int, first_seconds: float, longest_seconds: float) -> float:
    """Seconds to wait before a further try: doubled for each, up to a longest, give or take a
    quarter, so that what failed together does not come back together.

    Args:
      attempt: Tries that were made, from 1.
      first_seconds: The first pause.
      longest_seconds: No pause is longer, but for that quarter.
    """
    doubled = first_seconds * 2.0 ** min(attempt - 1, 60)
    return min(doubled, longest_seconds) * random.uniform(0.75, 1.25)


class TargetSender:
    """Sends to one target from any number of threads: tries again, and gives a dead one up.

    Args:
      courier: Makes one try.
      policy: How long the target is waited for.
    """

    def __init__(self, courier: Courier, policy: RetryPolicy) -> None:
        self._courier = courier
        self._policy = policy
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._closed_until = 0.0

    def send(self, write: Callable[[], Message]) -> Sent:
        """Delivers a message; what came of the last try.

        Args:
          write: Gives the message, once it is to be sent.
        """
        if self._is_given_up():
            return Sent("unavailable", "not tried: the target has failed several alerts in a row")
        policy = self._policy
        message = write()
        for attempt in range(1, policy.attempts + 1):
            sent = self._courier.send(message)
            if sent.outcome != "unavailable":
                self._note(answers=True)  # A refusal is an answer: others may not be refused.
                return sent
            pause = sent.retry_after
            if pause is None:
                pause = pause_before(
                    attempt, policy.first_pause_seconds, policy.longest_pause_seconds
                )
            elif pause > policy.longest_pause_seconds:
                break
            if attempt < policy.attempts:
                time.sleep(pause)
        self._note(answers=False)
        return sent

    def _is_given_up(self) -> bool:
        with self._lock:
            if self._failed_in_a_row < self._policy.give_up_after:
                return False
            if time.monotonic() < self._closed_until:
                return True
            self._closed_until = time.monotonic() + self._policy.try_again_seconds
            return False

    def _note(self, *, answers: bool) -> None:
        with self._lock:
            self._failed_in_a_row = 0 if answers else self._failed_in_a_row + 1
            self._closed_until = time.monotonic() + self._policy.try_again_seconds


def _untold(alert: Alert) -> Outcome:
    if alert.suppressed_by is not None:
        return Outcome(None, SUPPRESSED, f"in the cooldown of alert {alert.suppressed_by}")
    return Outcome(None, NOT_SENT, "no --alert_url was given, and the rules name no target for it")


@dataclass(frozen=True)
class _Counter:
    """Where messages for one target are handed in."""

    target: rules.Target | str
    sender: TargetSender
    threads: ThreadPoolExecutor


class PostOffice:
    """Sends alerts to targets, and keeps the ledger.

    Args:
      output: The job's output, where `alerts/` is.
      by: The rules, which name targets, and say how messages read.
      urls: Addresses that get each alert's body.
      policy: How long a target is waited for.
      at_once: Alerts sent at once to one target.
      max_age_seconds: Older alerts are not sent; None: however old they are.
    """

    def __init__(
        self,
        output: str,
        by: LiveRules,
        urls: Sequence[str],
        policy: RetryPolicy,
        *,
        at_once: int,
        max_age_seconds: float | None = None,
    ) -> None:
        self.ledger = Ledger(output)
        self._rules = by
        self._urls = {target_name(url): url for url in urls}
        self._policy = policy
        self._at_once = at_once
        self._max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        self._counters: dict[str, _Counter] = {}
        self._desk = ThreadPoolExecutor(at_once, thread_name_prefix="ledger")

    def post(
        self, alert: Alert, target: str | None, *, again: bool = False
    ) -> Future[list[Outcome]]:
        """Begins to deal with an alert for one target. Called in a bundle's own thread.

        Args:
          alert: The alert.
          target: One of its targets; None for what no target is told of: it is recorded.
          again: It was tried before, and was not too old then.

        Returns:
          What became of it, once it is recorded. For no target, all that the record says.
        """
        if target is None:
            return self._desk.submit(self._record, alert, _untold(alert))
        if target in alert.held:
            held = Outcome(target, SUPPRESSED, f"told of in digest {alert.held[target]}")
            return self._desk.submit(self._record, alert, held)
        if not again and is_too_old(alert, self._max_age_seconds):
            old = Outcome(target, NOT_SENT, "older than --alert_max_age")
            return self._desk.submit(self._record, alert, old)
        counter = self._counter(target)
        if counter is None:
            # Edited rules may name it again.
            gone = Outcome(target, FAILED, "there is no such target any more", again_after=0)
            return self._desk.submit(self._record, alert, gone)
        return counter.threads.submit(self._send, alert, target, counter.sender)

    def _record(self, alert: Alert, outcome: Outcome) -> list[Outcome]:
        said = self.ledger.note(alert, outcome)
        if outcome.target is None:
            return said
        (own,) = (one for one in said if one.target == outcome.target)
        return [own if own.outcome == DELIVERED else outcome]

    def _send(self, alert: Alert, target: str, sender: TargetSender) -> list[Outcome]:
        if any(
            (one.target, one.outcome) == (target, DELIVERED) for one in self.ledger.outcomes(alert)
        ):
            return self._record(alert, Outcome(target, DELIVERED))
        sent = sender.send(lambda: self._message(alert, target))
        if sent.outcome == "delivered":
            return self._record(alert, Outcome(target, DELIVERED))
        again_after = None if sent.outcome == "refused" else sent.retry_after or 0
        return self._record(alert, Outcome(target, FAILED, sent.detail, again_after))

    def _message(self, alert: Alert, target: str) -> Message:
        if alert.is_digest:
            return digest_message(alert.body)
        if target in self._urls:
            return bare(alert.body)
        return compose(alert.body, self._rules.now, image=alert.image)

    def _counter(self, name: str) -> _Counter | None:
        """Where a target's alerts are handed in, by the rules in force."""
        self._rules.refresh()
        target = self._urls.get(name) or self._rules.now.alerting.targets.get(name)
        if target is None:
            return None
        with self._lock:
            counter = self._counters.get(name)
            if counter is None or counter.target != target:
                counter = self._counters[name] = self._open(target)
            return counter

    def _open(self, target: rules.Target | str) -> _Counter:
        limits = self._policy.limits
        courier = (
            url_courier(target, TOKEN_VARIABLE, limits)
            if isinstance(target, str)
            else courier_for(target, os.environ, limits)
        )
        return _Counter(
            target,
            TargetSender(courier, self._policy),
            ThreadPoolExecutor(self._at_once, thread_name_prefix="alerts"),
        )
