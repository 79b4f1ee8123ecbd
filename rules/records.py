"""The input and output records of a judgement, and the JSON of a verdict.

Boxes are ``(x_min, y_min, width, height)`` as fractions of the image, origin top left, and scores
go from 0 to 1, as in MegaDetector's batch format:
https://lila.science/megadetector-output-format
Both arrive rounded to 4 decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypedDict

Severity = Literal["alert", "detection", "ignore"]
"""The severity of a rule: a threat to alert, a threat to record, or no threat."""

ThreatSeverity = Literal["alert", "detection"]
"""The severity of a threat."""

_MAX_COORDINATE = 1e6


@dataclass(frozen=True)
class Detection:
    """One object that the model detected.

    Attributes:
        category: The model's own number for the label, as text.
        label: The kind of object, e.g. ``"person"``.
        conf: The model's score, 0 to 1.
        bbox: x_min, y_min, width, height as fractions of the image.

    Raises:
        ValueError: The score is outside 0 to 1, or the box is not four numbers of a sensible size
            (no NaN, no infinity), so that no rule can judge it.
    """

    category: str
    label: str
    conf: float
    bbox: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        if not 0 <= self.conf <= 1:
            raise ValueError(f"conf must be from 0 to 1, not {self.conf!r}")
        if len(self.bbox) != 4 or not all(abs(side) <= _MAX_COORDINATE for side in self.bbox):
            raise ValueError(f"bbox must be four fractions of the image, not {self.bbox!r}")


@dataclass(frozen=True)
class Image:
    """One image with its detections.

    Attributes:
        id: The id of the camera.
        timestamp: The capture time, RFC 3339 in UTC with ``Z``.
        width: The width in pixels.
        height: The height in pixels.
        detections: The detections in the order of the image JSON; a verdict refers to them by
            index.
        sha256: The hash of the file's bytes, in hex; it decides which of two images with the same
            capture time `History` keeps.
        brightness: The mean brightness, 0 to 1; None if it was not measured.
        arrived: When it arrived, in microseconds since 1970, if its capture time is not to be
            trusted; otherwise None. Cooldowns then depend on it too.
    """

    id: str
    timestamp: str
    width: int
    height: int
    detections: tuple[Detection, ...]
    sha256: str = ""
    brightness: float | None = None
    arrived: int | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Image:
        """Reads the image JSON of ``detections/`` or ``final/``; ignores keys that no rule needs.

        Raises:
            ValueError: A key is missing or its value has the wrong type.
        """
        brightness = data.get("brightness")
        try:
            return cls(
                id=_instance(data["id"], str, "id"),
                timestamp=_instance(data["timestamp"], str, "timestamp"),
                width=_instance(data["width"], int, "width"),
                height=_instance(data["height"], int, "height"),
                detections=tuple(
                    _detection(index, detection)
                    for index, detection in enumerate(data["detections"])
                ),
                sha256=_instance(data.get("sha256", ""), str, "sha256"),
                brightness=None if brightness is None else _number(brightness, "brightness"),
            )
        except KeyError as error:
            raise ValueError(f"image JSON: the key {error} is missing") from error
        except TypeError as error:
            raise ValueError(f"image JSON: {error}") from error


@dataclass(frozen=True)
class Threat:
    """One detection that is a threat.

    Attributes:
        detection: Its index in the image's detections.
        label: Its label.
        conf: Its score, 0 to 1.
        severity: ``alert`` or ``detection``.
        rule: The dotted path of the entry in the rule file, e.g. ``cameras.hall.objects.person``.
        zone: The zone that contains it; None if no zone covers the label.
    """

    detection: int
    label: str
    conf: float
    severity: ThreatSeverity
    rule: str
    zone: str | None = None


@dataclass(frozen=True)
class Rejected:
    """One detection that is no threat.

    Attributes:
        detection: Its index in the image's detections.
        label: Its label.
        rule: The dotted path of the entry in the rule file; None if no entry names the label.
        by: The name of the first filter that rejected it, e.g. ``min_score``.
    """

    detection: int
    label: str
    rule: str | None
    by: str


class Check(NamedTuple):
    """The decision of one filter on one detection.

    Attributes:
        filter: The name of the filter.
        value: The value of the detection, of its image or of the history.
        bound: The bound that the rules set.
        passes: Whether the value is within the bound.
    """

    filter: str
    value: Any
    bound: Any
    passes: bool


@dataclass(frozen=True)
class Trace:
    """The checks behind the verdict on one detection.

    Attributes:
        detection: Its index in the image's detections.
        checks: The checks of the filters that the rules configure, up to the first rejection.
    """

    detection: int
    checks: tuple[Check, ...]


class DetectionJson(TypedDict):
    """A detection in the image JSON; see `Detection`."""

    category: str
    label: str
    conf: float
    bbox: list[float]


class ThreatJson(TypedDict):
    """A threat in the image JSON; see `Threat`."""

    detection: int
    label: str
    conf: float
    severity: ThreatSeverity
    rule: str
    zone: str | None


class RejectedJson(TypedDict):
    """A rejected detection in the image JSON; see `Rejected`."""

    detection: int
    label: str
    rule: str | None
    by: str


class CheckJson(TypedDict):
    """A check in the image JSON; see `Check`."""

    filter: str
    value: Any
    bound: Any
    passes: bool


class TraceJson(TypedDict):
    """A trace in the image JSON; see `Trace`."""

    detection: int
    checks: list[CheckJson]


class MoreObjectsJson(TypedDict):
    """An entry of `more` in a follow-up; see `MoreObjects`."""

    label: str
    before: int
    now: int


class FollowUpJson(TypedDict):
    """What is new in an incident, in the image JSON and in alerts; see `FollowUp`."""

    incident: str
    began: str
    last_alert: str
    images: int
    new_labels: list[str]
    more: list[MoreObjectsJson]


class _FirstVerdictJson(TypedDict):
    is_threat: bool
    severity: ThreatSeverity | None
    rules_version: str
    threats: list[ThreatJson]
    rejected: list[RejectedJson]


class VerdictJson(_FirstVerdictJson, total=False):
    """The ``threat`` object of the image JSON; see `Verdict`.

    Archives of earlier releases lack the keys of this class. Only an alert that follows another one
    in its incident has `follow_up`.
    """

    suppressed_by: str | None
    incident_number: int | None
    trace: list[TraceJson]
    follow_up: FollowUpJson


class FinalImageJson(TypedDict):
    """The keys of the image JSON in ``final/`` that explain a verdict."""

    id: str
    timestamp: str
    detections: list[DetectionJson]
    threat: VerdictJson


@dataclass(frozen=True)
class MoreObjects:
    """A label of which an incident shows more objects than its alerts have said.

    Attributes:
        label: The label.
        before: The largest number in one image, as of the last alert.
        now: The largest number in one image since then.
    """

    label: str
    before: int
    now: int


@dataclass(frozen=True)
class FollowUp:
    """What is new in an incident since its last alert, for an alert that follows that one.

    Attributes:
        incident: The id of the first alert of the incident.
        began: The capture time of that alert's image, canonical.
        last_alert: The capture time of the last alert's image, canonical.
        images: The number of threat images since then, which had no alert of their own.
        new_labels: The labels that no alert of the incident has named, or that were absent for
            longer than the `incident_gap`, in order.
        more: The labels of which there are more objects than before, in order.
    """

    incident: str
    began: str
    last_alert: str
    images: int
    new_labels: tuple[str, ...] = ()
    more: tuple[MoreObjects, ...] = ()

    def to_json(self) -> FollowUpJson:
        """Returns the ``follow_up`` object of the image JSON and of alerts."""
        return {
            "incident": self.incident,
            "began": self.began,
            "last_alert": self.last_alert,
            "images": self.images,
            "new_labels": list(self.new_labels),
            "more": [
                {"label": entry.label, "before": entry.before, "now": entry.now}
                for entry in self.more
            ],
        }


@dataclass(frozen=True)
class Verdict:
    """The judgement of one image: each detection is in `threats` or in `rejected`, in order.

    Attributes:
        is_threat: Whether there is any threat.
        severity: The highest severity of the threats; None without threats.
        rules_version: The `Rules.version` of the rules that judged the image.
        threats: The threats, in the order of the detections.
        rejected: The other detections, in order.
        trace: The checks, for the detections whose labels the rules name.
        suppressed_by: The id of the alert whose cooldown suppresses the image's own; None if the
            image has an alert of its own, or calls for none. Images of severity `detection` have
            incidents of their own if the camera has a cooldown and a target receives them.
        incident_number: The number of the image in its incident: 1 for the image whose alert is
            sent, from 2 for those that this alert covers; None if the image calls for no alert.
        follow_up: What is new since the last alert of the incident; None if the image has no alert
            of its own, or the first one of its incident.
        covered_since: The capture time of the image of the alert `suppressed_by`, in microseconds
            since 1970; None if there is none, or if the verdict was read from JSON.
    """

    is_threat: bool
    severity: ThreatSeverity | None
    rules_version: str
    threats: tuple[Threat, ...]
    rejected: tuple[Rejected, ...]
    trace: tuple[Trace, ...] = ()
    suppressed_by: str | None = None
    incident_number: int | None = None
    follow_up: FollowUp | None = None
    covered_since: int | None = field(default=None, compare=False)

    @property
    def alerts(self) -> bool:
        """Whether the image sends an alert."""
        return self.severity == "alert" and self.suppressed_by is None

    def to_json(self) -> VerdictJson:
        """Returns the ``threat`` object of the image JSON."""
        data: VerdictJson = {
            "is_threat": self.is_threat,
            "severity": self.severity,
            "rules_version": self.rules_version,
            "threats": [
                {
                    "detection": threat.detection,
                    "label": threat.label,
                    "conf": threat.conf,
                    "severity": threat.severity,
                    "rule": threat.rule,
                    "zone": threat.zone,
                }
                for threat in self.threats
            ],
            "rejected": [
                {
                    "detection": rejected.detection,
                    "label": rejected.label,
                    "rule": rejected.rule,
                    "by": rejected.by,
                }
                for rejected in self.rejected
            ],
            "suppressed_by": self.suppressed_by,
            "incident_number": self.incident_number,
            "trace": [
                {
                    "detection": trace.detection,
                    "checks": [
                        {
                            "filter": check.filter,
                            "value": check.value,
                            "bound": check.bound,
                            "passes": check.passes,
                        }
                        for check in trace.checks
                    ],
                }
                for trace in self.trace
            ],
        }
        if self.follow_up is not None:
            data["follow_up"] = self.follow_up.to_json()
        return data


def _detection(index: int, data: Mapping[str, Any]) -> Detection:
    try:
        x_min, y_min, width, height = (_number(side, "bbox") for side in data["bbox"])
        return Detection(
            category=_instance(data["category"], str, "category"),
            label=_instance(data["label"], str, "label"),
            conf=_number(data["conf"], "conf"),
            bbox=(x_min, y_min, width, height),
        )
    except KeyError as error:
        raise ValueError(f"image JSON: detections[{index}]: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"image JSON: detections[{index}]: {error}") from error


def _number(value: Any, key: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{key} must be a number, not {value!r}")
    return float(value)


def _instance(value: Any, kind: type, key: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{key} must be {kind.__name__}, not {value!r}")
    return value
