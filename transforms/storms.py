"""Storms: past a limit, a target is told of the rest of a window in one digest.

The rule file's `limits` say how many messages a target gets one by one: of one camera, and of the
whole fleet, in windows of event time that begin at multiples of their length since 1970. What goes
beyond is recorded as held back, with the id of the digest that counts it. Where there is a limit
for the fleet, its digests tell of what the limit of a camera held back too: so a target gets no
more than that many messages and one digest in such a window, whatever happens.

A batch goes by the order of time. A stream can't wait: the first that come are sent at once, and
the digest when the window is over.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

import rules
from transforms.alerts import Alert, is_too_old
from transforms.live_rules import LiveRules
from transforms.messages import Message, lines_of, one_line_of
from transforms.times import EPOCH, canonical_time, parse_time

_SHOWN_IDS = 20
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Window:
    """A time in which a target gets so many messages.

    Attributes:
      target: The target's name.
      camera: The camera's id; empty for all cameras together.
      start: Its first moment, in microseconds since 1970.
      length: In microseconds.
    """

    target: str
    camera: str
    start: int
    length: int

    @property
    def key(self) -> str:
        """Another one for each window."""
        return "\n".join((self.target, self.camera, str(self.start), str(self.length)))

    @classmethod
    def of(cls, alert: Alert, limit: rules.Limit, *, per_id: bool) -> Window:
        """The window of an alert for one target."""
        length = limit.within // _MICROSECOND
        start = _micros(alert.body["timestamp"]) // length * length
        return cls(alert.targets[0], alert.camera if per_id else "", start, length)

    @property
    def end(self) -> int:
        """The first moment after it."""
        return self.start + self.length

    def due(self, alert: Alert) -> int:
        """When a digest with this alert is due: at the window's end, or where a stream's time has
        passed that already, at the end of the window that it is in."""
        now = None if alert.stream_time is None else _micros(alert.stream_time)
        if now is None or now < self.end:
            return self.end
        return (now // self.length + 1) * self.length

    def digest_id(self, due: int) -> str:
        """The same for the same window, target and camera in every run."""
        event = ("digest", self.target, self.camera, _time(self.start), _time(due))
        return hashlib.sha256("\n".join(event).encode()).hexdigest()[:32]


def _micros(timestamp: str) -> int:
    return (parse_time(timestamp) - EPOCH) // _MICROSECOND


def _time(micros: int) -> str:
    return canonical_time(EPOCH + micros * _MICROSECOND)


@dataclass
class Digest:
    """Counts what was held back for one target.

    Attributes:
      by_id: Alerts by camera.
      by_label: Threat objects by label.
      first: The earliest alert's time, canonical.
      last: The latest one's.
      severity: The highest one.
    """

    by_id: Counter[str] = field(default_factory=Counter)
    by_label: Counter[str] = field(default_factory=Counter)
    first: str = ""
    last: str = ""
    severity: str = "detection"

    def add(self, alert: Alert) -> None:
        """Counts an alert."""
        moment = alert.body["timestamp"]
        self.by_id[alert.camera] += 1
        self.by_label.update(threat["label"] for threat in alert.body["threats"])
        self.first = min(self.first or moment, moment, key=parse_time)
        self.last = max(self.last or moment, moment, key=parse_time)
        if alert.body["severity"] == "alert":
            self.severity = "alert"

    def to_alert(self, window: Window, due: int) -> Alert:
        """The digest as it is sent and recorded."""
        digest_id = window.digest_id(due)
        body = {
            "alert_id": digest_id,
            "id": window.camera or None,
            "timestamp": self.last,
            "severity": self.severity,
            "digest": {
                "window_start": _time(window.start),
                "window_end": _time(window.end),
                "alerts": self.by_id.total(),
                "first": self.first,
                "last": self.last,
                "by_id": dict(sorted(self.by_id.items())),
                "by_label": dict(sorted(self.by_label.items())),
            },
        }
        return Alert(digest_id, "", body, (window.target,))


def digest_message(body: Mapping[str, Any]) -> Message:
    """A digest for a person.

    Args:
      body: As it is recorded.
    """
    digest = body["digest"]
    number, camera = digest["alerts"], body["id"]
    more = f"{number} more alert{'s' if number > 1 else ''}"
    where = f"at {camera}" if camera else f"of {len(digest['by_id'])} cameras"
    ids = sorted(digest["by_id"].items(), key=lambda item: (-item[1], item[0]))
    lines = [
        f"{more} {where} were held back: the limit of the rules was reached between "
        f"{digest['window_start']} and {digest['window_end']}.",
        "",
        f"The first was at {digest['first']}, the last at {digest['last']}.",
        "Seen: " + ", ".join(f"{label} {count}" for label, count in digest["by_label"].items()),
        "",
        *(f"{count:>6}  {one}" for one, count in ids[:_SHOWN_IDS]),
    ]
    if len(ids) > _SHOWN_IDS:
        lines.append(f"and {len(ids) - _SHOWN_IDS} more cameras")
    return Message(
        alert_id=body["alert_id"],
        camera=camera or "",
        timestamp=body["timestamp"],
        severity=body["severity"],
        subject=one_line_of(f"{more} {where}, {digest['first']} to {digest['last']}"),
        text=lines_of("\n".join([*lines, "", f"Digest {body['alert_id']}"])),
        body=body,
    )


@dataclass(frozen=True)
class Line:
    """An alert for one target, on its way past the limits.

    Attributes:
      alert: The alert, with that one target.
      over: The limit of its camera is reached, and the fleet's digest is to tell of it.
    """

    alert: Alert
    over: bool = False

    def held_by(self, digest_id: str) -> Line:
        """The same, told of by a digest."""
        return Line(replace(self.alert, held={self.alert.targets[0]: digest_id}))


for _record in (Line, Window):
    beam.coders.registry.register_coder(_record, PickleCoder)


def in_turn(lines: Iterable[Line]) -> list[Line]:
    """Lines in the order of time."""

    def order(line: Line) -> tuple[int, str]:
        return _micros(line.alert.body["timestamp"]), line.alert.alert_id

    return sorted(lines, key=order)


def past_limit(
    lines: Iterable[Line], window: Window, limit: int, *, digests: bool
) -> Iterator[Line]:
    """The lines of a whole window, given in any order: the first ones as they are, the others held.

    Args:
      lines: Of one target, and one camera where the limit is for each.
      window: The window.
      limit: How many are sent one by one.
      digests: Whether a digest tells of the others, which comes last. Otherwise they are marked,
        for the fleet's.
    """
    digest = Digest()
    sent = 0
    for line in in_turn(lines):
        if not line.over and sent < limit:
            sent += 1
            yield line
        elif digests:
            digest.add(line.alert)
            yield line.held_by(window.digest_id(window.end))
        else:
            yield replace(line, over=True)
    if digest.by_id:
        yield Line(digest.to_alert(window, window.end))


def joined(lines: Iterable[Line]) -> Alert:
    """One alert of its lines."""
    alerts = [line.alert for line in lines]
    targets = sorted(name for alert in alerts for name in alert.targets)
    held = {name: digest for alert in alerts for name, digest in sorted(alert.held.items())}
    return replace(alerts[0], targets=tuple(targets), held=held)


@dataclass
class _Past:
    """What has come of a window so far.

    Attributes:
      window: The window.
      sent: The ids of the alerts that were sent one by one.
      digests: What was held back, by the moment when its digest is due.
      wakes: When the timer is set to, in microseconds since 1970.
    """

    window: Window
    sent: set[str] = field(default_factory=set)
    digests: dict[int, Digest] = field(default_factory=dict)
    wakes: int = 0


class _PastLimitAsTheyCome(beam.DoFn):
    """Lets the first lines of each window pass, and holds the others until the digest is due.

    A window is forgotten once event time is beyond it by the allowed lateness.
    """

    _PAST = ReadModifyWriteStateSpec("past", PickleCoder())
    _WAKE = TimerSpec("wake", TimeDomain.WATERMARK)

    def __init__(self, by: LiveRules, per_id: bool, allowed_lateness_seconds: int) -> None:
        self._rules = by
        self._per_id = per_id
        self._lateness = allowed_lateness_seconds * 1_000_000

    def process(
        self,
        element: tuple[str, tuple[Window | None, Line]],
        state: Any = beam.DoFn.StateParam(_PAST),
        wake: Any = beam.DoFn.TimerParam(_WAKE),
    ) -> Iterator[Line]:
        _, (window, line) = element
        self._rules.refresh()
        limit = _limit(self._rules.now, self._per_id)
        if window is None or limit is None:
            yield line
            return
        past: _Past = state.read() or _Past(window)
        alert_id = line.alert.alert_id
        if not line.over and (alert_id in past.sent or len(past.sent) < limit.alerts):
            past.sent.add(alert_id)
            yield line
        elif _digests_here(self._rules.now, self._per_id):
            due = window.due(line.alert)
            past.digests.setdefault(due, Digest()).add(line.alert)
            yield line.held_by(window.digest_id(due))
        else:
            yield replace(line, over=True)
        self._wait(past, state, wake)

    @on_timer(_WAKE)
    def wake_up(
        self,
        state: Any = beam.DoFn.StateParam(_PAST),
        wake: Any = beam.DoFn.TimerParam(_WAKE),
    ) -> Iterator[Line]:
        """A digest is due, or the window is to be forgotten."""
        past: _Past | None = state.read()
        if past is None:
            return
        window = past.window
        for due in sorted(moment for moment in past.digests if moment <= past.wakes):
            yield Line(past.digests.pop(due).to_alert(window, due))
        if past.digests or past.wakes < window.end + self._lateness:
            self._wait(past, state, wake)
        else:
            state.clear()

    def _wait(self, past: _Past, state: Any, wake: Any) -> None:
        past.wakes = min([*past.digests, past.window.end + self._lateness])
        state.write(past)
        wake.set(Timestamp(micros=past.wakes))


def _limit(by: rules.Rules, per_id: bool) -> rules.Limit | None:
    return by.alerting.per_id if per_id else by.alerting.fleet


def _digests_here(by: rules.Rules, per_id: bool) -> bool:
    return not per_id or by.alerting.fleet is None


ALONE = "alone"
LINES = "lines"


class LimitStorms(beam.PTransform):
    """Holds back what goes beyond the limits of the rules, and adds digests of it.

    Input: `PCollection[Alert]`. Output: `PCollection[Alert]`: in a batch each alert once, with what
    is held of it, and the digests; in a stream each alert in parts, one for each target. What is
    sent to nobody counts towards no limit.

    Args:
      by: The rules. In a stream their limits may be edited.
      streaming: Alerts keep coming.
      allowed_lateness_seconds: How long after its end a stream remembers a window.
      max_age_seconds: Older alerts are not sent; None: however old they are.
    """

    def __init__(
        self,
        by: LiveRules,
        *,
        streaming: bool,
        allowed_lateness_seconds: int,
        max_age_seconds: float | None,
    ) -> None:
        super().__init__()
        self._rules = by
        self._streaming = streaming
        self._lateness_seconds = allowed_lateness_seconds
        self._max_age_seconds = max_age_seconds

    def expand(self, alerts: beam.PCollection[Alert]) -> beam.PCollection[Alert]:
        max_age_seconds = self._max_age_seconds

        def split(alert: Alert) -> Iterator[Any]:
            if alert.suppressed_by is not None or is_too_old(alert, max_age_seconds):
                yield alert
                return
            for name in alert.targets:
                yield beam.pvalue.TaggedOutput(LINES, Line(replace(alert, targets=(name,))))
            if not alert.targets:
                yield alert

        parts = alerts | "ForEachTarget" >> beam.FlatMap(split).with_outputs(LINES, main=ALONE)
        lines = parts[LINES]
        for per_id, label in ((True, "OfEachCamera"), (False, "OfTheFleet")):
            lines = self._past_limit(lines, per_id, label)
        if self._streaming:
            past = lines | "Alerts" >> beam.Map(lambda line: line.alert).with_output_types(Alert)
        else:
            past = (
                lines
                | "ByAlert" >> beam.Map(lambda line: (line.alert.alert_id, line))
                | "GroupByAlert" >> beam.GroupByKey()
                | "Join" >> beam.Map(lambda group: joined(group[1])).with_output_types(Alert)
            )
        return (parts[ALONE], past) | "AndOthers" >> beam.Flatten()

    def _past_limit(
        self, lines: beam.PCollection[Line], per_id: bool, label: str
    ) -> beam.PCollection[Line]:
        by = self._rules

        def keyed(line: Line) -> tuple[str, tuple[Window | None, Line]]:
            by.refresh()
            limit = _limit(by.now, per_id)
            if limit is None:
                return line.alert.alert_id, (None, line)
            window = Window.of(line.alert, limit, per_id=per_id)
            return window.key, (window, line)

        by_window = beam.Map(keyed).with_output_types(tuple[str, tuple[Window | None, Line]])
        if self._streaming:
            as_they_come = _PastLimitAsTheyCome(by, per_id, self._lateness_seconds)
            past = beam.ParDo(as_they_come).with_output_types(Line)
            return lines | f"Window{label}" >> by_window | f"First{label}" >> past
        limit = _limit(by.now, per_id)
        if limit is None:
            return lines
        most, digests = limit.alerts, _digests_here(by.now, per_id)

        def first(group: tuple[str, Iterable[tuple[Window, Line]]]) -> Iterator[Line]:
            windows, of_window = zip(*group[1], strict=True)
            return past_limit(of_window, windows[0], most, digests=digests)

        return (
            lines
            | f"Window{label}" >> by_window
            | f"Group{label}" >> beam.GroupByKey()
            | f"First{label}" >> beam.FlatMap(first).with_output_types(Line)
        )
