"""An alert: what someone is to be told of an image, and who."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import apache_beam as beam

import rules
from transforms import stores
from transforms.records import JudgedImage
from transforms.text import printable
from transforms.times import parse_time


@dataclass(frozen=True)
class Alert:
    """A threat that someone is to be told of, or would be but for an alert before it; or a digest,
    which tells of many.

    Attributes:
      alert_id: The same for the same event in every run.
      camera: The camera's id; empty for a digest.
      body: The alert as it is sent.
      targets: The names of those who are to be told; of a part of an alert, of some of them.
      held: Those of them who are told by a digest instead, and the digest's id.
      suppressed_by: The id of the alert in whose cooldown it comes; None: it is to be sent.
      incident_number: Which image of the incident it is, beginning at 1 with the one of the alert
        that was sent.
      image: The image JSON, for the message; None where no target needs it.
      stream_time: How far event time had come in a stream when the image was found, canonical.
    """

    alert_id: str
    camera: str
    body: Mapping[str, Any]
    targets: tuple[str, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    suppressed_by: str | None = None
    incident_number: int | None = None
    image: Mapping[str, Any] | None = None
    stream_time: str | None = None

    @property
    def parts(self) -> tuple[str | None, ...]:
        """The targets that it is dealt with for, one by one; None alone where it is for none."""
        return self.targets if self.targets and self.suppressed_by is None else (None,)

    @property
    def is_digest(self) -> bool:
        """Whether it tells of many alerts."""
        return "digest" in self.body

    def uri(self, output: str) -> str:
        """Where it is kept, with what became of it."""
        if not self.is_digest:
            return stores.alert_uri(output, self.camera, self.alert_id)
        bounds = (self.body["digest"][name] for name in ("window_start", "window_end"))
        return stores.digest_uri(output, "_".join(map(stores.time_in_name, bounds)), self.alert_id)

    @classmethod
    def from_body(cls, body: Mapping[str, Any], target: str) -> Alert:
        """An alert that is to be sent once more to one target.

        Raises:
          KeyError: It is no alert's body.
        """
        camera = "" if "digest" in body else body["id"]
        return cls(body["alert_id"], camera, body, (target,))


beam.coders.registry.register_coder(Alert, beam.coders.PickleCoder)


def alert_for(
    judged: JudgedImage, output: str, by: rules.Rules, everywhere: Sequence[str] = ()
) -> Alert | None:
    """The alert that an image calls for; None where nobody is to be told and none is recorded.

    Args:
      judged: The image.
      output: The job's output.
      by: The rules, which name targets for cameras and severities. An image of severity `alert`
        has an alert even if there are none.
      everywhere: The names of the targets of every image of severity `alert`.
    """
    image, verdict = judged.image, judged.verdict
    if verdict.severity is None:
        return None
    named = [target.name for target in by.targets_for(image.id, verdict.severity)]
    targets = [*named, *everywhere] if verdict.severity == "alert" else named
    if not targets and verdict.severity != "alert":
        return None
    alert_id = rules.alert_id(image.id, image.timestamp, verdict.severity)
    body = {
        "alert_id": alert_id,
        "id": image.id,
        "timestamp": image.timestamp,
        "severity": verdict.severity,
        "threats": verdict.to_json()["threats"],
        "image_uri": image.uri,
        "final_uri": printable(stores.final_uri(output, image.id, image.stem)),
        "rules_version": verdict.rules_version,
        "model_version": image.model.version,
    }
    return Alert(
        alert_id,
        image.id,
        body,
        targets=tuple(sorted(set(targets))),
        suppressed_by=verdict.suppressed_by,
        incident_number=verdict.incident_number,
        image=judged.to_json() if named else None,
        stream_time=image.stream_time,
    )


def is_too_old(alert: Alert, max_age_seconds: float | None) -> bool:
    """Whether an alert is not to be sent any more, by the clock of this machine.

    A digest comes when its window is over, however long that is, and is never too old.

    Args:
      alert: The alert.
      max_age_seconds: None: none is too old.
    """
    if max_age_seconds is None or alert.is_digest:
        return False
    age = datetime.now(timezone.utc) - parse_time(alert.body["timestamp"])
    return age > timedelta(seconds=max_age_seconds)
