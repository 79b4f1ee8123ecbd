"""Images as the model and the rules have left them, for the steps that come after."""

from __future__ import annotations

from collections.abc import Sequence

import rules
from transforms.records.images import DetectedImage, JudgedImage, ModelInfo

MODEL = ModelInfo("detector", "0123456789ab", "ab0123456789", "tflite")
BOX = (0.1, 0.2, 0.3, 0.4)


def detected(
    camera: str = "hall",
    timestamp: str = "2026-01-31T23:59:59Z",
    labels: Sequence[str] = (),
    *,
    file: str | None = None,
    sha256: str = "5" * 64,
) -> DetectedImage:
    """An image in which one object of each label was seen."""
    name = file or f"{camera}_{timestamp.replace(':', '-')}.jpg"
    return DetectedImage(
        id=camera,
        timestamp=timestamp,
        file=name,
        uri=f"/in/{name}",
        sha256=sha256,
        width=640,
        height=480,
        model=MODEL,
        detections=tuple(rules.Detection("1", label, 0.9, BOX) for label in labels),
        brightness=0.5,
        sharpness=0.0312,
    )


def judged(
    camera: str = "hall",
    timestamp: str = "2026-01-31T23:59:59Z",
    threats: Sequence[tuple[str, rules.ThreatSeverity]] = (),
    *,
    file: str | None = None,
    suppressed_by: str | None = None,
    incident_number: int | None = None,
) -> JudgedImage:
    """An image with these threats, by label and severity."""
    image = detected(camera, timestamp, [label for label, _ in threats], file=file)
    severities = {severity for _, severity in threats}
    verdict = rules.Verdict(
        is_threat=bool(threats),
        severity="alert" if "alert" in severities else "detection" if severities else None,
        rules_version="ba9876543210",
        threats=tuple(
            rules.Threat(at, label, 0.9, severity, f"defaults.objects.{label}")
            for at, (label, severity) in enumerate(threats)
        ),
        rejected=(),
        suppressed_by=suppressed_by,
        incident_number=incident_number,
    )
    return JudgedImage(image, verdict)
