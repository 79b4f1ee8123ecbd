"""Bytes of state that each release has written are read by this one.

`tests/golden/<record>.v<version>.bin` holds what a release wrote for the record in the table below.
A file that has been released is never written again: where a form changes, its coder takes a new
version, with an upgrade from the one before, and the new bytes become a file beside the old one.
`python -m tests.test_golden` writes the files of the table that are missing.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.utils.timestamp import Timestamp

import rules
from beam_pipeline.sources.notifications.channel import PartitionPosition
from beam_pipeline.sources.notifications.source import (
    FOUND_PARTITIONS_CODER,
    POSITION_CODER,
    FoundPartitions,
    Partition,
)
from beam_pipeline.sources.parts import Part
from beam_pipeline.sources.unbounded import EVENT_TIME_CODER
from beam_pipeline.sources.watching import KNOWN_FILES_CODER, KnownFiles, KnownFolder
from transforms.alerting.alerts import Alert
from transforms.alerting.digests import HeldAlert
from transforms.count_threats import TALLIES, CountedImage, CountTally, tally_image
from transforms.judge_threats import HISTORIES
from transforms.known_periods import FIRST_IMAGES, FirstImage
from transforms.limit_alerts import (
    HELD_ALERTS,
    NEXT_DIGESTS,
    NextDigest,
    TargetedAlert,
    Window,
)
from transforms.packed_decisions import WRITTEN, Decision
from transforms.records.images import (
    DetectedImage,
    ImageFile,
    InvalidImage,
    JudgedImage,
    ModelInfo,
    NamedFile,
    ValidImage,
    WindowCounts,
)
from transforms.records.precedence import CAPTURE_TIMES, CaptureTime, Version
from transforms.send_alerts import PENDING_ALERTS, PendingAlert, PendingTarget
from transforms.store_plans import Plan

FOLDER = Path(__file__).with_name("golden")


@dataclass(frozen=True)
class Golden:
    """A record, and what writes it.

    Attributes:
      coder: Encodes and decodes it, where it is kept or sent.
      record: What the bytes say, with a value of its own in each field.
    """

    coder: beam.coders.Coder
    record: Any


def registered(record: Any) -> Golden:
    """A record that is written by the coder which is registered for its type."""
    return Golden(beam.coders.registry.get_coder(type(record)), record)


IMAGE_FILE = ImageFile(
    "s3://cameras/in/gate_20260131T235959Z.jpg", 34_567, "2026-01-31T23:59:50Z", 1_769_903_999.5
)
DETECTED_IMAGE = DetectedImage(
    id="gate",
    timestamp="2026-01-31T23:59:59Z",
    file="gate_20260131T235959Z.jpg",
    uri="s3://cameras/in/gate_20260131T235959Z.jpg",
    sha256="0123456789abcdef" * 4,
    width=1280,
    height=720,
    model=ModelInfo("yolox-nano", "5f1d6ad34e2a", "c0ffee012345", "tflite"),
    detections=(
        rules.Detection("1", "person", 0.91, (0.1, 0.2, 0.05, 0.3)),
        rules.Detection("3", "car", 0.6, (0.5, 0.6, 0.2, 0.1)),
    ),
    brightness=0.42,
    sharpness=0.07,
    stream_time="2026-01-31T23:59:50Z",
    changed=1_769_903_999.5,
    is_contested=True,
)
VERDICT = rules.Verdict(
    is_threat=True,
    severity="alert",
    rules_version="aabbccddeeff",
    threats=(rules.Threat(0, "person", 0.91, "alert", "cameras.gate.objects.person", "drive"),),
    rejected=(rules.Rejected(1, "car", "defaults.objects.car", "min_score"),),
    trace=(
        rules.Trace(0, (rules.Check("min_score", 0.91, 0.5, True),)),
        rules.Trace(1, (rules.Check("mask", "street", ["street", "flag"], False),)),
    ),
    suppressed_by="00112233445566778899aabbccddeeff",
    incident_number=7,
)
FOLLOWING = replace(
    VERDICT,
    suppressed_by=None,
    incident_number=1,
    follow_up=rules.FollowUp(
        "00112233445566778899aabbccddeeff",
        "2026-01-31T22:59:59Z",
        "2026-01-31T23:29:59Z",
        17,
        ("person",),
        (rules.MoreObjects("car", 1, 3),),
    ),
)
LIMIT_WINDOW = Window("guard", "gate", 1_769_903_400_000_000, 600_000_000)
HELD_ALERT = HeldAlert(
    "00112233445566778899aabbccddeeff", "gate", "2026-01-31T23:59:59Z", "alert", ("person", "car")
)

ALERT = Alert(
    "00112233445566778899aabbccddeeff",
    "gate",
    {"alert_id": "00112233445566778899aabbccddeeff", "id": "gate", "threats": [{}]},
    ("guard", "mail"),
    {"mail": "ffeeddccbbaa99887766554433221100"},
    "aabbccddeeff00112233445566778899",
    7,
    JudgedImage(DETECTED_IMAGE, VERDICT).to_json(),
)

ARRIVED_ALERT = replace(ALERT, changed=1_769_904_000.5)
DUE_ALERT = replace(ARRIVED_ALERT, is_due=True)
TARGETED_ALERT = TargetedAlert(
    Alert(
        "00112233445566778899aabbccddeeff",
        "gate",
        {"alert_id": "00112233445566778899aabbccddeeff"},
        ("guard",),
    ),
    over=True,
)
PENDING_ALERT = PendingAlert(
    ALERT,
    (
        PendingTarget("guard", 1_769_904_000.5, 1_769_904_064.25, 5, True),
        PendingTarget(None, 1_769_904_000.5, 1_769_904_001.5),
    ),
)

COVERED = JudgedImage(
    DETECTED_IMAGE,
    replace(
        VERDICT,
        suppressed_by="00112233445566778899aabbccddeeff",
        incident_number=3,
        covered_since=1_769_903_999_000_000,
    ),
)
PLAN = Plan(
    "gate",
    "2026-01-31T23:59:59Z",
    JudgedImage(DETECTED_IMAGE, VERDICT),
    written=True,
    losers=(("s3://a/b.jpg", "b.jpg"),),
    retracted=(("s3://a/c.jpg", "c.jpg", "corrupt_jpeg"),),
    recorded=(InvalidImage(IMAGE_FILE, "duplicate", "another stands"),),
    arrived=("d.jpg",),
    restored=True,
    late=True,
    searched=(("s3://a/e.jpg", "e.jpg", None),),
    is_recorded=True,
)
TALLIES_OF_A_WINDOW: dict[str, CountTally] = {
    "gate": {
        "images": 7,
        "threat_images": 5,
        "threats": 6,
        "alerts": 4,
        "retracted": 3,
        "by_label": Counter(person=4, car=2),
    },
}
CAPTURE_TIME = CaptureTime(
    {DETECTED_IMAGE.uri: Version(judged=JudgedImage(DETECTED_IMAGE, VERDICT))},
    DETECTED_IMAGE.uri,
    {"s3://cameras/in/gate_1769903999.jpg": "duplicate"},
    counted=True,
    is_kept=True,
    waiting=(Version(invalid=InvalidImage(IMAGE_FILE, "corrupt_jpeg", "image data is missing")),),
)

CAPTURE_TIME_OF_REPLACED = replace(CAPTURE_TIME, replaced=("0123456789abcdef" * 4,))

KNOWN_FILES = KnownFiles(
    (
        KnownFolder(b"/srv/in.", 2, b"/srv/in.", 7, 1.77e9, versions=b"abcdefgh12345678"),
        KnownFolder(
            *(b"/in/day1", 11, b"/srv/in.", 7, 1.76e9, 1.765e9),
            folded_until=1.755e9,
            folded=9,
            folded_sum=2**64 - 1,
        ),
    ),
    ((b"waiting1", 1_770_000_000.25),),
)
VALID_IMAGE = ValidImage(
    NamedFile(IMAGE_FILE, "gate", "2026-01-31T23:59:59Z"),
    sha256="fedcba9876543210" * 4,
    width=1280,
    height=720,
    data=b"\xff\xd8\xff",
    pixels=None,
    brightness=0.42,
    sharpness=0.07,
    content=(1.0, 0.5625),
    known=(rules.Detection("1", "person", 0.91, (0.1, 0.2, 0.05, 0.3)),),
)
GOLDEN: dict[str, Golden] = {
    "image_file.v1.bin": registered(IMAGE_FILE),
    "image_file_not_utf8.v1.bin": registered(ImageFile("/srv/in/gate\udce9_20260131.jpg", 9)),
    "named_file.v1.bin": registered(NamedFile(IMAGE_FILE, "gate", "2026-01-31T23:59:59Z")),
    "invalid_image.v1.bin": registered(
        InvalidImage(
            IMAGE_FILE,
            "corrupt_jpeg",
            "image data is missing",
            size_bytes=34_567,
            width=1280,
            height=720,
            sha256="fedcba9876543210" * 4,
            data=b"\xff\xd8\xff",
            shares_name=True,
            camera="gate",
            timestamp="2026-01-31T23:59:59Z",
            detections=DETECTED_IMAGE.detections,
        )
    ),
    "version.v1.bin": registered(Version(judged=JudgedImage(DETECTED_IMAGE, VERDICT))),
    "version.v2.bin": registered(Version(judged=JudgedImage(DETECTED_IMAGE, FOLLOWING))),
    "version.v3.bin": registered(Version(judged=COVERED)),
    "capture_time.v1.bin": Golden(
        CAPTURE_TIMES,
        CaptureTime(
            {DETECTED_IMAGE.uri: Version(judged=JudgedImage(DETECTED_IMAGE, VERDICT))},
            DETECTED_IMAGE.uri,
            {"s3://cameras/in/gate_1769903999.jpg": "duplicate"},
            counted=True,
        ),
    ),
    "capture_time.v2.bin": Golden(CAPTURE_TIMES, CAPTURE_TIME),
    "capture_time.v3.bin": Golden(CAPTURE_TIMES, CAPTURE_TIME_OF_REPLACED),
    "capture_time.v4.bin": Golden(
        CAPTURE_TIMES,
        replace(
            CAPTURE_TIME,
            versions={DETECTED_IMAGE.uri: Version(judged=JudgedImage(DETECTED_IMAGE, FOLLOWING))},
        ),
    ),
    "capture_time.v5.bin": Golden(
        CAPTURE_TIMES,
        replace(CAPTURE_TIME, versions={DETECTED_IMAGE.uri: Version(judged=COVERED)}),
    ),
    "capture_time.v6.bin": Golden(CAPTURE_TIMES, replace(CAPTURE_TIME, decisions=3)),
    "capture_time.v7.bin": Golden(CAPTURE_TIMES, replace(CAPTURE_TIME, is_recorded=False)),
    "decision.v1.bin": registered(
        Decision(
            *("gate", "2026-01-31T23:59:59Z", 2),
            winner=JudgedImage(DETECTED_IMAGE, VERDICT),
            is_recorded=True,
            files=(("s3://cameras/in/gate_1769903999.jpg", "gate_1769903999.jpg"),),
            late=Version(invalid=InvalidImage(IMAGE_FILE, "not_jpeg", "it begins otherwise")),
        )
    ),
    "written.v1.bin": Golden(WRITTEN, ("gate", "2026-01-31T23:59:59Z", 2)),
    "plan.v1.bin": registered(PLAN),
    "plan.v2.bin": registered(
        replace(
            PLAN,
            copies=(("s3://a/f.jpg", "f.jpg"),),
            recorded_before=(InvalidImage(IMAGE_FILE, "not_jpeg", "it begins otherwise"),),
            known=CAPTURE_TIME,
        )
    ),
    "plan.v3.bin": registered(replace(PLAN, spared=("0123456789abcdef" * 4,), known=CAPTURE_TIME)),
    "plan.v4.bin": registered(replace(PLAN, known=CAPTURE_TIME_OF_REPLACED)),
    "plan.v5.bin": registered(replace(PLAN, winner=JudgedImage(DETECTED_IMAGE, FOLLOWING))),
    "plan.v6.bin": registered(replace(PLAN, winner=COVERED)),
    "plan.v7.bin": registered(replace(PLAN, first=COVERED)),
    "plan.v8.bin": registered(replace(PLAN, known=replace(CAPTURE_TIME, decisions=3))),
    "plan.v9.bin": registered(
        replace(PLAN, known=replace(CAPTURE_TIME, is_recorded=False), is_recorded=False)
    ),
    "first_image.v1.bin": Golden(
        FIRST_IMAGES,
        FirstImage(
            bytes.fromhex("0123456789abcdef"),
            "1769903999123",
            1_769_903_999.5,
            (("person", 2), ("car", 1)),
            True,
            1_769_903_999_000_000,
        ),
    ),
    "counted_image.v1.bin": registered(
        CountedImage.of(JudgedImage(DETECTED_IMAGE, VERDICT)).retraction()
    ),
    "tallies.v1.bin": Golden(TALLIES, {"gate": tally_image(JudgedImage(DETECTED_IMAGE, VERDICT))}),
    "tallies.v2.bin": Golden(TALLIES, TALLIES_OF_A_WINDOW),
    "valid_image.v1.bin": registered(VALID_IMAGE),
    "valid_image.v2.bin": registered(replace(VALID_IMAGE, tiling="tiles 3x2 overlap 0.2")),
    "detected_image.v1.bin": registered(DETECTED_IMAGE),
    "judged_image.v1.bin": registered(JudgedImage(DETECTED_IMAGE, VERDICT)),
    "judged_image.v2.bin": registered(JudgedImage(DETECTED_IMAGE, FOLLOWING)),
    "judged_image.v3.bin": registered(COVERED),
    "seen_files.v1.bin": Golden(KNOWN_FILES_CODER, KNOWN_FILES),
    "seen_files_none.v1.bin": Golden(KNOWN_FILES_CODER, None),
    "seen_files.v2.bin": Golden(
        KNOWN_FILES_CODER,
        KnownFiles(
            (KNOWN_FILES.folders[0], replace(KNOWN_FILES.folders[1], appeared=1.7625e9)),
            KNOWN_FILES.waiting,
        ),
    ),
    "seen_files_none.v2.bin": Golden(KNOWN_FILES_CODER, None),
    "history.v1.bin": Golden(
        HISTORIES,
        rules.History(
            images=[
                rules.PastImage(
                    1_769_903_999_000_000, "fedcba9876543210" * 4, {"car": ((0.5, 0.6, 0.2, 0.1),)}
                )
            ],
            candidates={"person": [1_769_903_998_000_000, 1_769_903_999_000_000]},
            alerts=[
                rules.PastAlert(
                    1_769_903_999_000_000,
                    "00112233445566778899aabbccddeeff",
                    ("car", "person"),
                    [1_769_904_001_500_000],
                    3,
                )
            ],
            newest=1_769_904_001_500_000,
        ),
    ),
    "history.v2.bin": Golden(
        HISTORIES,
        rules.History(
            newest=1_769_904_001_500_000,
            tracked=[
                rules.PastImage(
                    1_769_904_001_500_000,
                    "0123456789abcdef" * 4,
                    {"person": ((0.1, 0.2, 0.05, 0.3), (0.7, 0.2, 0.05, 0.3))},
                )
            ],
        ),
    ),
    "history.v3.bin": Golden(
        HISTORIES,
        rules.History(
            alerts=[
                rules.PastAlert(
                    1_769_903_999_000_000,
                    "00112233445566778899aabbccddeeff",
                    ("car", "person"),
                    [1_769_904_001_500_000],
                    3,
                    "detection",
                    was_restored=True,
                )
            ],
            newest=1_769_904_001_500_000,
        ),
    ),
    "history.v4.bin": Golden(
        HISTORIES,
        rules.History(
            alerts=[
                rules.PastAlert(
                    1_769_903_999_000_000,
                    "00112233445566778899aabbccddeeff",
                    ("car", "person"),
                    [1_769_904_001_500_000],
                    3,
                    incident="ffeeddccbbaa99887766554433221100",
                    began=1_769_900_399_000_000,
                    told={"car": 1, "person": 1},
                    seen={"car": 1, "person": 3},
                )
            ],
            newest=1_769_904_001_500_000,
        ),
    ),
    "history.v5.bin": Golden(
        HISTORIES,
        rules.History(
            alerts=[
                rules.PastAlert(
                    946_685_400_000_000,
                    "00112233445566778899aabbccddeeff",
                    ("person",),
                    [946_685_460_000_000],
                    arrived=1_769_903_999_000_000,
                    last_arrived=1_769_904_059_000_000,
                )
            ],
            newest=946_685_460_000_000,
        ),
    ),
    "history.v6.bin": Golden(
        HISTORIES,
        rules.History(
            alerts=[
                rules.PastAlert(
                    1_769_903_999_000_000,
                    "00112233445566778899aabbccddeeff",
                    ("car", "person"),
                    [1_769_904_001_500_000],
                    spans={
                        "car": (1_769_903_999_000_000, 1_769_904_001_500_000),
                        "person": (1_769_903_999_000_000, 1_769_903_999_000_000),
                    },
                )
            ],
            newest=1_769_904_001_500_000,
        ),
    ),
    "history.v7.bin": Golden(
        HISTORIES,
        rules.History(newest=1_769_904_001_500_000, kept_until=1_769_908_201_500_000),
    ),
    "alert.v1.bin": registered(ALERT),
    "alert.v2.bin": registered(ARRIVED_ALERT),
    "alert.v3.bin": registered(DUE_ALERT),
    "pending_alert.v1.bin": Golden(PENDING_ALERTS, PENDING_ALERT),
    "pending_alert.v2.bin": Golden(PENDING_ALERTS, replace(PENDING_ALERT, alert=ARRIVED_ALERT)),
    "pending_alert.v3.bin": Golden(PENDING_ALERTS, replace(PENDING_ALERT, alert=DUE_ALERT)),
    "limit_window.v1.bin": registered(LIMIT_WINDOW),
    "next_digest.v1.bin": Golden(NEXT_DIGESTS, NextDigest(LIMIT_WINDOW, 2)),
    "held_alert.v1.bin": Golden(HELD_ALERTS, HELD_ALERT),
    "targeted_alert.v1.bin": registered(TARGETED_ALERT),
    "targeted_alert.v2.bin": registered(
        replace(TARGETED_ALERT, alert=replace(TARGETED_ALERT.alert, changed=1_769_904_000.5))
    ),
    "targeted_alert.v3.bin": registered(
        replace(TARGETED_ALERT, alert=replace(TARGETED_ALERT.alert, is_due=True))
    ),
    "part.v1.bin": registered(Part(2, 3)),
    "partition.v1.bin": registered(Partition(3, 1_770_000_000.25)),
    "partitions_found.v1.bin": Golden(FOUND_PARTITIONS_CODER, FoundPartitions((0, 3))),
    "partitions_found_none.v1.bin": Golden(FOUND_PARTITIONS_CODER, None),
    "place.v1.bin": Golden(POSITION_CODER, PartitionPosition(2**40)),
    "place_new.v1.bin": Golden(POSITION_CODER, PartitionPosition()),
    "place_none.v1.bin": Golden(POSITION_CODER, None),
    "place.v2.bin": Golden(POSITION_CODER, PartitionPosition(2**40, 2**61 + 1)),
    "place_new.v2.bin": Golden(POSITION_CODER, PartitionPosition()),
    "place_none.v2.bin": Golden(POSITION_CODER, None),
    "event_time.v1.bin": Golden(EVENT_TIME_CODER, Timestamp(micros=1_770_000_000_250_001)),
    "event_time_none.v1.bin": Golden(EVENT_TIME_CODER, None),
    "window_counts.v1.bin": registered(
        WindowCounts(
            "2026-01-31T23:55:00Z",
            "2026-02-01T00:00:00Z",
            3,
            ({"id": "gate", "images": 5, "by_label": {"person": 2, "car": 1}},),
            7,
        )
    ),
}
"""What each file holds, by its name. Entries are added, and never taken away."""

_NAME = re.compile(r"(?P<record>[a-z0-9_]+)\.v(?P<version>[0-9]+)\.bin")


def _newest() -> list[str]:
    """The file of the newest version of each record."""
    versions: dict[str, int] = {}
    for name in GOLDEN:
        found = _NAME.fullmatch(name)
        assert found is not None, f"{name} is not <record>.v<version>.bin"
        versions[found["record"]] = max(versions.get(found["record"], 0), int(found["version"]))
    return [f"{record}.v{version}.bin" for record, version in versions.items()]


@pytest.mark.parametrize("name", GOLDEN)
def test_what_a_release_wrote_is_read(name: str) -> None:
    golden = GOLDEN[name]
    assert golden.coder.decode((FOLDER / name).read_bytes()) == golden.record


@pytest.mark.parametrize("name", _newest())
def test_what_is_written_now_is_what_this_release_wrote_before(name: str) -> None:
    golden = GOLDEN[name]
    assert golden.coder.encode(golden.record) == (FOLDER / name).read_bytes(), (
        f"the bytes of {name} have changed: give the coder a new version and an upgrade from the "
        "one before, and add the new bytes to the table"
    )


def test_each_file_has_its_entry() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(GOLDEN)


def test_no_module_pickles() -> None:
    root = FOLDER.parents[1]
    code = (
        path
        for name in ("beam_pipeline", "rules", "transforms")
        for path in (root / name).rglob("*.py")
    )
    pickling = {
        path.relative_to(root).as_posix()
        for path in code
        if {"pickle", "PickleCoder"} & _names(path)
    }
    assert pickling == set()


def _names(path: Path) -> set[str]:
    """The names that a module's code uses."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.name for alias in node.names}
            names.add(getattr(node, "module", None) or "")
    return names


if __name__ == "__main__":
    for _name, _golden in GOLDEN.items():
        if not (FOLDER / _name).exists():
            (FOLDER / _name).write_bytes(_golden.coder.encode(_golden.record))
            print(f"wrote {FOLDER / _name}")
