"""Outputs of a whole fleet, as a job writes them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import rules
from beam_pipeline.counts import CountRow
from tests.beam_pipeline.conftest import jpeg
from tests.transforms.archives import OLD, write_output
from transforms import stores
from transforms.alerts import alert_for
from transforms.ledger import NOT_SENT
from transforms.records import DetectedImage, JudgedImage
from transforms.times import canonical_time, parse_time

PICTURE = jpeg()
SHA256 = hashlib.sha256(PICTURE).hexdigest()


def not_sent(judged: JudgedImage) -> list[Mapping[str, Any]]:
    """What an alert's record says where there is no target."""
    return [{"target": None, "outcome": NOT_SENT, "detail": "no --alert_url was given"}]


def write_fleet(
    output: Path,
    images: Iterable[DetectedImage],
    *,
    by: str = OLD,
    targets: Callable[[JudgedImage], list[Mapping[str, Any]]] = not_sent,
    invalid: Iterable[tuple[str, str, str]] = (),
) -> list[JudgedImage]:
    """Writes verdicts, pictures, alerts, hourly counts and invalid images; what was judged.

    Args:
      output: Where to.
      images: What was detected; the pictures of those with the sha256 `SHA256` are there.
      by: The rules.
      targets: What became of an image's alert.
      invalid: Reason, file name and detail, each.
    """
    judged = write_output(output, images, by)
    windows: dict[tuple[Any, str], list[JudgedImage]] = {}
    for one in judged:
        if one.image.sha256 == SHA256:
            place = stores.validated_uri(str(output), one.image.id, one.image.file)
            stores.write_bytes(place, PICTURE)
        if alert := alert_for(one, str(output), rules.parse_rules(by, "rules")):
            place = stores.alert_uri(str(output), alert.camera, alert.alert_id)
            record = {**alert.body, "targets": targets(one)}
            stores.write_bytes(place, stores.json_bytes(record))
        hour = parse_time(one.image.timestamp).replace(minute=0, second=0, microsecond=0)
        windows.setdefault((hour, one.image.id), []).append(one)
    files: dict[str, bytes] = {}
    for (start, id), of_window in sorted(windows.items()):
        end = start + timedelta(hours=1)
        threats = [one.verdict.threats for one in of_window]
        row = CountRow(
            id,
            start,
            end,
            images=len(of_window),
            threat_images=sum(map(bool, threats)),
            threats=sum(map(len, threats)),
            alerts=sum(one.verdict.severity == "alert" for one in of_window),
            by_label=Counter(threat.label for of_one in threats for threat in of_one),
        )
        name = "_".join(canonical_time(time).replace("-", "").replace(":", "") for time in
                        (start, end))  # fmt: skip
        files[name] = files.get(name, b"") + stores.json_bytes(row.to_json())
    for name, data in files.items():
        stores.write_bytes(stores.counts_uri(str(output), name, 0, 1), data)
    for reason, file, detail in invalid:
        record = {"file": file, "uri": f"/in/{file}", "reason": reason, "detail": detail}
        place = stores.invalid_uri(str(output), reason, f"{file}.json")
        stores.write_bytes(place, stores.json_bytes(record))
    return judged
