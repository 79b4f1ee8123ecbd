"""Delivery of alerts: each target has its own threads, retries and circuit breaker.

Targets don't wait for each other: an `AlertDispatcher` has a queue and threads for each target, and
returns a future for each alert and target. A client makes one attempt; this module decides when the
next one is made.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import cast

import rules
from transforms.alerting.alerts import Alert, AlertBody, is_too_old
from transforms.alerting.answers import SendResult
from transforms.alerting.decisions import DigestBody
from transforms.alerting.digests import digest_message
from transforms.alerting.ledger import (
    DELIVERED,
    FAILED,
    NOT_SENT,
    SUPPRESSED,
    WAITING,
    Ledger,
    Outcome,
)
from transforms.alerting.messages import Message, compose
from transforms.alerting.replacements import TOO_OLD_DETAIL
from transforms.alerting.target_clients import (
    TargetClient,
    TimeLimits,
    client_for,
    former_name,
    named_urls,
    url_client,
)
from transforms.runtime.live_rules import LiveRules
from transforms.storage import stores

TOKEN_VARIABLE = "ALERT_TOKEN"
"""Environment variable that holds a bearer token for the services of `--alert_url`."""

_NO_THREAD = "not tried: this process can't start another thread"


@dataclass(frozen=True)
class RetryPolicy:
    """How often and for how long an alert is retried.

    Attributes:
      attempts: The number of attempts in a row for an alert that fails.
      first_pause_seconds: The pause before the second attempt; it doubles before each further one.
      longest_pause_seconds: The longest pause between two attempts.
      patience_seconds: How long alerts stay in the queue while a target requests one pause after
        another and accepts no alert in between. Beyond that, their attempts end.
      give_up_after: The number of alerts in a row that may fail; after that, a target is given up.
      try_again_seconds: The time after which a target that is given up gets one alert; it doubles
        with each failure.
      longest_try_again_seconds: The longest time between two such attempts.
      longest_unexplained_seconds: The same for a target whose failure has no known cause.
      record_after_seconds: An alert that is queued, or that waits for a target that is given up, is
        recorded as failed only after this time.
      limits: How long one attempt may take.
    """

    attempts: int = 3
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30
    patience_seconds: float = 300
    give_up_after: int = 5
    try_again_seconds: float = 30
    longest_try_again_seconds: float = 30
    longest_unexplained_seconds: float = 30
    record_after_seconds: float = 0
    limits: TimeLimits = field(default_factory=TimeLimits)


STREAM_POLICY = RetryPolicy(
    attempts=1,
    patience_seconds=30,
    give_up_after=2,
    try_again_seconds=5,
    longest_try_again_seconds=60,
    longest_unexplained_seconds=900,
    record_after_seconds=30,
)
"""For streams: an alert that fails once is kept in state, and a timer sends it again."""


def pause_before(attempt: int, first_seconds: float, longest_seconds: float) -> float:
    """Returns the pause before the next attempt, in seconds.

    The pause doubles with each attempt, up to a maximum. It varies at random by up to a quarter, so
    that alerts that failed together are not retried together.

    Args:
      attempt: The number of attempts so far, from 1.
      first_seconds: The first pause.
      longest_seconds: The longest pause, before the random variation.
    """
    doubled = first_seconds * 2.0 ** min(attempt - 1, 60)
    return min(doubled, longest_seconds) * random.uniform(0.75, 1.25)


@dataclass(frozen=True)
class Closed:
    """A target that accepts no alerts at present.

    Attributes:
      seconds: The time until it may accept alerts.
      detail: The cause, for a person.
      is_short: Whether the target requested a pause for which alerts wait in the queue.
    """

    seconds: float
    detail: str
    is_short: bool = False


class TargetGate:
    """Decides whether a target may be sent to now. Thread-safe, and shared by all alerts.

    A target may request a pause, which is not a failure. A target that fails several alerts in a
    row is given up: then one alert at a time, the probe, is admitted, at growing intervals.

    Args:
      policy: How long the target is retried.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._paused_until = 0.0
        self._pauses = 0
        self._paused_seconds = 0.0
        self._failed_in_a_row = 0
        self._given_up_until = 0.0
        self._probes = 0
        self._probe: str | None = None

    def enter(self, alert_id: str, *, is_retry: bool = False) -> Closed | None:
        """Admits an alert, and returns None; or returns why it can't be sent now.

        If the target is given up, an admitted alert is the probe: no other alert is admitted until
        :meth:`record_result` or :meth:`release_probe` is called, or the time limit of an attempt is
        over.

        Args:
          alert_id: The alert's id.
          is_retry: Whether the alert was admitted before, so that only a pause can hold it back.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._paused_until:
                is_short = self._paused_seconds <= self._policy.patience_seconds
                detail = "not tried: the target asks for a pause"
                return Closed(self._paused_until - now, detail, is_short)
            if is_retry or self._failed_in_a_row < self._policy.give_up_after:
                return None
            if now < self._given_up_until:
                if alert_id == self._probe:
                    return None
                detail = "not tried: the target has failed several alerts in a row"
                return Closed(self._given_up_until - now, detail)
            self._given_up_until = now + self._policy.limits.longest_seconds
            self._probe = alert_id
            self._probes += 1
            return None

    def release_probe(self, alert_id: str) -> None:
        """Admits another alert as the probe if this one is the probe, and is not sent."""
        with self._lock:
            if alert_id == self._probe:
                self._probe = None
                self._given_up_until = 0.0

    def record_result(self, result: SendResult) -> None:
        """Records the result of an alert's attempts."""
        with self._lock:
            now = time.monotonic()
            self._probe = None
            if result.outcome == "paused":
                self._pause(now, result.retry_after or 0.0)
            elif result.outcome == "unavailable":
                self._fail(now, result)
            else:  # A refusal is an answer: other alerts may be accepted.
                self._pauses = self._failed_in_a_row = self._probes = 0
                self._paused_seconds = 0.0

    def _pause(self, now: float, seconds: float) -> None:
        self._failed_in_a_row = self._probes = 0
        if now >= self._paused_until:  # Alerts that were answered together count once.
            self._pauses += 1
        if self._pauses > 1:  # The requested pause was too short, or missing.
            backoff = self._policy.first_pause_seconds * 2.0 ** min(self._pauses - 2, 60)
            seconds = max(seconds, min(backoff, self._policy.longest_pause_seconds))
        paused_until = max(self._paused_until, now + seconds)
        self._paused_seconds += paused_until - max(self._paused_until, now)
        self._paused_until = paused_until

    def _fail(self, now: float, result: SendResult) -> None:
        policy = self._policy
        self._failed_in_a_row += 1
        longest = (
            policy.longest_try_again_seconds
            if result.is_explained
            else policy.longest_unexplained_seconds
        )
        pause = pause_before(self._probes + 1, policy.try_again_seconds, longest)
        self._given_up_until = now + pause


class TargetSender:
    """Sends to one target with retries, and gives up a target that does not answer. Thread-safe.

    Args:
      client: Makes one attempt.
      policy: How long the target is retried.

    Attributes:
      gate: Decides whether the target may be sent to now.
    """

    def __init__(self, client: TargetClient, policy: RetryPolicy) -> None:
        self._client = client
        self._policy = policy
        self.gate = TargetGate(policy)

    def wait(
        self, alert_id: str, abandoned: threading.Event, *, is_retry: bool = False
    ) -> Closed | None:
        """Waits while the target requests a short pause; returns why an alert can't be sent then.

        Args:
          alert_id: The alert's id.
          abandoned: Set when the alert is no longer to be sent.
          is_retry: Whether the alert was admitted before.

        Raises:
          CancelledError: The alert was abandoned.
        """
        while (closed := self.gate.enter(alert_id, is_retry=is_retry)) and closed.is_short:
            self._sleep(closed.seconds, abandoned)
        return closed

    def send(
        self, alert_id: str, write: Callable[[], Message], abandoned: threading.Event
    ) -> SendResult:
        """Delivers a message that the gate has admitted; returns the result of the last attempt.

        If the message can't be composed, another alert may be admitted in its place.

        Args:
          alert_id: The alert's id.
          write: Composes the message when it is to be sent.
          abandoned: Set when the alert is no longer to be sent.

        Raises:
          CancelledError: The alert was abandoned.
        """
        try:
            message = write()
        except Exception as error:  # The record of an earlier release may lack a field.
            self.gate.release_probe(alert_id)
            detail = f"the message can't be written ({type(error).__name__})"
            return SendResult("unavailable", detail)
        policy, failures = self._policy, 0
        while True:
            result = self._client.send(message)
            if result.outcome == "unavailable":
                failures += 1
                if failures < policy.attempts:
                    pause = pause_before(
                        failures, policy.first_pause_seconds, policy.longest_pause_seconds
                    )
                    self._sleep(pause, abandoned)
            if result.outcome in ("delivered", "refused") or failures == policy.attempts:
                self.gate.record_result(result)
                return result
            if result.outcome == "paused":
                self.gate.record_result(result)
            closed = self.wait(alert_id, abandoned, is_retry=True)
            if closed is not None:
                return replace(result, retry_after=closed.seconds)

    def _sleep(self, seconds: float, abandoned: threading.Event) -> None:
        if abandoned.wait(seconds):
            raise CancelledError


def _outcome_without_target(alert: Alert) -> Outcome:
    if alert.suppressed_by is not None:
        return Outcome(None, SUPPRESSED, f"in the cooldown of alert {alert.suppressed_by}")
    return Outcome(None, NOT_SENT, "no --alert_url was given, and the rules name no target for it")


def _start(
    threads: ThreadPoolExecutor,
    work: Callable[[], list[Outcome]],
    *,
    without_thread: Callable[[], list[Outcome]] | None = None,
) -> Future[list[Outcome]]:
    """Starts work in a thread; if the process can't start one, does other work in its place.

    Args:
      threads: The threads.
      work: What to do.
      without_thread: What to do at once, in the caller's thread, if no thread takes the work; None
        for the work itself.
    """
    future: Future[list[Outcome]] = Future()
    try:
        threads.submit(_settle, future, work)
    except RuntimeError:
        # The executor may have queued the work before it failed to start a thread for it, and an
        # earlier thread may have begun it. A cancelled future is skipped.
        if future.cancel():
            future = Future()
            _settle(future, without_thread or work)
    return future


def _settle(future: Future[list[Outcome]], work: Callable[[], list[Outcome]]) -> None:
    """Does the work of a future, unless it was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


@dataclass(frozen=True)
class _TargetQueue:
    """A target with its sender and its threads."""

    target: rules.Target | str
    sender: TargetSender
    threads: ThreadPoolExecutor


@dataclass(frozen=True)
class DispatchContext:
    """The circumstances in which an alert is dispatched to one target.

    Attributes:
      waited_seconds: The time since the alert was first dispatched; it was not too old then.
      is_recorded: Whether its record says that it waits for the target.
      abandoned: Set when the alert is no longer to be sent.
    """

    waited_seconds: float = 0.0
    is_recorded: bool = False
    abandoned: threading.Event = field(default_factory=threading.Event)


def former_names(urls: Sequence[str]) -> dict[str, str]:
    """Maps the names that earlier releases gave addresses of `--alert_url` to current names."""
    current_names = {}
    for name, url in named_urls(urls).items():
        with suppress(ValueError):  # A variable is missing, or its value is not an address.
            current_names[former_name(rules.expand(url, os.environ))] = name
    return current_names


class AlertDispatcher:
    """Sends alerts to targets, and keeps the ledger.

    Args:
      output: The job's output, where `alerts/` is.
      ruleset: The rules, which name targets and hold message templates.
      urls: The addresses that get each alert.
      policy: How long a target is retried.
      max_concurrent: The number of alerts that are sent to one target at a time.
      max_age_seconds: Older alerts are not sent; None for no limit.
    """

    def __init__(
        self,
        output: str,
        ruleset: LiveRules,
        urls: Sequence[str],
        policy: RetryPolicy,
        *,
        max_concurrent: int,
        max_age_seconds: float | None = None,
    ) -> None:
        self.ledger = Ledger(output, former_names(urls))
        self._rules = ruleset
        self._urls = named_urls(urls)
        self._policy = policy
        self._max_concurrent = max_concurrent
        self._max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        self._queues: dict[str, _TargetQueue] = {}
        self._executor = ThreadPoolExecutor(
            stores.files_at_once(output, max_concurrent), thread_name_prefix="ledger"
        )

    def enter(self, alert: Alert, target: str | None, context: DispatchContext) -> Closed | None:
        """Checks whether an alert can be dispatched now; returns why not, or None.

        The result is also None for an alert that is never sent. An alert that can be sent must be
        dispatched after this call.

        Args:
          alert: The alert.
          target: One of its targets; None for none.
          context: The circumstances of the dispatch.
        """
        if target is None or self._unsent_outcome(alert, target, context) is not None:
            return None
        queue = self._queue_of(target)
        return None if queue is None else queue.sender.gate.enter(alert.alert_id)

    def dispatch(
        self, alert: Alert, target: str | None, context: DispatchContext = DispatchContext()
    ) -> Future[list[Outcome]]:
        """Starts to send an alert to one target. Called in the bundle's own thread.

        Args:
          alert: The alert.
          target: One of its targets; None for an alert without a target, which is only recorded.
          context: The circumstances of the dispatch.

        Returns:
          The outcome, once it is recorded; without a target, all outcomes in the record.
        """
        if target is None:
            without_target = _outcome_without_target(alert)
            return _start(self._executor, lambda: self._record(alert, without_target))
        if (unsent := self._unsent_outcome(alert, target, context)) is not None:
            return _start(self._executor, lambda: self._record(alert, unsent))
        queue = self._queue_of(target)
        if queue is None:
            # Edited rules may name it again.
            failed = Outcome(target, FAILED, "there is no such target any more", again_after=0)
            return _start(self._executor, lambda: self._record_waiting(alert, failed, context))
        sender = queue.sender

        def send() -> list[Outcome]:
            return self._send(alert, target, sender, context)

        def keep() -> list[Outcome]:
            sender.gate.release_probe(alert.alert_id)
            failed = Outcome(target, FAILED, _NO_THREAD, again_after=0)
            return self._record_waiting(alert, failed, context)

        return _start(queue.threads, send, without_thread=keep)

    def _unsent_outcome(
        self, alert: Alert, target: str, context: DispatchContext
    ) -> Outcome | None:
        """Returns the outcome of an alert that is not sent; None for an alert that is."""
        if target in alert.held:
            return Outcome(target, SUPPRESSED, f"reported in digest {alert.held[target]}")
        limit = self._max_age_seconds
        if limit is not None and is_too_old(alert, limit + context.waited_seconds):
            return Outcome(target, NOT_SENT, TOO_OLD_DETAIL)
        return None

    def _record(self, alert: Alert, outcome: Outcome) -> list[Outcome]:
        is_earlier = outcome.is_earlier or outcome.outcome != DELIVERED
        recorded = [
            replace(entry, is_earlier=is_earlier) if entry.outcome == DELIVERED else entry
            for entry in self.ledger.record(alert, outcome)
        ]
        if outcome.target is None:
            return recorded
        (entry,) = (entry for entry in recorded if entry.target == outcome.target)
        return [entry if entry.outcome == DELIVERED else outcome]

    def _record_waiting(
        self, alert: Alert, failed: Outcome, context: DispatchContext
    ) -> list[Outcome]:
        """Records an alert that will be sent again, unless its record says so already."""
        return [failed] if context.is_recorded else self._record(alert, failed)

    def _send(
        self, alert: Alert, target: str, sender: TargetSender, context: DispatchContext
    ) -> list[Outcome]:
        closed = sender.wait(alert.alert_id, context.abandoned)
        if closed is not None:
            failed = Outcome(target, FAILED, closed.detail, closed.seconds)
            return self._queued(alert, failed, context)
        try:
            earlier = self.ledger.outcomes(alert)
        except OSError:
            sender.gate.release_probe(alert.alert_id)
            raise
        if any((entry.target, entry.outcome) == (target, DELIVERED) for entry in earlier):
            sender.gate.release_probe(alert.alert_id)
            return self._record(alert, Outcome(target, DELIVERED, is_earlier=True))
        result = sender.send(
            alert.alert_id, lambda: self._message(alert, target), context.abandoned
        )
        if result.outcome == "delivered":
            return self._record(alert, Outcome(target, DELIVERED))
        if result.outcome == "refused":
            return self._record(alert, Outcome(target, FAILED, result.detail))
        failed = Outcome(target, FAILED, result.detail, result.retry_after or 0)
        if result.outcome == "paused":
            return self._queued(alert, failed, context)
        return self._record_waiting(alert, failed, context)

    def _queued(self, alert: Alert, failed: Outcome, context: DispatchContext) -> list[Outcome]:
        """Handles an alert that was not attempted: it is recorded only after a while."""
        if context.waited_seconds < self._policy.record_after_seconds:
            return [replace(failed, outcome=WAITING)]
        return self._record_waiting(alert, failed, context)

    def _message(self, alert: Alert, target: str) -> Message:
        if alert.is_digest:
            return digest_message(cast(DigestBody, alert.body))
        return compose(
            cast(AlertBody, alert.body),
            self._rules.current,
            image=alert.image,
            arrived=alert.arrived,
            target=target,
        )

    def _queue_of(self, name: str) -> _TargetQueue | None:
        """Returns the queue of a target, by the rules in force; None if there is no such target."""
        self._rules.refresh()
        target = self._urls.get(name) or self._rules.current.alerting.targets.get(name)
        if target is None:
            return None
        with self._lock:
            queue = self._queues.get(name)
            if queue is None or queue.target != target:
                queue = self._queues[name] = self._open(name, target)
            return queue

    def _open(self, name: str, target: rules.Target | str) -> _TargetQueue:
        limits = self._policy.limits
        client = (
            url_client(name, target, TOKEN_VARIABLE, os.environ, limits)
            if isinstance(target, str)
            else client_for(target, os.environ, limits)
        )
        return _TargetQueue(
            target,
            TargetSender(client, self._policy),
            ThreadPoolExecutor(self._max_concurrent, thread_name_prefix="alerts"),
        )
