"""libyaml reads large rule files, with the same documents and messages as ruamel.yaml."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rules import ParsedRules, RulesError, document, parse_rules

_SAFE = "".join(
    chr(code) for code in range(32, 127) if document._SAME_IN_BOTH_VERSIONS.fullmatch(chr(code))
)
_WORDS = st.sampled_from(
    [
        *("a", "b", "7", "007", "0.5", ".5", "-", "- ", "-1", "1e3", "null", "true", "yes", "0x1f"),
        *("{", "}", "[", "]", ", ", ",", ": ", ":", "\n", "\n  ", "\n    ", " ", '"', "#", " # c"),
        *(
            "---",
            "...",
            "<<",
            "=",
            "$",
            "(x)",
            "a: b",
            "{a: b}",
            "[1, 2]",
            '"c"',
            '"c": 1',
            "12:30",
        ),
    ]
)
_TEXTS = st.one_of(
    st.lists(_WORDS, max_size=25).map("".join), st.text(alphabet=_SAFE + "\n", max_size=40)
)


def read(reader, text: str):
    try:
        return reader(text, "rules.yaml")
    except (RulesError, yaml.YAMLError) as error:
        return error


@settings(max_examples=2000)
@given(_TEXTS)
@example("a: b\n---\nc: d")
@example("{a: [1, {b: c}]}")
@example('{"a":1}')
@example("a: 12:30")
def test_libyaml_and_ruamel_read_the_same_document(text: str) -> None:
    fast = read(document.read_document_with_libyaml, text)
    if not isinstance(fast, Exception):
        assert repr(fast) == repr(read(document.read_document_with_ruamel, text))


TRIANGLE = "[[0, 0], [1, 0], [1, 1]]"


def fleet(cameras: int, *, more: str = "") -> str:
    lines = [
        "version: 1",
        "profiles:",
        "  outdoor: {objects: {car: {severity: ignore}}}",
        "cameras:",
        *(f"  cam-{number:05}: {{profile: outdoor, mask: {{a: {{polygon: {TRIANGLE}}}}}}}"
          for number in range(cameras)),
        more,
    ]  # fmt: skip
    return "\n".join(lines)


def test_a_large_fleet_is_read_by_libyaml_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "read_document_with_ruamel", None)
    rules = parse_rules(fleet(2000), "rules.yaml", labels=["car", "person"])
    assert len(rules.by_camera) == 2000
    assert rules.for_camera("cam-01999").objects["car"].severity == "ignore"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("  cam-00007: {profile: outdoor}", "a duplicate key (first on line 12)"),
        ("  late: {profile: [}", "not valid YAML"),
        ("  late: !tag {}", "is not allowed"),
        ("  late: {profile: outdor}", "did you mean 'outdoor'?"),
    ],
)
def test_mistakes_in_a_large_file_are_reported_with_their_line(more: str, message: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules(fleet(2000, more=more), "rules.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("rules.yaml:2005: ")


def test_labels_are_checked_without_parsing_the_file_again(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = ParsedRules.from_text(fleet(2000), "rules.yaml")
    monkeypatch.setattr(document, "read_document_with_libyaml", None)
    monkeypatch.setattr(document, "read_document_with_ruamel", None)
    parsed.check_labels(["car"])
    with pytest.raises(RulesError, match=r"rules.yaml:3: profiles.outdoor.objects.car: the model"):
        parsed.check_labels(["dog"])


@pytest.mark.parametrize(
    ("number", "shown"),
    [("0x" + "f" * 4000, "inf"), ("0o" + "7" * 4000, "inf"), ("9" * 4000, "inf"), ("0x1f", "31")],
)
def test_numbers_of_thousands_of_digits_are_out_of_range_like_any_other(
    number: str, shown: str
) -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules(
            f"version: 1\ndefaults: {{objects: {{person: {{min_score: {number}}}}}}}", "rules.yaml"
        )
    assert f"rules.yaml:2: defaults.objects.person.min_score: is {shown}; must be a" in str(
        caught.value
    )
