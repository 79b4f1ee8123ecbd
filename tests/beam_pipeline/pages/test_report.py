"""The command `report`: what it gathers, and what it writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline import cli
from beam_pipeline.fleet.output_scan import OutputScan
from beam_pipeline.fleet.pruning import Pruning
from beam_pipeline.pages.report import page, write_report
from beam_pipeline.pages.report.gathering import (
    AlertRecord,
    Fleet,
    ReportOptions,
    gather,
    heat_map,
)
from beam_pipeline.pages.report.incidents import find_incidents
from beam_pipeline.pages.report.page import make_page
from rules import Retention, parse_rules
from tests.beam_pipeline.fleets import PICTURE, SHA256, write_fleet
from tests.transforms.archives import seen
from transforms.records.count_rows import CountRow
from transforms.records.images import JudgedImage
from transforms.storage import stores

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(1)</script>\u202e"
NIGHT = [
    seen("hall", "2026-01-31T10:00:00Z", ("person", 0.9), sha256=SHA256),
    seen("hall", "2026-01-31T10:01:00Z", ("person", 0.6), ("car", 0.8), sha256=SHA256),
    seen("hall", "2026-01-31T12:02:00Z", ("car", 0.4)),
    seen("gate", "2026-01-31T10:00:00Z", ("car", 0.7)),
]
LAST_WEEK = seen("yard", "2026-01-24T10:00:00Z", ("person", 0.9))
INVALID = [
    ("duplicate", "hall_20260131T100000Z-0123abcd.jpg", "other bytes"),
    ("not_jpeg", "gate_20260131T110000Z.jpg", "a PNG"),
    ("not_jpeg", "gate_20260124T110000Z.jpg", "a PNG of last week"),
    ("bad_name", "holiday.jpg", "no underscore"),
    ("timestamp_in_future", "hall_20990101T000000Z.jpg", "ahead of the clock"),
]


def at_home(judged: JudgedImage) -> list[Mapping[str, Any]]:
    if judged.image.id == "hall":
        return [
            {"target": "mail", "outcome": "delivered", "detail": ""},
            {"target": "hook", "outcome": "failed", "detail": "HTTP status 500"},
        ]
    return [{"target": None, "outcome": "suppressed", "detail": "in the cooldown of alert abc"}]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A day with alerts, and one alert of the week before."""
    folder = tmp_path / "out"
    write_fleet(folder, [*NIGHT, LAST_WEEK], targets=at_home, invalid=INVALID)
    return folder


def of(output: Path, **options: Any) -> Fleet:
    return gather(OutputScan(str(output)), ReportOptions(**options))


def test_the_last_day_is_shown(output: Path) -> None:
    fleet = of(output)
    rows = {camera.id: camera for camera in fleet.cameras}
    assert {id: row.counted and row.counted.images for id, row in rows.items()} == {
        "hall": 3,
        "gate": 1,
    }
    assert {id: row.invalid for id, row in rows.items()} == {"hall": 2, "gate": 1}
    assert {invalid_images.reason: invalid_images.number for invalid_images in fleet.invalid} == {
        "duplicate": 1,
        "not_jpeg": 1,
        "bad_name": 1,
        "timestamp_in_future": 1,
    }
    assert [(alert.camera, alert.timestamp) for alert in fleet.alerts] == [
        ("hall", "2026-01-31T10:01:00Z"),
        ("hall", "2026-01-31T10:00:00Z"),
        ("gate", "2026-01-31T10:00:00Z"),
    ]
    assert fleet.suppressed == 1
    assert fleet.outcomes == {
        None: {"suppressed": 1},
        "hook": {"failed": 2},
        "mail": {"delivered": 2},
    }
    assert not fleet.problems


def test_another_period_is_shown_on_request(output: Path) -> None:
    fleet = of(output, until=datetime(2026, 1, 25, tzinfo=timezone.utc))
    assert [alert.camera for alert in fleet.alerts] == ["yard"]
    assert {camera.id: camera.counted and camera.counted.images for camera in fleet.cameras} == {
        "yard": 1,
        "gate": None,
        "hall": None,  # The picture from the future: its time can't be believed.
    }


@pytest.mark.parametrize(
    ("end", "is_shown"), [(None, True), (datetime(2026, 1, 31, 13, tzinfo=timezone.utc), False)]
)
def test_an_invalid_image_later_than_all_counts_is_shown_unless_the_period_has_an_end(
    tmp_path: Path, end: datetime | None, is_shown: bool
) -> None:
    later = ("not_jpeg", "gate_20260131T235900Z.jpg", "a PNG of the last minute")
    write_fleet(tmp_path, NIGHT, invalid=[later])
    fleet = of(tmp_path, until=end)
    assert {camera.id: camera.invalid for camera in fleet.cameras} == {"hall": 0, "gate": is_shown}
    assert ("a PNG of the last minute" in make_page(fleet)) == is_shown


def test_cameras_look_normal_only_where_all_checks_were_made(output: Path) -> None:
    normal, unchecked = "every camera looks normal", "does not check for blind cameras"
    whole, part = (make_page(of(output, each_image=each_image)) for each_image in (True, False))
    assert (normal in whole, unchecked in whole) == (True, False)
    assert (normal in part, unchecked in part) == (False, True)
    assert "The checks of this page have no findings." in part


def test_alerts_of_other_times_are_not_opened(
    output: Path,
) -> None:
    (old,) = (output / "alerts" / "yard").iterdir()
    old.write_bytes(b"would be a problem")
    assert not of(output).problems
    (output / "final" / "yard").rename(output / "final-of-last-year")
    assert (f"alerts/yard/{old.name}", "not JSON") in of(output).problems


def test_what_cannot_be_read_is_listed_and_the_rest_is_shown(output: Path) -> None:
    for number, bad in enumerate(("[]", "{}", '{"threats": 5}', '{"alert_id": 1, "threats": []}')):
        (output / "alerts" / "hall" / f"{number:032x}.json").write_text(bad)
    (output / "alerts" / "hall" / "note.txt").write_text("not an alert")
    (output / "invalid" / "not_jpeg" / "gate_20260131T110000Z.jpg.json").write_text("{")
    fleet = of(output)
    assert len(fleet.alerts) == 3
    assert [path for path, _ in fleet.problems] == [
        *(f"alerts/hall/{number:032x}.json" for number in range(4)),
        "invalid/not_jpeg/gate_20260131T110000Z.jpg.json",
    ]


def test_a_record_that_belongs_to_no_alert_is_listed_or_shown(output: Path) -> None:
    files = sorted((output / "alerts" / "hall").iterdir())
    for file, more in zip(files, ({"suppressed_by": ["x"]}, {"follow_up": None}), strict=False):
        file.write_text(json.dumps({**json.loads(file.read_bytes()), **more}))
    fleet = of(output)
    assert [path for path, _ in fleet.problems] == [f"alerts/hall/{files[0].name}"]
    assert len(fleet.alerts) == 2
    make_page(fleet)


def test_pruned_alerts_are_not_called_damaged(output: Path) -> None:
    now = datetime.now(timezone.utc) + timedelta(days=400)
    Pruning(str(output), Retention(timedelta(days=30)), now, deletes=True).run()
    text = make_page(of(output))
    assert text.count("No picture: <bdi>deleted by prune</bdi>") == 2
    assert "can't be read" not in text
    assert "<bdi></bdi>" not in text


@pytest.mark.parametrize(
    ("hours", "columns", "by_time_of_day"), [((0, 1, 47), 48, False), ((0, 25, 48), 24, True)]
)
def test_the_heat_map_has_each_hour_or_the_hours_of_the_day(
    hours: tuple[int, ...], columns: int, by_time_of_day: bool
) -> None:
    midnight = datetime(2026, 1, 31, tzinfo=timezone.utc)
    rows = [
        CountRow("hall", start, start + timedelta(minutes=5), 2, 1, 1, 0, {"car": 1})
        for start in (midnight + timedelta(hours=hour, minutes=55) for hour in hours)
    ]
    heat = heat_map(rows)
    assert (len(heat.hours), heat.by_time_of_day) == (columns, by_time_of_day)
    ((id, threats),) = heat.rows
    assert id == "hall"
    expected = {0: 2, 1: 1} if by_time_of_day else {0: 1, 1: 1, 47: 1}
    assert {hour: number for hour, number in enumerate(threats) if number is not None} == expected
    assert heat.most == max(expected.values())


def test_alerts_are_shown_with_their_picture_and_why(output: Path) -> None:
    text = make_page(of(output))
    # Two images of the hall, a minute apart, are one incident.
    assert text.count("data:image/jpeg;base64,") == 1
    assert text.count("No picture: ") == 1  # The gate's picture was not kept.
    assert "and 1 more image, until" in text
    assert "a threat of severity alert, rule defaults.objects.person" in text
    assert '<bdi>hook</bdi>: failed <span class="faint">(<bdi>HTTP status 500</bdi>)' in text


def test_a_copy_of_an_output_has_the_same_page(output: Path, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "elsewhere" / "copy")
    first = Path(write_report(OutputScan(str(output)))).read_bytes()
    shutil.rmtree(output)
    assert (
        Path(write_report(OutputScan(str(tmp_path / "elsewhere" / "copy")))).read_bytes() == first
    )
    assert str(tmp_path).encode() not in first


def test_pictures_are_bounded_and_one_camera_does_not_take_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "PICTURES", 12)
    monkeypatch.setattr(page, "ROWS", 5)
    flood = [
        seen("hall", f"2026-01-31T{hour:02}:{minute:02}:00Z", ("person", 0.9), sha256=SHA256)
        for hour in range(20)
        for minute in range(2 if hour < 17 else 4)
    ]
    quiet = seen("gate", "2026-01-31T00:00:00Z", ("person", 0.9), sha256=SHA256)
    write_fleet(tmp_path, [*flood, quiet])
    text = make_page(of(tmp_path))
    assert text.count("data:image/jpeg") == 12
    assert text.count('alt="Picture of hall') == 11
    assert text.count('alt="Picture of gate') == 1
    # Nine images of the newest three incidents are not the first ones, and there are five rows.
    assert text.split('<section id="each"')[0].count(": not_sent</li>") == 5
    assert text.count("more in alerts/hall/") == 19
    assert "11 earlier incidents" in text
    assert "newest image comes first. Each label has its highest score" in text


def test_hostile_names_and_labels_are_text(tmp_path: Path) -> None:
    image = seen("hall", "2026-01-31T10:00:00Z", (HOSTILE, 0.9), sha256=SHA256)
    label = HOSTILE.replace("\u202e", "\\u202e")
    rules = f'version: 1\ndefaults:\n  objects: {{"{label}": {{}}}}\n'
    invalid = ("bad_name", HOSTILE.replace("/", "_") + ".jpg", HOSTILE)
    hostile = [{"target": HOSTILE, "outcome": "failed", "detail": HOSTILE}]
    write_fleet(tmp_path, [image], rule_text=rules, targets=lambda _: hostile, invalid=[invalid])
    text = make_page(of(tmp_path))
    assert text.count("<script>") == 1
    assert text.count("onerror=alert(1)") > 5
    assert "<img src=x" not in text


def test_a_job_without_a_valid_image_has_a_report(tmp_path: Path) -> None:
    write_fleet(tmp_path, [], invalid=INVALID)
    file = write_report(OutputScan(str(tmp_path)), ReportOptions(missing_ok=True))
    text = Path(file).read_text()
    assert "No images have been counted yet." in text
    assert "a PNG of last week" in text


def test_cameras_of_the_rules_that_sent_nothing_are_shown(output: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\ncameras: {roof: {objects: {person: {}}}}\n")
    target = tmp_path / "page.html"
    arguments = ["report", "--output", str(output), "--rules", str(rules), "--file", str(target)]
    assert cli.main(arguments) == 0
    assert '<span class="mark fault">silent</span>' in target.read_text()
    assert '<th scope="row"><a href="#camera:roof">roof</a></th>' in target.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "{out}/nowhere"], "no counts under {out}/nowhere"),
        (["--output", "{out}", "--output", "{out}/more"], "--file is missing"),
        (["--output", "{out}", "--since", "yesterday"], "--since: not a time like"),
        (
            [
                *("--output", "{out}", "--since", "2026-02-02T00:00:00Z"),
                *("--until", "2026-02-01T00:00:00Z"),
            ],
            "--until: the period is empty",
        ),
        (
            ["--output", "{out}", "--report_period_hours", "1", "--until", "2026-02-01T00:00:00Z"],
            "--report_period_hours: the period is given by",
        ),
        (["--output", "{out}", "--report_period_hours", "nan"], "must be above 0"),
        (["--output", "{out}", "--file", "{out}/counts"], "--file {out}/counts: is a folder"),
    ],
)
def test_what_is_wrong_is_reported_in_one_line(
    output: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert cli.main(["report", *(argument.format(out=output) for argument in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said.format(out=output) in line


def test_a_picture_that_is_another_by_now_is_not_shown(output: Path) -> None:
    for kept in (output / "validated" / "hall").iterdir():
        stores.write_bytes(str(kept), PICTURE + b"x")
    text = make_page(of(output))
    assert "data:image/jpeg" not in text
    assert text.count("No picture: ") == 2


def test_alerts_have_the_local_time_of_their_camera_and_a_place_for_links(tmp_path: Path) -> None:
    rule_text = """version: 1
defaults: {objects: {person: }, timezone: Europe/Berlin}
cameras: {gate: {timezone: Asia/Kathmandu}}
"""
    images = [
        seen(camera, "2026-01-31T10:00:00Z", ("person", 0.9), sha256=SHA256)
        for camera in ("hall", "gate")
    ]
    write_fleet(tmp_path / "out", images, rule_text=rule_text)
    html = make_page(of(tmp_path / "out"))
    for anchor, local in (
        ("hall_20260131T100000Z", "2026-01-31 11:00:00 (Europe/Berlin, UTC+1)"),
        ("gate_20260131T100000Z", "2026-01-31 15:45:00 (Asia/Kathmandu, UTC+5:45)"),
    ):
        assert f'<details class="alert" id="{anchor}">' in html
        assert f'<time datetime="2026-01-31T10:00:00Z">{local}</time>' in html
        assert f"{anchor.partition('_')[0]} at {local}, judged by rules" in html
    assert parse_rules(rule_text, "r").timezone_of("gate") == "Asia/Kathmandu"


def test_an_alert_of_an_earlier_release_has_the_time_zone_of_the_rules(tmp_path: Path) -> None:
    image = seen("hall", "2026-01-31T10:00:00Z", ("person", 0.9), sha256=SHA256)
    write_fleet(tmp_path / "out", [image])
    (record,) = (tmp_path / "out" / "alerts").glob("hall/*.json")
    former = json.loads(record.read_text())
    del former["timezone"], former["local_time"], former["threats"][0]["bbox"]
    record.write_text(json.dumps(former))
    ruleset = parse_rules("version: 1\ndefaults: {timezone: Asia/Tokyo}\n", "r")
    (alert,) = of(tmp_path / "out", ruleset=ruleset).alerts
    assert alert.when == "2026-01-31 19:00:00 (Asia/Tokyo, UTC+9)"
    (alert,) = of(tmp_path / "out").alerts
    assert alert.when == "2026-01-31 10:00:00 (UTC)"


def test_alerts_of_one_incident_are_those_close_by_and_those_that_follow_from_each_other() -> None:
    def alert(minute: int, camera: str = "hall", belongs_to: str | None = None) -> AlertRecord:
        time = f"2026-01-31T10:{minute:02}:00Z"
        outcome = "suppressed" if belongs_to and len(belongs_to) < 3 else "delivered"
        return AlertRecord(
            *("/out", str(minute), camera, time, "UTC", {"person": minute / 100}),
            ((None, outcome, ""),),
            *("/in/a.jpg", "/out/final/a.json", belongs_to),
        )

    alerts = [
        *(alert(0), alert(5), alert(11), alert(30, belongs_to="11"), alert(50)),
        *(alert(2, "gate"), alert(8, "gate", "2"), alert(14, "gate")),
    ]
    incidents = find_incidents(reversed(alerts))
    assert [[one.alert_id for one in incident.alerts] for incident in incidents] == [
        ["50"],
        ["11", "30"],
        ["14"],
        ["2", "8"],
        ["0", "5"],
    ]
    assert [incident.camera for incident in incidents] == ["hall", "hall", "gate", "gate", "hall"]
    assert [incident.lead.alert_id for incident in incidents] == ["50", "11", "14", "2", "0"]
    assert incidents[1].labels == {"person": 0.3}
    assert (incidents[1].until, [one.alert_id for one in incidents[1].others]) == (
        "10:30:00",
        ["30"],
    )
