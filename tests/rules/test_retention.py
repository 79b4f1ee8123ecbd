"""The section `retention` of a rule file."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rules import FOR_GOOD, KEPT, Retention, RulesError, describe, parse_age, parse_rules


def retention_of(section: str) -> Retention | None:
    return parse_rules(f"version: 1\nretention: {section}\n", "rules.yaml").retention


def test_without_the_section_nothing_is_said() -> None:
    assert parse_rules("version: 1\n", "rules.yaml").retention is None
    assert retention_of("") is None


def test_ages_are_read() -> None:
    assert retention_of("{older_than: 30d}") == Retention(timedelta(days=30))
    found = retention_of("{older_than: 12h, keep: {alerts: 99999d, marked: always, final: 12h}}")
    assert found == Retention(
        timedelta(hours=12),
        {"alerts": timedelta(days=99999), "marked": FOR_GOOD, "final": timedelta(hours=12)},
    )
    assert (
        *("validated", "detections", "final", "invalid", "alerts", "threats", "marked"),
    ) == KEPT


def test_rules_check_shows_it() -> None:
    def shown(section: str) -> str:
        rules = parse_rules(f"version: 1\nretention: {section}\n", "rules.yaml")
        return describe(rules).split("\n\n")[1]

    assert shown("{older_than: 36h}") == "prune keeps files for 36h"
    assert shown("{older_than: 30d, keep: {marked: always, alerts: 365d}}") == (
        "prune keeps files for 30d; longer: alerts 365d, marked always"
    )


def test_the_longest_time_counts() -> None:
    day = timedelta(days=1)
    retention = Retention(day, {"final": 2 * day, "alerts": 3 * day})
    assert [retention.limit(kinds) for kinds in ([], ["validated"], ["final"], ["alerts", "final"])
            ] == [day, day, 2 * day, 3 * day]  # fmt: skip


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("{keep: {final: 3d}}", "retention.older_than: missing; write older_than: an age such as"),
        ("{older_than: soon}", "'soon' is no age; write a whole number and h or d, such as 12h"),
        ("{older_than: 0d}", "'0d' is no age"),
        ("{older_than: 30m}", "'30m' is no age"),
        ("{older_than: 30}", "retention.older_than: is 30; must be an age such as"),
        ("{older_than: always}", "'always' is no age"),
        ("{older_than: 9d, keep: {marks: 10d}}", "did you mean 'marked'?"),
        ("{older_than: 9d, keep: {final: 8d}}", "keep.final is shorter than older_than, so it"),
        ("{older_than: 9d, keep: [final]}", "must be a mapping, such as {alerts: 365d, marked"),
    ],
)
def test_a_wrong_section_is_rejected(section: str, says: str) -> None:
    with pytest.raises(RulesError) as error:
        retention_of(section)
    assert str(error.value).startswith("rules.yaml:2: retention")
    assert says in str(error.value)


def test_an_age_has_at_most_five_digits() -> None:
    assert parse_age("99999h") == timedelta(hours=99999)
    with pytest.raises(ValueError, match="'100000h' is no age"):
        parse_age("100000h")
