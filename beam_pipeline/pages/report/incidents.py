"""The incidents of a report: the alerts of one camera without a long gap between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from beam_pipeline.pages.report.gathering import AlertRecord
from transforms.records.times import parse_time

LONGEST_GAP = timedelta(minutes=5)
"""Alerts that are further apart are of two incidents, unless one follows from the other."""


@dataclass(frozen=True)
class Incident:
    """The alerts of one incident, those that were not sent too; the oldest first."""

    alerts: tuple[AlertRecord, ...]

    @property
    def camera(self) -> str:
        """The camera."""
        return self.alerts[0].camera

    @property
    def lead(self) -> AlertRecord:
        """The first alert that no cooldown suppressed; the first one if all are suppressed."""
        return next((one for one in self.alerts if not one.is_suppressed), self.alerts[0])

    @property
    def others(self) -> tuple[AlertRecord, ...]:
        """The other alerts, the oldest first."""
        return tuple(one for one in self.alerts if one is not self.lead)

    @property
    def until(self) -> str:
        """The local time of the last alert, with its date if that is another one."""
        first, last = self.lead.when, self.alerts[-1].when
        return last.split()[1] if last[:10] == first[:10] else last

    @property
    def labels(self) -> Mapping[str, float]:
        """What its threats are, with the highest score of each."""
        labels: dict[str, float] = {}
        for alert in self.alerts:
            for label, score in alert.labels.items():
                labels[label] = max(labels.get(label, 0.0), score)
        return labels


def find_incidents(alerts: Iterable[AlertRecord]) -> list[Incident]:
    """Groups alerts to incidents; the one with the newest alert comes first.

    Args:
      alerts: The alerts of all cameras, in any order.
    """
    by_camera: dict[str, list[AlertRecord]] = defaultdict(list)
    for alert in sorted(alerts, key=_order):
        by_camera[alert.camera].append(alert)
    incidents = [
        Incident(tuple(group)) for camera in by_camera.values() for group in _groups(camera)
    ]
    return sorted(incidents, key=lambda incident: _order(incident.alerts[-1]), reverse=True)


def _groups(alerts: Iterable[AlertRecord]) -> Iterable[list[AlertRecord]]:
    group: list[AlertRecord] = []
    ids: set[str] = set()
    for alert in alerts:
        if group and not (
            parse_time(alert.timestamp) - parse_time(group[-1].timestamp) <= LONGEST_GAP
            or alert.belongs_to in ids
        ):
            yield group
            group, ids = [], set()
        group.append(alert)
        ids.add(alert.alert_id)
        if alert.belongs_to is not None:
            ids.add(alert.belongs_to)
    if group:
        yield group


def _order(alert: AlertRecord) -> tuple[object, str, str]:
    return parse_time(alert.timestamp), alert.camera, alert.alert_id
