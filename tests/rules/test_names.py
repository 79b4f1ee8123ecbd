"""How names of all cameras are read: presets, patterns and time zones, for all and for each."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import rules
from beam_pipeline.console.parsing import NAME_PRESETS
from rules import (
    PRESETS,
    AmbiguousNameError,
    Names,
    NameSettings,
    RulesError,
    choose_moment,
    describe,
    moments,
    parse_rules,
)
from rules.schedule import zone_of

UTC = timezone.utc
ZONES = st.sampled_from(
    [
        *("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"),
        *("Pacific/Apia", "America/St_Johns", "Africa/Casablanca", "Asia/Kathmandu"),
    ]
)
MOMENTS = st.datetimes(datetime(1975, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC))
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),  # Berlin's clocks go forward.
    datetime(2026, 10, 25, 1, tzinfo=UTC),  # They go back.
    datetime(2026, 11, 1, 6, tzinfo=UTC),  # New York's go back.
    datetime(2026, 4, 4, 15, tzinfo=UTC),  # Lord Howe's go back, by half an hour.
]
NEAR_CHANGES = st.builds(
    lambda change, minutes: change + timedelta(minutes=minutes),
    st.sampled_from(CHANGES),
    st.integers(-200, 200),
)


def local_of(moment: datetime, zone: str) -> datetime:
    return moment.astimezone(zone_of(zone)).replace(tzinfo=None)


AT_CHANGES = st.sampled_from(
    [
        ("Europe/Berlin", CHANGES[0]),
        ("Europe/Berlin", CHANGES[1]),
        ("America/New_York", CHANGES[2]),
        ("Australia/Lord_Howe", CHANGES[3]),
    ]
)
"""A zone, and a moment at which its clocks change."""
AROUND = st.integers(-4500, 4500).map(lambda seconds: timedelta(seconds=seconds))


@given(zone_and_change=AT_CHANGES, around=AROUND)
def test_a_moment_near_a_change_is_among_those_of_its_local_time(zone_and_change, around):
    zone, change = zone_and_change
    found = moments(local_of(change + around, zone), zone)
    assert change + around in found
    assert list(found) == sorted(set(found))


@given(moment=MOMENTS | NEAR_CHANGES, zone=ZONES)
def test_a_moment_is_among_those_of_its_local_time(moment, zone):
    found = moments(local_of(moment, zone), zone)
    assert moment in found
    assert list(found) == sorted(set(found))
    assert all(local_of(one, zone) == local_of(moment, zone) for one in found)


@given(
    local=st.datetimes(datetime(1975, 1, 1), datetime(2037, 12, 31))
    | NEAR_CHANGES.map(lambda moment: moment.replace(tzinfo=None)),
    zone=ZONES,
)
@example(local=datetime(2026, 3, 29, 2, 30), zone="Europe/Berlin")
@example(local=datetime(2026, 10, 25, 2, 30), zone="Europe/Berlin")
def test_a_local_time_has_one_moment_or_two_or_is_read_as_before_a_change(local, zone):
    found = moments(local, zone)
    at_utc = local.replace(tzinfo=UTC)
    offsets = {  # All that the zone has about that time.
        (at_utc + timedelta(minutes=minutes)).astimezone(zone_of(zone)).utcoffset()
        for minutes in range(-2880, 2881, 15)
    }
    shown = {at_utc - offset for offset in offsets if local_of(at_utc - offset, zone) == local}
    if shown:
        assert set(found) == shown
    else:
        before = (found[0] - timedelta(days=1)).astimezone(zone_of(zone)).utcoffset()
        assert found == (at_utc - before,)


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        (datetime(2026, 1, 31, 17, 52), [datetime(2026, 1, 31, 16, 52)]),
        (datetime(2026, 7, 31, 17, 52), [datetime(2026, 7, 31, 15, 52)]),
        (datetime(2026, 3, 29, 1, 59, 59), [datetime(2026, 3, 29, 0, 59, 59)]),
        (datetime(2026, 3, 29, 2, 30), [datetime(2026, 3, 29, 1, 30)]),
        (datetime(2026, 3, 29, 3), [datetime(2026, 3, 29, 1)]),
        (datetime(2026, 10, 25, 1, 59, 59), [datetime(2026, 10, 24, 23, 59, 59)]),
        (
            datetime(2026, 10, 25, 2, 30),
            [datetime(2026, 10, 25, 0, 30), datetime(2026, 10, 25, 1, 30)],
        ),
        (datetime(2026, 10, 25, 3), [datetime(2026, 10, 25, 2)]),
    ],
)
def test_both_changes_of_the_clock_in_berlin(local, expected):
    assert [one.replace(tzinfo=None) for one in moments(local, "Europe/Berlin")] == expected


@given(
    zone_and_change=AT_CHANGES,
    around=AROUND,
    delay=st.floats(-240, 3600),
    is_known=st.booleans(),
)
def test_the_time_of_a_file_tells_the_doubled_hours_apart(zone_and_change, around, delay, is_known):
    zone, change = zone_and_change
    moment = change + around
    found = moments(local_of(moment, zone), zone)
    changed = moment.timestamp() + delay if is_known else None
    chosen = choose_moment(found, changed)
    if len(found) == 1:
        assert chosen == moment
    elif not is_known:
        assert chosen == found[0]
    else:
        between = (found[1] - found[0]).total_seconds()
        assume(moment == found[1] or delay < between - 300)
        assert chosen == moment


@pytest.mark.parametrize("changed", [0.0, -1e300, 1e300, 4e9, float(2**40)])
def test_the_time_of_a_copy_says_nothing(changed):
    found = moments(datetime(2026, 10, 25, 2, 30), "Europe/Berlin")
    assert choose_moment(found, changed) == found[0]


def names_of(text: str, default: NameSettings | None = None) -> Names:
    return parse_rules("version: 1\n" + text, "rules.yaml").names(default)


RULES = """\
defaults:
  names: {preset: reolink, timezone: Europe/Berlin}
profiles:
  old:
    names: {preset: foscam}
cameras:
  192.168.1.64:
    names: {preset: hikvision}
  yard:
    names: {pattern: '{camera}/{time:%Y-%m-%d}/img_{time:%H%M%S}.jpg', timezone: UTC}
  porch: {profile: old}
  Front-Door:
    names: {timezone: America/New_York}
  hall: {}
"""


@pytest.mark.parametrize(
    ("path", "camera", "zone"),
    [
        ("Garage_00_20260131175217.jpg", "Garage", "Europe/Berlin"),
        ("hall_00_20260131175217.jpg", "hall", "Europe/Berlin"),
        ("Front Door_00_20260131175217.jpg", "Front-Door", "America/New_York"),
        ("192.168.1.64_01_20260131175217123_X.jpg", "192.168.1.64", "Europe/Berlin"),
        ("yard/2026-01-31/img_175217.jpg", "yard", "UTC"),
        ("porch/snap/MDAlarm_20260131-175217.jpg", "porch", "Europe/Berlin"),
    ],
)
def test_each_camera_has_its_own_way_of_naming(path, camera, zone):
    found = names_of(RULES).find(path)
    assert found is not None
    assert (found.id, found.settings.zone) == (camera, zone)
    assert found.match.local is not None
    assert found.match.local.replace(microsecond=0) == datetime(2026, 1, 31, 17, 52, 17)


@pytest.mark.parametrize(
    "path",
    [
        "192.168.1.65_01_20260131175217123_X.jpg",  # Hikvision's names are of another camera.
        "gate/2026-01-31/img_175217.jpg",
        "yard_00_20260131175217.jpg",  # The yard has names of its own.
        "attic/snap/MDAlarm_20260131-175217.jpg",
        "hall_20260131T175217Z.jpg",
    ],
)
def test_a_way_of_naming_is_for_its_cameras_only(path):
    assert names_of(RULES).find(path) is None


def test_the_rule_file_comes_before_the_options():
    names = names_of(
        "cameras: {a: {names: {timezone: UTC}}, b: {names: {preset: axis}}}",
        NameSettings(preset="foscam", timezone="Asia/Kolkata"),
    )
    assert names.default == NameSettings("foscam", None, "Asia/Kolkata")
    assert names.for_camera("a") == NameSettings("foscam", None, "UTC")
    assert names.for_camera("b") == NameSettings("axis", None, "Asia/Kolkata")
    assert names.for_camera("c") == names.default


def test_a_pattern_of_a_camera_takes_the_place_of_the_preset_for_all():
    names = names_of(RULES)
    assert names.for_camera("yard").preset is None
    assert names.for_camera("yard").pattern is not None


def test_without_a_word_all_names_are_canonical():
    assert names_of("cameras: {a: {}}").is_canonical
    assert Names().is_canonical
    assert not names_of("", NameSettings(timezone="Europe/Berlin")).is_canonical
    assert not names_of(RULES).is_canonical


def test_two_ways_of_naming_that_fit_one_path_are_told():
    names = names_of(
        """\
cameras:
  a: {names: {pattern: '{camera}/*_{time:%Y%m%d%H%M%S}.jpg'}}
  b: {names: {pattern: '*/{camera}_{time:%Y%m%d%H%M%S}.jpg'}}
"""
    )
    with pytest.raises(AmbiguousNameError, match=r"reads a, and .* reads b") as told:
        names.find("a/b_20260131175217.jpg")
    assert "\n" not in str(told.value)
    assert names.find("a/c_20260131175217.jpg").id == "a"
    assert names.find("c/b_20260131175217.jpg").id == "b"
    assert names.find("c/c_20260131175217.jpg") is None


def test_two_ways_of_naming_that_say_the_same_are_no_conflict():
    names = names_of(
        "cameras: {a: {names: {pattern: '{camera}_{time:%Y%m%d%H%M%S}.jpg'}}}",
        NameSettings(pattern="{camera}_{time:%Y%m%d%H%M%S}.*"),
    )
    assert names.find("a_20260131175217.jpg").id == "a"
    assert names.find("b_20260131175217.jpg").id == "b"


def test_names_can_be_sent_to_workers():
    names = names_of(RULES)
    assert pickle.loads(pickle.dumps(names)) == names
    names.find("hall_00_20260131175217.jpg")
    assert pickle.loads(pickle.dumps(names)) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preset: reolnk", "rules.yaml:3: defaults.names.preset: there is no preset 'reolnk'; "
         "did you mean 'reolink'?"),
        ("timezone: Europe/Berln", "rules.yaml:3: defaults.names.timezone: there is no time zone "
         "'Europe/Berln'; did you mean 'Europe/Berlin'?"),
        ("pattern: '{time:%s}.jpg'", "rules.yaml:3: defaults.names.pattern: the pattern "
         "'{time:%s}.jpg' has no {camera}; write {camera} where its name is"),
        ("preset: axis, pattern: '{camera}_{time:%s}.jpg'", "rules.yaml:3: "
         "defaults.names.pattern: is one way of naming, and preset another; keep one of them"),
        ("zone: UTC", "rules.yaml:3: defaults.names.zone: unknown key; "),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(text, message):
    with pytest.raises(RulesError) as refused:
        parse_rules(f"version: 1\ndefaults:\n  names: {{{text}}}\n", "rules.yaml")
    assert str(refused.value).startswith(message)
    with pytest.raises(RulesError) as refused:
        parse_rules(f"version: 1\nstrict_ids: true\nnames: {{{text}}}\n", "rules.yaml")
    assert str(refused.value).startswith(message.replace("defaults.names", "names"))


def test_names_for_all_cameras_are_the_base_of_the_defaults():
    for_all = "names: {preset: reolink, timezone: Europe/Berlin}\n"
    assert names_of(for_all) == names_of(f"defaults: {{{for_all.rstrip()}}}\n")
    names = names_of(f"{for_all}defaults: {{names: {{pattern: '{{camera}}_{{time:%s}}.jpg'}}}}\n")
    assert names.default == NameSettings(None, "{camera}_{time:%s}.jpg", "Europe/Berlin")
    names = names_of(f"{for_all}cameras: {{hall: {{names: {{preset: axis}}}}}}\n")
    assert names.for_camera("hall") == NameSettings("axis", None, "Europe/Berlin")
    text = describe(parse_rules(f"version: 1\n{for_all}", "rules.yaml"))
    assert "names: preset reolink (names), timezone Europe/Berlin (names)" in text


def test_names_are_described_with_the_layer_that_sets_them():
    text = describe(parse_rules("version: 1\n" + RULES, "rules.yaml"))
    assert "names: preset hikvision (cameras.192.168.1.64), timezone Europe/Berlin (default" in text
    assert "names: preset foscam (profiles.old), timezone Europe/Berlin (defaults)" in text


def test_the_command_line_lists_the_presets():
    assert tuple(PRESETS) == NAME_PRESETS
    assert rules.preset_problem("reolink") is None
