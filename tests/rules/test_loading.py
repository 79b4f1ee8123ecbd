"""The rules from a valid file: inheritance, names as text, version, pickling."""

import dataclasses
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from rules import CameraRules, Detection, Image, ObjectRule, Resolution, Rules, load_rules
from rules import parse_rules as parse


def rules_of(text: str) -> Rules:
    return parse("version: 1\n" + text, "rules.yaml")


@pytest.mark.parametrize(
    ("camera", "label", "expected"),
    [
        ("front-door", "person", ("profiles.outdoor.objects.person", 0.6, 0.001, "alert")),
        ("front-door", "car", ("profiles.outdoor.objects.car", 0.5, None, "ignore")),
        ("hall", "person", ("cameras.hall.objects.person", 0.7, None, "alert")),
        ("hall", "car", ("profiles.indoor.objects.car", 0.5, None, "alert")),
        ("hall", "dog", ("profiles.indoor.objects.dog", 0.5, None, "detection")),
        ("garden", "person", ("defaults.objects.person", 0.5, None, "alert")),
    ],
)
def test_a_camera_inherits_value_by_value(example: Rules, camera, label, expected):
    rule = example.for_camera(camera).objects[label]
    assert (rule.entry, rule.min_score, rule.min_area, rule.severity) == expected


@pytest.mark.parametrize(
    ("camera", "labels", "profile"),
    [
        ("front-door", ["person", "car"], "outdoor"),
        ("hall", ["person", "car", "dog"], "indoor"),
        ("garden", ["person"], None),
    ],
)
def test_a_camera_has_the_labels_of_its_layers_and_no_other(
    example: Rules, camera, labels, profile
):
    assert list(example.for_camera(camera).objects) == labels
    assert example.for_camera(camera).profile == profile


def test_each_value_has_its_origin():
    rules = rules_of(
        "defaults: {objects: {person: {min_score: 0.4, max_area: 0.9}}}\n"
        "profiles: {p: {objects: {person: {min_score: 0.6, min_ratio: 0.2}}}}\n"
        "cameras: {c: {profile: p, objects: {person: {min_ratio: 0.3}}}}\n"
    )
    rule = rules.for_camera("c").objects["person"]
    assert rule == ObjectRule(
        entry="cameras.c.objects.person",
        min_score=0.6,
        max_area=0.9,
        min_ratio=0.3,
        origins=rule.origins,
    )
    assert {name: rule.origin(name) for name in ("min_score", "max_area", "min_ratio")} == {
        "min_score": "profiles.p.objects.person",
        "max_area": "defaults.objects.person",
        "min_ratio": "cameras.c.objects.person",
    }
    assert rule.origin("severity") == "built in"


def test_values_that_the_file_does_not_set_are_built_in():
    rule = rules_of("defaults: {objects: {person: }}").defaults.objects["person"]
    assert rule == ObjectRule(
        entry="defaults.objects.person",
        severity="alert",
        min_score=0.5,
        min_area=None,
        max_area=None,
        min_ratio=None,
        max_ratio=None,
    )


def test_an_entry_without_values_is_still_the_most_specific_one():
    rules = rules_of(
        "defaults: {objects: {person: {min_score: 0.8}}}\ncameras: {c: {objects: {person: }}}"
    )
    rule = rules.for_camera("c").objects["person"]
    assert (rule.entry, rule.min_score) == ("cameras.c.objects.person", 0.8)
    assert rule.origin("min_score") == "defaults.objects.person"


def test_a_value_equal_to_the_built_in_one_still_overrides():
    rules = rules_of(
        "defaults: {objects: {person: {min_score: 0.8, severity: ignore}}}\n"
        "cameras: {c: {objects: {person: {min_score: 0.5, severity: alert}}}}"
    )
    rule = rules.for_camera("c").objects["person"]
    assert (rule.min_score, rule.severity) == (0.5, "alert")


def test_resolution_is_inherited_bound_by_bound():
    rules = rules_of(
        "defaults: {resolution: {min: [320, 240]}}\n"
        "profiles: {p: {resolution: {max: [4000, 3000]}}}\n"
        "cameras: {a: , b: {profile: p}, c: {profile: p, resolution: {min: [640, 480]}}}"
    )
    resolutions = {camera: rules.for_camera(camera).resolution for camera in "abc"}
    assert {name: (size.min, size.max) for name, size in resolutions.items() if size} == {
        "a": ((320, 240), None),
        "b": ((320, 240), (4000, 3000)),
        "c": ((640, 480), (4000, 3000)),
    }
    assert resolutions["c"] is not None
    assert dict(resolutions["c"].origins) == {
        "min": "cameras.c.resolution",
        "max": "profiles.p.resolution",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "defaults:\nprofiles:\ncameras:\n",
        "defaults: {objects: , resolution: }",
        "profiles: {p: }\ncameras: {c: {profile: p, objects: , resolution: {}}}",
    ],
)
def test_empty_sections_change_nothing(text):
    rules = rules_of(text)
    assert rules.defaults == CameraRules()
    assert rules.for_camera("c").objects == {}
    assert rules.for_camera("c").resolution is None
    assert not rules.strict_ids


@pytest.mark.parametrize("text", ["007", "0x1F", "1e3", "12", "true", "1.50", "2026-01-31"])
def test_an_unquoted_id_label_or_profile_is_its_original_text(text):
    rules = rules_of(
        f"profiles: {{{text}: {{objects: {{{text}: }}}}}}\ncameras: {{{text}: {{profile: {text}}}}}"
    )
    assert rules.cameras == (text,)
    assert rules.for_camera(text).profile == text
    assert list(rules.for_camera(text).objects) == [text]


@pytest.mark.parametrize("number", ["0.5", ".5", "5e-1", "+0.5"])
def test_numbers_are_read_as_in_yaml_1_2(number):
    rules = rules_of(f"defaults: {{objects: {{person: {{min_area: {number}}}}}}}")
    assert rules.defaults.objects["person"].min_area == 0.5


@pytest.mark.parametrize(("minimum", "maximum"), [("0", "1"), ("0.0", "1.0"), ("0.3", "0.3")])
def test_scores_and_areas_may_be_0_and_1_and_bounds_may_be_equal(minimum, maximum):
    rules = rules_of(
        f"defaults: {{objects: {{person: {{min_score: {minimum}, min_area: {minimum}, "
        f"max_area: {maximum}, min_ratio: 1, max_ratio: 1}}}}}}"
    )
    rule = rules.defaults.objects["person"]
    assert (rule.min_score, rule.min_area, rule.max_area) == (
        float(minimum),
        float(minimum),
        float(maximum),
    )


def test_a_camera_can_override_both_bounds_of_its_profile():
    rules = rules_of(
        "profiles: {p: {objects: {car: {min_area: 0.3, max_area: 0.4}}}}\n"
        "cameras: {c: {profile: p, objects: {car: {min_area: 0.1, max_area: 0.2}}}}"
    )
    rule = rules.for_camera("c").objects["car"]
    assert (rule.min_area, rule.max_area) == (0.1, 0.2)


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_accepted(indent):
    text = json.dumps(
        {"version": 1, "cameras": {"hall": {"objects": {"crème 😀": {"min_score": 0.6}}}}},
        indent=indent,
    )
    rules = parse(text, "rules.json")
    assert rules.for_camera("hall").objects["crème 😀"].min_score == 0.6


def test_a_byte_order_mark_is_accepted():
    assert parse(b"\xef\xbb\xbfversion: 1\r\ncameras: {a: }\r\n", "rules.yaml").cameras == ("a",)


def test_labels_of_the_model_are_accepted(example_text):
    rules = parse(example_text, "rules.yaml", labels={"person", "car", "dog", "cat"})
    assert rules.cameras == ("front-door", "hall")


def test_the_rules_list_the_cameras_of_the_file(example: Rules):
    assert example.cameras == ("front-door", "hall")
    assert example.has_camera("hall")
    assert not example.has_camera("garden")
    assert rules_of("strict_ids: true").strict_ids


def test_the_version_is_what_sha256sum_shows(tmp_path: Path, example_text):
    path = tmp_path / "rules.yaml"
    content = example_text.replace("\n", "\r\n").encode()
    path.write_bytes(content)
    assert load_rules(path).version == hashlib.sha256(content).hexdigest()[:12]
    assert load_rules(str(path)).version == parse(content, "elsewhere").version
    assert load_rules(path).version != parse(example_text, "rules.yaml").version


def test_bytes_and_text_give_the_same_rules(example_text):
    assert parse(example_text, "a") == parse(example_text.encode(), "b")


def test_rules_survive_pickling_and_judge_the_same(example: Rules):
    image = Image("hall", "", 10, 10, (Detection("1", "person", 0.8, (0, 0, 1, 1)),))
    example.judge(image)
    copy = pickle.loads(pickle.dumps(example))
    assert copy == example
    assert hash(copy) == hash(example)
    assert copy.judge(image) == example.judge(image)


def test_cameras_share_the_rules_that_they_do_not_change():
    cameras = "".join(f"  camera-{number}: {{profile: p}}\n" for number in range(300))
    rules = rules_of(f"profiles: {{p: {{objects: {{car: {{}}}}}}}}\ncameras:\n{cameras}")
    assert len({id(rules.for_camera(camera).objects) for camera in rules.cameras}) == 1


def test_rules_are_immutable(example: Rules):
    with pytest.raises(dataclasses.FrozenInstanceError):
        example.version = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        example.by_camera["hall"] = CameraRules()  # type: ignore[index]
    with pytest.raises(TypeError):
        example.defaults.objects["cat"] = ObjectRule(entry="r")  # type: ignore[index]


def test_sizes_are_pairs_of_width_and_height():
    rules = rules_of("defaults: {resolution: {min: [640, 480]}}")
    resolution = rules.defaults.resolution
    assert resolution == Resolution(min=(640, 480), origins={"min": "defaults.resolution"})


def test_the_rules_need_neither_beam_nor_tensorflow():
    program = (
        "import sys, rules; print([name for name in ('apache_beam', 'tensorflow')"
        " if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "needs_history", "targets"),
    [
        ("", True, set()),
        ("defaults: {cooldown: 0s}\n", False, set()),
        ("defaults: {cooldown: 0s}\ncameras: {hall: {cooldown: 1h}}\n", True, set()),
        (
            "targets: {guard: {webhook: https://a.example}, unused: {webhook: https://b.example}}\n"
            "defaults: {cooldown: 0s}\ncameras: {hall: {notify: [guard]}}\n",
            False,
            {"guard"},
        ),
    ],
)
def test_the_rules_say_whether_they_need_history_and_targets(text, needs_history, targets):
    rules = rules_of(text)
    assert (rules.any_needs_history, rules.notified_targets) == (needs_history, targets)


def test_rules_without_alerting_have_no_targets():
    rules = rules_of("")
    assert Rules("", False, rules.defaults, {}).alerting == rules.alerting
