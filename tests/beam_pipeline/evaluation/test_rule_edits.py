"""Edits of a rule file change what they name, and no other line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.evaluation.rule_edits import Edit, apply_edits, apply_settings
from tests.search import search

MIN_SCORE = ("cameras", "hall", "objects", "person", "min_score")


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (
            "version: 1\ndefaults: {objects: {person: , car: ~, dog: null}}  # all\n",
            "version: 1\ndefaults: {objects: {person: , car: ~, dog: null}}  # all\n"
            "cameras:\n  hall:\n    objects:\n      person:\n        min_score: 0.56\n",
        ),
        (
            "version: 1\r\ncameras:\r\n  hall:\r\n    # a\r\n    objects: {person: }\r\n",
            "version: 1\r\ncameras:\r\n  hall:\r\n    # a\r\n    objects: {person: {min_score: "
            "0.56}}\r\n",
        ),
        (
            "version: 1\ncameras:\n    hall:\n        mask:\n            m:\n"
            "                polygon:\n                  - [0.1, 0.2]\n",
            "version: 1\ncameras:\n    hall:\n        mask:\n            m:\n"
            "                polygon:\n                  - [0.1, 0.2]\n"
            "        objects:\n            person:\n                min_score: 0.56\n",
        ),
        (
            "---\nversion: 1\ncameras: {hall: {objects: {person: , car: }}}",
            "---\nversion: 1\ncameras: {hall: {objects: {person: {min_score: 0.56}, car: }}}\n",
        ),
    ],
)
def test_only_what_is_named_changes(text: str, changed: str) -> None:
    assert apply_settings(text, [(MIN_SCORE, "0.56")]) == changed


@st.composite
def rule_files(draw: st.DrawFn) -> str:
    """Rules of a yard, of a hall or not, and of a gate, in one of the ways to write them."""
    step = " " * draw(st.sampled_from([2, 3, 4]))
    dash = " " * draw(st.sampled_from([0, 2]))
    nothing = st.sampled_from(["", " ~", " null", "   # nothing"])

    def camera(name: str) -> Iterator[str]:
        yield f"{step}{name}:{draw(st.sampled_from(['', '   # a name']))}"
        if draw(st.booleans()):
            yield f"{step * 2}mask:"
            yield f"{step * 3}m:"
            yield f"{step * 4}polygon:"
            for corner in ("[0.10, 0.2]", "[0.3,0.2]", "[ 0.3, 0.40 ]"):
                yield f"{step * 4}{dash}- {corner}"
        if draw(st.booleans()):
            yield ""
        if draw(st.booleans()):
            yield f"{step * 2}objects: {{car: , dog: ~,  cat: {{min_score: 0.50}}}}"
        else:
            yield f"{step * 2}objects:"
            yield f"{step * 3}car:{draw(nothing)}"
            yield f"{step * 3}person: {{min_score: 0.50}}"

    lines = [*draw(st.sampled_from([[], ["# Rules"], ["---"]])), "version: 1", "cameras:"]
    hall = ("hall",) if draw(st.booleans()) else ()
    for name in ("yard", *hall, "gate"):
        lines += camera(name)
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return end.join(lines) + draw(st.sampled_from(["", end]))


@pytest.mark.search
@search(150)
@given(rule_files(), st.booleans())
def test_all_other_lines_stay_as_they_are(text: str, by_setting: bool) -> None:
    if by_setting:
        changed = apply_settings(text, [(MIN_SCORE, "0.56")])
    else:
        edit = Edit(("cameras", "hall"), "person", {"min_score": 0.56})
        changed = apply_edits(text, [edit])
    expected = yaml.safe_load(text)
    hall = expected["cameras"].setdefault("hall", {})
    hall.setdefault("objects", {}).setdefault("person", {})["min_score"] = 0.56
    assert yaml.safe_load(changed) == expected
    end = "\r\n" if "\r\n" in text else "\n"
    assert changed.count("\n") == changed.count(end)
    lines, new = text.removesuffix(end).split(end), changed.split(end)
    touched = [line for number, line in enumerate(lines) if is_within(without(lines, number), new)]
    # The line of the person or of the objects of the hall, or none.
    assert is_within(lines, new) or any("person" in one or "objects" in one for one in touched)


def without(lines: list[str], number: int) -> list[str]:
    return [*lines[:number], *lines[number + 1 :]]


def is_within(lines: list[str], longer: list[str]) -> bool:
    """Whether the lines are among the others, in the same order."""
    rest = iter(longer)
    return all(line in rest for line in lines)
