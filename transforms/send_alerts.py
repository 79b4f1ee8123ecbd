"""SendAlerts: sends each alert to its targets, and records the outcomes.

Alerts are small: they cross a shuffle, and a separate stage sends them, with threads for each
target. A slow or dead target delays neither other targets nor images.

A batch waits for all alerts that it has started. A stream does not: it keeps each alert in state
until all its targets are settled, and checks its progress by a timer.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp

import rules
from transforms.alerting.alerts import Alert, alert_for
from transforms.alerting.delivery import (
    STREAM_POLICY,
    AlertDispatcher,
    DispatchContext,
    RetryPolicy,
    pause_before,
)
from transforms.alerting.ledger import FAILED, NOT_SENT, SUPPRESSED, WAITING, Outcome
from transforms.alerting.replacements import Replacements
from transforms.alerting.target_clients import check_url, named_urls
from transforms.limit_alerts import LimitAlerts
from transforms.records.codecs import VersionedCoder, keep_plain
from transforms.records.images import JudgedImage
from transforms.runtime.counters import count
from transforms.runtime.live_rules import LiveRules

IN_DIGEST = "in_digest"
"""The counter's name for alerts that a digest reports; records say `suppressed`."""

DELIVERED_EARLIER = "delivered_earlier"
"""The counter's name for alerts of a batch that were delivered before, as a rule by an earlier run;
records say `delivered`."""

TOO_OLD = "too_old"
"""The counter's name for alerts older than `--alert_max_age`; records say `not_sent`."""

_IN_FLIGHT_IN_BATCH = 4096
_POLL_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 2.0
_SPREAD_SECONDS = 5.0


@dataclass(frozen=True)
class SendOptions:
    """How alerts are sent.

    Attributes:
      output: The job's output, where `alerts/` is.
      ruleset: The rules.
      urls: The services that get every alert.
      policy: How long a target is retried.
      max_concurrent: The number of alerts that are sent to one target at a time.
      max_age_seconds: Older alerts are not sent; None for no limit.
    """

    output: str
    ruleset: LiveRules
    urls: tuple[str, ...]
    policy: RetryPolicy
    max_concurrent: int
    max_age_seconds: float | None

    def open_dispatcher(self) -> AlertDispatcher:
        """Makes the dispatcher of one process."""
        return AlertDispatcher(
            self.output,
            self.ruleset,
            self.urls,
            self.policy,
            max_concurrent=self.max_concurrent,
            max_age_seconds=self.max_age_seconds,
        )


def _count(
    alert: Alert, outcomes: Iterable[Outcome], *, is_waiting: bool = False, is_batch: bool = False
) -> None:
    prefix = "digests" if alert.is_digest else "alerts"
    for outcome in outcomes:
        name = outcome.outcome
        if is_waiting:
            name = WAITING
        elif is_batch and outcome.is_earlier:
            name = DELIVERED_EARLIER
        elif outcome.target is not None and outcome.outcome == SUPPRESSED:
            name = IN_DIGEST
        elif outcome.target is not None and outcome.outcome == NOT_SENT:
            name = TOO_OLD
        count(f"{prefix}.{name}")


class _DeliverInBatch(beam.DoFn):
    """Sends the alerts of a bundle; the number of unfinished alerts is bounded."""

    def __init__(self, options: SendOptions) -> None:
        self._options = options
        self._shared = Shared()

    def setup(self) -> None:
        self._dispatcher = self._shared.acquire(self._options.open_dispatcher)

    def start_bundle(self) -> None:
        self._unfinished: deque[tuple[Alert, list[Future[list[Outcome]]]]] = deque()
        self._context = DispatchContext()

    def process(self, element: Alert) -> None:
        while len(self._unfinished) >= _IN_FLIGHT_IN_BATCH:
            self._finish_oldest()
        dispatched = [
            self._dispatcher.dispatch(element, target, self._context)
            for target in element.delivery_targets
        ]
        self._unfinished.append((element, dispatched))

    def finish_bundle(self) -> None:
        while self._unfinished:
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        alert, futures = self._unfinished.popleft()
        try:
            for future in futures:
                _count(alert, future.result(), is_batch=True)
        except BaseException:
            self._abandon(futures)
            raise

    def _abandon(self, futures: list[Future[list[Outcome]]]) -> None:
        """Ends the work of a failed bundle, before the runner tries the bundle again."""
        futures = [*futures, *(future for _, others in self._unfinished for future in others)]
        self._unfinished.clear()
        self._context.abandoned.set()
        for future in futures:
            future.cancel()
        wait(futures)


class InFlight:
    """The alerts that a process of a stream is sending, and the outcomes that were not polled yet.

    The timer that polls may fire in another process, which has no such memory and dispatches the
    alert again: the ledger says whether it was delivered. So outcomes that are never polled may be
    dropped.

    Args:
      dispatcher: Sends the alerts.
      record_after_seconds: An alert that the target's gate holds back is recorded after this time.
      max_in_flight: The number of unfinished alerts for one target; further ones start later.
      max_results: The number of outcomes that are kept.
    """

    def __init__(
        self,
        dispatcher: AlertDispatcher,
        record_after_seconds: float,
        *,
        max_in_flight: int = 1000,
        max_results: int = 20_000,
    ) -> None:
        self._dispatcher = dispatcher
        self._record_after_seconds = record_after_seconds
        self._max_in_flight = max_in_flight
        self._max_results = max_results
        self._futures: OrderedDict[tuple[str, str | None], Future[list[Outcome]]] = OrderedDict()
        self._unfinished: Counter[str | None] = Counter()
        self._lock = threading.RLock()  # The callback of a finished future runs at once.

    def poll(
        self, alert: Alert, target: str | None, context: DispatchContext
    ) -> list[Outcome] | None:
        """Returns the outcomes of an alert for one target; None while it is in flight.

        An alert that was not dispatched yet is dispatched. If the target's gate holds the alert
        back and its record is up to date, neither the store nor the target gets a request. Called
        in the bundle's own thread.

        Args:
          alert: The alert.
          target: One of its targets, or None for none.
          context: The circumstances of the dispatch.

        Raises:
          OSError: The outcome can't be recorded.
        """
        key = alert.alert_id, target
        with self._lock:
            future = self._futures.get(key)
            if future is None:
                if self._unfinished[target] >= self._max_in_flight:
                    return None
                closed = self._dispatcher.enter(alert, target, context)
                if closed is not None and context.is_recorded:
                    return [Outcome(target, FAILED, closed.detail, closed.seconds)]
                if closed is not None and context.waited_seconds < self._record_after_seconds:
                    return [Outcome(target, WAITING, closed.detail, closed.seconds)]
                self._track(key, self._dispatcher.dispatch(alert, target, context))
                return None
            if not future.done():
                return None
            del self._futures[key]
        return future.result()

    def _track(self, key: tuple[str, str | None], future: Future[list[Outcome]]) -> None:
        def ended(_: Future[list[Outcome]]) -> None:
            with self._lock:
                self._unfinished[key[1]] -= 1

        self._futures[key] = future
        self._unfinished[key[1]] += 1
        future.add_done_callback(ended)
        if len(self._futures) > self._max_results:
            done = (known for known, future in self._futures.items() if future.done())
            if (oldest := next(done, None)) is not None:
                del self._futures[oldest]


@dataclass(frozen=True)
class PendingTarget:
    """The progress of an alert for one target.

    Attributes:
      name: The target's name; None for an alert without a target.
      since: The time at which the alert arrived, in Unix seconds.
      due: The time of the next check.
      tries: The number of failed attempts.
      is_recorded: Whether the alert's record says that it waits for the target.
    """

    name: str | None
    since: float
    due: float
    tries: int = 0
    is_recorded: bool = False


@dataclass(frozen=True)
class PendingAlert:
    """An alert of a stream, with the targets that are not settled."""

    alert: Alert
    targets: tuple[PendingTarget, ...] = ()


PENDING_ALERTS: VersionedCoder[PendingAlert] = VersionedCoder(
    PendingAlert, version=3, upgrades={1: keep_plain, 2: keep_plain}
)
"""Encodes the state of an alert until it is settled."""


class _DeliverInStream(beam.DoFn):
    """Keeps each alert until all its targets are settled, and sends it again to those that fail."""

    _PENDING = ReadModifyWriteStateSpec("pending", PENDING_ALERTS)
    _LOOK = TimerSpec("look", TimeDomain.REAL_TIME)

    def __init__(
        self, options: SendOptions, keep_trying_seconds: float, longest_pause_seconds: float
    ) -> None:
        self._options = options
        self._keep_trying_seconds = keep_trying_seconds
        self._longest_pause_seconds = longest_pause_seconds
        self._record_after_seconds = options.policy.record_after_seconds
        self._shared = Shared()

    def setup(self) -> None:
        self._in_flight = self._shared.acquire(
            lambda: InFlight(self._options.open_dispatcher(), self._record_after_seconds)
        )

    def process(
        self,
        element: tuple[str, Alert],
        state: Any = beam.DoFn.StateParam(_PENDING),
        timer: Any = beam.DoFn.TimerParam(_LOOK),
    ) -> None:
        alert = element[1]
        pending: PendingAlert = state.read() or PendingAlert(alert)
        # A part says for its target alone whether a limit holds the alert back.
        other_held = {
            name: digest for name, digest in pending.alert.held.items() if name not in alert.targets
        }
        alert = replace(alert, held={**other_held, **alert.held})
        now = time.time()
        known_names = {target.name for target in pending.targets}
        new_targets = (
            PendingTarget(name, now, now)
            for name in alert.delivery_targets
            if name not in known_names
        )
        self._check_targets(PendingAlert(alert, (*pending.targets, *new_targets)), state, timer)

    @on_timer(_LOOK)
    def on_look_timer(
        self,
        state: Any = beam.DoFn.StateParam(_PENDING),
        timer: Any = beam.DoFn.TimerParam(_LOOK),
    ) -> None:
        """Checks the progress of an alert."""
        pending: PendingAlert | None = state.read()
        if pending is not None:
            self._check_targets(pending, state, timer)

    def _check_targets(self, pending: PendingAlert, state: Any, timer: Any) -> None:
        now = time.time()
        checked = (
            target if target.due > now else self._check_target(pending.alert, target, now)
            for target in pending.targets
        )
        unsettled = tuple(target for target in checked if target is not None)
        if unsettled:
            state.write(PendingAlert(pending.alert, unsettled))
            timer.set(Timestamp(min(target.due for target in unsettled)))
        else:
            state.clear()

    def _check_target(
        self, alert: Alert, target: PendingTarget, now: float
    ) -> PendingTarget | None:
        """Returns the progress of an alert for a target; None if the target is settled."""
        waited = now - target.since
        context = DispatchContext(waited_seconds=waited, is_recorded=target.is_recorded)
        outcomes = self._in_flight.poll(alert, target.name, context)
        if outcomes is None:
            return replace(target, due=now + _POLL_SECONDS)
        (outcome, *_) = outcomes
        pause = outcome.again_after
        if outcome.outcome == WAITING:
            remaining = max(self._record_after_seconds - waited, 0)
            return replace(target, due=now + min(pause or 0, remaining))
        if pause is None or waited >= self._keep_trying_seconds:
            _count(alert, outcomes)
            return None
        if not target.is_recorded:
            _count(alert, outcomes, is_waiting=True)
            target = replace(target, is_recorded=True)
        if pause:  # Alerts are spread over time after a target's pause.
            pause = min(pause, self._keep_trying_seconds)
            pause += random.uniform(0, min(pause / 4, _SPREAD_SECONDS))
        else:
            target = replace(target, tries=target.tries + 1)
            pause = pause_before(target.tries, _FIRST_PAUSE_SECONDS, self._longest_pause_seconds)
        return replace(target, due=now + pause)


class SendAlerts(beam.PTransform):
    """Sends alerts to their targets, and records the outcomes.

    Input: `PCollection[JudgedImage]`. An image of severity `alert` has an alert; an image of
    severity `detection` has one if the rules name a target for it. An alert that its record shows
    as delivered is not sent again. An alert in the cooldown of another one, beyond a limit, or too
    old is recorded, but not sent; if its incident goes on, the first alert in its cooldown that is
    recent is sent instead of it. Secrets come from the environment of the machine that sends.

    Args:
      output: The job's output, where `alerts/` is.
      ruleset: The rules, which name targets and limits. In a stream, limits may be edited if the
        initial rules have one.
      urls: The services that get each alert of severity `alert`, with a token from the environment
        variable `ALERT_TOKEN`. `${NAME}` in an address refers to another variable.
      timezone: The time zone of cameras for which the rules name none; None for UTC.
      policy: How long a target is retried; None for the default of a batch or a stream.
      max_concurrent: The number of alerts that are sent to one target at a time.
      streaming: Whether the input is unbounded: a failed alert is then kept and sent again.
      max_age_seconds: Older alerts are not sent; None for no limit. The age counts when it is
        decided whether an alert is sent, not when it is sent.
      keep_trying_seconds: How long a stream retries an alert.
      longest_pause_seconds: The longest pause between two attempts of one alert; the first pauses
        are 2, 4 and 8 s.
    """

    def __init__(
        self,
        output: str,
        ruleset: rules.Rules | LiveRules,
        *,
        urls: Sequence[str] = (),
        timezone: str | None = None,
        policy: RetryPolicy | None = None,
        max_concurrent: int = 16,
        streaming: bool = False,
        max_age_seconds: float | None = None,
        keep_trying_seconds: float = 86400,
        longest_pause_seconds: float = 60,
    ) -> None:
        super().__init__()
        for url in urls:
            check_url(url)
        live = LiveRules.of(ruleset)
        policy = policy or (STREAM_POLICY if streaming else RetryPolicy())
        options = SendOptions(output, live, tuple(urls), policy, max_concurrent, max_age_seconds)
        self._options = options
        self._deliver = (
            _DeliverInStream(options, keep_trying_seconds, longest_pause_seconds)
            if streaming
            else _DeliverInBatch(options)
        )
        self._streaming = streaming
        self._timezone = timezone
        self._limits = LimitAlerts(
            output,
            live,
            streaming=streaming,
            max_age_seconds=max_age_seconds,
        )

    def expand(self, judged: beam.PCollection[JudgedImage]) -> beam.PCollection[Any]:
        output, ruleset = self._options.output, self._options.ruleset
        default_targets = tuple(named_urls(self._options.urls))
        timezone = self._timezone
        replacements = Replacements(output, self._options.max_age_seconds)

        def choose(image: JudgedImage) -> Iterator[Alert]:
            ruleset.refresh()
            alert = alert_for(image, output, ruleset.current, default_targets, timezone)
            if alert is not None:
                yield replacements.apply(alert, image.verdict.covered_since)

        alerts = judged | "ChooseAlerts" >> beam.FlatMap(choose).with_output_types(Alert)
        alerting = ruleset.current.alerting
        if alerting.per_id is not None or alerting.fleet is not None:
            alerts = alerts | "LimitAlerts" >> self._limits
        if not self._streaming:
            reshuffled = alerts | "ApartFromImages" >> beam.Reshuffle()
            return reshuffled | "Deliver" >> beam.ParDo(self._deliver)
        keyed = beam.Map(lambda alert: (alert.alert_id, alert)).with_output_types(tuple[str, Alert])
        return alerts | "ByAlert" >> keyed | "Deliver" >> beam.ParDo(self._deliver)
