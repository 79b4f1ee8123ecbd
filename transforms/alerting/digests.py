"""Digests: one message in place of many alerts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from transforms.alerting.alerts import Alert
from transforms.alerting.decisions import DigestBody
from transforms.alerting.messages import Message, clean_line, clean_lines
from transforms.records.codecs import register_record
from transforms.records.times import parse_time

_SHOWN_IDS = 20


@dataclass(frozen=True)
class HeldAlert:
    """What a digest reports of an alert.

    Attributes:
      alert_id: The alert's id.
      camera: Its camera.
      timestamp: Its capture time, canonical.
      severity: Its severity.
      labels: The labels of its threats.
    """

    alert_id: str
    camera: str
    timestamp: str
    severity: str
    labels: tuple[str, ...]

    @classmethod
    def of(cls, alert: Alert) -> HeldAlert:
        """Makes the entry of an alert."""
        labels = tuple(threat["label"] for threat in alert.body["threats"])
        return cls(
            alert.alert_id, alert.camera, alert.body["timestamp"], alert.body["severity"], labels
        )


@dataclass
class Digest:
    """Counts the alerts that were held back for one target, each alert once.

    Attributes:
      alerts: The alerts by their ids.
    """

    alerts: dict[str, HeldAlert] = field(default_factory=dict)

    def add(self, alert: HeldAlert) -> None:
        """Counts an alert."""
        self.alerts[alert.alert_id] = alert

    @property
    def alert_ids(self) -> tuple[str, ...]:
        """The ids of the alerts, in the order of capture time."""
        return tuple(alert.alert_id for alert in self._in_order())

    def _in_order(self) -> list[HeldAlert]:
        return sorted(
            self.alerts.values(), key=lambda alert: (parse_time(alert.timestamp), alert.alert_id)
        )

    def body(self, digest_id: str, camera: str, window: tuple[str, str]) -> DigestBody:
        """Makes the body that is sent and recorded. The digest must hold an alert.

        Args:
          digest_id: The digest's id.
          camera: The camera's id; empty for all cameras.
          window: The start and the end of the window, canonical.
        """
        alerts = self._in_order()
        by_id = Counter(alert.camera for alert in alerts)
        by_label = Counter(label for alert in alerts for label in alert.labels)
        return {
            "alert_id": digest_id,
            "id": camera or None,
            "timestamp": alerts[-1].timestamp,
            "severity": "alert"
            if any(alert.severity == "alert" for alert in alerts)
            else "detection",
            "digest": {
                "window_start": window[0],
                "window_end": window[1],
                "alerts": len(alerts),
                "first": alerts[0].timestamp,
                "last": alerts[-1].timestamp,
                "by_id": dict(sorted(by_id.items())),
                "by_label": dict(sorted(by_label.items())),
            },
        }


def digest_message(body: DigestBody) -> Message:
    """Makes the message of a digest.

    Args:
      body: The body as it is recorded.
    """
    digest = body["digest"]
    count, camera = digest["alerts"], body["id"]
    amount = f"{count} more alert{'s' if count > 1 else ''}"
    location = f"at {camera}" if camera else f"of {len(digest['by_id'])} cameras"
    ids = sorted(digest["by_id"].items(), key=lambda item: (-item[1], item[0]))
    lines = [
        f"{amount} {location} were held back: the limit of the rules was reached between "
        f"{digest['window_start']} and {digest['window_end']}.",
        "",
        f"The first was at {digest['first']}, the last at {digest['last']}.",
        "Seen: " + ", ".join(f"{label} {count}" for label, count in digest["by_label"].items()),
        "",
        *(f"{count:>6}  {id}" for id, count in ids[:_SHOWN_IDS]),
    ]
    if len(ids) > _SHOWN_IDS:
        lines.append(f"and {len(ids) - _SHOWN_IDS} more cameras")
    return Message(
        alert_id=body["alert_id"],
        camera=camera or "",
        timestamp=body["timestamp"],
        severity=body["severity"],
        subject=clean_line(f"{amount} {location}, {digest['first']} to {digest['last']}"),
        text=clean_lines("\n".join([*lines, "", f"Digest {body['alert_id']}"])),
        body=body,
    )


register_record(HeldAlert)
