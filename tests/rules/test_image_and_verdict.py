"""The records and their JSON."""

import json
import re
from dataclasses import FrozenInstanceError, fields

import pytest

from rules import Check, Detection, Image, Rejected, Threat, Trace, Verdict

IMAGE_JSON = {
    "format_version": "1.0",
    "id": "front-door",
    "timestamp": "2026-01-31T23:59:59Z",
    "file": "front-door_20260131T235959Z.jpg",
    "uri": "...",
    "sha256": "00ff",
    "width": 1280,
    "height": 720,
    "brightness": 0.25,
    "model": {"name": "...", "version": "..."},
    "detections": [
        {"category": "1", "label": "person", "conf": 0.91, "bbox": [0.1, 0.2, 0.05, 0.3]},
        {"category": "3", "label": "car", "conf": 1, "bbox": [0, 0, 1, 1]},
    ],
}


def test_an_image_is_read_from_its_json():
    assert Image.from_json(IMAGE_JSON) == Image(
        id="front-door",
        timestamp="2026-01-31T23:59:59Z",
        width=1280,
        height=720,
        detections=(
            Detection("1", "person", 0.91, (0.1, 0.2, 0.05, 0.3)),
            Detection("3", "car", 1.0, (0.0, 0.0, 1.0, 1.0)),
        ),
        sha256="00ff",
        brightness=0.25,
    )


def test_keys_that_older_archives_lack_are_optional():
    older = {key: IMAGE_JSON[key] for key in IMAGE_JSON if key not in ("sha256", "brightness")}
    image = Image.from_json(older)
    assert (image.sha256, image.brightness) == ("", None)


def test_an_image_without_detections_is_read():
    assert Image.from_json({**IMAGE_JSON, "detections": []}).detections == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 7}, "image JSON: id must be str, not 7"),
        ({"width": "1280"}, "image JSON: width must be int, not '1280'"),
        ({"height": True}, "image JSON: height must be int, not True"),
        ({"detections": None}, "image JSON: 'NoneType' object is not iterable"),
        (
            {"detections": [{"category": "1", "label": "person", "conf": 0.9}]},
            "image JSON: detections[0]: 'bbox' is missing",
        ),
        (
            {"detections": [{"category": 1, "label": "a", "conf": 0.9, "bbox": [0, 0, 1, 1]}]},
            "image JSON: detections[0]: category must be str, not 1",
        ),
        (
            {"detections": [{"category": "1", "label": "a", "conf": "0", "bbox": [0, 0, 1, 1]}]},
            "image JSON: detections[0]: conf must be a number, not '0'",
        ),
        (
            {"detections": [{"category": "1", "label": "a", "conf": 0.9, "bbox": "abcd"}]},
            "image JSON: detections[0]: bbox must be a number, not 'a'",
        ),
    ],
)
def test_a_malformed_image_json_is_a_value_error_that_names_the_key(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Image.from_json({**IMAGE_JSON, **change})


@pytest.mark.parametrize("key", ["id", "timestamp", "width", "height", "detections"])
def test_a_missing_key_of_the_image_json_is_named(key):
    data = {name: value for name, value in IMAGE_JSON.items() if name != key}
    with pytest.raises(ValueError, match=f"the key '{key}' is missing"):
        Image.from_json(data)


@pytest.mark.parametrize("conf", [-0.0001, 1.0001, float("nan"), float("inf")])
def test_a_score_outside_0_to_1_is_rejected(conf):
    with pytest.raises(ValueError, match="conf must be from 0 to 1"):
        Detection("1", "person", conf, (0, 0, 1, 1))


@pytest.mark.parametrize(
    "bbox", [(0, 0, float("nan"), 1), (0, 0, 1, float("inf")), (1e300, 0, 1, 1), (0, 0, 1)]
)
def test_a_box_that_is_not_four_numbers_of_a_sensible_size_is_rejected(bbox):
    with pytest.raises(ValueError, match="bbox must be four fractions"):
        Detection("1", "person", 0.5, bbox)


def test_a_verdict_becomes_the_threat_object_of_the_image_json():
    verdict = Verdict(
        is_threat=True,
        severity="alert",
        rules_version="0123456789ab",
        threats=(Threat(0, "person", 0.91, "alert", "cameras.hall.objects.person"),),
        rejected=(
            Rejected(1, "car", "defaults.objects.car", "min_score"),
            Rejected(2, "cat", None, "objects"),
        ),
        trace=(Trace(1, (Check("min_score", 0.31, 0.5, False),)),),
        suppressed_by="0" * 32,
        incident_number=2,
    )
    assert json.dumps(verdict.to_json()) == (
        '{"is_threat": true, "severity": "alert", "rules_version": "0123456789ab", '
        '"threats": [{"detection": 0, "label": "person", "conf": 0.91, "severity": "alert", '
        '"rule": "cameras.hall.objects.person", "zone": null}], '
        '"rejected": [{"detection": 1, "label": "car", "rule": "defaults.objects.car", '
        '"by": "min_score"}, {"detection": 2, "label": "cat", "rule": null, "by": "objects"}], '
        f'"suppressed_by": "{"0" * 32}", "incident_number": 2, '
        '"trace": [{"detection": 1, "checks": [{"filter": "min_score", "value": 0.31, '
        '"bound": 0.5, "passes": false}]}]}'
    )


def test_a_verdict_without_threats_has_no_severity():
    verdict = Verdict(False, None, "0123456789ab", (), ())
    assert verdict.to_json() == {
        "is_threat": False,
        "severity": None,
        "rules_version": "0123456789ab",
        "threats": [],
        "rejected": [],
        "suppressed_by": None,
        "incident_number": None,
        "trace": [],
    }


@pytest.mark.parametrize("kind", [Detection, Image, Rejected, Threat, Trace, Verdict])
def test_records_are_immutable(kind):
    record = object.__new__(kind)
    with pytest.raises(FrozenInstanceError):
        setattr(record, fields(kind)[0].name, "other")


def test_a_coordinate_is_at_most_a_million():
    for far in (1e6, -1e6):
        assert Detection("1", "dog", 0.5, (far, 0, 1, 1)).bbox[0] == far
        with pytest.raises(ValueError, match="bbox must be four fractions"):
            Detection("1", "dog", 0.5, (far * 1.0000001, 0, 1, 1))
