import random
from datetime import timedelta

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue

import rules
from tests.transforms.results import detected
from transforms.count_threats import event_time
from transforms.counters import counted
from transforms.judge_threats import JudgeThreats, judge, judge_in_order
from transforms.records import JudgedImage
from transforms.stores import json_bytes
from transforms.times import canonical_time, parse_time

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
        "suppressed_by": None,
        "incident_number": None,
        "trace": [
            {"detection": 0, "checks": [check("min_score", 0.9, 0.5, passes=True)]},
            {"detection": 1, "checks": [check("severity", "ignore", None, passes=False)]},
        ],
    }


def check(name, value, bound, *, passes):
    return {"filter": name, "value": value, "bound": bound, "passes": passes}


def test_the_rules_see_what_they_would_read_in_the_image_s_json():
    image = detected("yard", labels=["dog", "cat"])
    assert image.for_rules() == rules.Image.from_json(image.to_json())


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


# Rules that look back.

LOOKING_BACK = rules.parse_rules(
    """\
version: 1
defaults:
  objects: {person: {severity: alert}, car: {severity: alert}}
  repeats: {occurrences: 2, forget_after: 3, within: 20m}
  confirm: {pictures: 2, within: 1m}
  cooldown: 5m
cameras:
  plain: {repeats: {enabled: false}, confirm: {enabled: false}, cooldown: 0s}
""",
    "rules.yaml",
)
COOLDOWN = rules.parse_rules(
    "version: 1\ndefaults: {objects: {person: {severity: alert}}, cooldown: 5m}\n", "rules.yaml"
)
START = "2026-01-31T10:00:00Z"
LATENESS = 600


def at(seconds, labels=("person",), *, camera="hall", sha256="5" * 64):
    """A picture so many seconds after ten o'clock."""
    moment = canonical_time(parse_time(START) + timedelta(seconds=seconds))
    return detected(camera, moment, labels, sha256=sha256)


def a_day():
    """Pictures of two cameras in the order of time, less than a second to some minutes apart."""
    chance = random.Random(5)
    seconds, pictures = 0.0, []
    for _ in range(32):
        seconds += chance.choice([0.25, 0.5, 20, 40, 200, 400])
        labels = chance.choice([["car"], ["car"], ["car", "person"], ["person"], []])
        pictures.append(at(seconds, labels, camera=chance.choice(["hall", "plain"])))
    return pictures


def as_json(judged):
    return json_bytes(judged.to_json())


def in_batch(run_pipeline, images, by):
    def build(pipeline):
        return {"judged": pipeline | beam.Create(images) | JudgeThreats(by)}

    result, found = run_pipeline(build)
    assert counted(result)["images.valid"] == len(images)
    return sorted(map(as_json, found["judged"]))


def check_stream(events, by, expected):
    """Compares what a stream of pictures and watermarks (seconds after ten) is judged to be."""
    stream = test_stream.TestStream().advance_watermark_to(event_time(START))
    for event in events:
        if isinstance(event, (int, float)):
            stream = stream.advance_watermark_to(event_time(at(event).timestamp))
        else:
            stream = stream.add_elements([TimestampedValue(event, event_time(START))])
    with beam.Pipeline(
        runner=BundleBasedDirectRunner(), options=PipelineOptions(streaming=True)
    ) as pipeline:
        found = (
            pipeline
            | stream.advance_watermark_to_infinity()
            | beam.Map(lambda one: one).with_output_types(type(at(0)))
            | JudgeThreats(by, streaming=True, allowed_lateness_seconds=LATENESS)
            | beam.Map(as_json)
        )
        assert_that(found, equal_to(list(expected)))


def test_what_rules_look_back_on_is_judged_in_the_order_of_time():
    """As text, 10:00:00.500Z comes before 10:00:00Z."""
    first, second = judge_in_order([at(0.5), at(0)], COOLDOWN)
    assert (first.image, first.verdict.suppressed_by) == (at(0), None)
    alert = rules.alert_id("hall", START, "alert")
    assert (second.verdict.suppressed_by, second.verdict.incident_number) == (alert, 2)


def test_a_batch_gives_the_same_bytes_in_whatever_order_pictures_come(run_pipeline):
    pictures = a_day()
    wanted = [
        as_json(one)
        for camera in ("hall", "plain")
        for one in judge_in_order([one for one in pictures if one.id == camera], LOOKING_BACK)
    ]
    for text in (b'"by":"repeats"', b'"by":"confirm"', b'"suppressed_by":"'):
        assert any(text in one for one in wanted), f"{text} was not tested"
    random.Random(7).shuffle(pictures)
    assert in_batch(run_pipeline, pictures, LOOKING_BACK) == sorted(wanted)


def test_a_stream_judges_pictures_that_come_in_order_as_a_batch_does(run_pipeline):
    pictures = a_day()
    events = [event for one in pictures for event in (one, seconds_of(one) - 10)]
    check_stream(events, LOOKING_BACK, in_batch(run_pipeline, pictures, LOOKING_BACK))


def seconds_of(image):
    return (parse_time(image.timestamp) - parse_time(START)).total_seconds()


def test_a_stream_judges_a_picture_that_comes_in_disorder_by_the_earlier_ones_that_came():
    pictures = a_day()
    random.Random(7).shuffle(pictures)
    histories = {"hall": rules.History(), "plain": None}
    expected = [as_json(judge(one, LOOKING_BACK, histories[one.id])) for one in pictures]
    check_stream(pictures, LOOKING_BACK, expected)


def test_a_late_picture_has_an_alert_of_its_own_and_changes_none_that_was_sent():
    """A batch would have sent one alert for the three."""
    late = rules.alert_id("hall", at(10).timestamp, "alert")
    sent = [judge(at(10), COOLDOWN), judge(at(0), COOLDOWN)]
    assert [one.verdict.incident_number for one in sent] == [1, 1]
    history = rules.History()
    covered = [judge(one, COOLDOWN, history) for one in (at(10), at(0), at(20))][-1]
    assert covered.verdict.suppressed_by == late
    check_stream([at(10), at(0), at(20)], COOLDOWN, map(as_json, [*sent, covered]))


def test_a_picture_that_comes_twice_is_judged_the_same_and_changes_nothing():
    pictures = [one for one in a_day() if one.id == "hall"]
    expected = [as_json(one) for one in judge_in_order(pictures, LOOKING_BACK)]
    twice = [event for one in pictures for event in (one, one)]
    check_stream(twice, LOOKING_BACK, [one for one in expected for _ in range(2)])


@pytest.mark.parametrize(
    ("watermark", "is_known"), [(299 + LATENESS, True), (301 + LATENESS, False)]
)
def test_a_stream_forgets_a_camera_once_no_picture_that_counts_can_ask_for_it(watermark, is_known):
    first, late = at(0), at(200)
    history = rules.History()
    expected = [judge(first, COOLDOWN, history)]
    expected.append(judge(late, COOLDOWN, history if is_known else None))
    assert (expected[1].verdict.suppressed_by is not None) == is_known
    check_stream([first, watermark, late], COOLDOWN, map(as_json, expected))


@pytest.mark.parametrize(
    ("by", "steps"),
    [
        (RULES, {"Judge"}),
        (LOOKING_BACK, {"Judge", "ByCamera", "GroupByCamera", "JudgeInOrder", "All"}),
    ],
)
def test_a_batch_groups_pictures_only_where_rules_look_back(by, steps):
    pipeline = beam.Pipeline(runner=FnApiRunner())
    pipeline | beam.Create([at(0)]) | JudgeThreats(by)
    (step,) = [
        one for one in pipeline.transforms_stack[0].parts if one.full_label == "JudgeThreats"
    ]
    assert {part.full_label.split("/")[1] for part in step.parts} == steps


def test_of_pictures_that_look_back_threats_are_counted_too(run_pipeline):
    images = [at(0), at(1, ["car"]), at(2), at(0, camera="plain")]

    def build(pipeline):
        return {"judged": pipeline | beam.Create(images) | JudgeThreats(LOOKING_BACK)}

    result, _ = run_pipeline(build)
    assert counted(result) == {
        "images.valid": 4,
        "images.with_threat": 2,
        "threats.alert.person": 2,
    }
