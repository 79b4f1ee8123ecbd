"""The description of the effective rules for people."""

import pytest

from rules import Rules, describe, describe_camera, parse_rules


def test_each_camera_shows_its_effective_values_and_their_origins(example: Rules):
    assert describe(example) == (
        f"rules {example.version}: 2 cameras\n"
        "\n"
        "front-door (profile outdoor)\n"
        "  person  severity alert (defaults), min_score 0.6 (profiles.outdoor), "
        "min_area 0.001 (profiles.outdoor)\n"
        "  car     severity ignore (profiles.outdoor), min_score 0.5 (built in)\n"
        "  cooldown: 30m (built in)\n"
        "  incident_gap: 5m (built in)\n"
        "\n"
        "hall (profile indoor)\n"
        "  person  severity alert (defaults), min_score 0.7 (cameras.hall)\n"
        "  car     severity alert (profiles.indoor), min_score 0.5 (profiles.indoor)\n"
        "  dog     severity detection (profiles.indoor), min_score 0.5 (built in)\n"
        "  cooldown: 30m (built in)\n"
        "  incident_gap: 5m (built in)\n"
        "\n"
        "any other id: the defaults\n"
        "  person  severity alert (defaults), min_score 0.5 (defaults)\n"
        "  cooldown: 30m (built in)\n"
        "  incident_gap: 5m (built in)\n"
    )


def test_every_bound_and_the_resolution_are_shown():
    rules = parse_rules(
        "version: 1\n"
        "strict_ids: true\n"
        "defaults:\n"
        "  resolution: {min: [640, 480]}\n"
        "  cooldown: 0s\n"
        "cameras:\n"
        "  hall:\n"
        "    resolution: {max: [1920, 1080]}\n"
        "    objects: {car: {min_area: 0.1, max_area: 0.9, min_ratio: 0.25, max_ratio: 4}}\n",
        "rules.yaml",
    )
    assert describe(rules) == (
        f"rules {rules.version}: 1 camera\n"
        "\n"
        "hall\n"
        "  car  severity alert (built in), min_score 0.5 (built in), min_area 0.1 (cameras.hall), "
        "max_area 0.9 (cameras.hall), min_ratio 0.25 (cameras.hall), max_ratio 4.0 (cameras.hall)\n"
        "  cooldown: 0s, one alert per image (defaults)\n"
        "  resolution: min 640x480 (defaults), max 1920x1080 (cameras.hall)\n"
        "\n"
        "any other id: refused as unknown_camera (strict_ids: true)\n"
    )


def test_a_file_without_objects_says_that_nothing_is_a_threat():
    rules = parse_rules("version: 1", "rules.yaml")
    assert describe(rules) == (
        f"rules {rules.version}: 0 cameras\n"
        "\n"
        "any other id: the defaults\n"
        "  no objects: nothing is a threat\n"
        "  cooldown: 30m (built in)\n"
        "  incident_gap: 5m (built in)\n"
    )


def test_cameras_are_shown_in_the_order_of_the_file():
    rules = parse_rules("version: 1\ncameras: {b: , a: , 10: , 9: }", "rules.yaml")
    ids = [line for line in describe(rules).splitlines() if line in {"a", "b", "10", "9"}]
    assert ids == ["b", "a", "10", "9"]


def test_a_label_cannot_write_to_the_terminal():
    rules = parse_rules('version: 1\ndefaults: {objects: {"\\e[2J": }}', "rules.yaml")
    assert "\x1b" not in describe(rules)
    assert "\\x1b[2J" in describe(rules)


def test_areas_times_repeats_and_cooldown_are_shown():
    rules = parse_rules(
        """
version: 1
strict_ids: true
defaults:
  timezone: Europe/Berlin
  objects:
    person: {min_score_at_night: 0.7, min_count: 2}
    car: {repeats: true, track: false, confirm: false}
  mask: {flag: {polygon: [[0, 0], [1, 0], [1, 1]], anchor: center, objects: [person, car]}}
  tiles: {columns: 4}
  schedule: {armed: [{days: [sun, mon], start: "18:00", end: "06:00"}, {days: [sat]}]}
profiles:
  yard:
    repeats: {occurrences: 4}
    track: {within: 5s}
    confirm: {within: 45s, unless_score: 0.8}
    zones: {gate: {anchor: overlap, objects: {person: {min_score: 0.8}, car: }}}
cameras:
  a:
    profile: yard
    zones: {gate: {polygon: [[0, 0], [1, 0], [1, 1]]}}
    schedule: {disarmed: [{start: "12:00", end: "12:30"}]}
    night: {start: "20:00", end: "06:00", max_brightness: 0.2}
    tiles: {overlap: 0.3}
    cooldown: 90s
    incident_gap: 30s
""",
        "rules.yaml",
    )
    assert describe(rules).splitlines()[2:-2] == [
        "a (profile yard)",
        "  person  severity alert (built in), min_score 0.5 (built in), min_score_at_night 0.7 "
        "(defaults), min_count 2 (defaults)",
        "  car     severity alert (built in), min_score 0.5 (built in), repeats true (defaults), "
        "track false (defaults), confirm false (defaults)",
        "  zone gate: person, car; 3 corners (cameras.a), by overlap of at least 0.5",
        "    person  min_score 0.8 (profiles.yard)",
        "  mask flag: car, person; 3 corners (defaults), by center",
        "  timezone: Europe/Berlin (defaults)",
        "  armed: mon sun 18:00 to 06:00, sat (defaults)",
        "  disarmed: every day 12:00 to 12:30 (cameras.a)",
        "  night: start 20:00 (cameras.a), end 06:00 (cameras.a), max_brightness 0.2 (cameras.a)",
        "  tiles: columns 4 (defaults), rows 2 (built in), overlap 0.3 (cameras.a), "
        "min_score 0.3 (built in)",
        "  repeats: iou 0.5 (built in), occurrences 4 (profiles.yard), within 1d (built in), "
        "forget_after 10 (built in), min_score 0.25 (built in)",
        "  track: min_score 0.1 (built in), within 5s (profiles.yard)",
        "  confirm: pictures 2 (built in), within 45s (profiles.yard), unless_score 0.8 "
        "(profiles.yard)",
        "  cooldown: 90s (cameras.a)",
        "  incident_gap: 30s (cameras.a)",
    ]


@pytest.mark.parametrize("length", ["90s", "1m", "90m", "2h", "36h", "2d"])
def test_a_duration_is_shown_in_the_largest_unit_that_divides_it(length: str):
    rules = parse_rules(
        f"version: 1\ndefaults: {{objects: {{person: }}, cooldown: {length}}}\n", "rules.yaml"
    )
    assert f"cooldown: {length} (defaults)" in describe(rules)


def test_a_period_that_ends_at_its_start_time_is_shown_with_its_times():
    period = '{days: [mon], start: "09:00", end: "09:00"}'
    rules = parse_rules(
        f"version: 1\ndefaults: {{objects: {{person: }}, schedule: {{armed: [{period}]}}}}\n",
        "rules.yaml",
    )
    assert "armed: mon 09:00 to 09:00 (defaults)" in describe(rules)


def test_targets_and_limits_are_shown_without_an_address():
    rules = parse_rules(
        """
version: 1
targets:
  guard: {webhook: "https://example.com/${KEY}"}
  mail: {apprise: "mailto://${MAIL}", severities: [alert, detection]}
limits: {per_id: {alerts: 5, within: 1h}, fleet: {alerts: 100, within: 90s}}
cameras: {hall: {objects: {person: }, notify: [guard]}}
""",
        "rules.yaml",
    )
    limits = [
        "limit of each camera: 5 alerts within 1h",
        "limit of all cameras: 100 alerts within 90s",
    ]
    assert describe(rules).splitlines()[1:7] == [
        "",
        "target guard: webhook, severity alert",
        "target mail: apprise, severity alert, detection",
        *limits,
        "",
    ]
    for camera in ("hall", "yard"):
        shown = describe_camera(rules, camera).splitlines()
        assert shown[-2:] == [f"  {limit}" for limit in limits]
