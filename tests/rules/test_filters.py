"""Zones, masks, schedules, night and counts: each filter by table, and the order of all."""

import itertools
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from rules import FILTERS, Check, History, parse_rules
from tests.rules.watching import START, found, judge_all, outcome, picture, rules_of

BERLIN = ZoneInfo("Europe/Berlin")
LOWER_HALF = "[[0, 0.5], [1, 0.5], [1, 1], [0, 1]]"


def by(rules, *detections, **of_picture):
    return outcome(rules.judge(picture(*detections, **of_picture)))


@pytest.mark.parametrize(
    ("anchor", "bbox", "expected"),
    [
        ("bottom_center", (0.4, 0.2, 0.1, 0.3), None),  # stands on the boundary
        ("bottom_center", (0.4, 0.2, 0.1, 0.2999), "zones"),
        ("center", (0.4, 0.4, 0.1, 0.2), None),
        ("center", (0.4, 0.3999, 0.1, 0.2), "zones"),
        ("overlap, min_overlap: 0.6", (0.4, 0.42, 0.1, 0.2), None),
        ("overlap, min_overlap: 0.6", (0.4, 0.4199, 0.1, 0.2), "zones"),
        ("overlap", (0.4, 0.4, 0.1, 0.2), None),  # half of it, which is what is asked for
    ],
)
def test_a_box_belongs_to_a_zone_by_its_anchor(anchor, bbox, expected):
    rules = rules_of(
        f"objects: {{person: }}\nzones: {{z: {{polygon: {LOWER_HALF}, anchor: {anchor}}}}}"
    )
    assert by(rules, found(bbox=bbox)) == [expected]


IN_DRIVE, ELSEWHERE = (0.1, 0.6, 0.1, 0.2), (0.7, 0.1, 0.1, 0.2)
ZONES = f"""
objects: {{person: {{min_score: 0.5}}, dog: }}
zones:
  drive:
    polygon: {LOWER_HALF}
    objects: {{person: {{min_score: 0.8}}, car: {{severity: detection}}}}
  all: {{polygon: [[0, 0], [1, 0], [1, 1], [0, 1]], objects: {{person: }}}}
"""


@pytest.mark.parametrize(
    ("detection", "expected", "rule", "zone"),
    [
        (found("person", 0.8, IN_DRIVE), None, "defaults.zones.drive.objects.person", "drive"),
        (found("person", 0.7, IN_DRIVE), "min_score", "defaults.zones.drive.objects.person", None),
        (found("person", 0.7, ELSEWHERE), None, "defaults.zones.all.objects.person", "all"),
        (found("car", 0.9, IN_DRIVE), None, "defaults.zones.drive.objects.car", "drive"),
        (found("car", 0.9, ELSEWHERE), "zones", "defaults.zones.drive.objects.car", None),
        (found("dog", 0.9, ELSEWHERE), None, "defaults.objects.dog", None),
        (found("cat", 0.9, IN_DRIVE), "objects", None, None),
    ],
)
def test_a_zone_has_objects_of_its_own_and_the_first_in_the_file_counts(
    detection, expected, rule, zone
):
    verdict = rules_of(ZONES).judge(picture(detection))
    assert outcome(verdict) == [expected]
    one = (verdict.threats or verdict.rejected)[0]
    assert one.rule == rule
    assert getattr(one, "zone", None) == zone


def test_a_zone_of_a_profile_is_joined_value_by_value_with_the_cameras():
    rules = parse_rules(
        f"""
version: 1
defaults: {{objects: {{person: {{min_score: 0.3, min_area: 0.001}}}}}}
profiles:
  yard: {{zones: {{gate: {{anchor: center, objects: {{person: {{min_score: 0.8}}}}}}}}}}
cameras:
  hall:
    profile: yard
    objects: {{person: {{max_area: 0.5, min_score: 0.4}}}}
    zones: {{gate: {{polygon: {LOWER_HALF}}}}}
""",
        "rules.yaml",
    )
    zone = rules.for_camera("hall").zones["gate"]
    rule = zone.rules["person"]
    assert (rule.min_score, rule.min_area, rule.max_area) == (0.8, 0.001, 0.5)
    assert rule.origin("min_score") == "profiles.yard.zones.gate.objects.person"
    assert rule.origin("max_area") == "cameras.hall.objects.person"
    assert zone.area.anchor == "center"
    assert rules.defaults.zones == {}


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("{polygon: %s}", ["mask", "mask", None]),
        ("{polygon: %s, objects: [car]}", [None, "mask", None]),
        ("{polygon: %s, objects: []}", [None, None, None]),
    ],
)
def test_a_mask_ignores_all_labels_or_those_it_names(mask, expected):
    rules = rules_of(f"objects: {{person: , car: }}\nmask: {{tree: {mask % LOWER_HALF}}}")
    detections = found("person", bbox=IN_DRIVE), found("car", bbox=IN_DRIVE), found("car")
    assert by(rules, *detections[:2], found("car", bbox=ELSEWHERE)) == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2026, 2, 2, 17, 59, 59), "schedule"),  # a Monday
        (datetime(2026, 2, 2, 18, 0), None),
        (datetime(2026, 2, 3, 6, 59, 59), None),
        (datetime(2026, 2, 3, 7, 0), "schedule"),
        (datetime(2026, 2, 7, 1, 0), None),  # Saturday, of Friday's night
        (datetime(2026, 2, 7, 13, 0), None),  # Saturday, all day
        (datetime(2026, 2, 8, 12, 15), "schedule"),  # Sunday, taken out
        (datetime(2026, 2, 9, 1, 0), "schedule"),  # Monday: Sunday has no night of its own
        # Both changes of the clock, on Sundays: armed all day but half an hour
        (datetime(2026, 3, 29, 3, 0), None),
        (datetime(2026, 10, 25, 2, 30, fold=1), None),
        (datetime(2026, 10, 25, 12, 0, fold=0), "schedule"),
    ],
)
def test_a_camera_is_armed_by_its_own_clock(moment, expected):
    rules = rules_of("""
objects: {person: }
timezone: Europe/Berlin
schedule:
  armed: [{days: [mon, tue, wed, thu, fri], start: 18:00, end: "07:00"}, {days: [sat, sun]}]
  disarmed: [{start: "12:00", end: "12:30"}]
""")
    assert by(rules, found(), at=moment.replace(tzinfo=BERLIN)) == [expected]


@pytest.mark.parametrize(
    ("conf", "hour", "brightness", "expected"),
    [
        (0.7, 21, 0.9, None),
        (0.6999, 21, 0.9, "min_score_at_night"),
        (0.6, 12, 0.9, None),
        (0.6, 12, None, None),
        (0.6, 12, 0.2, "min_score_at_night"),  # as dark as is said
        (0.6, 12, 0.2001, None),
        (0.7, 12, 0.0, None),
    ],
)
def test_at_night_more_is_asked_for(conf, hour, brightness, expected):
    rules = rules_of("""
objects: {person: {min_score_at_night: 0.7}}
timezone: Europe/Berlin
night: {start: 20:00, end: "06:00", max_brightness: 0.2}
""")
    moment = datetime(2026, 2, 2, hour, tzinfo=BERLIN)
    assert by(rules, found(conf=conf), at=moment, brightness=brightness) == [expected]


@pytest.mark.parametrize(
    ("number", "expected"), [(1, "min_count"), (2, None), (3, None), (4, "max_count")]
)
def test_counts_are_of_what_the_earlier_filters_let_through(number, expected):
    rules = rules_of("objects: {person: {min_count: 2, max_count: 3}, car: }")
    people = [found("person") for _ in range(number)]
    verdict = by(rules, *people, found("person", 0.4), found("car"))
    assert verdict == [expected] * number + ["min_score", None]


def test_the_counts_of_a_zone_are_its_own():
    rules = rules_of(f"""
objects: {{person: }}
zones:
  low: {{polygon: {LOWER_HALF}, objects: {{person: {{min_count: 2}}}}}}
  all: {{polygon: [[0, 0], [1, 0], [1, 1], [0, 1]]}}
""")
    inside, outside = found(bbox=IN_DRIVE), found(bbox=ELSEWHERE)
    assert by(rules, inside, outside) == ["min_count", None]
    assert by(rules, inside, inside, outside) == [None, None, None]


EVERY_FILTER = {
    "severity": ("objects.person.severity", "ignore"),
    "min_score": ("objects.person.min_score", 0.95),
    "min_area": ("objects.person.min_area", 0.5),
    "max_area": ("objects.person.max_area", 0.001),
    "min_ratio": ("objects.person.min_ratio", 3),
    "max_ratio": ("objects.person.max_ratio", 0.1),
    "mask": ("mask.m.polygon", "[[0, 0], [1, 0], [1, 1], [0, 1]]"),
    "zones": ("zones.z.polygon", "[[0, 0], [0.1, 0], [0, 0.1]]"),
    "schedule": ("schedule.armed", "[]"),
    "min_score_at_night": ("objects.person.min_score_at_night", 0.99),
    "repeats": ("objects.person.repeats", "true"),
    "min_count": ("objects.person.min_count", 3),
    "max_count": ("objects.person.max_count", 1),
    "confirm": ("confirm.pictures", 9),
}
ALWAYS = {
    "night.max_brightness": 1,
    "repeats.occurrences": 1,
    "repeats.within": "1h",
}


def nested(values):
    tree = {}
    for path, value in values.items():
        *parents, last = path.split(".")
        inner = tree
        for step in parents:
            inner = inner.setdefault(step, {})
        inner[last] = value
    return tree


def as_yaml(tree):
    if not isinstance(tree, dict):
        return str(tree)
    return "{" + ", ".join(f"{key}: {as_yaml(value)}" for key, value in tree.items()) + "}"


def rules_that_reject_by(names):
    """Rules by which the second picture of two is rejected by every filter of those names."""
    values = {**ALWAYS, "objects.person.repeats": "false"}
    values |= dict(EVERY_FILTER[name] for name in names)
    # No rule file may hold both pairs of crossed bounds.
    return rules_of(as_yaml(nested(values))[1:-1].replace("}, ", "}\n"))


ORDER = list(EVERY_FILTER)
CROSSED = {("min_area", "max_area"), ("min_ratio", "max_ratio"), ("min_count", "max_count")}


def test_every_filter_has_its_place():
    assert list(FILTERS) == ["objects", *ORDER]


@pytest.mark.parametrize("first", ORDER)
def test_each_filter_alone_rejects(first):
    assert second_of_two(rules_that_reject_by([first])) == {first}


@pytest.mark.parametrize(
    ("first", "second"),
    [pair for pair in itertools.combinations(ORDER, 2) if pair not in CROSSED],
)
def test_of_two_filters_that_reject_the_one_that_comes_first_is_named(first, second):
    assert second_of_two(rules_that_reject_by([first, second])) == {first}


def second_of_two(rules):
    two = [found(), found(bbox=(0.4, 0.41, 0.1, 0.2))]
    history = History()
    rules.judge(picture(*two, at=0, brightness=0.5), history)
    return set(outcome(rules.judge(picture(*two, at=60, brightness=0.5), history)))


def test_the_trace_holds_what_was_asked_up_to_the_first_that_rejects():
    rules = rules_of(f"""
objects: {{person: {{min_area: 0.01, min_score_at_night: 0.95}}, car: {{severity: ignore}}}}
zones: {{low: {{polygon: {LOWER_HALF}}}}}
schedule: {{armed: [{{start: "11:00", end: "13:00"}}]}}
night: {{max_brightness: 0.5}}
confirm: {{pictures: 2}}
""")
    verdict = rules.judge(picture(found(), found("car"), found("cat"), brightness=0.4))
    assert [trace.detection for trace in verdict.trace] == [0, 1]
    assert verdict.trace[0].checks == (
        Check("min_score", 0.9, 0.5, True),
        Check("min_area", 0.02, 0.01, True),
        Check("zones", "low", ["low"], True),
        Check("schedule", "sat 12:00", "armed", True),
        Check("min_score_at_night", 0.9, 0.95, False),
    )
    assert verdict.trace[1].checks == (Check("severity", "ignore", None, False),)
    daylight = judge_all(rules, [picture(found(), at=at) for at in (0, 10)])
    assert [verdict.trace[0].checks[-1] for verdict in daylight] == [
        Check("confirm", 1, 2, False),
        Check("confirm", 2, 2, True),
    ]


def test_a_picture_at_the_end_of_time_is_judged():
    rules = rules_of("""
objects: {person: }
timezone: Asia/Tokyo
schedule: {armed: [{start: "00:00", end: "24:00"}]}
""")
    assert by(rules, found(), at=START.replace(year=9999, month=12, day=31, hour=23)) == [None]
