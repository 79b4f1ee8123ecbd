"""Zones, masks, schedules, night and counts: tables for each filter, and the order of all."""

import itertools
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from rules import FILTERS, Check, parse_rules
from tests.rules.one_camera import (
    START,
    judge_all,
    make_detection,
    make_image,
    rejecting_filters,
    rules_of,
)

BERLIN = ZoneInfo("Europe/Berlin")
LOWER_HALF = "[[0, 0.5], [1, 0.5], [1, 1], [0, 1]]"


def rejections(rules, *detections, **of_image):
    return rejecting_filters(rules.judge(make_image(*detections, **of_image)))


@pytest.mark.parametrize(
    ("anchor", "bbox", "expected"),
    [
        ("bottom_center", (0.4, 0.2, 0.1, 0.3), None),  # on the boundary
        ("bottom_center", (0.4, 0.2, 0.1, 0.2999), "zones"),
        ("center", (0.4, 0.4, 0.1, 0.2), None),
        ("center", (0.4, 0.3999, 0.1, 0.2), "zones"),
        ("overlap, min_overlap: 0.6", (0.4, 0.42, 0.1, 0.2), None),
        ("overlap, min_overlap: 0.6", (0.4, 0.4199, 0.1, 0.2), "zones"),
        ("overlap", (0.4, 0.4, 0.1, 0.2), None),  # half of it, the default
    ],
)
def test_a_box_belongs_to_a_zone_by_its_anchor(anchor, bbox, expected):
    rules = rules_of(
        f"objects: {{person: }}\nzones: {{z: {{polygon: {LOWER_HALF}, anchor: {anchor}}}}}"
    )
    assert rejections(rules, make_detection(bbox=bbox)) == [expected]


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
        (
            make_detection("person", 0.8, IN_DRIVE),
            None,
            "defaults.zones.drive.objects.person",
            "drive",
        ),
        (
            make_detection("person", 0.7, IN_DRIVE),
            None,
            "defaults.zones.all.objects.person",
            "all",
        ),
        (
            make_detection("person", 0.4, IN_DRIVE),
            "min_score",
            "defaults.zones.drive.objects.person",
            None,
        ),
        (
            make_detection("person", 0.7, ELSEWHERE),
            None,
            "defaults.zones.all.objects.person",
            "all",
        ),
        (make_detection("car", 0.9, IN_DRIVE), None, "defaults.zones.drive.objects.car", "drive"),
        (make_detection("car", 0.9, ELSEWHERE), "zones", "defaults.zones.drive.objects.car", None),
        (make_detection("dog", 0.9, ELSEWHERE), None, "defaults.objects.dog", None),
        (make_detection("cat", 0.9, IN_DRIVE), "objects", None, None),
    ],
)
def test_a_zone_has_its_own_objects_and_any_zone_of_a_box_can_let_it_through(
    detection, expected, rule, zone
):
    verdict = rules_of(ZONES).judge(make_image(detection))
    assert rejecting_filters(verdict) == [expected]
    result = (verdict.threats or verdict.rejected)[0]
    assert result.rule == rule
    assert getattr(result, "zone", None) == zone


def test_a_zone_of_a_profile_is_merged_value_by_value_with_the_camera():
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
def test_a_mask_ignores_all_labels_or_the_labels_that_it_names(mask, expected):
    rules = rules_of(f"objects: {{person: , car: }}\nmask: {{tree: {mask % LOWER_HALF}}}")
    detections = (
        make_detection("person", bbox=IN_DRIVE),
        make_detection("car", bbox=IN_DRIVE),
        make_detection("car"),
    )
    assert rejections(rules, *detections[:2], make_detection("car", bbox=ELSEWHERE)) == expected


@pytest.mark.parametrize(
    ("capture_time", "expected"),
    [
        (datetime(2026, 2, 2, 17, 59, 59), "schedule"),  # a Monday
        (datetime(2026, 2, 2, 18, 0), None),
        (datetime(2026, 2, 3, 6, 59, 59), None),
        (datetime(2026, 2, 3, 7, 0), "schedule"),
        (datetime(2026, 2, 7, 1, 0), None),  # Saturday, of Friday's night
        (datetime(2026, 2, 7, 13, 0), None),  # Saturday, all day
        (datetime(2026, 2, 8, 12, 15), "schedule"),  # Sunday, disarmed
        (datetime(2026, 2, 9, 1, 0), "schedule"),  # Monday: Sunday has no night of its own
        # Both changes of the clock, on Sundays: armed all day but half an hour
        (datetime(2026, 3, 29, 3, 0), None),
        (datetime(2026, 10, 25, 2, 30, fold=1), None),
        (datetime(2026, 10, 25, 12, 0, fold=0), "schedule"),
    ],
)
def test_a_camera_is_armed_in_local_time(capture_time, expected):
    rules = rules_of("""
objects: {person: }
timezone: Europe/Berlin
schedule:
  armed: [{days: [mon, tue, wed, thu, fri], start: 18:00, end: "07:00"}, {days: [sat, sun]}]
  disarmed: [{start: "12:00", end: "12:30"}]
""")
    local = capture_time.replace(tzinfo=BERLIN)
    assert rejections(rules, make_detection(), at=local) == [expected]


@pytest.mark.parametrize(
    ("conf", "hour", "brightness", "expected"),
    [
        (0.7, 21, 0.9, None),
        (0.6999, 21, 0.9, "min_score_at_night"),
        (0.6, 12, 0.9, None),
        (0.6, 12, None, None),
        (0.6, 12, 0.2, "min_score_at_night"),  # equal to the bound
        (0.6, 12, 0.2001, None),
        (0.7, 12, 0.0, None),
    ],
)
def test_the_minimum_score_is_higher_at_night(conf, hour, brightness, expected):
    rules = rules_of("""
objects: {person: {min_score_at_night: 0.7}}
timezone: Europe/Berlin
night: {start: 20:00, end: "06:00", max_brightness: 0.2}
""")
    local = datetime(2026, 2, 2, hour, tzinfo=BERLIN)
    detection = make_detection(conf=conf)
    assert rejections(rules, detection, at=local, brightness=brightness) == [expected]


@pytest.mark.parametrize(
    ("number", "expected"), [(1, "min_count"), (2, None), (3, None), (4, "max_count")]
)
def test_counts_include_only_detections_that_pass_the_earlier_filters(number, expected):
    rules = rules_of("objects: {person: {min_count: 2, max_count: 3}, car: }")
    people = [make_detection("person") for _ in range(number)]
    others = [make_detection("person", 0.4), make_detection("car")]
    assert rejections(rules, *people, *others) == [expected] * number + ["min_score", None]


def test_each_zone_has_its_own_counts():
    rules = rules_of(f"""
objects: {{person: }}
zones:
  low: {{polygon: {LOWER_HALF}, objects: {{person: {{min_count: 2}}}}}}
  high: {{polygon: [[0, 0], [1, 0], [1, 0.5], [0, 0.5]]}}
""")
    inside, outside = make_detection(bbox=IN_DRIVE), make_detection(bbox=ELSEWHERE)
    assert rejections(rules, inside, outside) == ["min_count", None]
    assert rejections(rules, inside, inside, outside) == [None, None, None]


FRAME = "[[0, 0], [1, 0], [1, 1], [0, 1]]"


def test_an_object_in_two_zones_is_a_threat_if_either_lets_it_through():
    for names in (("strict", "mild"), ("mild", "strict")):
        scores = {"strict": 0.95, "mild": 0.5}
        zones = ", ".join(
            f"{name}: {{polygon: {FRAME}, objects: {{person: {{min_score: {scores[name]}}}}}}}"
            for name in names
        )
        verdict = rules_of(f"zones: {{{zones}}}").judge(make_image(make_detection(conf=0.6)))
        (threat,) = verdict.threats
        assert (threat.zone, threat.rule) == ("mild", "defaults.zones.mild.objects.person")
        (trace,) = verdict.trace
        assert all(check.passes for check in trace.checks)


@pytest.mark.parametrize(
    ("first", "second", "zone", "severity"),
    [
        ("detection", "alert", "second", "alert"),
        ("alert", "detection", "first", "alert"),
        ("ignore", "detection", "second", "detection"),
        ("detection", "detection", "first", "detection"),
    ],
)
def test_of_two_zones_that_let_an_object_through_the_more_severe_one_decides(
    first, second, zone, severity
):
    rules = rules_of(f"""
zones:
  first: {{polygon: {FRAME}, objects: {{person: {{severity: {first}}}}}}}
  second: {{polygon: {FRAME}, objects: {{person: {{severity: {second}}}}}}}
""")
    verdict = rules.judge(make_image(make_detection()))
    assert [(threat.zone, threat.severity) for threat in verdict.threats] == [(zone, severity)]


def test_of_two_zones_that_reject_an_object_the_one_in_which_it_passes_more_filters_is_named():
    rules = rules_of(f"""
zones:
  first: {{polygon: {FRAME}, objects: {{person: {{min_score: 0.95}}}}}}
  second: {{polygon: {FRAME}, objects: {{person: {{max_area: 0.01}}}}}}
""")
    (rejected,) = rules.judge(make_image(make_detection())).rejected
    assert (rejected.by, rejected.rule) == ("max_area", "defaults.zones.second.objects.person")


def test_a_box_counts_once_in_each_of_its_zones():
    rules = rules_of(f"""
objects: {{person: {{min_count: 2}}}}
zones:
  one: {{polygon: {FRAME}}}
  two: {{polygon: {FRAME}}}
  three: {{polygon: {FRAME}, objects: {{person: {{min_count: 3}}}}}}
""")
    assert rejections(rules, make_detection()) == ["min_count"]
    assert rejections(rules, *[make_detection()] * 2) == [None, None]


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
    "track": ("objects.person.track", "true"),
    "min_count": ("objects.person.min_count", 3),
    "max_count": ("objects.person.max_count", 1),
    "confirm": ("confirm.pictures", 9),
}
ALWAYS = {
    "night.max_brightness": 1,
    "repeats.occurrences": 1,
    "repeats.within": "1h",
    "track.min_score": 0.1,
}
SURE = 0.95
"""The minimum score with which `track` has something to decide on."""


def nested(values):
    tree = {}
    for path, value in values.items():
        *parents, last = path.split(".")
        inner = tree
        for key in parents:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return tree


def as_yaml(tree):
    if not isinstance(tree, dict):
        return str(tree)
    return "{" + ", ".join(f"{key}: {as_yaml(value)}" for key, value in tree.items()) + "}"


def rules_that_reject_by(names):
    """Returns rules with which every named filter rejects the second of two images."""
    values = {**ALWAYS, "objects.person.repeats": "false", "objects.person.track": "false"}
    values |= dict(EVERY_FILTER[name] for name in names)
    if "track" in names:
        values["objects.person.min_score"] = SURE
    return rules_of(as_yaml(nested(values))[1:-1].replace("}, ", "}\n"))


ORDER = list(EVERY_FILTER)
# A rule file cannot contain both filters of these pairs, because their bounds cross.
CROSSED = {("min_area", "max_area"), ("min_ratio", "max_ratio"), ("min_count", "max_count")}
# Where `track` applies, it decides on these scores.
TRACKED = {("min_score", "track"), ("min_score_at_night", "track")}


def test_the_filters_are_in_order():
    assert list(FILTERS) == ["objects", *ORDER]


@pytest.mark.parametrize("first", ORDER)
def test_each_filter_alone_rejects(first):
    assert filters_that_reject_the_second_image(rules_that_reject_by([first])) == {first}


@pytest.mark.parametrize(
    ("first", "second"),
    [pair for pair in itertools.combinations(ORDER, 2) if pair not in CROSSED | TRACKED],
)
def test_the_first_of_two_rejecting_filters_is_named(first, second):
    assert filters_that_reject_the_second_image(rules_that_reject_by([first, second])) == {first}


def filters_that_reject_the_second_image(rules):
    detections = [make_detection(), make_detection(bbox=(0.4, 0.41, 0.1, 0.2))]
    images = [make_image(*detections, at=second, brightness=0.5) for second in (0, 60)]
    return set(rejecting_filters(judge_all(rules, images)[-1]))


def test_the_trace_contains_the_checks_up_to_the_first_rejection():
    rules = rules_of(f"""
objects: {{person: {{min_area: 0.01, min_score_at_night: 0.95}}, car: {{severity: ignore}}}}
zones: {{low: {{polygon: {LOWER_HALF}}}}}
schedule: {{armed: [{{start: "11:00", end: "13:00"}}]}}
night: {{max_brightness: 0.5}}
confirm: {{pictures: 2}}
""")
    verdict = rules.judge(
        make_image(make_detection(), make_detection("car"), make_detection("cat"), brightness=0.4)
    )
    assert [trace.detection for trace in verdict.trace] == [0, 1]
    assert verdict.trace[0].checks == (
        Check("min_score", 0.9, 0.5, True),
        Check("min_area", 0.02, 0.01, True),
        Check("zones", "low", ["low"], True),
        Check("schedule", "sat 12:00", "armed", True),
        Check("min_score_at_night", 0.9, 0.95, False),
    )
    assert verdict.trace[1].checks == (Check("severity", "ignore", None, False),)
    daylight = judge_all(rules, [make_image(make_detection(), at=at) for at in (0, 10)])
    assert [verdict.trace[0].checks[-1] for verdict in daylight] == [
        Check("confirm", 1, 2, False),
        Check("confirm", 2, 2, True),
    ]


def test_an_image_at_the_last_possible_time_is_judged():
    rules = rules_of("""
objects: {person: }
timezone: Asia/Tokyo
schedule: {armed: [{start: "00:00", end: "24:00"}]}
""")
    assert rejections(
        rules, make_detection(), at=START.replace(year=9999, month=12, day=31, hour=23)
    ) == [None]
