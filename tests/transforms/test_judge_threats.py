import json
import random
from dataclasses import replace
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
from transforms.judge_threats import JudgeThreats, judge, judge_in_order
from transforms.records.images import JudgedImage
from transforms.records.times import canonical_time, parse_time
from transforms.runtime.counters import counted
from transforms.storage.stores import json_bytes

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
    results = judge(image, RULES)
    assert results.image is image
    assert results.verdict.severity == severity
    assert results.verdict.is_threat is bool(threats)
    assert [entry.label for entry in results.verdict.threats] == threats
    assert [(entry.label, entry.by) for entry in results.verdict.rejected] == rejected
    assert results.verdict.rules_version == RULES.version


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


def test_the_rules_judge_the_values_of_the_image_json():
    image = detected("yard", labels=["dog", "cat"])
    assert image.for_rules() == rules.Image.from_json(image.to_json())


def test_the_step_judges_each_image(run_pipeline):
    images = [
        detected("hall", "2026-01-31T23:59:58Z", ["person", "person"]),
        detected("hall", "2026-01-31T23:59:59Z", ["cat"]),
        detected("yard", "2026-01-31T23:59:59Z", ["dog"]),
    ]

    def build(pipeline):
        return {"judged": pipeline | beam.Create(images) | JudgeThreats(RULES) | beam.Flatten()}

    result, results = run_pipeline(build)
    expected = [judge(image, RULES) for image in images]
    assert sorted(results["judged"], key=repr) == sorted(expected, key=repr)
    assert all(isinstance(image, JudgedImage) for image in results["judged"])
    assert counted(result) == {}  # Images are counted once it is known which of them stand.


# Rules that look back.

ONE_ALERT_PER_IMAGE = rules.parse_rules(
    "version: 1\ndefaults: {objects: {person: }, cooldown: 0s}\n", "rules.yaml"
)
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
    timestamp = canonical_time(parse_time(START) + timedelta(seconds=seconds))
    return detected(camera, timestamp, labels, sha256=sha256)


def a_day():
    """Pictures of two cameras in the order of time, less than a second to some minutes apart."""
    chance = random.Random(5)
    seconds, images = 0.0, []
    for _ in range(32):
        seconds += chance.choice([0.25, 0.5, 20, 40, 200, 400])
        labels = chance.choice([["car"], ["car"], ["car", "person"], ["person"], []])
        images.append(at(seconds, labels, camera=chance.choice(["hall", "plain"])))
    return images


def as_json(judged):
    return json_bytes(judged.to_json())


def in_batch(run_pipeline, images, ruleset):
    def build(pipeline):
        return {"judged": pipeline | beam.Create(images) | JudgeThreats(ruleset) | beam.Flatten()}

    _, results = run_pipeline(build)
    return sorted(map(as_json, results["judged"]))


def check_stream(events, ruleset, expected):
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
        judged = (
            pipeline
            | stream.advance_watermark_to_infinity()
            | beam.Map(lambda image: image).with_output_types(type(at(0)))
            | JudgeThreats(ruleset, streaming=True, allowed_lateness_seconds=LATENESS)
            | beam.Flatten()
        )
        assert_that(judged | beam.Map(as_json), equal_to(list(expected)))


def test_images_that_rules_look_back_on_are_judged_in_the_order_of_time():
    """As text, 10:00:00.500Z comes before 10:00:00Z."""
    first, second = judge_in_order([at(0.5), at(0)], COOLDOWN)
    assert (first.image, first.verdict.suppressed_by) == (at(0), None)
    alert = rules.alert_id("hall", START, "alert")
    assert (second.verdict.suppressed_by, second.verdict.incident_number) == (alert, 2)


def test_a_batch_gives_the_same_bytes_for_any_order_of_images(run_pipeline):
    images = a_day()
    wanted = [
        as_json(image)
        for camera in ("hall", "plain")
        for image in judge_in_order([image for image in images if image.id == camera], LOOKING_BACK)
    ]
    for text in (b'"by":"repeats"', b'"by":"confirm"', b'"suppressed_by":"'):
        assert any(text in image for image in wanted), f"{text} was not tested"
    random.Random(7).shuffle(images)
    assert in_batch(run_pipeline, images, LOOKING_BACK) == sorted(wanted)


TRACKING = rules.parse_rules(
    "version: 1\ndefaults: {objects: {person: }, track: {within: 3s}, cooldown: 2s}\n",
    "rules.yaml",
)


def walk():
    """A person with a low score who walks, stands, and walks on."""
    images = []
    for number, x in enumerate([0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.3, 0.4, 0.4, 0.5]):
        seen = rules.Detection("1", "person", 0.2, (x, 0.2, 0.05, 0.1))
        images.append(replace(at(number), detections=(seen,)))
    return images


def test_a_batch_and_a_stream_track_the_same_objects(run_pipeline):
    images = walk()
    batch = in_batch(run_pipeline, random.Random(3).sample(images, len(images)), TRACKING)
    threats = [json.loads(image)["threat"]["is_threat"] for image in batch]
    assert threats == [False, True, True, True, False, False, True, True, True, True]
    events = [event for image in images for event in (image, seconds_of(image) + 0.5)]
    check_stream(events, TRACKING, batch)


def test_a_stream_judges_images_in_order_like_a_batch(run_pipeline):
    images = a_day()
    events = [event for image in images for event in (image, seconds_of(image) - 10)]
    check_stream(events, LOOKING_BACK, in_batch(run_pipeline, images, LOOKING_BACK))


def test_without_a_word_in_the_rules_a_batch_in_any_order_and_a_stream_send_the_same(run_pipeline):
    """An incident of an hour: persons every four minutes, more of them and a car later on."""
    ruleset = rules.parse_rules("version: 1\ndefaults: {objects: {person: , car: }}", "rules.yaml")
    images = [
        at(240 * number, ["person"] * (1 + number // 9) + ["car"] * (number == 11))
        for number in range(16)
    ]
    batch = in_batch(run_pipeline, random.Random(3).sample(images, len(images)), ruleset)
    threats = [json.loads(image)["threat"] for image in batch]
    assert [number for number, one in enumerate(threats) if not one["suppressed_by"]] == [0, 8, 11]
    assert threats[8]["follow_up"]["images"] == 7
    assert threats[11]["follow_up"]["new_labels"] == ["car"]
    assert threats[11]["follow_up"]["more"] == [{"label": "person", "before": 1, "now": 2}]
    events = [event for image in images for event in (image, seconds_of(image) + 10)]
    check_stream(events, ruleset, batch)


def seconds_of(image):
    return (parse_time(image.timestamp) - parse_time(START)).total_seconds()


def test_a_stream_judges_an_image_out_of_order_by_the_earlier_images_that_arrived():
    images = a_day()
    random.Random(7).shuffle(images)
    histories = {"hall": rules.History(), "plain": None}
    expected = [as_json(judge(image, LOOKING_BACK, histories[image.id])) for image in images]
    check_stream(images, LOOKING_BACK, expected)


def test_a_late_image_is_covered_by_the_alert_of_a_later_image():
    """A batch would have sent the alert of the first: the stream has sent another one by then."""
    sent = rules.alert_id("hall", at(10).timestamp, "alert")
    history = rules.History()
    judged = [judge(image, COOLDOWN, history) for image in (at(10), at(0), at(20))]
    assert [image.verdict.suppressed_by for image in judged] == [None, sent, sent]
    check_stream([at(10), at(0), at(20)], COOLDOWN, map(as_json, judged))


def test_a_repeated_image_has_the_same_verdict_and_changes_nothing():
    images = [image for image in a_day() if image.id == "hall"]
    expected = [as_json(image) for image in judge_in_order(images, LOOKING_BACK)]
    twice = [event for image in images for event in (image, image)]
    check_stream(twice, LOOKING_BACK, [image for image in expected for _ in range(2)])


@pytest.mark.parametrize(
    ("watermark", "is_known"), [(899 + LATENESS, True), (901 + LATENESS, False)]
)
def test_a_stream_clears_a_history_once_no_image_that_counts_can_need_it(watermark, is_known):
    first, late = at(0), at(200)
    history = rules.History()
    expected = [judge(first, COOLDOWN, history)]
    expected.append(judge(late, COOLDOWN, history if is_known else None))
    assert (expected[1].verdict.suppressed_by is not None) == is_known
    check_stream([first, watermark, late], COOLDOWN, map(as_json, expected))


@pytest.mark.parametrize(
    ("ruleset", "steps"),
    [
        (ONE_ALERT_PER_IMAGE, {"Judge"}),
        (RULES, {"Judge", "ByCamera", "GroupByCamera", "JudgeInOrder"}),
        (LOOKING_BACK, {"Judge", "ByCamera", "GroupByCamera", "JudgeInOrder"}),
    ],
)
def test_a_batch_groups_images_only_where_rules_look_back(ruleset, steps):
    pipeline = beam.Pipeline(runner=FnApiRunner())
    pipeline | beam.Create([at(0)]) | JudgeThreats(ruleset)
    (step,) = [
        step for step in pipeline.transforms_stack[0].parts if step.full_label == "JudgeThreats"
    ]
    assert {part.full_label.split("/")[1] for part in step.parts} == steps
