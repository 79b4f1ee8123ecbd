"""Outputs of a whole fleet, as a job writes them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import rules
from tests.beam_pipeline.conftest import jpeg
from tests.transforms.archives import OLD, write_output
from transforms.alerting.alerts import alert_for
from transforms.alerting.ledger import NOT_SENT
from transforms.records.count_rows import CountRow
from transforms.records.images import DetectedImage, JudgedImage
from transforms.records.times import canonical_time, parse_time
from transforms.storage import stores

PICTURE = jpeg()
SHA256 = hashlib.sha256(PICTURE).hexdigest()


def not_sent(judged: JudgedImage) -> list[Mapping[str, Any]]:
    """What an alert's record says where there is no target."""
    return [{"target": None, "outcome": NOT_SENT, "detail": "no --alert_url was given"}]


def write_fleet(
    output: Path,
    images: Iterable[DetectedImage],
    *,
    rule_text: str = OLD,
    targets: Callable[[JudgedImage], list[Mapping[str, Any]]] = not_sent,
    invalid: Iterable[tuple[str, str, str]] = (),
) -> list[JudgedImage]:
    """Writes verdicts, images, alerts, hourly counts and invalid images; what was judged.

    Args:
      output: Where to.
      images: What was detected; the images of those with the sha256 `SHA256` are there.
      rule_text: The rules.
      targets: What became of an image's alert.
      invalid: Reason, file name and detail, each.
    """
    judged = write_output(output, images, rule_text)
    windows: dict[tuple[Any, str], list[JudgedImage]] = {}
    for image in judged:
        if image.image.sha256 == SHA256:
            path = stores.validated_uri(str(output), image.image.id, image.image.file)
            stores.write_bytes(path, PICTURE)
        if alert := alert_for(image, str(output), rules.parse_rules(rule_text, "rules")):
            path = stores.alert_uri(str(output), alert.camera, alert.alert_id)
            record = {**alert.body, "targets": targets(image)}
            stores.write_bytes(path, stores.json_bytes(record))
        hour = parse_time(image.image.timestamp).replace(minute=0, second=0, microsecond=0)
        windows.setdefault((hour, image.image.id), []).append(image)
    files: dict[str, bytes] = {}
    for (start, id), of_window in sorted(windows.items()):
        end = start + timedelta(hours=1)
        threats = [image.verdict.threats for image in of_window]
        row = CountRow(
            id,
            start,
            end,
            images=len(of_window),
            threat_images=sum(map(bool, threats)),
            threats=sum(map(len, threats)),
            alerts=sum(image.verdict.severity == "alert" for image in of_window),
            by_label=Counter(threat.label for of_one in threats for threat in of_one),
        )
        name = "_".join(canonical_time(time).replace("-", "").replace(":", "") for time in
                        (start, end))  # fmt: skip
        files[name] = files.get(name, b"") + stores.json_bytes(row.to_json())
    for name, data in files.items():
        stores.write_bytes(stores.counts_uri(str(output), name, 0, 1), data)
    for reason, file, detail in invalid:
        record = {"file": file, "uri": f"/in/{file}", "reason": reason, "detail": detail}
        path = stores.invalid_uri(str(output), reason, f"{file}.json")
        stores.write_bytes(path, stores.json_bytes(record))
    return judged
