"""The explanation of a verdict in plain sentences."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import FILTERS, History, explain, explain_detections
from rules.explaining import _REJECTIONS
from tests.rules.final_json import final_json
from tests.rules.one_camera import make_detection, make_image, rules_of

RULES = """
objects:
  person: {min_area: 0.001}
  car: {severity: ignore}
  dog: {severity: detection}
zones: {all: {polygon: [[0, 0], [1, 0], [1, 1], [0, 1]]}}
cooldown: 5m
"""


def test_each_detection_is_explained_by_the_deciding_checks():
    rules = rules_of(RULES)
    image = make_image(
        make_detection("person"),
        make_detection("person", 0.3),
        make_detection("car"),
        make_detection("cat"),
        make_detection("cup"),
        make_detection("person", 0.06),
        make_detection("car", 0.1),
    )
    assert explain(final_json(rules, image)) == (
        f"hall at 2026-01-31 12:00:00 (UTC), judged by rules {rules.version}:\n"
        "It calls for an alert.\n"
        "- person, score 0.9: a threat of severity alert, rule defaults.objects.person, in zone "
        "all (score 0.9, minimum 0.5; area 0.02, minimum 0.001; zone all).\n"
        "- person, score 0.3: no threat: score 0.3, minimum 0.5 (rule defaults.objects.person).\n"
        "- car, score 0.9: no threat: the rules tolerate it (severity ignore) (rule "
        "defaults.objects.car).\n"
        "- 2 more, with scores below 0.25: car, person.\n"
        "- 2 more, with labels that the rules do not list: cat, cup.\n"
    )


@pytest.mark.parametrize(
    ("detections", "sentence"),
    [
        ([], "No alert: nothing was detected in it."),
        (["cat"], "No alert: nothing in it is a threat."),
        (
            ["dog"],
            "No alert: its threats have the severity detection, which is recorded and counted.",
        ),
        (["dog", "person"], "It calls for an alert."),
    ],
)
def test_the_first_sentence_says_whether_there_is_an_alert(detections, sentence):
    image = make_image(*map(make_detection, detections))
    assert explain(final_json(rules_of(RULES), image)).splitlines()[1] == sentence


def test_a_suppressed_image_names_the_alert_that_covers_it():
    rules, history = rules_of(RULES), History()
    first = rules.judge(make_image(make_detection(), at=0), history)
    data = final_json(rules, make_image(make_detection(), at=10), history)
    assert first.alerts
    assert re.search(
        r"No alert was sent: the cooldown of alert [0-9a-f]{32} suppresses it\. It is image 2 of "
        r"that incident\.",
        explain(data),
    )


def test_every_filter_has_a_sentence_with_its_value_and_bound():
    assert list(_REJECTIONS) == list(FILTERS)
    for name, sentence in _REJECTIONS.items():
        bound = ["gate"] if name == "zones" else 123
        text = sentence(678, bound)
        if name not in ("objects", "severity", "mask", "schedule"):
            assert ("gate" if name == "zones" else "123") in text
        if name not in ("objects", "severity", "zones", "track"):
            assert "678" in text


def test_each_detection_that_was_judged_has_its_reason():
    detections = [
        make_detection("person", 0.9), make_detection("person", 0.1), make_detection("zebra", 0.8)
    ]  # fmt: skip
    data = final_json(rules_of(RULES), make_image(*detections))
    reasons = explain_detections(data)
    assert sorted(reasons) == [0, 1, 2]
    assert reasons[0].startswith("a threat of severity alert, rule defaults.objects.person")
    assert reasons[1] == "no threat: score 0.1, minimum 0.5 (rule defaults.objects.person)"
    assert reasons[2] == "no threat: the rules do not list this label"
    # `explain` counts the weak and the unlisted ones, and says the same of the others.
    text = explain(data)
    assert f"- person, score 0.9: {reasons[0]}." in text
    assert "- 1 more, with scores below 0.25: person." in text
    assert "- 1 more, with labels that the rules do not list: zebra." in text


@pytest.mark.parametrize("damage", ["threat", "detections"])
def test_reasons_of_json_without_a_verdict_are_rejected(damage):
    data = final_json(rules_of(RULES), make_image(make_detection("person", 0.9)))
    data[damage] = {} if damage == "threat" else []
    with pytest.raises(ValueError, match=r"is not an image's JSON of final/"):
        explain_detections(data)


def test_a_verdict_without_a_trace_is_explained_by_its_filters():
    data = final_json(rules_of(RULES), make_image(make_detection("person", 0.3)))
    del data["threat"]["trace"]
    assert "no threat: min_score (rule defaults.objects.person)" in explain(data)


@pytest.mark.parametrize(
    "data", [{}, {"threat": {}}, {"id": "a", "timestamp": "", "threat": {"severity": "alert"}}]
)
def test_json_without_a_verdict_is_rejected(data):
    with pytest.raises(ValueError, match=r"is not an image's JSON of final/"):
        explain(data)


def test_a_label_cannot_write_to_the_terminal():
    assert "\x1b" not in explain(final_json(rules_of(RULES), make_image(make_detection("\x1b[2J"))))


@pytest.mark.parametrize(("value", "words"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_a_number_of_images_is_singular_or_plural(value, words):
    assert f"its label is in {words} of the last few" in _REJECTIONS["confirm"](value, 3)


@pytest.mark.parametrize(
    ("value", "bound", "sentence"),
    [
        (0.9165, 0.5, "score 0.92, minimum 0.5"),
        (0.9165, 0.918, "score 0.9165, minimum 0.918"),
        (0.4996, 0.5, "score 0.4996, minimum 0.5"),
        (0.3217, 0.5, "score 0.32, minimum 0.5"),
        (0.5, 0.5, "score 0.5, minimum 0.5"),
    ],
)
def test_a_value_is_rounded_unless_that_moves_it_across_its_bound(value, bound, sentence):
    assert _REJECTIONS["min_score"](value, bound) == sentence


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_rounded_value_is_on_the_same_side_of_its_bound(value, bound):
    shown = float(_REJECTIONS["min_score"](value, bound).removeprefix("score ").split(",")[0])
    assert (shown < bound, shown == bound) == (value < bound, value == bound)


def test_a_detection_that_passes_every_filter_is_explained():
    rules = rules_of(
        "objects: {car: {max_ratio: 2, max_area: 0.5, max_count: 3, min_score_at_night: 0.6}}\n"
        "repeats: {occurrences: 2}\n"
        "confirm: {pictures: 2}\n"
        "schedule: {armed: [{start: '00:00'}]}\n"
        "night: {start: '11:00', end: '13:00'}"
    )
    history = History()
    rules.judge(make_image(make_detection("car"), at=0), history)
    text = explain(final_json(rules, make_image(make_detection("car"), at=10), history))
    for part in (
        "area 0.02, maximum 0.5",
        "maximum 2",
        "armed at ",
        "score 0.9, minimum at night 0.6",
        "in the same place in 1 earlier image, fewer than 2",
        "objects of this label 1, maximum 3",
        "confirmed by 2 images, minimum 2",
    ):
        assert part in text
