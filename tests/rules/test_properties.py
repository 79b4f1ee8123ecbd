"""Properties for any detections, any rules and any text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import Detection, History, Image, RulesError, describe, parse_rules
from tests.search import search

LABELS = ("person", "car", "dog", "cat")

fractions = st.integers(0, 10_000).map(lambda units: units / 10_000)
detections = st.builds(
    Detection,
    category=st.just("1"),
    label=st.sampled_from(LABELS),
    conf=fractions,
    bbox=st.tuples(fractions, fractions, fractions, fractions),
)
images = st.builds(
    Image,
    id=st.sampled_from(["a", "b", "unnamed"]),
    timestamp=st.integers(0, 59).map(lambda second: f"2026-01-31T23:59:{second:02}Z"),
    width=st.integers(1, 4000),
    height=st.integers(1, 4000),
    detections=st.lists(detections, max_size=8).map(tuple),
)


@st.composite
def object_settings(draw):
    values = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "severity": st.sampled_from(["alert", "detection", "ignore"]),
                "min_score": fractions,
                "min_area": fractions,
                "max_area": fractions,
                "min_ratio": st.floats(0.01, 100),
                "max_ratio": st.floats(0.01, 100),
                "min_count": st.integers(1, 4),
                "max_count": st.integers(1, 4),
                "repeats": st.booleans(),
                "track": st.booleans(),
                "confirm": st.booleans(),
            },
        )
    )
    for low, high in (
        ("min_area", "max_area"),
        ("min_ratio", "max_ratio"),
        ("min_count", "max_count"),
    ):
        if low in values and high in values:
            values[low], values[high] = sorted((values[low], values[high]))
    return values


objects = st.dictionaries(st.sampled_from(LABELS), object_settings())
areas = st.fixed_dictionaries(
    {"polygon": st.sampled_from([[[0, 0], [1, 0], [1, 1]], [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]])},
    optional={"anchor": st.sampled_from(["bottom_center", "center", "overlap"])},
)
layers = st.fixed_dictionaries(
    {"objects": objects},
    optional={
        "zones": st.dictionaries(st.sampled_from("yz"), areas, max_size=2),
        "mask": st.dictionaries(st.sampled_from("mn"), areas, max_size=2),
        "schedule": st.just({"armed": [{"start": "12:00", "end": "23:59"}]}),
        "repeats": st.fixed_dictionaries({"occurrences": st.integers(1, 3)}),
        "track": st.fixed_dictionaries({"min_score": fractions, "within": st.just("30s")}),
        "confirm": st.fixed_dictionaries(
            {"pictures": st.integers(2, 3), "within": st.just("1h")},
            optional={"unless_score": fractions},
        ),
        "cooldown": st.sampled_from(["0s", "10s", "1h"]),
    },
)


@settings(deadline=None)
@given(st.lists(images, min_size=1, max_size=5), layers)
def test_every_detection_is_a_threat_or_rejected_once_and_in_order(image_list, layer):
    rules, history = parse_rules(json.dumps({"version": 1, "defaults": layer}), "r"), History()
    for image in image_list:
        check_verdict(rules.judge(image, history), image)


def check_verdict(verdict, image):
    threats = [threat.detection for threat in verdict.threats]
    rejected = [detection.detection for detection in verdict.rejected]
    assert threats == sorted(threats)
    assert rejected == sorted(rejected)
    assert sorted(threats + rejected) == list(range(len(image.detections)))
    assert verdict.is_threat == bool(threats) == (verdict.severity is not None)
    data = verdict.to_json()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert (verdict.incident_number is not None) == (verdict.severity == "alert")
    assert (verdict.suppressed_by is not None) == ((verdict.incident_number or 1) > 1)
    traced = {trace.detection: trace.checks for trace in verdict.trace}
    for threat in verdict.threats:
        assert all(check.passes for check in traced[threat.detection])
    for detection in verdict.rejected:
        if detection.by != "objects":
            *passed, last = traced[detection.detection]
            assert (last.filter, last.passes) == (detection.by, False)
            assert all(check.passes for check in passed)


@settings(deadline=None)
@given(images, objects, st.sampled_from(LABELS), fractions)
def test_a_higher_min_score_never_adds_a_threat_without_max_count(
    image, label_settings, label, min_score
):
    for values in label_settings.values():
        values.pop("max_count", None)
    before = rules_of(label_settings).judge(image)
    if label in label_settings:
        higher = max(min_score, label_settings[label].get("min_score", 0.5))
        label_settings = {**label_settings, label: {**label_settings[label], "min_score": higher}}
    after = rules_of(label_settings).judge(image)
    assert {threat.detection for threat in after.threats} <= {
        threat.detection for threat in before.threats
    }


@settings(deadline=None)
@given(images, objects)
def test_a_camera_that_repeats_the_defaults_has_the_same_verdicts(image, label_settings):
    file = {"version": 1, "defaults": {"objects": label_settings}}
    repeated = {**file, "cameras": {"a": {"objects": label_settings}}}
    plain = parse_rules(json.dumps(file), "r").judge(image)
    other = parse_rules(json.dumps(repeated), "r").judge(image)
    assert [threat.detection for threat in plain.threats] == [
        threat.detection for threat in other.threats
    ]
    assert [(rejected.detection, rejected.by) for rejected in plain.rejected] == [
        (rejected.detection, rejected.by) for rejected in other.rejected
    ]


def without_switches(values):
    return {key: value for key, value in values.items() if key not in ("repeats", "track")}


zone_settings = st.fixed_dictionaries(
    {
        "polygon": st.sampled_from(
            [
                [[0, 0], [1, 0], [1, 1]],
                [[0, 0.5], [1, 0.5], [1, 1], [0, 1]],
                [[0, 0], [1, 0], [0, 1]],
            ]
        ),
        "objects": st.fixed_dictionaries({"person": object_settings().map(without_switches)}),
    }
)


@pytest.mark.search
@search(300)
@given(
    st.lists(images, min_size=1, max_size=3),
    st.lists(zone_settings, min_size=1, max_size=3),
    st.sampled_from([{}, {"track": {}}]),
)
def test_an_object_is_a_threat_if_and_only_if_a_zone_alone_lets_it_through(
    image_list, zones, looking_back
):
    def severities(chosen):
        layer = {"zones": chosen, **looking_back}
        rules, history = parse_rules(json.dumps({"version": 1, "defaults": layer}), "r"), History()
        return [
            {threat.detection: threat.severity for threat in rules.judge(image, history).threats}
            for image in image_list
        ]

    named = {f"z{number}": zone for number, zone in enumerate(zones)}
    alone = [severities({name: zone}) for name, zone in named.items()]
    for number, together in enumerate(severities(named)):
        expected = {}
        for one in alone:
            for index, severity in one[number].items():
                if expected.get(index) != "alert":
                    expected[index] = severity
        assert together == expected


KEYS = (
    "version",
    "strict_ids",
    "defaults",
    "profiles",
    "cameras",
    "objects",
    "resolution",
    "profile",
    "min",
    "max",
    "person",
    "min_score",
    "max_ratio",
    "severity",
    "zones",
    "mask",
    "polygon",
    "schedule",
    "armed",
    "days",
    "night",
    "timezone",
    "repeats",
    "cooldown",
)
tokens = st.sampled_from(
    [
        *(f"{key}: " for key in KEYS),
        *KEYS,
        *"\n{}[],:?-#&*!|>%@`'\"~\t\\",
        "\n  ",
        "\n    ",
        "- ",
        "<<: ",
        "&a ",
        "*a",
        "!!int ",
        "!!binary ",
        "---\n",
        "...\n",
        "%YAML 1.1\n",
        "%TAG ! x\n",
        "1",
        "0.5",
        ".nan",
        "0x",
        "1e999",
        '"\\x',
        '"\\U00110000"',
        "\ud800",
        "\ufeff",
        "\x00",
        "\x85",
        "\u2028",
        "version: 1\n",
    ]
)
yamlish = st.lists(tokens, max_size=25).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=15,
)
files = st.dictionaries(st.sampled_from(KEYS), values, max_size=4).map(
    lambda file: json.dumps({"version": 1, **file})
)


def check_valid_or_rejected_in_one_line(text, labels):
    try:
        rules = parse_rules(text, "rules.yaml", labels)
    except RulesError as error:
        message = str(error)
        assert message.isprintable()
        assert message.startswith("rules.yaml:")
        assert "; " in message
        message.encode()
    else:
        describe(rules).encode()
        assert len(rules.version) == 12


@settings(max_examples=300, deadline=None)
@given(yamlish | files | st.text(), st.none() | st.just(LABELS))
def test_any_text_is_valid_or_rejected_in_one_line(text, labels):
    check_valid_or_rejected_in_one_line(text, labels)


@settings(max_examples=100, deadline=None)
@given(st.binary() | yamlish.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_valid_or_rejected_in_one_line(content):
    check_valid_or_rejected_in_one_line(content, None)


def rules_of(label_settings):
    file = {"version": 1, "defaults": {"objects": label_settings}}
    return parse_rules(json.dumps(file), "rules.json", LABELS)
