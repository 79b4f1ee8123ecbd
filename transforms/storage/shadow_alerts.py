"""What two rule files say of one image: those that decide, and the shadow rules beside them.

An image of which neither has an alert has no record. Each record is a small file,
`shadow/alerts/<id>/<time>_<digits>.json`, whose name and content follow from the image and the two
verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

import rules
from rules.text import escaped
from transforms.records.images import JudgedImage
from transforms.records.text import one_line
from transforms.records.times import canonical_time, parse_time
from transforms.storage import stores

Difference = Literal["both", "only_rules", "only_shadow"]
BOTH: Difference = "both"
ONLY_RULES: Difference = "only_rules"
ONLY_SHADOW: Difference = "only_shadow"
DIFFERENCES = (BOTH, ONLY_RULES, ONLY_SHADOW)
"""Which of the two has an alert of an image."""

FORMAT_VERSION = "1.0"
_MOST_REASONS = 20
_NAME = re.compile(r"[0-9TZ.]+_[0-9a-f]{12}\.json", re.ASCII)


@dataclass(frozen=True)
class ShadowThreat:
    """A threat in the eyes of one of the two.

    Attributes:
      label: The label.
      conf: The score, 0 to 1.
      severity: The severity.
      rule: The entry of the rule file that lets it through.
      zone: The zone that contains it; None if there is none.
      bbox: x, y, width and height as fractions of the image, from its top left corner.
    """

    label: str
    conf: float
    severity: rules.ThreatSeverity
    rule: str
    zone: str | None
    bbox: tuple[float, float, float, float]


@dataclass(frozen=True)
class Judgement:
    """What one of the two says of an image.

    Attributes:
      rules_version: The version of the rules.
      alerts: Whether the image has an alert by them that no cooldown suppresses.
      severity: The highest severity of the threats; None without threats.
      suppressed_by: The id of the alert whose cooldown suppresses this one; None if none does.
      threats: The threats, in the order of the detections.
    """

    rules_version: str
    alerts: bool
    severity: rules.ThreatSeverity | None
    suppressed_by: str | None
    threats: tuple[ShadowThreat, ...]

    @classmethod
    def of(cls, judged: JudgedImage) -> Judgement:
        """Returns what the verdict on an image says."""
        verdict, detections = judged.verdict, judged.image.detections
        return cls(
            verdict.rules_version,
            verdict.alerts,
            verdict.severity,
            verdict.suppressed_by,
            tuple(
                ShadowThreat(
                    *(threat.label, threat.conf, threat.severity, threat.rule, threat.zone),
                    detections[threat.detection].bbox,
                )
                for threat in verdict.threats
            ),
        )


@dataclass(frozen=True)
class ShadowAlert:
    """An image of which the rules, the shadow rules or both have an alert.

    Attributes:
      id: The camera.
      timestamp: The capture time, canonical.
      alert_id: The id of the alert that it has or would have.
      image: The name of the image JSON in `final/`, without `.json`.
      sha256: The hash of the image's bytes.
      difference: One of `DIFFERENCES`.
      rules: What the rules that decide say.
      shadow: What the shadow rules say.
      why: Why they differ, in sentences; empty if they don't.
    """

    id: str
    timestamp: str
    alert_id: str
    image: str
    sha256: str
    difference: Difference
    rules: Judgement
    shadow: Judgement
    why: tuple[str, ...] = ()

    def uri(self, output: str) -> str:
        """Returns the address of its record."""
        return stores.shadow_alert_uri(output, self.id, self.timestamp, self.sha256)

    def to_json(self) -> dict[str, Any]:
        """Makes the JSON of the file."""
        return {"format_version": FORMAT_VERSION, **msgspec.to_builtins(self)}


def compare(judged: JudgedImage, shadowed: JudgedImage) -> ShadowAlert | None:
    """Compares what both say of one capture time; None if neither has an alert.

    Args:
      judged: The image that stands, with the verdict of the rules.
      shadowed: The image that would stand by the shadow rules, with their verdict: the same one
        unless several files have the capture time.
    """
    if not judged.verdict.alerts and not shadowed.verdict.alerts:
        return None
    image = judged.image
    difference = BOTH
    if judged.verdict.alerts != shadowed.verdict.alerts:
        difference = ONLY_RULES if judged.verdict.alerts else ONLY_SHADOW
    why = () if difference == BOTH else tuple(_reasons(judged, shadowed))
    return ShadowAlert(
        image.id,
        image.timestamp,
        rules.alert_id(image.id, image.timestamp, "alert"),
        image.stem,
        image.sha256,
        difference,
        Judgement.of(judged),
        Judgement.of(shadowed),
        why[:_MOST_REASONS],
    )


def _reasons(judged: JudgedImage, shadowed: JudgedImage) -> Iterator[str]:
    for name, one in (("rules", judged), ("shadow rules", shadowed)):
        if one.verdict.severity == "alert" and one.verdict.suppressed_by is not None:
            yield (
                f"By the {name}, the cooldown of alert {one.verdict.suppressed_by} suppresses the "
                "alert."
            )
            return
    if judged.image.sha256 != shadowed.image.sha256:
        yield (
            f"Several files have this capture time, and the shadow rules choose another one: "
            f"{escaped(shadowed.image.file)}."
        )
        return
    by_rules, by_shadow = _alerting(judged), _alerting(shadowed)
    explained = _explanations(judged), _explanations(shadowed)
    for number in sorted(by_rules ^ by_shadow):
        detection = judged.image.detections[number]
        reasons = (reason.get(number, "not judged") for reason in explained)
        yield (
            "{}, score {:g}: by the rules {}; by the shadow rules {}.".format(
                escaped(detection.label), detection.conf, *reasons
            )
        )


def _alerting(judged: JudgedImage) -> set[int]:
    """Returns the numbers of the detections that call for an alert."""
    threats = judged.verdict.threats
    return {threat.detection for threat in threats if threat.severity == "alert"}


def _explanations(judged: JudgedImage) -> Mapping[int, str]:
    return rules.explain_detections(judged.to_json())


def is_shadow_name(name: str) -> bool:
    """Returns whether the name of a file is that of a record."""
    return _NAME.fullmatch(name) is not None


def read_shadow_alert(uri: str) -> ShadowAlert:
    """Reads a record.

    Raises:
      OSError: It can't be read.
      ValueError: It is none.
    """
    return parse_shadow_alert(uri, stores.read_bytes(uri))


def parse_shadow_alert(uri: str, data: bytes) -> ShadowAlert:
    """Reads the content of a record.

    Args:
      uri: Its address, which says of which image it is.
      data: The content.

    Raises:
      ValueError: It is no record of this image.
    """
    try:
        alert = msgspec.json.decode(data, type=ShadowAlert)
        is_canonical = canonical_time(parse_time(alert.timestamp)) == alert.timestamp
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError(f"is no record of the shadow rules ({one_line(error)})") from error
    alert_id = rules.alert_id(alert.id, alert.timestamp, "alert")
    own = stores.shadow_alert_uri("", alert.id, alert.timestamp, alert.sha256)
    if not is_canonical or alert.alert_id != alert_id or not uri.endswith(own):
        raise ValueError("is the record of another image than its name says")
    return alert
