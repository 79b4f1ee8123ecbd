"""LimitAlerts: beyond a limit, a target gets one digest for the rest of a window.

The `limits` of the rule file say how many messages a target gets one by one: for one camera, and
for the whole fleet, in windows of capture time that begin at multiples of their length since 1970.
Further alerts are recorded as held back, with the id of the digest that counts them. If the fleet
has a limit, its digests also report the alerts that a camera's limit held back. So a target never
gets more than that many messages for a window of the fleet.

A batch applies the limits in the order of capture time. A stream can't wait: it sends the first
alerts that arrive, and the digest when the window has ended by the clock of the machine, which may
differ from the camera's. The decisions of a stream are written to the output before they take
effect (see :mod:`transforms.alerting.decisions`), so that a retried bundle decides the same, in
any order. Only the alerts that wait for the next digest are in state.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import apache_beam as beam
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagStateSpec,
    ReadModifyWriteStateSpec,
    TimerSpec,
    on_timer,
)
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp

import rules
from transforms.alerting.alerts import Alert, is_too_old
from transforms.alerting.decisions import (
    DecodedRecords,
    DigestRecord,
    UnusableRecordError,
    WindowRecord,
    is_written,
    read_record,
    write_record,
)
from transforms.alerting.digests import Digest, HeldAlert
from transforms.records.codecs import VersionedCoder, keep_plain, register_record
from transforms.records.times import EPOCH, canonical_time, from_unix, parse_time
from transforms.runtime.counters import count
from transforms.runtime.live_rules import LiveRules
from transforms.storage import stores

_MICROSECOND = timedelta(microseconds=1)
_LONGEST_GRACE = 30_000_000
"""The longest wait for late images of a window after its end, in microseconds."""
_MAX_UNUSABLE = 1000
"""The number of windows with unusable records that a worker keeps between bundles."""


@dataclass(frozen=True)
class Window:
    """A window of time in which the number of messages to a target is limited.

    Attributes:
      target: The target's name.
      camera: The camera's id; empty for all cameras together.
      start: The start, in microseconds since 1970.
      length: The length in microseconds.
    """

    target: str
    camera: str
    start: int
    length: int

    @property
    def key(self) -> str:
        """The unique key of the window."""
        return "\n".join((self.target, self.camera, str(self.start), str(self.length)))

    @classmethod
    def of(cls, alert: Alert, limit: rules.Limit, *, per_id: bool) -> Window:
        """Returns the window of an alert for one target."""
        length = limit.within // _MICROSECOND
        start = _micros(alert.body["timestamp"]) // length * length
        return cls(alert.targets[0], alert.camera if per_id else "", start, length)

    @property
    def bounds(self) -> tuple[str, str]:
        """The start and the end, canonical."""
        return _canonical(self.start), _canonical(self.start + self.length)

    def due(self, now: float) -> float:
        """Returns the time at which a digest is due whose first alert arrives now.

        The digest is due at the end of the window of arrival, whatever the camera's clock says,
        plus a grace period for images that were in flight when that window ended.

        Args:
          now: The current time in Unix seconds.

        Returns:
          The due time in Unix seconds.
        """
        grace = min(self.length // 10, _LONGEST_GRACE)
        micros = round(now * 1_000_000)
        return ((micros - grace) // self.length * self.length + self.length + grace) / 1_000_000

    def digest_id(self, number: int = 0) -> str:
        """Returns the id of a digest; it is the same in every run.

        Args:
          number: The number of earlier digests of the window.
        """
        event = ["digest", self.target, self.camera, *self.bounds]
        if number:
            event.append(str(number))
        return hashlib.sha256("\n".join(event).encode()).hexdigest()[:32]

    def record_uri(self, output: str) -> str:
        """Returns the address of the record of decisions."""
        digest = hashlib.sha256(f"{self.target}\n{self.camera}".encode()).hexdigest()[:32]
        return stores.limits_uri(output, self._folder, digest)

    def digest_uri(self, output: str, number: int) -> str:
        """Returns the address of the record of a digest.

        Args:
          output: The job's output.
          number: The number of earlier digests of the window.
        """
        return stores.digest_uri(output, self._folder, self.digest_id(number))

    @property
    def _folder(self) -> str:
        return "_".join(map(stores.time_in_name, self.bounds))


def _micros(timestamp: str) -> int:
    return (parse_time(timestamp) - EPOCH) // _MICROSECOND


def _canonical(micros: int) -> str:
    try:
        return canonical_time(EPOCH + micros * _MICROSECOND)
    except OverflowError:  # A window may begin before the year 1, and end after the year 9999.
        limit = datetime.min if micros < 0 else datetime.max.replace(microsecond=0)
        return canonical_time(limit.replace(tzinfo=timezone.utc))


@dataclass(frozen=True)
class TargetedAlert:
    """An alert for one target, to which limits are applied.

    Attributes:
      alert: The alert, with that one target.
      over: Whether the camera's limit is exceeded, so that the fleet's digest reports the alert.
    """

    alert: Alert
    over: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether limits don't apply: the alert is held already, or is a digest."""
        return bool(self.alert.held) or self.alert.is_digest

    def held_by(self, digest_id: str) -> TargetedAlert:
        """Returns the alert as held for a digest."""
        return TargetedAlert(replace(self.alert, held={self.alert.targets[0]: digest_id}))


def _digest_alert(window: Window, body: Mapping[str, Any]) -> TargetedAlert:
    return TargetedAlert(Alert(body["alert_id"], "", body, (window.target,)))


def in_capture_order(alerts: Iterable[TargetedAlert]) -> list[TargetedAlert]:
    """Sorts alerts by capture time."""

    def order(part: TargetedAlert) -> tuple[int, str]:
        return _micros(part.alert.body["timestamp"]), part.alert.alert_id

    return sorted(alerts, key=order)


def apply_limit(
    alerts: Iterable[TargetedAlert], window: Window, limit: int, *, digests: bool
) -> Iterator[TargetedAlert]:
    """Applies a limit to all alerts of a window: the first ones pass, the others are held.

    Args:
      alerts: The alerts of one target, and of one camera if the limit is per camera; in any order.
      window: The window.
      limit: How many are sent one by one.
      digests: Whether the others go into a digest, which comes last. Otherwise they are marked for
        the digest of the fleet.
    """
    digest = Digest()
    sent = 0
    for part in in_capture_order(alerts):
        if not part.over and sent < limit:
            sent += 1
            yield part
        elif digests:
            digest.add(HeldAlert.of(part.alert))
            yield part.held_by(window.digest_id())
        else:
            yield replace(part, over=True)
    if digest.alerts:
        body = digest.body(window.digest_id(), window.camera, window.bounds)
        yield _digest_alert(window, body)


def join_parts(parts: Iterable[TargetedAlert]) -> Alert:
    """Joins the parts of an alert."""
    alerts = [part.alert for part in parts]
    targets = sorted(name for alert in alerts for name in alert.targets)
    held = {name: digest for alert in alerts for name, digest in sorted(alert.held.items())}
    return replace(alerts[0], targets=tuple(targets), held=held)


@dataclass(frozen=True)
class NextDigest:
    """The digest that some alerts wait for.

    Attributes:
      window: Their window.
      number: The number of earlier digests of the window.
    """

    window: Window
    number: int

    @property
    def digest_id(self) -> str:
        """The id of the digest."""
        return self.window.digest_id(self.number)


HELD_ALERTS: VersionedCoder[HeldAlert] = VersionedCoder(HeldAlert)
"""Encodes the alerts that wait for a digest, as a stream's state."""

NEXT_DIGESTS: VersionedCoder[NextDigest] = VersionedCoder(NextDigest)
"""Encodes which digest they wait for, as a stream's state."""


class _LimitInStream(beam.DoFn):
    """Admits the first alerts of each window, and holds the others until the digest is due.

    The record of a window is read once per bundle, and written before a decision takes effect.
    Older state after a restart does no harm: the record lists each alert that was admitted or
    reported. If the record holds the digest that the state waits for, that digest was made of the
    held alerts and later ones. If a record is damaged or deleted, no held alert is lost: the digest
    keeps its id, and a further digest gets an unused id.

    Args:
      output: The job's output.
      ruleset: The rules, which may change.
      per_id: Whether the limit applies to each camera, or to the fleet.
      max_age_seconds: Older alerts are ignored here, and are not sent; None for no limit.
      clock: Returns Unix seconds.
    """

    _HELD = BagStateSpec("held", HELD_ALERTS)
    _NEXT = ReadModifyWriteStateSpec("next_digest", NEXT_DIGESTS)
    _DUE = TimerSpec("due", TimeDomain.REAL_TIME)
    _END = TimerSpec("end", TimeDomain.WATERMARK)

    def __init__(
        self,
        output: str,
        ruleset: LiveRules,
        *,
        per_id: bool,
        max_age_seconds: float | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._output = output
        self._rules = ruleset
        self._per_id = per_id
        self._max_age_seconds = max_age_seconds
        self._clock = clock
        self._unusable: dict[str, WindowRecord | None] = {}
        """The decisions of this worker for windows whose record in the output is unusable."""
        self._decoded = DecodedRecords()

    def start_bundle(self) -> None:
        self._records: dict[str, WindowRecord] = {}
        self._emitted: set[str] = set()
        for key in list(self._unusable)[:-_MAX_UNUSABLE]:
            del self._unusable[key]

    def process(
        self,
        element: tuple[str, tuple[Window | None, TargetedAlert]],
        held: Any = beam.DoFn.StateParam(_HELD),
        next_digest: Any = beam.DoFn.StateParam(_NEXT),
        due: Any = beam.DoFn.TimerParam(_DUE),
        end: Any = beam.DoFn.TimerParam(_END),
    ) -> Iterator[TargetedAlert]:
        _, (window, part) = element
        self._rules.refresh()
        limit = _limit(self._rules.current, self._per_id)
        if window is None or limit is None:
            yield part
            return
        alert_id = part.alert.alert_id
        record = self._record(window)
        if alert_id in record.admitted:
            yield part
        elif (digest := record.digest_for_alert(alert_id)) is not None:
            yield part.held_by(digest.digest_id)
            yield from self._emit_digest(window, digest)
        elif is_too_old(part.alert, self._max_age_seconds, from_unix(self._clock())):
            yield part
        elif not part.over and len(record.admitted) < limit.alerts:
            self._write_record(window, record.admit(alert_id))
            yield part
        elif _makes_digests(self._rules.current, self._per_id):
            pending: NextDigest | None = next_digest.read()
            sent_digest = pending and record.digest_by_id(pending.digest_id)
            if sent_digest:
                yield from self._emit_digest(window, sent_digest)
                held.clear()
                pending = None
            if pending is None:
                pending = NextDigest(window, self._next_number(window, record))
                next_digest.write(pending)
                due.set(Timestamp(window.due(self._clock())))
                end.set(GlobalWindow().max_timestamp())  # The stream is drained.
            held.add(HeldAlert.of(part.alert))
            yield part.held_by(pending.digest_id)
        else:
            yield replace(part, over=True)

    @on_timer(_DUE)
    def send_digest(
        self,
        held: Any = beam.DoFn.StateParam(_HELD),
        next_digest: Any = beam.DoFn.StateParam(_NEXT),
        end: Any = beam.DoFn.TimerParam(_END),
    ) -> Iterator[TargetedAlert]:
        """Sends a digest that is due."""
        end.clear()
        yield from self._make_digest(held, next_digest)

    @on_timer(_END)
    def send_last_digest(
        self,
        held: Any = beam.DoFn.StateParam(_HELD),
        next_digest: Any = beam.DoFn.StateParam(_NEXT),
        due: Any = beam.DoFn.TimerParam(_DUE),
    ) -> Iterator[TargetedAlert]:
        """Sends the last digest: the stream has ended."""
        due.clear()
        yield from self._make_digest(held, next_digest)

    def _make_digest(self, held: Any, next_digest: Any) -> Iterator[TargetedAlert]:
        pending: NextDigest | None = next_digest.read()
        if pending is None:
            return
        window = pending.window
        record = self._record(window)
        record_of_digest = record.digest_by_id(pending.digest_id)
        if record_of_digest is None:
            digest = Digest()
            for alert in held.read():
                if alert.alert_id not in record.admitted and not record.digest_for_alert(
                    alert.alert_id
                ):
                    digest.add(alert)
            if digest.alerts:
                body = digest.body(pending.digest_id, window.camera, window.bounds)
                record_of_digest = DigestRecord(digest.alert_ids, body, pending.number)
                self._write_record(window, record.add_digest(record_of_digest))
        if record_of_digest is not None:
            yield from self._emit_digest(window, record_of_digest)
        held.clear()
        next_digest.clear()

    def _next_number(self, window: Window, record: WindowRecord) -> int:
        """Returns the number of the next digest, whose id is unused.

        Digests that a lost record no longer lists are found by the records of their outcomes.
        """
        number = record.next_number
        while is_written(window.digest_uri(self._output, number)):
            number += 1
        return number

    def _emit_digest(self, window: Window, digest: DigestRecord) -> Iterator[TargetedAlert]:
        """Emits a recorded digest, once per bundle, as an earlier attempt may not have sent it.

        Its id identifies it as the same digest.
        """
        if digest.digest_id not in self._emitted:
            self._emitted.add(digest.digest_id)
            yield _digest_alert(window, digest.body)

    def _record(self, window: Window) -> WindowRecord:
        record = self._records.get(window.key)
        if record is None:
            try:
                uri = window.record_uri(self._output)
                record = read_record(uri, WindowRecord, self._decoded)
                self._unusable.pop(window.key, None)
            except UnusableRecordError:
                count("limits.unreadable")
                record = self._unusable.setdefault(window.key, None)
            record = record or WindowRecord(window.target, window.camera or None)
            self._records[window.key] = record
        return record

    def _write_record(self, window: Window, record: WindowRecord) -> None:
        if window.key in self._unusable:
            self._unusable[window.key] = record
        else:
            write_record(window.record_uri(self._output), record)
        self._records[window.key] = record


def _limit(ruleset: rules.Rules, per_id: bool) -> rules.Limit | None:
    return ruleset.alerting.per_id if per_id else ruleset.alerting.fleet


def _makes_digests(ruleset: rules.Rules, per_id: bool) -> bool:
    return not per_id or ruleset.alerting.fleet is None


OTHERS = "others"
TARGETED = "targeted"

_Keyed = tuple[str, tuple[Window | None, TargetedAlert]]


class LimitAlerts(beam.PTransform):
    """Holds back alerts beyond the limits of the rules, and adds digests of them.

    Input: `PCollection[Alert]`. Output: `PCollection[Alert]`: in a batch, each alert once, with the
    targets for which it is held, and the digests; in a stream, each alert in parts, one for each
    target. Alerts without a target don't count towards a limit.

    Args:
      output: The job's output, where a stream keeps its decisions.
      ruleset: The rules. In a stream, their limits may be edited.
      streaming: Whether the input is unbounded.
      max_age_seconds: Older alerts are not sent; None for no limit.
    """

    def __init__(
        self,
        output: str,
        ruleset: LiveRules,
        *,
        streaming: bool,
        max_age_seconds: float | None,
    ) -> None:
        super().__init__()
        self._output = output
        self._rules = ruleset
        self._streaming = streaming
        self._max_age_seconds = max_age_seconds

    def expand(self, alerts: beam.PCollection[Alert]) -> beam.PCollection[Alert]:
        # In a stream, an alert that is too old now may have been sent by an earlier attempt.
        max_age_seconds = None if self._streaming else self._max_age_seconds

        def split(alert: Alert) -> Iterator[Any]:
            if alert.suppressed_by is not None or is_too_old(alert, max_age_seconds):
                yield alert
                return
            for name in alert.targets:
                part = TargetedAlert(replace(alert, targets=(name,)))
                yield beam.pvalue.TaggedOutput(TARGETED, part)
            if not alert.targets:
                yield alert

        parts = alerts | "ForEachTarget" >> beam.FlatMap(split).with_outputs(TARGETED, main=OTHERS)
        targeted = parts[TARGETED]
        for per_id, label in ((True, "OfEachCamera"), (False, "OfTheFleet")):
            targeted = self._apply_limit(targeted, per_id, label)
        if self._streaming:
            limited = targeted | "Alerts" >> beam.Map(lambda part: part.alert).with_output_types(
                Alert
            )
        else:
            limited = (
                targeted
                | "ByAlert" >> beam.Map(lambda part: (part.alert.alert_id, part))
                | "GroupByAlert" >> beam.GroupByKey()
                | "Join" >> beam.Map(lambda group: join_parts(group[1])).with_output_types(Alert)
            )
        return (parts[OTHERS], limited) | "AndOthers" >> beam.Flatten()

    def _apply_limit(
        self, targeted: beam.PCollection[TargetedAlert], per_id: bool, label: str
    ) -> beam.PCollection[TargetedAlert]:
        ruleset = self._rules

        def keyed(part: TargetedAlert) -> _Keyed:
            ruleset.refresh()
            limit = _limit(ruleset.current, per_id)
            if limit is None or part.is_settled:
                return part.alert.alert_id, (None, part)
            window = Window.of(part.alert, limit, per_id=per_id)
            return window.key, (window, part)

        by_window = beam.Map(keyed).with_output_types(_Keyed)
        if self._streaming:
            limit_in_stream = _LimitInStream(
                self._output, ruleset, per_id=per_id, max_age_seconds=self._max_age_seconds
            )
            limited = beam.ParDo(limit_in_stream).with_output_types(TargetedAlert)
            return targeted | f"Window{label}" >> by_window | f"First{label}" >> limited
        limit = _limit(ruleset.current, per_id)
        if limit is None:
            return targeted
        max_alerts, digests = limit.alerts, _makes_digests(ruleset.current, per_id)

        def first(
            group: tuple[str, Iterable[tuple[Window, TargetedAlert]]],
        ) -> Iterator[TargetedAlert]:
            windows, parts = zip(*group[1], strict=True)
            return apply_limit(parts, windows[0], max_alerts, digests=digests)

        return (
            targeted
            | f"Window{label}" >> by_window
            | f"Group{label}" >> beam.GroupByKey()
            | f"First{label}" >> beam.FlatMap(first).with_output_types(TargetedAlert)
        )


register_record(TargetedAlert, version=3, upgrades={1: keep_plain, 2: keep_plain})
register_record(Window)
