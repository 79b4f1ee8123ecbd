"""Valid rules that probably do not mean what their author expects."""

import pytest

from rules import parse_rules
from rules.pitfalls import pitfalls
from tests.rules.one_camera import rules_of

PORCH = "[[0, 0.5], [0.3, 0.5], [0.3, 1], [0, 1]]"
YARD = "[[0, 0.4], [1, 0.4], [1, 1], [0, 1]]"
ANYONE = "cameras without rules of their own"


def two_zones(first, second, *, others="", porch=PORCH):
    return rules_of(
        f"""
objects: {{person: , car: }}
zones:
  porch: {{polygon: {porch}, objects: {{{first}}}}}
  yard: {{polygon: {YARD}, objects: {{{second}}}}}
{others}"""
    )


@pytest.mark.parametrize(
    ("values", "warns"),
    [
        ("", False),
        ("cooldown: 29m", False),
        ("cooldown: 30m", True),
        ("cooldown: 30m\nincident_gap: 5m", False),
        ("cooldown: 30m\nincident_gap: 0s", False),
    ],
)
def test_a_long_cooldown_without_a_gap_hides_who_comes_later(values, warns):
    expected = (
        f"{ANYONE}: cooldown of defaults has no incident_gap, so that whoever comes "
        "within 1800 s of an alert has none, however long nobody was there; set incident_gap, for "
        "example to 5m, or to 0s if this is what you want"
    )
    assert pitfalls(rules_of(f"objects: {{person: }}\n{values}")) == [expected] * warns


@pytest.mark.parametrize(
    ("first", "second", "values"),
    [
        ("person: {severity: ignore}", "person: ", "person: severity ignore"),
        ("person: {severity: detection}", "person: ", "person: severity detection"),
        ("person: {severity: ignore}", "person: {severity: detection}", "person: severity ignore"),
        ("person: {min_score: 0.51}", "person: ", "person: min_score"),
        ("person: {max_area: 0.5}", "person: ", "person: max_area"),
        ("person: {max_area: 0.5}", "person: {max_area: 0.6}", "person: max_area"),
        ("person: {min_area: 0.2}", "person: {min_area: 0.1}", "person: min_area"),
        (
            "person: {min_count: 2, max_ratio: 3}",
            "person: {min_count: 1}",
            "person: min_count, max_ratio",
        ),
        (
            "car: {severity: ignore}, person: {min_score: 0.7}",
            "person: , car: {min_score: 0.6}",
            "car: severity ignore; person: min_score",
        ),
    ],
)
def test_an_earlier_zone_that_is_stricter_makes_no_exception(first, second, values):
    assert pitfalls(two_zones(first, second)) == [
        f"{ANYONE}: zone porch is stricter than zone yard ({values}), but where they overlap an "
        "object is a threat if either of them lets it through; use a mask, or polygons that do not "
        "overlap"
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("person: ", "person: "),
        ("person: ", "person: {severity: ignore}"),
        ("person: {severity: ignore}", "person: {severity: ignore}"),
        ("person: {severity: ignore}", "car: "),
        ("person: {min_score: 0.4}", "person: "),
        ("person: {max_area: 0.6}", "person: {max_area: 0.5}"),
        ("person: {min_area: 0.1}", "person: {min_area: 0.2}"),
        ("person: {min_score: 0.6}", "person: {severity: ignore}"),
        ("person: {confirm: false}", "person: "),
        ("person: {repeats: true}", "person: {repeats: false}"),
    ],
)
def test_an_earlier_zone_that_is_not_stricter_is_as_expected(first, second):
    assert pitfalls(two_zones(first, second)) == []


@pytest.mark.parametrize(
    ("section", "first", "second"),
    [
        ("confirm: ", "", "confirm: false"),
        ("track: ", "track: false", ""),
        ("track: ", "name: Anyone", None),
        ("repeats: ", "repeats: true", "repeats: false"),
        ("night: {max_brightness: 0.2}", "min_score_at_night: 0.6", ""),
        ("night: {max_brightness: 0.2}", "min_score_at_night: 0.5", None),
        ("night: {max_brightness: 0.2}", "min_score_at_night: 0.6", "min_score_at_night: 0.7"),
    ],
)
def test_settings_of_other_sections_can_be_stricter(section, first, second):
    is_stricter = second is not None and "0.7" not in second
    rules = two_zones(f"person: {{{first}}}", f"person: {{{second or ''}}}", others=section)
    assert [name in "".join(pitfalls(rules)) for name in ("zone porch", first.split(":")[0])] == [
        is_stricter,
        is_stricter,
    ]


@pytest.mark.parametrize(
    ("porch", "others", "expected"),
    [
        ("[[0, 0], [0.3, 0], [0.3, 0.4], [0, 0.4]]", "", 0),  # They touch.
        ("[[0, 0], [0.3, 0], [0.3, 0.41], [0, 0.41]]", "", 1),
        (PORCH, f"mask: {{porch: {{polygon: {PORCH}}}}}", 0),
        (PORCH, f"mask: {{porch: {{polygon: {PORCH}, objects: [person]}}}}", 0),
        (PORCH, f"mask: {{porch: {{polygon: {PORCH}, objects: [car]}}}}", 1),
        (PORCH, "mask: {porch: {polygon: [[0, 0.5], [0.2, 0.5], [0.2, 1], [0, 1]]}}", 1),
    ],
)
def test_only_zones_that_overlap_outside_the_masks_count(porch, others, expected):
    rules = two_zones("person: {severity: ignore}", "person: ", others=others, porch=porch)
    assert len(pitfalls(rules)) == expected


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ("incident_gap: 30m", "it is 1800 s and the cooldown 1800 s; make it shorter"),
        ("incident_gap: 29m", None),
        ("incident_gap: 5m, cooldown: 0s", "there is no cooldown; set a cooldown that is longer"),
        ("incident_gap: 5m, cooldown: 5m", "it is 300 s and the cooldown 300 s; make it shorter"),
        ("incident_gap: 301s, cooldown: 5m", "it is 301 s and the cooldown 300 s; make it shorter"),
        ("incident_gap: 299s, cooldown: 5m", None),
        ("incident_gap: 0s, cooldown: 5m", None),
        ("incident_gap: 0s", None),
        ("cooldown: 5m", None),
    ],
)
def test_an_incident_gap_has_an_effect_only_within_a_longer_cooldown(times, reason):
    rules = parse_rules(f"version: 1\ndefaults: {{objects: {{person: }}, {times}}}", "rules.yaml")
    lines = pitfalls(rules)
    assert len(lines) == (reason is not None)
    for line in lines:
        assert line.startswith(
            f"{ANYONE}: incident_gap of defaults has no effect, because {reason}"
        )


def test_cameras_that_share_a_pitfall_are_named_in_one_line():
    text = """version: 1
strict_ids: true
defaults: {objects: {person: }, incident_gap: 30m}
cameras: {a: , b: , c: {cooldown: 1h}, d: {incident_gap: 2h}}
"""
    lines = pitfalls(parse_rules(text, "rules.yaml"))
    assert [line.split(" has no effect")[0] for line in lines] == [
        "a and 1 more: incident_gap of defaults",
        "d: incident_gap of cameras.d",
    ]
