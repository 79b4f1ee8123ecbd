"""Patterns of file names: what they read, and which of them are refused."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import PRESETS, NameForm, parse_pattern
from rules.camera_ids import camera_id, is_camera_id
from rules.schedule import UnreadableError
from tests.rules.rendered_names import precision, render

TIME = datetime(2026, 1, 31, 17, 52, 17, 123456)
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2068, 12, 31))
CAMERAS = st.from_regex(r"[A-Za-z][A-Za-z0-9 ü.-]{0,20}[A-Za-z]", fullmatch=True)
STARS = st.from_regex(r"[A-Za-z]{1,8}", fullmatch=True)
FORMS = [(name, form) for name, forms in PRESETS.items() for form in forms]


def read(pattern: str, path: str) -> tuple[str, datetime, timedelta | None] | None:
    match = parse_pattern(pattern).match(path)
    if match is None:
        return None
    assert match.id is not None
    assert match.local is not None
    return match.id, match.local, match.offset


@pytest.mark.parametrize(
    ("pattern", "path", "camera", "local"),
    [
        (
            "{camera}/{time:%Y/%m/%d}/{time:%H%M%S}.jpg",
            "front door/2026/01/31/175217.jpg",
            "front-door",
            datetime(2026, 1, 31, 17, 52, 17),
        ),
        (
            "{camera}/{time:%Y/%m/%d}/*_{time:%H%M%S%3f}.jpg",
            "Front Door/2026/01/31/motion_175217123.JPEG",
            "Front-Door",
            datetime(2026, 1, 31, 17, 52, 17, 123000),
        ),
        (
            "{camera}-{time:%s}.jpg",
            "deep/folders/cam1-1769878337.jpg",
            "cam1",
            datetime(2026, 1, 31, 16, 52, 17),
        ),
        (
            "{time:%Y-%m-%d}/{camera}_{time:%H.%M.%S.%3f}_{sequence}.jpg",
            "2026-01-31/hall_17.52.17.123_0042.jpg",
            "hall",
            datetime(2026, 1, 31, 17, 52, 17, 123000),
        ),
        (
            "img_{time:%d-%b-%Y_%-I-%M-%S%p}_{camera}.jpg",
            "img_31-Jan-2026_5-52-17PM_hall.jpg",
            "hall",
            datetime(2026, 1, 31, 17, 52, 17),
        ),
        (
            "{camera}_{time:%Y-%m-%d_%I-%M%p}.jpg",
            "hall_2026-01-31_12-05am.jpg",
            "hall",
            datetime(2026, 1, 31, 0, 5),
        ),
        (
            "{camera}_{time:%y%j%H%M%S}.jpg",
            "hall_24366235959.jpg",
            "hall",
            datetime(2024, 12, 31, 23, 59, 59),
        ),
        (
            "{time:%Y%m%d}/{camera}_{time:%Y%m%d%H%M}",
            "20260131/hall_202601311752.jpg",
            "hall",
            datetime(2026, 1, 31, 17, 52),
        ),
        ("{camera}/{camera}_{time:%F_%T}.jpg", "a/a_2026-01-31_01:02:03.jpg", "a",
         datetime(2026, 1, 31, 1, 2, 3)),
        ("**/{camera}/{time:%Y%m%d%H%M%S}.*", "x/y/a/20260131010203.jpg", "a",
         datetime(2026, 1, 31, 1, 2, 3)),
        ("/{camera}_{time:%Y%m%d%H%M%S}.jpg", "cam_1_20260131010203.jpg", "cam_1",
         datetime(2026, 1, 31, 1, 2, 3)),
        ("{camera}_100%_{time:%Y%m%d%H%M%S%%}.jpg", "a_100%_20260131010203%.jpg", "a",
         datetime(2026, 1, 31, 1, 2, 3)),
    ],
)  # fmt: skip
def test_a_pattern_reads_camera_and_time(pattern, path, camera, local):
    found = read(pattern, path)
    assert found is not None
    assert found[:2] == (camera, local)


@pytest.mark.parametrize(
    ("offset", "minutes"),
    [("Z", 0), ("+0000", 0), ("+01:00", 60), ("-0330", -210), ("+05-45", 345)],
)
def test_an_offset_is_read(offset, minutes):
    found = read("{camera}_{time:%Y%m%dT%H%M%S%z}.jpg", f"hall_20260131T175217{offset}.jpg")
    assert found == ("hall", TIME.replace(microsecond=0), timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{camera}/{time:%Y%m%d%H%M%S}.jpg", "a/b/20260131010203.jpg"),
        ("{camera}/{time:%Y%m%d%H%M%S}.jpg", "20260131010203.jpg"),
        ("{camera}/*/{time:%Y%m%d%H%M%S}.jpg", "a/b/c/20260131010203.jpg"),
        ("{camera}_{time:%Y%m%d%H%M%S}.jpg", "a_20260131010203.png"),
        ("{camera}_{time:%Y%m%d%H%M%S}.jpg", "a_202601310102031.jpg"),
        ("{camera}_{time:%Y%m%d%H%M%S}.jpg", "a_2026013101020.jpg"),
        ("{camera}_{time:%Y%m%d%H%M%S}.jpg", "_20260131010203.jpg"),
        ("{camera}_{time:%Y%m%d%H%M%S}.jpg", "a_202\N{ARABIC-INDIC DIGIT SIX}0131010203.jpg"),
        ("{camera}_{time:%Y%m%d%H%M%S}.jpg", "a_20260131010203.jpg\n"),
        ("{time:%Y%m%d}/{camera}_{time:%Y%m%d%H%M}", "20260131/hall_202602011752.jpg"),
        ("{camera}/{camera}_{time:%F_%T}.jpg", "a/b_2026-01-31_01:02:03.jpg"),
        ("a.b_{camera}_{time:%Y%m%d%H%M%S}", "axb_hall_20260131010203.jpg"),
        ("{camera}_{time:%Y%m%d%H%M%S}.jpg", "a" * 2000 + "_20260131010203.jpg"),
    ],
)
def test_a_path_of_another_form_does_not_fit(pattern, path):
    assert parse_pattern(pattern).match(path) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "*_*_{camera}_{sequence}_{time:%Y%m%d%H%M%S}.jpg",
        "*_*/{camera}_{sequence}_*_{time:%Y%m%d%H%M%S}.jpg",
        *(form for forms in PRESETS.values() for form in forms),
    ],
)
def test_a_hostile_name_costs_little(pattern):
    parsed = parse_pattern(pattern)
    started = time.process_time()
    for text in ("_1" * 127, "1_" * 127, "(_" * 127, "a/" * 500, ".1" * 127, "-1" * 127):
        parsed.match(f"{text}.jpg")
        parsed.match(f"{'_1' * 127}/{text}.jpg")
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "text",
    ["20261301010203", "20260229010203", "20260131240000", "20260131236000", "00000131010203"],
)
def test_a_time_that_is_no_moment_is_told(text):
    match = parse_pattern("{camera}_{time:%Y%m%d%H%M%S}.jpg").match(f"a_{text}.jpg")
    assert match is not None
    assert match.local is None
    assert match.problem


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{camera}_{time:%Y%j%H%M%S}.jpg", "a_2025366000000.jpg"),
        ("{camera}_{time:%Y%j%H%M%S}.jpg", "a_2025000000000.jpg"),
        ("{camera}_{time:%Y%m%d%I%M%p}.jpg", "a_202601311301AM.jpg"),
        ("{camera}_{time:%Y%m%d%I%M%p}.jpg", "a_202601310001PM.jpg"),
        ("{camera}_{time:%Y%b%d%H%M}.jpg", "a_2026Foo011301.jpg"),
        ("{camera}_{time:%Y%m%d%H%M%z}.jpg", "a_202601311301+2400.jpg"),
        ("{camera}_{time:%Y%m%d%H%M%z}.jpg", "a_202601311301+0060.jpg"),
    ],
)
def test_a_day_an_hour_or_an_offset_that_does_not_exist_is_told(pattern, path):
    match = parse_pattern(pattern).match(path)
    assert match is not None
    assert match.local is None
    assert match.problem


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "has no {camera}"),
        ("{time:%Y%m%d%H%M%S}.jpg", "has no {camera}"),
        ("{camera}.jpg", "has no {time}"),
        ("{camera}_{time}.jpg", "write its format too"),
        ("{camera}_{time:}.jpg", "without a format"),
        ("{camera}_{time:now}.jpg", "has no {time}"),
        ("{camera}_{time:%Q}.jpg", "%Q, which can't be read"),
        ("{camera}_{time:%Y%m%d%H%M%S%}.jpg", "the code %, which can't be read"),
        ("{camera}_{time:%-Y%m%d%H%M%S}.jpg", "%-Y, which can't be read"),
        ("{camera}_{time:%H%M%S}.jpg", "%Y and %m and %d missing"),
        ("{camera}_{time:%Y%m%d}.jpg", "%H and %M missing"),
        ("{camera}_{time:%Y%d%H%M}.jpg", "%m missing"),
        ("{camera}_{time:%Y%m%d%I%M%S}.jpg", "one of %I and %p"),
        ("{camera}_{time:%Y%m%d%H%p%M%S}.jpg", "one of %I and %p"),
        ("{camera}_{time:%Y%y%m%d%H%M%S}.jpg", "by %Y and %y"),
        ("{camera}_{time:%Y%m%d%H%M%S%f}_{time:%3f}.jpg", "by %3f and %f"),
        ("{camera}_{time:%Y%j%m%H%M%S}.jpg", "the day by %j and by %m or %d"),
        ("{camera}_{time:%s%Y}.jpg", "has %s, the whole time"),
        ("{camera}_{when}_{time:%s}.jpg", "unknown field {when}"),
        ("{cam}_{time:%s}.jpg", "did you mean 'camera'?"),
        ("{Camera}_{time:%s}.jpg", "did you mean 'camera'?"),
        ("{camera_{time:%s}.jpg", "has a single {"),
        ("camera}_{time:%s}.jpg", "has a single }"),
        ("{camera}{sequence}_{time:%s}.jpg", "nothing between"),
        ("*{camera}_{time:%s}.jpg", "nothing between"),
        ("{camera}_{sequence}_{sequence}_{time:%s}.jpg", "{sequence} twice"),
        ("{camera}_{time:%s}.png", "ends in .png"),
        ("{camera}_**_{time:%s}.jpg", "write **/"),
        ("a**/{camera}_{time:%s}.jpg", "write **/"),
        ("*_*_*_*_{camera}_{time:%s}.jpg", "too many parts of any length"),
        ("*_*_*/*_*_{camera}_{time:%s}.jpg", "too many parts of any length"),
    ],
)
def test_a_pattern_that_can_not_be_is_refused_in_one_line(pattern, words):
    with pytest.raises(UnreadableError) as refused:
        parse_pattern(pattern)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.remedy


@given(st.text("{}*/%camertime:Ydnsqu_. \n") | st.text())
def test_any_text_is_a_pattern_or_is_refused(text):
    try:
        pattern = parse_pattern(text)
    except UnreadableError:
        return
    assert pattern.match("no/such/path") is None


@given(path=st.text(st.characters(exclude_categories=())).map(lambda text: f"{text}.jpg"))
def test_any_path_is_read_or_not(path):
    for preset in PRESETS:
        match = NameForm(preset).match(path)
        assert match is None or is_camera_id(match.id)


SEPARATORS = st.sampled_from(["_", "-", "@", " ", "#", "/", "/_"])
DATES = st.sampled_from(["%Y%m%d", "%Y-%m-%d", "%y.%m.%d", "%Y%j", "%d-%b-%Y", "%F", "%Y/%m/%d"])
CLOCKS = st.sampled_from(["%H%M%S", "%H-%M-%S", "%I.%M.%S%p", "%H%M%S%3f", "%T.%f", "%H/%M/%S"])


@st.composite
def patterns(draw):
    time = draw(
        st.tuples(DATES, CLOCKS).map(list) | st.sampled_from([["%s"], ["%s.%f"], ["%s%3f"]])
    )
    fields = [f"{{time:{form}}}" for form in time]
    fields += ["{camera}", *draw(st.sampled_from([[], ["{sequence}"], ["*"], ["{sequence}", "*"]]))]
    fields = draw(st.permutations(fields))
    separators = draw(st.lists(SEPARATORS, min_size=len(fields), max_size=len(fields)))
    pairs = zip(fields, separators, strict=True)
    return draw(st.sampled_from(["", "**/"])) + "".join(f"{f}{s}" for f, s in pairs) + "end.jpg"


@given(
    pattern=patterns(),
    camera=st.from_regex(r"[A-Za-z]{1,12}", fullmatch=True),
    time=TIMES,
    sequence=st.from_regex(r"[0-9]{1,9}", fullmatch=True),
    star=STARS,
    folders=st.sampled_from(["", "a/", "2026/01/"]),
)
def test_what_is_written_by_a_pattern_is_read_back(
    pattern, camera, time, sequence, star, folders
):  # fmt: skip
    path = render(pattern, camera, time, sequence=sequence, star=star, folders=folders)
    found = read(pattern, path if "/" in pattern else f"{folders}{path}")
    assert found is not None, path
    assert found[:2] == (camera, precision(pattern, time))


@pytest.mark.parametrize(("preset", "form"), FORMS)
@given(camera=CAMERAS, time=TIMES, channel=st.integers(0, 64), star=STARS)
def test_the_forms_of_each_preset_are_read_back(preset, form, camera, time, channel, star):
    folders = "2026/x/" if preset != "folders" else "x/"
    path = render(
        form, camera, time, channel=f"{channel:03d}", sequence="00042", star=star, folders=folders
    )
    match = NameForm(preset).match(path)
    assert match is not None, path
    has_channel = "{channel}" in form and channel > 1
    assert match.id == camera_id(camera, channel if has_channel else None), path
    assert match.local == precision(form, time), path


def documented() -> list[tuple[str, str, str, str]]:
    text = (Path(__file__).parents[2] / "docs" / "names.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| `(\w+)` \| `([^`]+)` \| `([^`]+)` \| (\S+) \| \S.* \|$", re.M)
    return row.findall(text)


@pytest.mark.parametrize(("preset", "path", "camera", "time"), documented())
def test_the_documented_names_of_a_preset_are_read_so(preset, path, camera, time):
    match = NameForm(preset).match(path)
    assert match is not None
    expected = datetime.fromisoformat(time)
    assert match.id == camera
    assert (match.local, match.offset) == (expected.replace(tzinfo=None), expected.utcoffset())


def test_every_preset_and_form_is_documented():
    rows = documented()
    assert list(dict.fromkeys(row[0] for row in rows)) == list(PRESETS)
    for preset, form in FORMS:
        if preset != "folders":
            paths = [row[1] for row in rows if row[0] == preset]
            assert any(parse_pattern(form).match(path) for path in paths), form


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Front Door", "Front-Door"),
        ("front_door.2", "front_door.2"),
        ("Haustür", "Haustur"),
        ("  Back   Yard! ", "Back-Yard"),
        ("_x", "x"),
        ("192.168.1.64", "192.168.1.64"),
        ("fe80::1", "fe80-1"),
        ("a" * 70, "a" * 64),
        ("门", None),
        ("---", None),
        ("", None),
    ],
)
def test_a_name_becomes_an_id(name, expected):
    assert camera_id(name) == expected


@pytest.mark.parametrize(("channel", "expected"), [(0, "a"), (1, "a"), (2, "a_02"), (16, "a_16")])
def test_a_channel_is_a_camera_of_its_own_from_the_second_on(channel, expected):
    assert camera_id("a", channel) == expected


@given(name=st.text(), channel=st.none() | st.integers(0, 10**6))
def test_what_becomes_of_any_name_is_an_id_and_stays_it(name, channel):
    made = camera_id(name, channel)
    if made is not None:
        assert is_camera_id(made)
        assert camera_id(made) == made
