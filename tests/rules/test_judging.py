"""Every filter at its bound, the order of the filters, and the resulting verdict."""

import pytest

from rules import FILTERS, CameraRules, Detection, Image, ObjectRule, Rejected, Rules, Threat
from rules.frozen import FrozenMapping
from rules.judging import area, judge_image, ratio


def detection(label="person", conf=0.9, bbox=(0.1, 0.1, 0.2, 0.4)):
    return Detection(category="1", label=label, conf=conf, bbox=bbox)


def image(*detections, width=1000, height=500, camera="hall"):
    return Image(camera, "2026-01-31T23:59:59Z", width, height, detections)


def camera(**values):
    return CameraRules(objects=FrozenMapping({"person": ObjectRule(entry="r", **values)}))


def rejected_by(detection, rules, **size):
    verdict = judge_image(image(detection, **size), rules, "v")
    return verdict.rejected[0].by if verdict.rejected else None


@pytest.mark.parametrize(
    ("bound", "value", "below", "at", "above"),
    [
        ("min_score", 0.6, {"conf": 0.5999}, {"conf": 0.6}, {"conf": 0.6001}),
        # 0.1 * 0.1 is 0.010000000000000002 in binary fractions, and 0.3 * 0.3 is exactly 0.09
        (
            "min_area",
            0.01,
            {"bbox": (0, 0, 0.1, 0.0999)},
            {"bbox": (0, 0, 0.1, 0.1)},
            {"bbox": (0, 0, 0.1, 0.1001)},
        ),
        (
            "min_area",
            0.18,
            {"bbox": (0, 0, 0.3, 0.5999)},
            {"bbox": (0, 0, 0.3, 0.6)},
            {"bbox": (0, 0, 0.3, 0.6001)},
        ),
        # the image is twice as wide as high: a box of equal fractions has the ratio 2
        (
            "min_ratio",
            2,
            {"bbox": (0, 0, 0.3999, 0.4)},
            {"bbox": (0, 0, 0.4, 0.4)},
            {"bbox": (0, 0, 0.4001, 0.4)},
        ),
        (
            "min_ratio",
            0.6,
            {"bbox": (0, 0, 0.0899, 0.3)},
            {"bbox": (0, 0, 0.09, 0.3)},
            {"bbox": (0, 0, 0.0901, 0.3)},
        ),
    ],
)
def test_a_value_below_a_minimum_is_rejected_and_one_equal_to_it_passes(
    bound, value, below, at, above
):
    rules = camera(**{"min_score": 0.0, bound: value})
    assert rejected_by(detection(**below), rules) == bound
    assert rejected_by(detection(**at), rules) is None
    assert rejected_by(detection(**above), rules) is None


@pytest.mark.parametrize(
    ("bound", "value", "below", "at", "above"),
    [
        ("max_area", 0.01, (0, 0, 0.1, 0.0999), (0, 0, 0.1, 0.1), (0, 0, 0.1, 0.1001)),
        ("max_area", 0.06, (0, 0, 0.2, 0.2999), (0, 0, 0.2, 0.3), (0, 0, 0.2, 0.3001)),
        ("max_ratio", 2, (0, 0, 0.3999, 0.4), (0, 0, 0.4, 0.4), (0, 0, 0.4001, 0.4)),
        ("max_ratio", 6, (0, 0, 0.2999, 0.1), (0, 0, 0.3, 0.1), (0, 0, 0.3001, 0.1)),
    ],
)
def test_a_value_above_a_maximum_is_rejected_and_one_equal_to_it_passes(
    bound, value, below, at, above
):
    rules = camera(**{bound: value})
    assert rejected_by(detection(bbox=below), rules) is None
    assert rejected_by(detection(bbox=at), rules) is None
    assert rejected_by(detection(bbox=above), rules) == bound


def test_ratio_is_of_pixels_not_of_fractions():
    square_fractions = detection(bbox=(0, 0, 0.5, 0.5))
    assert ratio(square_fractions, image(width=1920, height=1080)) == pytest.approx(16 / 9)
    assert ratio(square_fractions, image(width=1080, height=1920)) == pytest.approx(9 / 16)


@pytest.mark.parametrize("bbox", [(0.5, 0.5, 0.2, 0.0), (0.5, 0.5, 0.0, 0.0), (0, 0, 0.2, -0.0)])
def test_a_box_without_height_is_infinitely_wide(bbox):
    flat = detection(bbox=bbox)
    assert area(flat) == 0
    assert rejected_by(flat, camera()) is None
    assert rejected_by(flat, camera(min_ratio=1000)) is None
    assert rejected_by(flat, camera(max_ratio=1000)) == "max_ratio"
    assert rejected_by(flat, camera(max_ratio=1000), height=0) == "max_ratio"


REJECTED_AND_PASSING = {
    "severity": ("ignore", "alert"),
    "min_score": (0.9, 0.3),
    "min_area": (0.5, 0.04),
    "max_area": (0.01, 0.04),
    "min_ratio": (3.0, 2.0),
    "max_ratio": (1.0, 2.0),
}


@pytest.mark.parametrize(
    ("passing", "expected"),
    [
        (0, "severity"),
        (1, "min_score"),
        (2, "min_area"),
        (3, "max_area"),
        (4, "min_ratio"),
        (5, "max_ratio"),
        (6, None),
    ],
)
def test_the_first_filter_that_rejects_is_named(passing, expected):
    """The first filters pass, and every other filter would reject."""
    small = detection(conf=0.3, bbox=(0, 0, 0.2, 0.2))  # area 0.04, ratio 2
    values = {
        name: right if index < passing else wrong
        for index, (name, (wrong, right)) in enumerate(REJECTED_AND_PASSING.items())
    }
    assert rejected_by(small, camera(**values)) == expected


def test_an_unlisted_label_is_rejected_first_and_names_no_rule():
    verdict = judge_image(image(detection(label="cat", conf=0.0)), camera(min_score=1.0), "v")
    assert verdict.rejected == (Rejected(0, "cat", None, "objects"),)


def test_the_filters_are_those_of_the_contract_in_its_order():
    assert list(FILTERS[:7]) == ["objects", *REJECTED_AND_PASSING]


@pytest.mark.parametrize(
    ("labels", "severity", "threats"),
    [
        ([], None, 0),
        (["cat"], None, 0),
        (["car"], None, 0),
        (["dog"], "detection", 1),
        (["dog", "car", "cat"], "detection", 1),
        (["person"], "alert", 1),
        (["dog", "person"], "alert", 2),
        (["person", "dog"], "alert", 2),
    ],
)
def test_an_image_has_the_severity_of_its_highest_threat(labels, severity, threats):
    objects = {
        "person": ObjectRule(entry="p"),
        "dog": ObjectRule(entry="d", severity="detection"),
        "car": ObjectRule(entry="c", severity="ignore"),
    }
    verdict = judge_image(
        image(*(detection(label=label) for label in labels)), CameraRules(objects=objects), "v"
    )
    assert (verdict.severity, verdict.is_threat, len(verdict.threats)) == (
        severity,
        threats > 0,
        threats,
    )


def test_threats_and_rejected_keep_the_order_of_the_detections(example: Rules):
    verdict = example.judge(
        image(
            detection("car", 0.9),
            detection("person", 0.65),
            detection("person", 0.7),
            detection("cat", 0.99),
            detection("dog", 0.5),
        )
    )
    assert verdict.threats == (
        Threat(0, "car", 0.9, "alert", "profiles.indoor.objects.car"),
        Threat(2, "person", 0.7, "alert", "cameras.hall.objects.person"),
        Threat(4, "dog", 0.5, "detection", "profiles.indoor.objects.dog"),
    )
    assert verdict.rejected == (
        Rejected(1, "person", "cameras.hall.objects.person", "min_score"),
        Rejected(3, "cat", None, "objects"),
    )
    assert verdict.rules_version == example.version


@pytest.mark.parametrize(
    ("camera_id", "conf", "is_threat", "rule"),
    [
        ("front-door", 0.59, False, "profiles.outdoor.objects.person"),
        ("front-door", 0.6, True, "profiles.outdoor.objects.person"),
        ("hall", 0.69, False, "cameras.hall.objects.person"),
        ("hall", 0.7, True, "cameras.hall.objects.person"),
        ("not-in-the-file", 0.49, False, "defaults.objects.person"),
        ("not-in-the-file", 0.5, True, "defaults.objects.person"),
    ],
)
def test_an_image_is_judged_by_the_rules_of_its_camera(
    example: Rules, camera_id, conf, is_threat, rule
):
    verdict = example.judge(image(detection(conf=conf), camera=camera_id))
    assert verdict.is_threat == is_threat
    assert (verdict.threats or verdict.rejected)[0].rule == rule


def test_an_ignored_label_names_its_rule(example: Rules):
    verdict = example.judge(image(detection("car"), camera="front-door"))
    assert verdict.rejected == (Rejected(0, "car", "profiles.outdoor.objects.car", "severity"),)
