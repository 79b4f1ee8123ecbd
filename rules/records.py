"""The records that go into a judgement and come out of it.

Boxes are ``(x_min, y_min, width, height)`` as fractions of the image, origin top left, and scores
go from 0 to 1, as in MegaDetector's batch format:
https://lila.science/megadetector-output-format
Both arrive rounded to 4 decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Severity = Literal["alert", "detection", "ignore"]
"""What a rule makes of an object: a threat to alert, a threat to record, or no threat."""

ThreatSeverity = Literal["alert", "detection"]
"""The severity of a threat: an ignored object is none."""

_LARGEST_COORDINATE = 1e6


@dataclass(frozen=True)
class Detection:
    """One object that the model found.

    Attributes:
        category: the model's own number for the label, as text.
        label: what it is, e.g. ``"person"``.
        conf: the model's score, 0 to 1.
        bbox: x_min, y_min, width, height as fractions of the image.

    Raises:
        ValueError: a score outside 0 to 1, or a box that is not four sensible numbers (NaN,
            infinity), which nothing could be judged by.
    """

    category: str
    label: str
    conf: float
    bbox: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        if not 0 <= self.conf <= 1:
            raise ValueError(f"conf must be from 0 to 1, not {self.conf!r}")
        if len(self.bbox) != 4 or not all(abs(side) <= _LARGEST_COORDINATE for side in self.bbox):
            raise ValueError(f"bbox must be four fractions of the image, not {self.bbox!r}")


@dataclass(frozen=True)
class Image:
    """What was seen in one image.

    Attributes:
        id: the camera.
        timestamp: RFC 3339 in UTC with ``Z``.
        width: in pixels.
        height: in pixels.
        detections: in the order of the image JSON; a verdict refers to them by their index.
        sha256: of the file's bytes, in hex; says which of two pictures of one moment stands.
        brightness: mean brightness, 0 to 1; None where it was not measured.
    """

    id: str
    timestamp: str
    width: int
    height: int
    detections: tuple[Detection, ...]
    sha256: str = ""
    brightness: float | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Image:
        """Read the image JSON of ``detections/`` or ``final/``; keys that judging needs not are
        passed over.

        Raises:
            ValueError: a key is missing or holds something else than it should.
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
        detection: its index in the image's detections.
        label: its label.
        conf: its score, 0 to 1.
        severity: ``alert`` or ``detection``.
        rule: the dotted path of the entry in the rule file, e.g. ``cameras.hall.objects.person``.
        zone: the zone that it was seen in; None where no zone was asked for.
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
        detection: its index in the image's detections.
        label: its label.
        rule: the dotted path of the entry in the rule file; None where no entry names the label.
        by: the name of the first filter that rejected it, e.g. ``min_score``.
    """

    detection: int
    label: str
    rule: str | None
    by: str


class Check(NamedTuple):
    """What one filter decided on one detection.

    Attributes:
        filter: its name.
        value: what the detection, its picture or the history shows.
        bound: what the rules ask for.
        passes: whether the one is enough for the other.
    """

    filter: str
    value: Any
    bound: Any
    passes: bool


@dataclass(frozen=True)
class Trace:
    """How a verdict on one detection came about.

    Attributes:
        detection: its index in the image's detections.
        checks: the filters of which the rules asked something, up to the first that rejected.
    """

    detection: int
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Verdict:
    """The judgement of one image: each detection is in `threats` or in `rejected`, in order.

    Attributes:
        is_threat: whether there is any threat.
        severity: the highest of the threats; None without one.
        rules_version: `Rules.version` of the rules that judged.
        threats: the threats, in the order of the detections.
        rejected: the rest, in the order of the detections.
        trace: how it came about, for the detections whose labels the rules name.
        suppressed_by: the id of the alert in whose cooldown the image comes; None where it has an
            alert of its own, or none is called for.
        incident_number: which image of its incident it is: 1 for one whose alert is sent, and on
            from 2 for those that this alert covers; None where no alert is called for.
    """

    is_threat: bool
    severity: ThreatSeverity | None
    rules_version: str
    threats: tuple[Threat, ...]
    rejected: tuple[Rejected, ...]
    trace: tuple[Trace, ...] = ()
    suppressed_by: str | None = None
    incident_number: int | None = None

    @property
    def alerts(self) -> bool:
        """Whether an alert is to be sent."""
        return self.severity == "alert" and self.suppressed_by is None

    def to_json(self) -> dict[str, Any]:
        """The ``threat`` object of the image JSON."""
        return {
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
                    "checks": [check._asdict() for check in trace.checks],
                }
                for trace in self.trace
            ],
        }


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
