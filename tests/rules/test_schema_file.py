"""The JSON Schema for editors."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rules import RulesError, parse_rules
from rules.json_schema import json_schema, schema_text

ROOT = Path(__file__).parents[2]


def test_the_schema_file_is_the_generated_one():
    """After a change of the models: python -m rules.json_schema > rules/rules.schema.json"""
    assert (ROOT / "rules" / "rules.schema.json").read_text(encoding="utf-8") == schema_text()


def test_the_command_prints_the_schema():
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "rules.json_schema"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == schema_text()


def properties(schema):
    for section in (schema, *schema["$defs"].values()):
        for key, value in section["properties"].items():
            yield f"{section['title']}.{key}", value


@pytest.mark.parametrize(
    ("key", "value"), [pytest.param(*item, id=item[0]) for item in properties(json_schema())]
)
def test_every_key_has_a_title_and_a_description(key, value):
    assert value.get("title"), key
    assert len(value.get("description", "")) > 20, key


@pytest.mark.parametrize(
    ("key", "unit"),
    [
        ("min_score", "0 to 1"),
        ("min_area", "fraction of the frame"),
        ("max_area", "fraction of the frame"),
        ("min_ratio", "in pixels"),
        ("max_ratio", "in pixels"),
    ],
)
def test_descriptions_contain_the_unit(key, unit):
    assert unit in json_schema()["$defs"]["ObjectSettings"]["properties"][key]["description"]


FILE = {
    "version": 1,
    "strict_ids": False,
    "defaults": {
        "objects": {"person": {"min_score": 0.5, "severity": "alert"}, "cat": None},
        "resolution": {"min": [640, 480], "max": [4000, 3000]},
    },
    "profiles": {
        "outdoor": {"objects": {"person": {"min_area": 0.001, "max_ratio": 2}}},
        "empty": None,
    },
    "cameras": {"front-door": {"profile": "outdoor"}, "hall": {"objects": None}, "007": None},
}


def changed(**change):
    data = copy.deepcopy(FILE)
    data.update(change)
    return data


VALID_AND_WRONG = pytest.mark.parametrize(
    ("data", "is_valid"),
    [
        (FILE, True),
        ({"version": 1}, True),
        ({"version": 1, "defaults": None, "profiles": None, "cameras": None}, True),
        ({}, False),
        (changed(version=2), False),
        (changed(camera={}), False),
        (changed(strict_ids="yes"), False),
        (changed(defaults={"objects": {"person": {"min_scor": 1}}}), False),
        (changed(defaults={"objects": {"person": {"min_score": 2}}}), False),
        (changed(defaults={"objects": {"person": {"min_score": None}}}), False),
        (changed(defaults={"objects": {"person": {"min_ratio": 0}}}), False),
        (changed(defaults={"objects": {"person": {"severity": "alarm"}}}), False),
        (changed(defaults={"objects": {"": {}}}), False),
        (changed(defaults={"resolution": {"min": [0, 1]}}), False),
        (changed(defaults={"resolution": {"min": [1]}}), False),
        (changed(cameras={"front door": {}}), False),
        (changed(cameras=["front-door"]), False),
    ],
)


@VALID_AND_WRONG
def test_the_loader_accepts_only_valid_files(data, is_valid):
    try:
        parse_rules(json.dumps(data), "rules.json")
        loaded = True
    except RulesError:
        loaded = False
    assert loaded == is_valid


@VALID_AND_WRONG
def test_the_schema_accepts_the_same_files_as_the_loader(data, is_valid):
    jsonschema = pytest.importorskip("jsonschema")
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(data) == is_valid
