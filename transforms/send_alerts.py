"""SendAlerts: each alert to each of its targets, and the record of what became of it.

Alerts cross a shuffle (they are small) and are sent by a stage of their own, in threads of each
target: one that is slow or dead holds back neither another one nor the pictures.

A batch waits for all that it has begun. A stream does not: it keeps each alert as state until all
its targets are settled, and looks by a timer at what became of it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp

import rules
from transforms.alerts import Alert, alert_for
from transforms.counters import count
from transforms.couriers import check_url, target_name
from transforms.delivery import STREAM_POLICY, PostOffice, RetryPolicy, pause_before
from transforms.ledger import NOT_SENT, SUPPRESSED, Outcome
from transforms.live_rules import LiveRules
from transforms.records import JudgedImage
from transforms.storms import LimitStorms

WAITING = "waiting"
"""A counter's name for what failed and will be tried again; records say `failed` until then."""

IN_DIGEST = "in_digest"
"""A counter's name for what a digest tells of; records say `suppressed`."""

TOO_OLD = "too_old"
"""A counter's name for what is older than `--alert_max_age`; records say `not_sent`."""

_ON_THEIR_WAY = 4096
_LOOK_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class SendOptions:
    """How alerts are sent.

    Attributes:
      output: The job's output, where `alerts/` is.
      by: The rules.
      urls: The services that get every alert.
      policy: How long a target is waited for.
      at_once: Alerts sent at once to one target.
      max_age_seconds: Older alerts are not sent; None: however old they are.
    """

    output: str
    by: LiveRules
    urls: tuple[str, ...]
    policy: RetryPolicy
    at_once: int
    max_age_seconds: float | None

    def open_office(self) -> PostOffice:
        """What sends, of one process."""
        return PostOffice(
            self.output,
            self.by,
            self.urls,
            self.policy,
            at_once=self.at_once,
            max_age_seconds=self.max_age_seconds,
        )


def _count(alert: Alert, outcomes: Iterable[Outcome], *, waits: bool = False) -> None:
    what = "digests" if alert.is_digest else "alerts"
    for one in outcomes:
        name = one.outcome
        if waits:
            name = WAITING
        elif one.target is not None and one.outcome == SUPPRESSED:
            name = IN_DIGEST
        elif one.target is not None and one.outcome == NOT_SENT:
            name = TOO_OLD
        count(f"{what}.{name}")


class _Deliver(beam.DoFn):
    """Sends each alert of a bundle, a bounded number of them ahead of what is settled."""

    def __init__(self, options: SendOptions) -> None:
        self._options = options
        self._shared = Shared()

    def setup(self) -> None:
        self._office = self._shared.acquire(self._options.open_office)

    def start_bundle(self) -> None:
        self._begun: deque[tuple[Alert, list[Future[list[Outcome]]]]] = deque()

    def process(self, element: Alert) -> None:
        while len(self._begun) >= _ON_THEIR_WAY:
            self._settle()
        self._begun.append((element, [self._office.post(element, one) for one in element.parts]))

    def finish_bundle(self) -> None:
        while self._begun:
            self._settle()

    def _settle(self) -> None:
        alert, futures = self._begun.popleft()
        try:
            for future in futures:
                _count(alert, future.result())
        except BaseException:
            self._abandon(futures)
            raise

    def _abandon(self, futures: list[Future[list[Outcome]]]) -> None:
        """Ends the work of a bundle that has failed, before the runner tries the bundle again."""
        begun = [*futures, *(future for _, some in self._begun for future in some)]
        self._begun.clear()
        for future in begun:
            future.cancel()
        wait(begun)


class Underway:
    """What a process of a stream is sending, or has sent and nobody has asked for yet.

    The timer that asks may wake in another process, which then knows nothing and begins again: the
    ledger says what was delivered. So what is never asked for can be forgotten.

    Args:
      office: Sends.
      most: Alerts for one target that may be on their way; further ones are begun later.
      kept: Outcomes that nobody has asked for.
    """

    def __init__(self, office: PostOffice, *, most: int = 1000, kept: int = 20_000) -> None:
        self._office = office
        self._most = most
        self._kept = kept
        self._begun: OrderedDict[tuple[str, str | None], Future[list[Outcome]]] = OrderedDict()
        self._on_their_way: Counter[str | None] = Counter()
        self._lock = threading.RLock()  # What has ended already calls back at once.

    def look(self, alert: Alert, target: str | None, *, again: bool) -> list[Outcome] | None:
        """What became of an alert for one target; None while it is on its way. Begins to send it
        where that was not done. Called in a bundle's own thread.

        Args:
          alert: The alert.
          target: One of its targets, or None for none.
          again: It was tried before.

        Raises:
          OSError: It can't be recorded.
        """
        key = alert.alert_id, target
        with self._lock:
            future = self._begun.get(key)
            if future is None:
                if self._on_their_way[target] < self._most:
                    self._begin(key, self._office.post(alert, target, again=again))
                return None
            if not future.done():
                return None
            del self._begun[key]
        return future.result()

    def _begin(self, key: tuple[str, str | None], future: Future[list[Outcome]]) -> None:
        def ended(_: Future[list[Outcome]]) -> None:
            with self._lock:
                self._on_their_way[key[1]] -= 1

        self._begun[key] = future
        self._on_their_way[key[1]] += 1
        future.add_done_callback(ended)
        if len(self._begun) > self._kept:
            ended_ones = (one for one, future in self._begun.items() if future.done())
            if (oldest := next(ended_ones, None)) is not None:
                del self._begun[oldest]


@dataclass
class _Line:
    """How far an alert is with one target.

    Attributes:
      since: When it came, in Unix seconds.
      due: When it is to be looked at.
      tries: How often it has failed.
    """

    since: float
    due: float
    tries: int = 0


@dataclass
class _InHand:
    """An alert of a stream, and those of its targets that are not settled."""

    alert: Alert
    lines: dict[str | None, _Line] = field(default_factory=dict)


class _DeliverInStream(beam.DoFn):
    """Holds each alert until all its targets are settled, and sends it again where one fails."""

    _HELD = ReadModifyWriteStateSpec("held", beam.coders.PickleCoder())
    _LOOK = TimerSpec("look", TimeDomain.REAL_TIME)

    def __init__(
        self, options: SendOptions, keep_trying_seconds: float, longest_pause_seconds: float
    ) -> None:
        self._options = options
        self._keep_trying_seconds = keep_trying_seconds
        self._longest_pause_seconds = longest_pause_seconds
        self._shared = Shared()

    def setup(self) -> None:
        self._underway = self._shared.acquire(lambda: Underway(self._options.open_office()))

    def process(
        self,
        element: tuple[str, Alert],
        held: Any = beam.DoFn.StateParam(_HELD),
        again: Any = beam.DoFn.TimerParam(_LOOK),
    ) -> None:
        alert = element[1]
        hand: _InHand = held.read() or _InHand(alert)
        hand.alert = replace(alert, held={**hand.alert.held, **alert.held})
        now = time.time()
        for name in alert.parts:
            hand.lines.setdefault(name, _Line(now, now))
        self._look(hand, held, again)

    @on_timer(_LOOK)
    def look_again(
        self,
        held: Any = beam.DoFn.StateParam(_HELD),
        again: Any = beam.DoFn.TimerParam(_LOOK),
    ) -> None:
        """Looks at what became of an alert."""
        hand: _InHand | None = held.read()
        if hand is not None:
            self._look(hand, held, again)

    def _look(self, hand: _InHand, held: Any, again: Any) -> None:
        now = time.time()
        for name, line in list(hand.lines.items()):
            if line.due > now:
                continue
            outcomes = self._underway.look(hand.alert, name, again=line.tries > 0)
            if outcomes is None:
                line.due = now + _LOOK_SECONDS
            elif not self._is_tried_again(hand.alert, line, outcomes, now):
                del hand.lines[name]
        if hand.lines:
            held.write(hand)
            again.set(Timestamp(min(line.due for line in hand.lines.values())))
        else:
            held.clear()

    def _is_tried_again(
        self, alert: Alert, line: _Line, outcomes: list[Outcome], now: float
    ) -> bool:
        (pause, *_) = [one.again_after for one in outcomes]
        if pause is None or now - line.since >= self._keep_trying_seconds:
            _count(alert, outcomes)
            return False
        line.tries += 1
        if line.tries == 1:
            _count(alert, outcomes, waits=True)
        own = pause_before(line.tries, _FIRST_PAUSE_SECONDS, self._longest_pause_seconds)
        line.due = now + max(own, min(pause, self._keep_trying_seconds))
        return True


class SendAlerts(beam.PTransform):
    """Sends alerts to their targets, and records what became of each.

    Input: `PCollection[JudgedImage]`. An image of severity `alert` has an alert, one of severity
    `detection` where a target asks for it. What a record shows as delivered is not sent again; what
    comes in the cooldown of another alert, beyond a limit or too old is recorded, and not sent.
    Secrets are taken from the environment of the machine that sends.

    Args:
      output: The job's output, where `alerts/` is.
      by: The rules, which name targets and limits. In a stream, limits may be edited where the
        rules of the start have one.
      urls: Services that get each alert of severity `alert`, with a token from the environment
        variable `ALERT_TOKEN`.
      policy: How long a target is waited for; None: as suits a batch or a stream.
      at_once: Alerts sent at once to one target.
      streaming: Alerts keep coming: one that fails is held and sent again.
      max_age_seconds: Older alerts are not sent; None: however old they are. One that was tried in
        time is tried on.
      allowed_lateness_seconds: How long after its end a stream remembers a window of the limits.
      keep_trying_seconds: For how long a stream tries to send an alert.
      longest_pause_seconds: Between two tries of one alert; the first pauses are 2, 4, 8 s.
    """

    def __init__(
        self,
        output: str,
        by: rules.Rules | LiveRules,
        *,
        urls: Sequence[str] = (),
        policy: RetryPolicy | None = None,
        at_once: int = 16,
        streaming: bool = False,
        max_age_seconds: float | None = None,
        allowed_lateness_seconds: int = 3600,
        keep_trying_seconds: float = 86400,
        longest_pause_seconds: float = 60,
    ) -> None:
        super().__init__()
        for url in urls:
            check_url(url)
        live = LiveRules.of(by)
        policy = policy or (STREAM_POLICY if streaming else RetryPolicy())
        options = SendOptions(output, live, tuple(urls), policy, at_once, max_age_seconds)
        self._options = options
        self._deliver = (
            _DeliverInStream(options, keep_trying_seconds, longest_pause_seconds)
            if streaming
            else _Deliver(options)
        )
        self._streaming = streaming
        self._limits = LimitStorms(
            live,
            streaming=streaming,
            allowed_lateness_seconds=allowed_lateness_seconds,
            max_age_seconds=max_age_seconds,
        )

    def expand(self, judged: beam.PCollection[JudgedImage]) -> beam.PCollection[Any]:
        output, by = self._options.output, self._options.by
        everywhere = tuple(map(target_name, self._options.urls))

        def choose(one: JudgedImage) -> Iterator[Alert]:
            by.refresh()
            alert = alert_for(one, output, by.now, everywhere)
            if alert is not None:
                yield alert

        alerts = judged | "ChooseAlerts" >> beam.FlatMap(choose).with_output_types(Alert)
        alerting = by.now.alerting
        if alerting.per_id is not None or alerting.fleet is not None:
            alerts = alerts | "LimitStorms" >> self._limits
        if not self._streaming:
            apart = alerts | "ApartFromImages" >> beam.Reshuffle()
            return apart | "Deliver" >> beam.ParDo(self._deliver)
        keyed = beam.Map(lambda one: (one.alert_id, one)).with_output_types(tuple[str, Alert])
        return alerts | "ByAlert" >> keyed | "Deliver" >> beam.ParDo(self._deliver)
