"""Names as they are received, and the canonical names under which images are stored."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import PRESETS, Names, NameSettings, parse_rules
from rules.schedule import zone_of
from tests.rules.rendered_names import precision, render
from transforms.parse_filename import parse_file
from transforms.records import reasons
from transforms.records.file_names import (
    InvalidNameError,
    name_prefixes,
    parse_name,
    stored_name,
)
from transforms.records.images import ImageFile, InvalidImage, NamedFile
from transforms.records.received_names import path_below, read_name, top_of
from transforms.records.times import canonical_time

UTC = timezone.utc
NOW = datetime(2038, 1, 1, tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata"])
ANY_TEXT = st.text(st.characters(exclude_categories=()))
CANONICAL_FORMS = (
    "{0:%Y%m%dT%H%M%S.%fZ}",
    "{0:%Y-%m-%dT%H:%M:%S.%f}",
    "{0:%Y-%m-%dT%H-%M-%S.%f+00-00}",
)


@given(
    camera=IDS,
    moment=MOMENTS,
    file=ANY_TEXT | st.builds("{}_{:%Y%m%dT%H%M%S}.jpg".format, IDS, MOMENTS),
)
def test_a_stored_name_is_canonical_and_says_the_camera_and_the_time(camera, moment, file):
    timestamp = canonical_time(moment)
    stored = stored_name(file, camera, timestamp)
    assert parse_name(stored) == (camera, moment)
    assert stored_name(stored, camera, timestamp) == stored
    assert stored.startswith(name_prefixes(camera, timestamp))


@given(
    camera=IDS,
    moment=MOMENTS.filter(lambda moment: moment.year >= 1000),
    form=st.sampled_from(CANONICAL_FORMS),
)
def test_a_canonical_name_is_kept(camera, moment, form):
    file = f"{camera}_{form.format(moment)}.JPEG"
    assert stored_name(file, camera, canonical_time(moment)) == file


@pytest.mark.parametrize(
    ("file", "camera", "timestamp", "stored"),
    [
        ("notes.txt", None, None, "notes.txt"),
        ("a_yesterday.jpg", None, None, "a_yesterday.jpg"),
        ("a_1769903999.jpg", "a", "2026-01-31T23:59:59Z", "a_1769903999.jpg"),
        ("a_20260131235959.jpg", "a", "2026-01-31T23:59:59Z", "a_20260131235959.jpg"),
        ("a_20260131235959.jpg", "a", "2026-01-31T22:59:59Z", "a_20260131T225959Z.jpg"),
        ("A B_00_20260131235959.jpg", "A-B", "2026-01-31T23:59:59.120Z",
         "A-B_20260131T235959.120Z.jpg"),
    ],
)  # fmt: skip
def test_the_name_under_which_an_image_is_stored(file, camera, timestamp, stored):
    assert stored_name(file, camera, timestamp) == stored


@pytest.mark.parametrize(
    ("source", "top"),
    [
        ("s3://b/in", "s3://b/in"),
        ("s3://b/in/", "s3://b/in"),
        ("s3://b", "s3://b"),
        ("s3://b/in/*/2026/*.jpg", "s3://b/in"),
        ("s3://b/in/ca?/x.jpg", "s3://b/in"),
        ("gs://b/in/**", "gs://b/in"),
        ("gs://b/in[12]/x", "gs://b"),
    ],
)
def test_the_folder_of_an_input_in_a_store(source, top):
    assert top_of(source) == top


@pytest.mark.parametrize(
    ("uri", "top", "path"),
    [
        ("/in/a/b.jpg", "/in", "a/b.jpg"),
        ("/in/a/b.jpg", "/in/", "a/b.jpg"),
        ("/b.jpg", "/", "b.jpg"),
        ("/inner/b.jpg", "/in", "b.jpg"),
        ("/elsewhere/b.jpg", "/in", "b.jpg"),
        ("s3://b/in/a/b.jpg", "s3://b/in", "a/b.jpg"),
        ("s3://b/a/b.jpg", "s3://b", "a/b.jpg"),
        ("s3://b/in.jpg", "s3://b/in.jpg", "in.jpg"),
        ("/in/a/b.jpg", None, "b.jpg"),
    ],
)
def test_the_path_below_the_input(uri, top, path):
    assert path_below(uri, top) == path


def read(path: str, *, changed: float | None = None, rules: str = "", **options: str):
    names = parse_rules("version: 1\n" + rules, "rules.yaml").names(NameSettings(**options))
    camera, moment = read_name(path, names, changed)
    return camera, canonical_time(moment)


@pytest.mark.parametrize(
    ("path", "options", "camera", "timestamp"),
    [
        ("Front Door_00_20260131175217.jpg", {"preset": "reolink", "timezone": "Europe/Berlin"},
         "Front-Door", "2026-01-31T16:52:17Z"),
        ("Front Door_00_20260731175217.jpg", {"preset": "reolink", "timezone": "Europe/Berlin"},
         "Front-Door", "2026-07-31T15:52:17Z"),
        ("Front Door_00_20260131175217.jpg", {"preset": "reolink"},
         "Front-Door", "2026-01-31T17:52:17Z"),
        ("192.168.1.64_01_20260131175217123_MOTION_DETECTION.jpg",
         {"preset": "hikvision", "timezone": "Asia/Kolkata"},
         "192.168.1.64", "2026-01-31T12:22:17.123Z"),
        ("yard/20260131_180000.jpg", {"preset": "folders", "timezone": "America/New_York"},
         "yard", "2026-01-31T23:00:00Z"),
        ("cam1_20260131175217.jpg", {"preset": "reolink", "timezone": "Europe/Berlin"},
         "cam1", "2026-01-31T16:52:17Z"),
        ("cam1_20260131175217.jpg", {"timezone": "Europe/Berlin"},
         "cam1", "2026-01-31T16:52:17Z"),
        ("x/cam1_20260131T175217Z.jpg", {"timezone": "Europe/Berlin"},
         "cam1", "2026-01-31T17:52:17Z"),
        ("cam1_1769878337.jpg", {"timezone": "Europe/Berlin"}, "cam1", "2026-01-31T16:52:17Z"),
        ("cam1_20260131T175217+0000.jpg", {"timezone": "Europe/Berlin"},
         "cam1", "2026-01-31T17:52:17Z"),
        ("cam1_20260131T175217+0100.jpg", {"preset": "reolink", "timezone": "Asia/Kolkata"},
         "cam1", "2026-01-31T16:52:17Z"),
        ("cam1_2026-01-31T17-52-17-03-30.jpg", {"preset": "reolink"},
         "cam1", "2026-01-31T21:22:17Z"),
        ("cam1_20260131T175217+01.jpg", {"pattern": "{camera}-{time:%s}.jpg"},
         "cam1", "2026-01-31T16:52:17Z"),
        ("hall 20260131 175217 +0100.jpg",
         {"pattern": "{camera} {time:%Y%m%d %H%M%S %z}.jpg", "timezone": "Asia/Kolkata"},
         "hall", "2026-01-31T16:52:17Z"),
        ("front_door-1769878337.123456-ab12cd.jpg",
         {"preset": "frigate", "timezone": "Asia/Kolkata"},
         "front_door", "2026-01-31T16:52:17.123456Z"),
    ],
)  # fmt: skip
def test_a_received_name_is_read_in_utc(path, options, camera, timestamp):
    assert read(path, **options) == (camera, timestamp)


@pytest.mark.parametrize(
    ("path", "options", "reason", "words"),
    [
        ("Front Door_00_20260131175217.jpg", {}, reasons.BAD_NAME, "is no id"),
        ("Front Door_00_20260131175217.jpg", {"preset": "axis"}, reasons.BAD_NAME,
         "the preset axis does not fit its path, and 'Front Door_00' is no id"),
        ("Front Door_00_20260131175217.png", {"preset": "axis"}, reasons.BAD_NAME,
         "the name does not end in .jpg or .jpeg"),
        ("Front Door_00_20260231175217.jpg", {"preset": "reolink"}, reasons.BAD_TIMESTAMP,
         "no moment"),
        ("cam1_20260131T175217+0100.jpg", {"timezone": "Asia/Kolkata"},
         reasons.TIMESTAMP_NOT_UTC, "offset +0100"),
        ("Front Door_00_00010101000000.jpg",
         {"preset": "reolink", "timezone": "Asia/Kolkata"}, reasons.BAD_TIMESTAMP,
         "before the year 1"),
        ("a_99991231235959.jpg", {"preset": "reolink", "timezone": "America/New_York"},
         reasons.BAD_TIMESTAMP, "after 9999"),
        ("a_99991231T235959-0100.jpg", {"preset": "reolink"}, reasons.BAD_TIMESTAMP,
         "after 9999"),
    ],
)  # fmt: skip
def test_a_name_that_can_not_be_read_has_its_reason(path, options, reason, words):
    with pytest.raises(InvalidNameError) as refused:
        read(path, **options)
    assert refused.value.reason == reason
    assert words in refused.value.detail


def test_the_time_zone_of_a_camera_holds_for_its_canonical_names():
    rules = "cameras: {a: {names: {timezone: Asia/Kolkata}}}"
    assert read("a_20260131175217.jpg", rules=rules) == ("a", "2026-01-31T12:22:17Z")
    assert read("b_20260131175217.jpg", rules=rules) == ("b", "2026-01-31T17:52:17Z")


def test_a_name_that_fits_in_two_ways_is_a_bad_name():
    rules = """\
cameras:
  a: {names: {pattern: '{camera}/*_{time:%Y%m%d%H%M%S}.jpg'}}
  b: {names: {pattern: '*/{camera}_{time:%Y%m%d%H%M%S}.jpg'}}
"""
    with pytest.raises(InvalidNameError, match="two ways of naming") as refused:
        read("a/b_20260131175217.jpg", rules=rules)
    assert refused.value.reason == reasons.BAD_NAME


def test_the_doubled_hour_is_told_by_the_time_of_the_file():
    options = {"preset": "reolink", "timezone": "Europe/Berlin"}
    path = "a_00_20261025023000.jpg"
    for minute in ("00:30", "01:30"):
        moment = datetime.fromisoformat(f"2026-10-25T{minute}:00+00:00")
        expected = ("a", f"2026-10-25T{minute}:00Z")
        assert read(path, changed=moment.timestamp() + 2, **options) == expected
    assert read(path, **options) == ("a", "2026-10-25T00:30:00Z")


FORMS = [(name, form) for name, forms in PRESETS.items() for form in forms]


@given(
    preset_and_form=st.sampled_from(FORMS),
    moment=st.datetimes(datetime(1970, 1, 3), datetime(2037, 12, 1), timezones=st.just(UTC)),
    zone=ZONES,
)
def test_the_forms_of_each_preset_give_the_time_in_utc(preset_and_form, moment, zone):
    preset, form = preset_and_form
    is_unix = "%s" in form
    local = moment.astimezone(UTC if is_unix else zone_of(zone)).replace(tzinfo=None)
    path = render(form, "cam", local, folders="x/")
    names = Names(NameSettings(preset=preset, timezone=zone))
    written = precision(form, local)
    camera, read_moment = read_name(path, names, moment.timestamp())
    assert camera == "cam"
    if "%z" in form:
        return  # Written without its zone: `strftime` of a local time has none.
    shown = read_moment.astimezone(UTC if is_unix else zone_of(zone)).replace(tzinfo=None)
    assert shown == written
    assert abs(read_moment - moment) < timedelta(seconds=1)


@given(path=ANY_TEXT.map(lambda text: f"{text}.jpg"), preset=st.sampled_from(list(PRESETS)))
def test_any_path_is_read_or_has_a_reason(path, preset):
    names = Names(NameSettings(preset=preset, timezone="America/New_York"))
    parsed = parse_file(ImageFile(f"/in/{path}", 1), latest=LAST, names=names, top="/in")
    if isinstance(parsed, InvalidImage):
        assert parsed.reason in (reasons.BAD_NAME, reasons.BAD_TIMESTAMP)
        assert parsed.detail.encode()
    else:
        camera, moment = parse_name(parsed.stored_name)
        assert (camera, canonical_time(moment)) == (parsed.id, parsed.timestamp)


def test_a_file_is_read_by_its_path_and_keeps_its_name():
    names = Names(NameSettings(preset="folders", timezone="Europe/Berlin"))
    file = ImageFile("/ftp/front door/2026/01/31/175217.jpg", 1)
    parsed = parse_file(file, latest=NOW, names=names, top="/ftp")
    assert parsed == NamedFile(file, "front-door", "2026-01-31T16:52:17Z")
    assert parsed.stem == "front-door_20260131T165217Z"
    assert parsed.file.name == "175217.jpg"


def test_an_image_of_the_future_is_stored_canonically_too():
    names = Names(NameSettings(preset="reolink"))
    file = ImageFile("/in/Front Door_00_20400101000000.jpg", 1)
    parsed = parse_file(file, latest=NOW, names=names, top="/in")
    assert isinstance(parsed, InvalidImage)
    assert parsed.reason == reasons.TIMESTAMP_IN_FUTURE
    assert parsed.stored_name == "Front-Door_20400101T000000Z.jpg"
