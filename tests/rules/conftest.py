"""The example of the documentation, which most tests start from."""

import pytest

from rules import Rules, parse_rules

EXAMPLE = """\
version: 1
defaults:
  objects:
    person: {min_score: 0.5, severity: alert}
profiles:
  indoor:
    objects: {car: {min_score: 0.5, severity: alert}, dog: {severity: detection}}
  outdoor:
    objects: {person: {min_score: 0.6, min_area: 0.001}, car: {severity: ignore}}
cameras:
  front-door: {profile: outdoor}
  hall: {profile: indoor, objects: {person: {min_score: 0.7}}}
"""


@pytest.fixture
def example_text() -> str:
    return EXAMPLE


@pytest.fixture
def example() -> Rules:
    return parse_rules(EXAMPLE, "rules.yaml")
