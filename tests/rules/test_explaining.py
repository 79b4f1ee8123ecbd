"""A verdict in plain sentences."""

import json
import re

import pytest

from rules import FILTERS, History, explain
from rules.explaining import _WHY
from tests.rules.watching import found, picture, rules_of

RULES = """
objects:
  person: {min_area: 0.001}
  car: {severity: ignore}
  dog: {severity: detection}
zones: {all: {polygon: [[0, 0], [1, 0], [1, 1], [0, 1]]}}
cooldown: 5m
"""


def final_json(rules, image, history=None):
    verdict = rules.judge(image, history)
    detections = [{"label": one.label, "conf": one.conf} for one in image.detections]
    data = {
        "id": image.id,
        "timestamp": image.timestamp,
        "detections": detections,
        "threat": verdict.to_json(),
    }
    return json.loads(json.dumps(data))


def test_each_detection_is_told_of_with_what_decided():
    rules = rules_of(RULES)
    image = picture(found("person"), found("person", 0.3), found("car"), found("cat"), found("cup"),
                    found("person", 0.06), found("car", 0.1))  # fmt: skip
    assert explain(final_json(rules, image)) == (
        f"hall at 2026-01-31T12:00:00Z, judged by rules {rules.version}:\n"
        "It calls for an alert.\n"
        "- person, score 0.9: a threat of severity alert by defaults.objects.person, in zone all "
        "(min_score 0.9 where 0.5 is asked for, "
        "min_area 0.02 where 0.001 is asked for, zones all).\n"
        "- person, score 0.3: no threat, as its score 0.3 is below min_score 0.5 (by "
        "defaults.objects.person).\n"
        "- car, score 0.9: no threat, as it is tolerated (severity ignore) (by "
        "defaults.objects.car).\n"
        "- 2 more, with scores below 0.25: car, person.\n"
        "- 2 more, of labels that the rules do not look for: cat, cup.\n"
    )


@pytest.mark.parametrize(
    ("detections", "sentence"),
    [
        ([], "No alert: nothing was detected in it."),
        (["cat"], "No alert: nothing in it is a threat."),
        (
            ["dog"],
            "No alert: its threats are of severity detection, to be recorded and counted only.",
        ),
        (["dog", "person"], "It calls for an alert."),
    ],
)
def test_the_outcome_comes_first(detections, sentence):
    image = picture(*map(found, detections))
    assert explain(final_json(rules_of(RULES), image)).splitlines()[1] == sentence


def test_an_alert_that_is_held_back_names_the_one_that_covers_it():
    rules, history = rules_of(RULES), History()
    first = rules.judge(picture(found(), at=0), history)
    data = final_json(rules, picture(found(), at=10), history)
    assert first.alerts
    assert re.search(
        r"No alert was sent: it comes in the cooldown of alert [0-9a-f]{32}, as picture 2 of that "
        r"incident\.",
        explain(data),
    )


def test_every_filter_has_a_sentence_with_its_value_and_bound():
    assert list(_WHY) == list(FILTERS)
    for name, why in _WHY.items():
        bound = ["gate"] if name == "zones" else 12345
        text = why(67890, bound)
        if name not in ("objects", "severity", "mask", "schedule"):
            assert ("gate" if name == "zones" else "12345") in text
        if name not in ("objects", "severity", "zones"):
            assert "67890" in text


def test_a_verdict_without_a_trace_is_explained_by_its_filters():
    data = final_json(rules_of(RULES), picture(found("person", 0.3)))
    del data["threat"]["trace"]
    assert "no threat, as min_score (by defaults.objects.person)" in explain(data)


@pytest.mark.parametrize(
    "data", [{}, {"threat": {}}, {"id": "a", "timestamp": "", "threat": {"severity": "alert"}}]
)
def test_what_is_no_verdict_is_refused(data):
    with pytest.raises(ValueError, match=r"is no image JSON of final/"):
        explain(data)


def test_a_label_cannot_write_to_the_terminal():
    assert "\x1b" not in explain(final_json(rules_of(RULES), picture(found("\x1b[2J"))))
