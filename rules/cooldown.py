"""The cooldown of one camera: the alerts that were sent, and the images that they cover.

An image that an alert covers sends no alert of its own. An incident is the alert and the images
that it covers. It can end before the cooldown does: if a camera has an `incident_gap`, an image
belongs to an incident only if a threat of it is at most that far away in time. The same holds for
each label: one that was absent for longer is new when it comes again, even if another label stays.

An incident that outlasts the cooldown has a further alert, and so has one in which a new label
appears. Such an alert follows the one before it, and says what is new (`follow_up`).

The functions work on `History.alerts`, the alerts of one camera in the order of their verdicts: the
last `LAST_ALERTS`, as many that are the newest, and others that may cover an image that arrives out
of order, at most `MAX_ALERTS` in all.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from rules.records import FollowUp, MoreObjects, ThreatSeverity

MAX_ALERTS = 100
MAX_COVERED = 1000
LAST_ALERTS = 8
_ALERTS_WITH_COVERED_TIMES = 2
_MAX_DISORDER = 3_600_000_000
"""The microseconds by which images may arrive out of order, in addition to a cooldown."""


@dataclass
class PastAlert:
    """An alert that was sent, and the images that it covers.

    Attributes:
        capture_time: The capture time of its image, in microseconds since 1970.
        alert_id: Its id.
        labels: The labels that it names, and those of the alerts in whose cooldown it was sent;
            in order.
        covered: The capture times of the images that it covers, the newest `MAX_COVERED`.
        covered_before: The number of older images that it covers.
        severity: The severity of its image; each severity has its own cooldowns.
        was_restored: Whether it was restored from a record, which does not say what it covers, and
            its own image was not judged again since.
        incident: The id of the first alert of the incident; empty if it is this one.
        began: The capture time of that alert's image; None if it is this one.
        told: The largest number of objects of each label in one image, as of this alert.
        seen: The same with the images that it covers.
        arrived: When its image arrived, in microseconds since 1970, if the capture time is not to
            be trusted; otherwise None.
        last_arrived: The same for the last image that it covers.
        spans: For each label, the capture times of the first and the last image with it in the
            incident, as far as no time without the label was longer than the gap; a label of which
            this is unknown is missing.
    """

    capture_time: int
    alert_id: str
    labels: tuple[str, ...]
    covered: list[int] = field(default_factory=list)
    covered_before: int = 0
    severity: ThreatSeverity = "alert"
    was_restored: bool = False
    incident: str = ""
    began: int | None = None
    told: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    arrived: int | None = None
    last_arrived: int | None = None
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def last_threat(self) -> int:
        """The capture time of the newest image of the alert and those that it covers."""
        return max([self.capture_time, *self.covered[-1:]])

    def reaches(self, capture_time: int, gap: int | None) -> bool:
        """Returns whether an image is close enough to the incident to belong to it.

        What a restored alert covered is unknown until it covers a later image. Until then, each
        later image can belong to the incident, as long as the cooldown lasts.

        Args:
            capture_time: The capture time of the image.
            gap: The longest time without a threat in an incident, in microseconds; None for any.
        """
        if gap is None:
            return True
        first = min([self.capture_time, *self.covered[:1]])
        last = self.last_threat
        if self.was_restored and last == self.capture_time < capture_time:
            return True
        return first - gap <= capture_time <= last + gap

    def has_near(self, label: str, capture_time: int, gap: int | None) -> bool:
        """Returns whether a label of the alert was in the incident close enough to an image.

        Args:
            label: The label.
            capture_time: The capture time of the image.
            gap: The longest time without the label, in microseconds; None for any.
        """
        if label not in self.spans:
            return label in self.labels
        if gap is None:
            return True
        first, last = self.spans[label]
        return first - gap <= capture_time <= last + gap

    def spans_with(
        self, labels: Iterable[str], capture_time: int, gap: int | None
    ) -> dict[str, tuple[int, int]]:
        """Returns the spans with an image: it prolongs those that are near, and begins others.

        A span that is unknown becomes known by an image after the alert.

        Args:
            labels: The labels of the image.
            capture_time: Its capture time.
            gap: The longest time without a label, in microseconds; None for any.
        """
        spans = dict(self.spans)
        for label in labels:
            first = last = capture_time
            if label in spans:
                if self.has_near(label, capture_time, gap):
                    first, last = min(spans[label][0], first), max(spans[label][1], last)
            elif label in self.labels:
                if capture_time < self.capture_time:
                    continue
                first = self.capture_time
            spans[label] = first, last
        return spans

    def has_arrived_near(self, arrived: int | None, gap: int | None) -> bool:
        """Returns whether an image arrived close enough to the incident to belong to it.

        A camera that loses its clock begins at the same time again and again. Its images of
        different days have the same capture times, and only their arrival tells them apart.

        Args:
            arrived: When the image arrived; None if its capture time is to be trusted.
            gap: The longest time without a threat in an incident, in microseconds; None for any.
        """
        if arrived is None:
            return True
        if self.arrived is None:
            return False
        if gap is None or (self.was_restored and not self.covered and arrived > self.arrived):
            return True
        last = self.arrived if self.last_arrived is None else self.last_arrived
        return self.arrived - gap <= arrived <= last + gap

    def cover(
        self,
        capture_time: int,
        objects: Mapping[str, int],
        arrived: int | None = None,
        gap: int | None = None,
    ) -> int:
        """Adds an image that the alert covers.

        Args:
            capture_time: The capture time of the image.
            objects: The number of its threats of each label.
            arrived: When it arrived; None if its capture time is to be trusted.
            gap: The longest time without a threat in an incident, in microseconds; None for any.

        Returns:
            The number of the image in the incident, in which the alert's own image is the first.
        """
        index = bisect_left(self.covered, capture_time)
        if self.covered[index : index + 1] != [capture_time]:
            self.covered.insert(index, capture_time)
        number = self.covered_before + index + 2
        if len(self.covered) > MAX_COVERED:
            del self.covered[0]
            self.covered_before += 1
        self.seen = _most(self.seen, objects)
        self.spans = self.spans_with(objects, capture_time, gap)
        if arrived is not None:
            self.last_arrived = max(arrived, self.last_arrived or arrived)
        return number


def _most(*counts: Mapping[str, int]) -> dict[str, int]:
    """Returns the largest of the numbers of each label, in the order of the labels."""
    labels = sorted({label for objects in counts for label in objects})
    return {label: max(objects.get(label, 0) for objects in counts) for label in labels}


def alert_id(camera: str, timestamp: str, severity: str) -> str:
    """Returns the id of an alert, which is the same for the same event in every run.

    It is the first 32 hex digits of sha256 over id, canonical time and severity, joined by
    newlines.
    """
    event = "\n".join((camera, timestamp, severity))
    return hashlib.sha256(event.encode()).hexdigest()[:32]


def covering_alert(
    alerts: list[PastAlert],
    capture_time: int,
    labels: frozenset[str],
    cooldown: int,
    severity: ThreatSeverity,
    gap: int | None = None,
    arrived: int | None = None,
) -> PastAlert | None:
    """Finds the alert whose cooldown (in microseconds) covers an image, and whose incident has not
    ended, by the `gap` of `PastAlert.reaches`.

    If the capture time is not to be trusted, the image must be as close to the alert by the time
    at which it `arrived` as by its capture time.

    If images arrive out of order, that alert may be later than the image: an incident with an alert
    sends no other one for its beginning.

    Returns:
        The alert; None if there is none, or if the image contains a label that none of the alerts
        with a cooldown at that time names, or that was absent for longer than the `gap`.
    """
    near = [
        alert
        for alert in alerts
        if alert.severity == severity
        and alert.capture_time != capture_time
        and abs(alert.capture_time - capture_time) < cooldown
        and alert.reaches(capture_time, gap)
        and _arrived_in_cooldown(alert, arrived, cooldown, gap)
    ]
    if not all(_covers_label(near, label, capture_time, gap) for label in labels):
        return None

    def preference(alert: PastAlert) -> tuple[bool, bool, int]:
        distance = abs(alert.capture_time - capture_time)
        return not labels <= set(alert.labels), alert.capture_time > capture_time, distance

    return min(near, key=preference, default=None)


def _covers_label(
    alerts: Iterable[PastAlert], label: str, capture_time: int, gap: int | None
) -> bool:
    """Returns whether one of the alerts names a label, and it was near in time in one of them."""
    is_named = any(label in alert.labels for alert in alerts)
    return is_named and any(alert.has_near(label, capture_time, gap) for alert in alerts)


def _arrived_in_cooldown(
    alert: PastAlert, arrived: int | None, cooldown: int, gap: int | None
) -> bool:
    if not alert.has_arrived_near(arrived, gap):
        return False
    return arrived is None or alert.arrived is None or abs(alert.arrived - arrived) < cooldown


def _last_alert(
    alerts: list[PastAlert],
    capture_time: int,
    cooldown: int,
    severity: ThreatSeverity,
    gap: int | None,
    arrived: int | None,
) -> PastAlert | None:
    earlier = [
        alert
        for alert in alerts
        if alert.severity == severity
        and capture_time - cooldown < alert.capture_time < capture_time
        and alert.reaches(capture_time, gap)
        and _arrived_in_cooldown(alert, arrived, cooldown, gap)
    ]
    return max(earlier, key=lambda alert: alert.capture_time, default=None)


def find_alert(alerts: list[PastAlert], alert_id: str) -> PastAlert | None:
    """Returns the alert with an id; None if it is not among `alerts`."""
    return next((alert for alert in alerts if alert.alert_id == alert_id), None)


def restore_alerts(alerts: list[PastAlert], sent: Iterable[PastAlert]) -> None:
    """Adds alerts that were sent but are missing from the alerts of a camera's history."""
    for alert in sent:
        known = find_alert(alerts, alert.alert_id)
        if known is None:
            alerts.append(replace(alert, was_restored=True))
        else:
            known.labels = tuple(sorted({*known.labels} & {*alert.labels}))


def _alert_before(
    alerts: list[PastAlert],
    capture_time: int,
    severity: ThreatSeverity,
    pause: int,
    arrived: int | None,
) -> PastAlert | None:
    """Returns the last alert whose incident goes on: no pause since its last threat is longer."""
    earlier = [
        alert
        for alert in alerts
        if alert.severity == severity
        and alert.capture_time < capture_time <= alert.last_threat + pause
        and alert.has_arrived_near(arrived, pause)
    ]
    return max(earlier, key=lambda alert: alert.capture_time, default=None)


def _canonical(capture_time: int) -> str:
    time = datetime(1970, 1, 1) + timedelta(microseconds=capture_time)
    digits = "auto" if capture_time % 1000 or not capture_time % 1_000_000 else "milliseconds"
    return f"{time.isoformat(timespec=digits)}Z"


def _follow_up(
    before: PastAlert, objects: Mapping[str, int], capture_time: int, gap: int | None
) -> FollowUp:
    known = {*before.labels, *before.told}
    seen = _most(before.seen, objects)
    return FollowUp(
        incident=before.incident or before.alert_id,
        began=_canonical(before.capture_time if before.began is None else before.began),
        last_alert=_canonical(before.capture_time),
        images=before.covered_before + len(before.covered),
        new_labels=tuple(
            label
            for label in sorted(objects)
            if label not in known
            or (label in before.spans and not before.has_near(label, capture_time, gap))
        ),
        more=tuple(
            MoreObjects(label, number, seen[label])
            for label, number in sorted(before.told.items())
            if seen[label] > number
        ),
    )


def add_alert(
    alerts: list[PastAlert],
    capture_time: int,
    alert_id: str,
    objects: Mapping[str, int],
    cooldown: int,
    severity: ThreatSeverity,
    gap: int | None = None,
    arrived: int | None = None,
) -> FollowUp | None:
    """Adds an alert that is sent.

    Several images of one capture time have one alert, and only one of them is reported. Which one
    is unknown here, so the alert names the labels that all of them have.

    Args:
        alerts: The alerts of the camera, to which it is added.
        capture_time: The capture time of its image, in microseconds since 1970.
        alert_id: Its id.
        objects: The number of its threats of each label; it names these labels.
        cooldown: How long it covers further images, in microseconds.
        severity: The severity of its image.
        gap: The longest time without a threat in an incident, in microseconds; None for any.
        arrived: When the image arrived; None if its capture time is to be trusted.

    Returns:
        What is new since the last alert of the incident; None if it is the first one. Without a
        gap, an incident goes on if no time without a threat is longer than the cooldown.
    """
    earlier = _last_alert(alerts, capture_time, cooldown, severity, gap, arrived)
    known = {*objects} if earlier is None else {*objects, *earlier.labels}
    pause = cooldown if gap is None else gap
    before = _alert_before(alerts, capture_time, severity, pause, arrived)
    told = _most(objects) if before is None else _most(before.seen, objects)
    follow_up = None if before is None else _follow_up(before, objects, capture_time, gap)
    alert = find_alert(alerts, alert_id)
    if alert is not None:
        alert.labels = tuple(sorted(known.intersection(alert.labels)))
        if alert.was_restored:
            # Its own image says what was unknown, unless later images did before.
            spans = (earlier or alert).spans_with(objects, capture_time, gap)
            alert.spans = {**spans, **alert.spans}
            alert.told, alert.seen = told, _most(alert.seen, told)
            alert.was_restored = False
            return follow_up
        alert.told = {
            label: min(number, told[label]) for label, number in alert.told.items() if label in told
        }
        alert.seen = _most(alert.seen, objects)
        return follow_up
    alert = PastAlert(
        *(capture_time, alert_id, tuple(sorted(known))),
        severity=severity,
        told=told,
        seen=told,
        arrived=arrived,
    )
    # It names the labels of the alert before it too.
    alert.spans = (earlier or alert).spans_with(objects, capture_time, gap)
    if before is not None and follow_up is not None:
        alert.incident = follow_up.incident
        alert.began = before.capture_time if before.began is None else before.began
    alerts.append(alert)
    _forget_alerts(alerts, cooldown)
    return follow_up


def _forget_alerts(alerts: list[PastAlert], cooldown: int) -> None:
    """Forgets alerts far away in time from the last and the newest ones, and of the images that
    others than the very last and newest cover, all but the time of the newest.

    The distance to one alert says nothing, because the clock of a camera may be wrong for a while,
    and the newest alerts are not the last ones while a camera sends what it had stored.
    """
    near = cooldown + _MAX_DISORDER
    kept = _last_and_newest(alerts, LAST_ALERTS)
    times = [alert.capture_time for alert in alerts if alert.alert_id in kept]
    others = [
        alert.alert_id
        for alert in alerts
        if alert.alert_id not in kept
        and any(abs(alert.capture_time - time) <= near for time in times)
    ]
    kept.update(others[max(0, len(kept) + len(others) - MAX_ALERTS) :])
    alerts[:] = [alert for alert in alerts if alert.alert_id in kept]
    with_covered_times = {
        alert_id
        for severity in {alert.severity for alert in alerts}
        for alert_id in _last_and_newest(
            [alert for alert in alerts if alert.severity == severity], _ALERTS_WITH_COVERED_TIMES
        )
    }
    for alert in alerts:
        if alert.alert_id not in with_covered_times:
            alert.covered_before += len(alert.covered[:-1])
            del alert.covered[:-1]
            alert.told, alert.seen = {}, {}


def _last_and_newest(alerts: list[PastAlert], number: int) -> set[str]:
    """Returns the ids of the last `number` alerts, and of as many that are the newest."""
    newest = sorted(alerts, key=lambda alert: alert.capture_time)[-number:]
    return {alert.alert_id for alert in (*alerts[-number:], *newest)}
