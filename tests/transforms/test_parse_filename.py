from datetime import datetime, timedelta, timezone

import apache_beam as beam
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rules import Names, NameSettings
from transforms.parse_filename import ParseFilename, parse_file
from transforms.records import reasons
from transforms.records.file_names import (
    InvalidNameError,
    name_prefixes,
    parse_name,
    parse_timestamp,
)
from transforms.records.images import ImageFile, InvalidImage, NamedFile
from transforms.records.text import printable
from transforms.records.times import canonical_time, parse_time
from transforms.runtime.counters import counted

UTC = timezone.utc
LAST_SECOND = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
NOW = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("20260131T235959Z", "2026-01-31T23:59:59Z"),
        ("20260131T235959", "2026-01-31T23:59:59Z"),
        ("20260131T235959.5Z", "2026-01-31T23:59:59.500Z"),
        ("20260131T235959.120", "2026-01-31T23:59:59.120Z"),
        ("20260131T235959.000000Z", "2026-01-31T23:59:59Z"),
        ("20260131T235959.000001Z", "2026-01-31T23:59:59.000001Z"),
        ("20260131T235959.123456Z", "2026-01-31T23:59:59.123456Z"),
        ("2026-01-31T23:59:59Z", "2026-01-31T23:59:59Z"),
        ("2026-01-31T23:59:59", "2026-01-31T23:59:59Z"),
        ("2026-01-31T23:59:59.25Z", "2026-01-31T23:59:59.250Z"),
        ("2026-01-31T23-59-59Z", "2026-01-31T23:59:59Z"),
        ("2026-01-31T23-59-59", "2026-01-31T23:59:59Z"),
        ("2026-01-31T23-59-59.0001Z", "2026-01-31T23:59:59.000100Z"),
        ("20260131T235959+0000", "2026-01-31T23:59:59Z"),
        ("20260131T235959-0000", "2026-01-31T23:59:59Z"),
        ("20260131T235959+00", "2026-01-31T23:59:59Z"),
        ("2026-01-31T23:59:59+00:00", "2026-01-31T23:59:59Z"),
        ("2026-01-31T23-59-59+00-00", "2026-01-31T23:59:59Z"),
        ("20260131235959", "2026-01-31T23:59:59Z"),
        ("20260131235959123", "2026-01-31T23:59:59.123Z"),
        ("20260131235959000", "2026-01-31T23:59:59Z"),
        ("00010101000000", "0001-01-01T00:00:00Z"),
        ("1769903999", "2026-01-31T23:59:59Z"),
        ("1769903999123", "2026-01-31T23:59:59.123Z"),
        ("0000000000", "1970-01-01T00:00:00Z"),
        ("20240229T000000Z", "2024-02-29T00:00:00Z"),
        ("00010101T000000Z", "0001-01-01T00:00:00Z"),
    ],
)
def test_every_form_of_a_timestamp_gives_its_canonical_time(text, canonical):
    assert canonical_time(parse_timestamp(text)) == canonical


CAPTURE_TIMES = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))
FORMS = ("{0:%Y%m%dT%H%M%S}", "{0:%Y-%m-%dT%H:%M:%S}", "{0:%Y-%m-%dT%H-%M-%S}")
ZONES = ("", "Z", "+00", "-0000", "+00:00", "-00-00")


@given(
    capture_time=CAPTURE_TIMES,
    form=st.sampled_from(FORMS),
    decimals=st.integers(0, 6),
    zone=st.sampled_from(ZONES),
)
def test_a_name_begins_as_names_of_its_capture_time_do(capture_time, form, decimals, zone):
    text = form.format(capture_time).rjust(len(form.format(datetime(2000, 1, 1))), "0")
    fraction = f".{capture_time.microsecond:06d}"[: decimals + 1] if decimals else ""
    name = f"hall_{text}{fraction}{zone}.jpg"
    camera, parsed = parse_name(name)
    assert name.startswith(name_prefixes(camera, canonical_time(parsed)))


@given(milliseconds=st.integers(0, 9_999_999_999_999))
def test_a_name_in_unix_time_begins_so_too(milliseconds):
    for text in (f"{milliseconds:013d}", f"{milliseconds // 1000:010d}"):
        camera, parsed = parse_name(f"hall_{text}.jpg")
        assert f"hall_{text}.jpg".startswith(name_prefixes(camera, canonical_time(parsed)))


@given(capture_time=CAPTURE_TIMES, has_milliseconds=st.booleans())
def test_a_name_in_digits_gives_its_capture_time_and_begins_so_too(capture_time, has_milliseconds):
    unit = 1000 if has_milliseconds else 1_000_000
    capture_time -= timedelta(microseconds=capture_time.microsecond % unit)
    text = f"{capture_time:%Y%m%d%H%M%S}".rjust(14, "0")
    text += f"{capture_time.microsecond // 1000:03d}" if has_milliseconds else ""
    camera, parsed = parse_name(f"hall_{text}.jpg")
    assert (camera, parsed) == ("hall", capture_time.replace(tzinfo=UTC))
    assert f"hall_{text}.jpg".startswith(name_prefixes(camera, canonical_time(parsed)))


def test_there_are_few_prefixes():
    assert name_prefixes("hall", "2026-01-31T23:59:59.120Z") == (
        "hall_20260131T235959",
        "hall_2026-01-31T23:59:59",
        "hall_2026-01-31T23-59-59",
        "hall_20260131235959",
        "hall_1769903999",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("20260131T235959+0100", reasons.TIMESTAMP_NOT_UTC),
        ("20260131T235959-0030", reasons.TIMESTAMP_NOT_UTC),
        ("20260131T235959+01", reasons.TIMESTAMP_NOT_UTC),
        ("2026-01-31T23:59:59+05:30", reasons.TIMESTAMP_NOT_UTC),
        ("2026-01-31T23-59-59-08-00", reasons.TIMESTAMP_NOT_UTC),
        ("", reasons.BAD_TIMESTAMP),
        ("yesterday", reasons.BAD_TIMESTAMP),
        ("20260131", reasons.BAD_TIMESTAMP),
        ("20260131235959Z", reasons.BAD_TIMESTAMP),
        ("20260131235959.5", reasons.BAD_TIMESTAMP),
        ("20260131235959+00", reasons.BAD_TIMESTAMP),
        ("202601312359591", reasons.BAD_TIMESTAMP),
        ("2026013123595912", reasons.BAD_TIMESTAMP),
        ("202601312359591234", reasons.BAD_TIMESTAMP),
        ("20260132000000", reasons.BAD_TIMESTAMP),
        ("20260131240000000", reasons.BAD_TIMESTAMP),
        ("00000101000000", reasons.BAD_TIMESTAMP),
        ("20260131T2359Z", reasons.BAD_TIMESTAMP),
        ("20260131t235959z", reasons.BAD_TIMESTAMP),
        ("20260131 235959", reasons.BAD_TIMESTAMP),
        ("20260229T000000Z", reasons.BAD_TIMESTAMP),
        ("20261301T000000Z", reasons.BAD_TIMESTAMP),
        ("20260131T240000Z", reasons.BAD_TIMESTAMP),
        ("20260131T235960Z", reasons.BAD_TIMESTAMP),
        ("00000101T000000Z", reasons.BAD_TIMESTAMP),
        ("20260131T235959.Z", reasons.BAD_TIMESTAMP),
        ("20260131T235959.1234567Z", reasons.BAD_TIMESTAMP),
        ("20260131T235959,5Z", reasons.BAD_TIMESTAMP),
        ("20260131T23:59:59Z", reasons.BAD_TIMESTAMP),
        ("2026-01-31T235959Z", reasons.BAD_TIMESTAMP),
        ("2026-01-31T23:59-59Z", reasons.BAD_TIMESTAMP),
        ("2026-0131T23:59:59Z", reasons.BAD_TIMESTAMP),
        ("20260131T235959Z ", reasons.BAD_TIMESTAMP),
        ("20260131T235959Z\n", reasons.BAD_TIMESTAMP),
        ("176990399", reasons.BAD_TIMESTAMP),
        ("17699039991", reasons.BAD_TIMESTAMP),
        ("17699039991234", reasons.BAD_TIMESTAMP),
        ("-1769903999", reasons.BAD_TIMESTAMP),
        ("1769903999.5", reasons.BAD_TIMESTAMP),
        ("١٧٦٩٩٠٣٩٩٩", reasons.BAD_TIMESTAMP),
        ("2026\N{FULLWIDTH DIGIT ZERO}131T235959Z", reasons.BAD_TIMESTAMP),
    ],
)
def test_an_invalid_timestamp_is_refused_with_its_reason(text, reason):
    with pytest.raises(InvalidNameError) as refused:
        parse_timestamp(text)
    assert refused.value.reason == reason
    assert refused.value.detail


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("front-door_20260131T235959Z.jpg", "front-door"),
        ("front-door_20260131T235959Z.JPG", "front-door"),
        ("front-door_20260131T235959Z.jpeg", "front-door"),
        ("front-door_20260131T235959Z.JpEg", "front-door"),
        ("north_gate_2_20260131T235959Z.jpg", "north_gate_2"),
        ("7_20260131T235959Z.jpg", "7"),
        ("a.b-c__20260131T235959Z.jpg", "a.b-c_"),
        (f"{'a' * 64}_20260131T235959Z.jpg", "a" * 64),
    ],
)
def test_the_id_ends_before_the_last_underscore(name, camera):
    assert parse_name(name) == (camera, LAST_SECOND)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "front-door_20260131T235959Z",
        "front-door_20260131T235959Z.png",
        "front-door_20260131T235959Z.jpg.txt",
        "front-door_20260131T235959Z.jpg\n",
        "front-door_20260131T235959Z.jp\N{KELVIN SIGN}g",
        "front-door-20260131T235959Z.jpg",
        ".jpg",
        "_20260131T235959Z.jpg",
        f"{'a' * 65}_20260131T235959Z.jpg",
        ".hidden_20260131T235959Z.jpg",
        "-dash_20260131T235959Z.jpg",
        "_under_20260131T235959Z.jpg",
        "front door_20260131T235959Z.jpg",
        "front\ndoor_20260131T235959Z.jpg",
        "caméra_20260131T235959Z.jpg",
        "cam\N{ARABIC-INDIC DIGIT ONE}_20260131T235959Z.jpg",
        "a\udcff_20260131T235959Z.jpg",
        "a\\b_20260131T235959Z.jpg",
    ],
)
def test_a_name_of_another_form_is_a_bad_name(name):
    with pytest.raises(InvalidNameError) as refused:
        parse_name(name)
    assert refused.value.reason == reasons.BAD_NAME
    assert printable(refused.value.detail) == refused.value.detail


@pytest.mark.parametrize(
    ("microsecond", "fraction"),
    [(0, ""), (1, ".000001"), (1000, ".001"), (500000, ".500"), (123456, ".123456")],
)
def test_the_canonical_time_has_decimals_only_where_the_fraction_is_not_zero(microsecond, fraction):
    capture_time = LAST_SECOND.replace(microsecond=microsecond)
    assert canonical_time(capture_time) == f"2026-01-31T23:59:59{fraction}Z"


@pytest.mark.parametrize(
    "capture_time",
    [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))],
)
def test_a_time_that_is_not_in_utc_has_no_canonical_form(capture_time):
    with pytest.raises(ValueError, match="not in UTC"):
        canonical_time(capture_time)


@given(st.datetimes(timezones=st.just(UTC)))
@example(datetime.min.replace(tzinfo=UTC))
@example(datetime.max.replace(tzinfo=UTC))
def test_a_canonical_time_is_read_back_as_the_same_time(capture_time):
    canonical = canonical_time(capture_time)
    assert parse_timestamp(canonical) == capture_time
    assert parse_time(canonical) == capture_time
    assert canonical_time(parse_time(canonical)) == canonical


ANY_TEXT = st.text(st.characters(exclude_categories=()))
ANY_NAME = (
    ANY_TEXT
    | ANY_TEXT.map(lambda text: f"cam_{text}.jpg")
    | st.from_regex(r"[a-z]_[0-9TZ:.+-]{8,30}\.jpg", fullmatch=True)
)


@given(ANY_NAME)
def test_any_text_is_a_name_or_raises_invalid_name(name):
    try:
        camera, capture_time = parse_name(name)
    except InvalidNameError as invalid:
        refused = invalid
    else:
        assert name.startswith(f"{camera}_")
        assert capture_time.utcoffset() == timedelta(0)
        return
    assert refused.reason in (
        reasons.BAD_NAME,
        reasons.BAD_TIMESTAMP,
        reasons.TIMESTAMP_NOT_UTC,
    )
    assert refused.detail.encode()  # Every JSON reader takes it.


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hall_20260201T235959Z.jpg", None),
        ("hall_20260202T000000Z.jpg", None),
        ("hall_20260202T000000.000001Z.jpg", reasons.TIMESTAMP_IN_FUTURE),
        ("hall_9999999999.jpg", reasons.TIMESTAMP_IN_FUTURE),
        ("attic_20260131T235959Z.jpg", reasons.UNKNOWN_CAMERA),
        ("attic_9999999999.jpg", reasons.TIMESTAMP_IN_FUTURE),
        ("attic_never.jpg", reasons.BAD_TIMESTAMP),
    ],
)
def test_future_images_and_unknown_cameras_are_refused(name, reason):
    file = ImageFile(f"/in/{name}", 17)
    parsed = parse_file(file, latest=NOW + timedelta(hours=24), is_known={"hall"}.__contains__)
    if reason is None:
        assert isinstance(parsed, NamedFile)
    else:
        assert isinstance(parsed, InvalidImage)
        assert (parsed.file, parsed.reason, parsed.size_bytes) == (file, reason, 17)


def test_without_strict_ids_every_id_is_accepted():
    file = ImageFile("/in/attic_20260131T235959Z.jpg", 1)
    assert parse_file(file, latest=NOW) == NamedFile(file, "attic", "2026-01-31T23:59:59Z")


def test_the_transform_parts_good_names_from_bad_ones(run_pipeline):
    names = [
        "hall_20260131T235959Z.jpg",
        "hall_1769903999.JPEG",
        "hall_20260301T000000Z.jpg",
        "attic_20260131T235959Z.jpg",
        "notes.txt",
        "bad\udcff\n.jpg",
    ]

    def build(pipeline):
        files = pipeline | beam.Create([ImageFile(f"/in/{name}", 1) for name in names])
        outputs = files | ParseFilename(clock=lambda: NOW, is_known={"hall"}.__contains__)
        return {tag: outputs[tag] for tag in ("named", "invalid")}

    result, results = run_pipeline(build)
    key = "hall\n2026-01-31T23:59:59Z"
    assert sorted((key, named.file.name) for key, named in results["named"]) == [
        (key, "hall_1769903999.JPEG"),
        (key, "hall_20260131T235959Z.jpg"),
    ]
    assert {image.file.name: image.reason for _, image in results["invalid"]} == {
        "hall_20260301T000000Z.jpg": reasons.TIMESTAMP_IN_FUTURE,
        "attic_20260131T235959Z.jpg": reasons.UNKNOWN_CAMERA,
        "notes.txt": reasons.BAD_NAME,
        "bad\udcff\n.jpg": reasons.BAD_NAME,
    }
    assert len({key for key, _ in results["invalid"]}) == 4
    assert counted(result)["images.found"] == len(names)


def test_the_transform_reads_paths_below_the_input_and_groups_by_stored_names(run_pipeline):
    names = [
        *("yard/20260131_235959.jpg", "gate/20260131_235959.jpg", "20260131_235959.jpg"),
        *("hut/29990101_000000.jpg", "hut/x/29990101000000.jpg"),
    ]

    def build(pipeline):
        files = pipeline | beam.Create([ImageFile(f"/in/{name}", 1) for name in names])
        settings = NameSettings(preset="folders", timezone="Asia/Kolkata")
        outputs = files | ParseFilename(clock=lambda: NOW, names=lambda: Names(settings), top="/in")
        return {tag: outputs[tag] for tag in ("named", "invalid")}

    _, results = run_pipeline(build)
    assert sorted(key for key, _ in results["named"]) == [
        "gate\n2026-01-31T18:29:59Z",
        "yard\n2026-01-31T18:29:59Z",
    ]
    assert sorted(image.reason for _, image in results["invalid"]) == [
        *(reasons.BAD_TIMESTAMP, reasons.TIMESTAMP_IN_FUTURE, reasons.TIMESTAMP_IN_FUTURE)
    ]
    keys = {image.file.uri: key for key, image in results["invalid"]}
    assert keys["/in/hut/29990101_000000.jpg"] == keys["/in/hut/x/29990101000000.jpg"]


def test_a_clock_skew_of_centuries_accepts_any_time(run_pipeline):
    def build(pipeline):
        files = pipeline | beam.Create([ImageFile("/in/hall_99991231T235959Z.jpg", 1)])
        outputs = files | ParseFilename(max_clock_skew=timedelta(days=4_000_000))
        return {"named": outputs.named}

    _, results = run_pipeline(build)
    assert [named.timestamp for _, named in results["named"]] == ["9999-12-31T23:59:59Z"]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("a.txt", "a.txt", True),
        ("a.txt", "a.txt.json", True),
        ("a.txt.json", "a.txt.json.json", True),
        ("a.txt", "b.txt", False),
        ("a.json.txt", "a.txt", False),
    ],
)
def test_a_name_and_the_name_of_its_record_are_grouped(run_pipeline, first, second, together):
    def build(pipeline):
        files = pipeline | beam.Create(
            [ImageFile(f"/{n}/{name}", 1) for n, name in enumerate((first, second))]
        )
        return {"invalid": (files | ParseFilename()).invalid}

    _, results = run_pipeline(build)
    assert (len({key for key, _ in results["invalid"]}) == 1) is together


def test_a_negative_clock_skew_is_refused():
    with pytest.raises(ValueError, match="negative"):
        ParseFilename(max_clock_skew=timedelta(seconds=-1))
