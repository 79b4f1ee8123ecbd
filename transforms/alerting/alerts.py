"""Alerts: what is reported of an image, and to which targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from datetime import timezone as timezones
from typing import Any, TypedDict

import rules
from rules.local_times import local_json
from rules.records import FollowUpJson, ThreatJson, ThreatSeverity
from transforms.records.clocks import is_misdated
from transforms.records.codecs import keep_plain, register_record
from transforms.records.images import DetectedImage, JudgedImage
from transforms.records.text import printable
from transforms.records.times import from_unix, parse_time
from transforms.runtime.live_rules import LiveRules
from transforms.storage import stores


class AlertThreatJson(ThreatJson):
    """A threat of an alert: that of the verdict, with the box."""

    bbox: list[float]


class _FirstAlertBody(TypedDict):
    alert_id: str
    id: str
    timestamp: str
    local_time: str
    timezone: str
    severity: ThreatSeverity
    threats: list[AlertThreatJson]
    image_uri: str
    final_uri: str
    rules_version: str
    model_version: str


class AlertBody(_FirstAlertBody, total=False):
    """An alert as it is sent and recorded.

    Records of earlier releases have no `local_time`, `timezone` and `bbox`. Only an alert that
    follows another one in its incident has `follow_up`.
    """

    follow_up: FollowUpJson


@dataclass(frozen=True)
class Alert:
    """An alert about an image, possibly suppressed by an earlier alert; or a digest of many alerts.

    Attributes:
      alert_id: The id; every run gives the same event the same id.
      camera: The camera's id; empty for a digest.
      body: The alert as it is sent.
      targets: The names of the targets; of a part of an alert, only some of them.
      held: The targets that get a digest instead, each with the digest's id.
      suppressed_by: The id of the alert whose cooldown suppresses this one; None if it is sent.
      incident_number: The number of the image in its incident; the image of the alert that was
        sent has the number 1.
      image: The image JSON, for the message; None if no target needs it.
      changed: When the image's file was last changed, by its store, or otherwise the event time of
        the stream that was told of it, in Unix seconds, which is when the image arrived; None if
        unknown.
      is_due: Whether it was young enough to be sent when that was decided; it is then sent, however
        old it has become since.
    """

    alert_id: str
    camera: str
    body: Mapping[str, Any]
    targets: tuple[str, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    suppressed_by: str | None = None
    incident_number: int | None = None
    image: Mapping[str, Any] | None = None
    changed: float | None = None
    is_due: bool = False

    @property
    def arrived(self) -> datetime | None:
        """When the image arrived (UTC); None if that is unknown, as where a file has a time that
        the camera's wrong clock has given it."""
        arrived = None if self.changed is None else from_unix(self.changed)
        return None if arrived is None or is_misdated(arrived) else arrived

    @property
    def delivery_targets(self) -> tuple[str | None, ...]:
        """The targets that are handled one by one; a single None for an alert without a target."""
        return self.targets if self.targets and self.suppressed_by is None else (None,)

    @property
    def is_digest(self) -> bool:
        """Whether it reports many alerts."""
        return "digest" in self.body

    def uri(self, output: str, *, former: bool = False) -> str:
        """Returns the address of its record, which holds the outcomes.

        Args:
          output: The job's output.
          former: Whether to return the address that earlier releases used.
        """
        if not self.is_digest:
            return stores.alert_uri(output, self.camera, self.alert_id)
        bounds = (self.body["digest"][name] for name in ("window_start", "window_end"))
        window = "_".join(map(stores.time_in_name, bounds))
        return stores.digest_uri(output, window, self.alert_id, former=former)

    @classmethod
    def from_body(cls, body: Mapping[str, Any], target: str) -> Alert:
        """Makes an alert that is sent again to one target.

        Raises:
          KeyError: The body is not that of an alert.
        """
        camera = "" if "digest" in body else body["id"]
        return cls(body["alert_id"], camera, body, (target,))


register_record(Alert, version=3, upgrades={1: keep_plain, 2: keep_plain})


def alert_for(
    judged: JudgedImage,
    output: str,
    ruleset: rules.Rules,
    default_targets: Sequence[str] = (),
    timezone: str | None = None,
) -> Alert | None:
    """Makes the alert of an image; None if the image needs none.

    Args:
      judged: The image.
      output: The job's output.
      ruleset: The rules, which name targets for cameras and severities. An image of severity
        `alert` has an alert even if it has no target.
      default_targets: The names of the targets of every image of severity `alert`.
      timezone: The time zone of cameras for which the rules name none; None for UTC.
    """
    image, verdict = judged.image, judged.verdict
    if verdict.severity is None:
        return None
    named = [target.name for target in ruleset.targets_for(image.id, verdict.severity)]
    targets = [*named, *default_targets] if verdict.severity == "alert" else named
    if not targets and verdict.severity != "alert":
        return None
    zone = ruleset.timezone_of(image.id, timezone)
    alert_id = rules.alert_id(image.id, image.timestamp, verdict.severity)
    body: AlertBody = {
        "alert_id": alert_id,
        "id": image.id,
        "timestamp": image.timestamp,
        "local_time": local_json(parse_time(image.timestamp), zone),
        "timezone": zone,
        "severity": verdict.severity,
        "threats": [
            {**threat, "bbox": list(image.detections[threat["detection"]].bbox)}
            for threat in verdict.to_json()["threats"]
        ],
        "image_uri": image.uri,
        "final_uri": printable(stores.final_uri(output, image.id, image.stem)),
        "rules_version": verdict.rules_version,
        "model_version": image.model.version,
    }
    if verdict.follow_up is not None:
        body["follow_up"] = verdict.follow_up.to_json()
    return Alert(
        alert_id,
        image.id,
        body,
        targets=tuple(sorted(set(targets))),
        suppressed_by=verdict.suppressed_by,
        incident_number=verdict.incident_number,
        image=judged.to_json() if targets else None,
        changed=image.changed if image.changed is not None else _stream_time(image),
    )


@dataclass(frozen=True)
class HasRecord:
    """Tells which images have a record in `alerts/`.

    Attributes:
      rules: The rules, which name targets.
    """

    rules: LiveRules

    def __call__(self, judged: JudgedImage) -> bool:
        """Whether an image has one."""
        severity = judged.verdict.severity
        if severity in (None, "alert"):
            return severity is not None
        return bool(self.rules.current.targets_for(judged.image.id, severity))


def _stream_time(image: DetectedImage) -> float | None:
    return None if image.stream_time is None else parse_time(image.stream_time).timestamp()


def known_zone(alert: Mapping[str, Any] | None, ruleset: rules.Rules | None, camera: str) -> str:
    """Returns the time zone in which times of an alert are shown, by its IANA name.

    It is that of the alert. Alerts of earlier releases name none; the rules do, or else it is UTC.

    Args:
      alert: The body or the record of the alert; None if there is none.
      ruleset: The rules; None if they are not known.
      camera: The camera's id.
    """
    zone = None if alert is None else alert.get("timezone")
    if isinstance(zone, str) and rules.timezone_problem(zone) is None:
        return zone
    return "UTC" if ruleset is None else ruleset.timezone_of(camera)


def is_too_old(alert: Alert, max_age_seconds: float | None, now: datetime | None = None) -> bool:
    """Whether an alert is too old to be sent, by the clock of this machine.

    The age is counted from the capture time, or from the arrival of the image if the capture time
    is not to be trusted: cutting the power of a camera must not silence it. A digest is made when
    its window ends, however long the window is, and is never too old. Nor is an alert that was due
    when it was decided whether it is sent.

    Args:
      alert: The alert.
      max_age_seconds: The greatest age; None for no limit.
      now: The current time; None for the time of this machine's clock.
    """
    if max_age_seconds is None or alert.is_digest or alert.is_due:
        return False
    taken = parse_time(alert.body["timestamp"])
    if is_misdated(taken, alert.arrived):
        if alert.arrived is None:
            return False
        taken = alert.arrived
    return (now or datetime.now(timezones.utc)) - taken > timedelta(seconds=max_age_seconds)
