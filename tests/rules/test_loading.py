"""What a right rule file comes to: inheritance, names as written, version, pickling."""

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
    assert (rule.rule, rule.min_score, rule.min_area, rule.severity) == expected


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


def test_each_value_tells_where_it_comes_from():
    rules = rules_of(
        "defaults: {objects: {person: {min_score: 0.4, max_area: 0.9}}}\n"
        "profiles: {p: {objects: {person: {min_score: 0.6, min_ratio: 0.2}}}}\n"
        "cameras: {c: {profile: p, objects: {person: {min_ratio: 0.3}}}}\n"
    )
    rule = rules.for_camera("c").objects["person"]
    assert rule == ObjectRule(
        rule="cameras.c.objects.person",
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


def test_where_nothing_is_said_the_built_in_values_hold():
    rule = rules_of("defaults: {objects: {person: }}").defaults.objects["person"]
    assert rule == ObjectRule(
        rule="defaults.objects.person",
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
    assert (rule.rule, rule.min_score) == ("cameras.c.objects.person", 0.8)
    assert rule.origin("min_score") == "defaults.objects.person"


def test_a_value_given_as_the_built_in_one_still_overrides():
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
    found = {camera: rules.for_camera(camera).resolution for camera in "abc"}
    assert {name: (size.min, size.max) for name, size in found.items() if size} == {
        "a": ((320, 240), None),
        "b": ((320, 240), (4000, 3000)),
        "c": ((640, 480), (4000, 3000)),
    }
    assert found["c"] is not None
    assert dict(found["c"].origins) == {
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
def test_empty_sections_say_nothing(text):
    rules = rules_of(text)
    assert rules.defaults == CameraRules()
    assert rules.for_camera("c").objects == {}
    assert rules.for_camera("c").resolution is None
    assert not rules.strict_ids


@pytest.mark.parametrize("written", ["007", "0x1F", "1e3", "12", "true", "1.50", "2026-01-31"])
def test_an_unquoted_id_label_or_profile_is_its_text_as_written(written):
    rules = rules_of(
        f"profiles: {{{written}: {{objects: {{{written}: }}}}}}\n"
        f"cameras: {{{written}: {{profile: {written}}}}}"
    )
    assert rules.cameras == (written,)
    assert rules.for_camera(written).profile == written
    assert list(rules.for_camera(written).objects) == [written]


@pytest.mark.parametrize("number", ["0.5", ".5", "5e-1", "+0.5"])
def test_numbers_are_read_as_yaml_1_2_writes_them(number):
    rules = rules_of(f"defaults: {{objects: {{person: {{min_area: {number}}}}}}}")
    assert rules.defaults.objects["person"].min_area == 0.5


@pytest.mark.parametrize(("least", "greatest"), [("0", "1"), ("0.0", "1.0"), ("0.3", "0.3")])
def test_scores_and_areas_may_be_0_and_1_and_bounds_may_be_equal(least, greatest):
    rules = rules_of(
        f"defaults: {{objects: {{person: {{min_score: {least}, min_area: {least}, "
        f"max_area: {greatest}, min_ratio: 1, max_ratio: 1}}}}}}"
    )
    rule = rules.defaults.objects["person"]
    assert (rule.min_score, rule.min_area, rule.max_area) == (
        float(least),
        float(least),
        float(greatest),
    )


def test_a_camera_may_mend_bounds_that_its_profile_set():
    rules = rules_of(
        "profiles: {p: {objects: {car: {min_area: 0.3, max_area: 0.4}}}}\n"
        "cameras: {c: {profile: p, objects: {car: {min_area: 0.1, max_area: 0.2}}}}"
    )
    rule = rules.for_camera("c").objects["car"]
    assert (rule.min_area, rule.max_area) == (0.1, 0.2)


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_read_too(indent):
    text = json.dumps(
        {"version": 1, "cameras": {"hall": {"objects": {"crème 😀": {"min_score": 0.6}}}}},
        indent=indent,
    )
    rules = parse(text, "rules.json")
    assert rules.for_camera("hall").objects["crème 😀"].min_score == 0.6


def test_a_byte_order_mark_is_no_mistake():
    assert parse(b"\xef\xbb\xbfversion: 1\r\ncameras: {a: }\r\n", "rules.yaml").cameras == ("a",)


def test_labels_that_the_model_gives_are_taken(example_text):
    rules = parse(example_text, "rules.yaml", labels={"person", "car", "dog", "cat"})
    assert rules.cameras == ("front-door", "hall")


def test_the_file_names_the_cameras_that_it_knows(example: Rules):
    assert example.cameras == ("front-door", "hall")
    assert example.knows("hall")
    assert not example.knows("garden")
    assert rules_of("strict_ids: true").strict_ids


def test_the_version_is_what_sha256sum_shows(tmp_path: Path, example_text):
    path = tmp_path / "rules.yaml"
    content = example_text.replace("\n", "\r\n").encode()
    path.write_bytes(content)
    assert load_rules(path).version == hashlib.sha256(content).hexdigest()[:12]
    assert load_rules(str(path)).version == parse(content, "elsewhere").version
    assert load_rules(path).version != parse(example_text, "rules.yaml").version


def test_the_same_rules_come_of_bytes_and_of_text(example_text):
    assert parse(example_text, "a") == parse(example_text.encode(), "b")


def test_rules_survive_pickling_and_judge_the_same(example: Rules):
    image = Image("hall", "", 10, 10, (Detection("1", "person", 0.8, (0, 0, 1, 1)),))
    example.judge(image)
    copy = pickle.loads(pickle.dumps(example))
    assert copy == example
    assert hash(copy) == hash(example)
    assert copy.judge(image) == example.judge(image)


def test_what_a_camera_does_not_change_is_shared_not_copied():
    cameras = "".join(f"  camera-{number}: {{profile: p}}\n" for number in range(300))
    rules = rules_of(f"profiles: {{p: {{objects: {{car: {{}}}}}}}}\ncameras:\n{cameras}")
    assert len({id(rules.for_camera(camera).objects) for camera in rules.cameras}) == 1


def test_rules_cannot_be_changed(example: Rules):
    with pytest.raises(dataclasses.FrozenInstanceError):
        example.version = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        example.by_camera["hall"] = CameraRules()  # type: ignore[index]
    with pytest.raises(TypeError):
        example.defaults.objects["cat"] = ObjectRule(rule="r")  # type: ignore[index]


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
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
