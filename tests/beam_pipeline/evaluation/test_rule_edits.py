"""Edits of a rule file change what they name, and no other line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml.error import YAMLError

from beam_pipeline.evaluation import rule_edits
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


@pytest.mark.search
@search(40)
@given(
    rule_files(),
    st.sets(st.integers(0, 3), min_size=1),
    st.sampled_from([(("cameras", "hall"), "0.56"), (("cameras", "gate"), "0.56"), ((), "0.56")]),
    st.booleans(),
)
def test_further_cameras_change_nothing_of_an_edit(
    text: str, places: set[int], change: tuple[tuple[str, ...], str], is_removed: bool
) -> None:
    path, value = change
    path = (*(path or ("defaults",)), "objects", "car" if is_removed else "person")
    setting = (path, None) if is_removed else ((*path, "min_score"), value)
    assert without_more(apply_settings(with_more(text, places), [setting])) == without_more(
        apply_settings(text, [setting])
    )


def with_more(text: str, places: set[int]) -> str:
    """Adds cameras with a comment after each, 20 kB before some of those that there are, and at the
    end."""
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.removesuffix(end).split(end)
    cameras = [at for at, line in enumerate(lines) if re.match(r" +(yard|hall|gate):", line)]
    indent = " " * (len(lines[cameras[0]]) - len(lines[cameras[0]].lstrip()))
    for number in sorted(places, reverse=True):
        at = cameras[number] if number < len(cameras) else len(lines)
        lines[at:at] = [
            f"{indent}{part}more-{number}-{k}{rest}"
            for k in range(100)
            for part, rest in (("", ":"), ("  ", ": {min_score:  0.50 }"), ("# ", "." * 150))
        ]
    return end.join(lines) + end * text.endswith(end)


def without_more(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if "more-" not in line)


@pytest.mark.parametrize("path", [("cameras", "hall"), ("cameras", "new"), ("defaults",)])
def test_an_edit_of_a_large_file_reads_no_other_camera(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def change(text: str, *given: Any) -> str:
        read.append(text)
        return whole(text, *given)

    whole = rule_edits._changed_as_a_whole
    monkeypatch.setattr(rule_edits, "_changed_as_a_whole", change)
    text = with_more("cameras:\n  yard:\n  hall:\n  gate:\n", {0, 3})
    changed = apply_settings(text, [((*path, "cooldown"), "5m")])
    assert [len(one) < 500 for one in read] == [True]
    assert len(yaml.safe_load(changed)["cameras"]) == 203 + (path[-1] == "new")


@pytest.mark.parametrize(
    "odd",
    [
        "  odd: {a: [1,\n  hall: 2]}\n",
        "  odd:\n    a: 'one\n\n  hall: two'\n",
        "  odd:\n    a: |\n      b\n  'quoted': {b: 1}\n",
        "  odd: |1\n     a\n   hall:\n",
        "  odd: {}\nrest: 'x\ncameras:\n  hall:'\n",
        "   odd: {}\n",
        "  {odd: 1}\n",
    ],
)
def test_a_large_file_in_an_odd_layout_is_changed_as_a_small_one(odd: str) -> None:
    text = with_more(f"cameras:\n  hall:\n    cooldown: 3m\n{odd}", {0})
    try:
        expected = rule_edits._changed_as_a_whole(text, set_cooldown)
    except YAMLError:
        with pytest.raises(YAMLError):
            apply_settings(text, [(("cameras", "hall", "cooldown"), "5m")])
        return
    assert apply_settings(text, [(("cameras", "hall", "cooldown"), "5m")]) == expected


def set_cooldown(document: Any) -> None:
    document["cameras"]["hall"]["cooldown"] = "5m"


def without(lines: list[str], number: int) -> list[str]:
    return [*lines[:number], *lines[number + 1 :]]


def is_within(lines: list[str], longer: list[str]) -> bool:
    """Whether the lines are among the others, in the same order."""
    rest = iter(longer)
    return all(line in rest for line in lines)
