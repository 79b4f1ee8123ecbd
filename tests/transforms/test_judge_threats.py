import apache_beam as beam
import pytest

import rules
from tests.transforms.results import detected
from transforms.counters import counted
from transforms.judge_threats import JudgeThreats, judge
from transforms.records import JudgedImage

RULES = rules.parse_rules(
    """\
version: 1
defaults:
  objects: {person: {severity: alert}, cat: {severity: ignore}}
cameras:
  yard: {objects: {dog: {severity: detection}, person: {min_area: 0.5}}}
""",
    "rules.yaml",
)


@pytest.mark.parametrize(
    ("camera", "labels", "severity", "threats", "rejected"),
    [
        ("hall", [], None, [], []),
        ("hall", ["person"], "alert", ["person"], []),
        ("hall", ["cat", "person"], "alert", ["person"], [("cat", "severity")]),
        ("hall", ["dog"], None, [], [("dog", "objects")]),
        ("yard", ["dog"], "detection", ["dog"], []),
        ("yard", ["person", "dog"], "detection", ["dog"], [("person", "min_area")]),
        ("yard", ["cat"], None, [], [("cat", "severity")]),
    ],
)
def test_an_image_is_judged_by_the_rules_of_its_camera(camera, labels, severity, threats, rejected):
    image = detected(camera, labels=labels)
    found = judge(image, RULES)
    assert found.image is image
    assert found.verdict.severity == severity
    assert found.verdict.is_threat is bool(threats)
    assert [one.label for one in found.verdict.threats] == threats
    assert [(one.label, one.by) for one in found.verdict.rejected] == rejected
    assert found.verdict.rules_version == RULES.version


def test_the_final_json_is_the_object_data_with_the_verdict():
    image = detected("yard", labels=["dog", "cat"])
    data = judge(image, RULES).to_json()
    assert list(data) == [*image.to_json(), "threat"]
    assert {key: data[key] for key in image.to_json()} == image.to_json()
    assert data["threat"] == {
        "is_threat": True,
        "severity": "detection",
        "rules_version": RULES.version,
        "threats": [
            {
                "detection": 0,
                "label": "dog",
                "conf": 0.9,
                "severity": "detection",
                "rule": "cameras.yard.objects.dog",
                "zone": None,
            }
        ],
        "rejected": [
            {"detection": 1, "label": "cat", "rule": "defaults.objects.cat", "by": "severity"}
        ],
    }


def test_the_step_judges_and_counts(run_pipeline):
    images = [
        detected("hall", "2026-01-31T23:59:58Z", ["person", "person"]),
        detected("hall", "2026-01-31T23:59:59Z", ["cat"]),
        detected("yard", "2026-01-31T23:59:59Z", ["dog"]),
    ]

    def build(pipeline):
        return {"judged": pipeline | beam.Create(images) | JudgeThreats(RULES)}

    result, found = run_pipeline(build)
    expected = [judge(image, RULES) for image in images]
    assert sorted(found["judged"], key=repr) == sorted(expected, key=repr)
    assert all(isinstance(one, JudgedImage) for one in found["judged"])
    assert counted(result) == {
        "images.valid": 3,
        "images.with_threat": 2,
        "threats.alert.person": 2,
        "threats.detection.dog": 1,
    }
