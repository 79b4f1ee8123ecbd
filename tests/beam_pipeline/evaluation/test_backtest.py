"""The command `backtest`: which alerts other rules would have gained and lost."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import rules
from beam_pipeline import cli
from beam_pipeline.bundled import BUNDLED_RULES
from tests.beam_pipeline.conftest import jpeg
from tests.transforms.archives import OLD, seen, write_output
from transforms.backtest import AlertChange, CameraResult, backtest_camera, look_back
from transforms.images.annotating import with_boxes
from transforms.records.images import DetectedImage
from transforms.storage.archive import open_archive

HEAD = "version: 1\ndefaults:\n  cooldown: 0s\n"
NIGHT_SHIFT = "version: 1\ndefaults:\n  objects: {person: {min_score: 0.5}}\n  cooldown: 5m\n"
PICTURES = [
    seen("hall", "2026-01-31T10:00:00Z", ("person", 0.9)),
    seen("hall", "2026-01-31T10:01:00Z", ("person", 0.6), ("car", 0.3)),
    seen("hall", "2026-01-31T10:02:00Z", ("car", 0.4)),
    seen("hall", "2026-01-31T10:03:00Z"),
    seen("gate", "2026-01-31T10:00:00Z", ("car", 0.7)),
]


def again(
    folder: Path, new: str, old: str | None = None, camera: str = "hall", **period: Any
) -> tuple[CameraResult, list[AlertChange]]:
    """One camera of an archive, judged by other rules."""
    against = None if old is None else rules.parse_rules(old, "old.yaml")
    ruleset = rules.parse_rules(new, "new.yaml")
    return backtest_camera(camera, open_archive(str(folder)), ruleset, against, **period)


def alerts(result: CameraResult) -> dict[str, Any]:
    tally = result.alerts
    return {
        "before": tally.before,
        "after": tally.after,
        "gained": dict(tally.gained_from),
        "lost": dict(tally.lost_to),
    }


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (OLD, {"before": 2, "after": 2, "gained": {}, "lost": {}}),
        (
            HEAD + "  objects: {person: {min_score: 0.7}}\n",
            {"before": 2, "after": 1, "gained": {}, "lost": {"min_score": 1}},
        ),
        (
            HEAD + "  objects: {person: {severity: ignore}}\n",
            {"before": 2, "after": 0, "gained": {}, "lost": {"severity": 2}},
        ),
        (
            HEAD + "  objects: {person: {severity: detection}}\n",
            {"before": 2, "after": 0, "gained": {}, "lost": {"severity": 2}},
        ),
        (
            HEAD + "  objects: {car: {min_score: 0.35}}\n",
            {"before": 2, "after": 1, "gained": {"min_score": 1}, "lost": {"objects": 2}},
        ),
        (
            NIGHT_SHIFT,
            {"before": 2, "after": 1, "gained": {}, "lost": {"cooldown": 1}},
        ),
        (
            "version: 1\nstrict_ids: true\ncameras:\n  gate: {objects: {person: {}}}\n",
            {"before": 2, "after": 0, "gained": {}, "lost": {"unknown_camera": 2}},
        ),
    ],
)
@pytest.mark.parametrize("old", [None, OLD])
def test_alerts_gained_and_lost_are_counted_by_what_holds_them_back(
    tmp_path: Path, new: str, old: str | None, expected: dict[str, Any]
) -> None:
    write_output(tmp_path, PICTURES)
    result, changes = again(tmp_path, new, old)
    assert alerts(result) == expected
    assert (result.images, result.not_compared, result.problems) == (4, 0, [])
    assert sum(change.pictures for change in changes) == sum(
        (*expected["gained"].values(), *expected["lost"].values())
    )


def test_what_a_cooldown_held_back_and_other_rules_send_is_gained_from_it(tmp_path: Path) -> None:
    write_output(tmp_path, PICTURES, NIGHT_SHIFT)
    result, _ = again(tmp_path, OLD)
    assert alerts(result) == {"before": 1, "after": 2, "gained": {"cooldown": 1}, "lost": {}}


def test_an_image_counts_for_each_rule_that_calls_for_its_alert(tmp_path: Path) -> None:
    both = seen("hall", "2026-01-31T11:00:00Z", ("car", 0.9), ("person", 0.8), ("person", 0.7))
    write_output(tmp_path, [*PICTURES, both])
    result, changes = again(tmp_path, HEAD + "  objects: {person: {min_score: 0.95}}\n")
    by_rule = {
        rule: (tally.before, tally.lost, dict(tally.lost_to))
        for rule, tally in result.by_rule.items()
    }
    assert by_rule == {
        "defaults.objects.person": (3, 3, {"min_score": 3}),
        "defaults.objects.car": (1, 1, {"objects": 1}),
    }
    assert dict(result.alerts.lost_to) == {"min_score": 2, "objects": 1}
    assert {(change.rule, change.kind, change.pictures) for change in changes} == {
        ("defaults.objects.person", "lost", 3),
        ("defaults.objects.car", "lost", 1),
    }


def test_examples_are_those_of_the_highest_scores(tmp_path: Path) -> None:
    images = [
        seen("hall", f"2026-01-31T10:0{minute}:00Z", ("person", 0.9 - minute / 20))
        for minute in range(8)
    ]
    write_output(tmp_path, reversed(images))
    _, (change,) = again(tmp_path, HEAD + "  objects: {car: {}}\n")
    assert change.pictures == 8
    assert [example.file for example in change.examples] == [example.file for example in images[:4]]


REPEATS = HEAD + "  objects: {car: {}}\n  repeats: {occurrences: 2, within: 1h}\n"


def parked(camera: str, minutes: Iterable[int]) -> list[DetectedImage]:
    return [seen(camera, f"2026-01-31T10:{minute:02}:00Z", ("car", 0.8)) for minute in minutes]


def test_a_camera_is_judged_in_order_by_its_own_history(tmp_path: Path) -> None:
    write_output(tmp_path, [*parked("hall", range(6)), *parked("gate", range(2))])
    result, _ = again(tmp_path, REPEATS)
    assert alerts(result) == {"before": 6, "after": 2, "gained": {}, "lost": {"repeats": 4}}
    result, _ = again(tmp_path, REPEATS, camera="gate")
    assert alerts(result) == {"before": 2, "after": 2, "gained": {}, "lost": {}}


def test_images_before_the_period_are_looked_back_on_and_do_not_count(tmp_path: Path) -> None:
    write_output(tmp_path, parked("hall", range(6)))
    since = datetime(2026, 1, 31, 10, 3, tzinfo=timezone.utc)
    until = datetime(2026, 1, 31, 10, 5, tzinfo=timezone.utc)
    result, _ = again(tmp_path, REPEATS, since=since, until=until)
    assert alerts(result) == {"before": 2, "after": 0, "gained": {}, "lost": {"repeats": 2}}
    assert (result.first, result.last) == ("2026-01-31T10:03:00Z", "2026-01-31T10:04:00Z")


@pytest.mark.parametrize(
    "threat",
    [
        {},
        {"severity": "alert"},
        {"severity": "alert", "threats": [{}]},
        {"severity": "alert", "threats": 3},
        {
            "severity": "alert",
            "threats": [{"detection": 9, "rule": "x", "severity": "alert"}],
            "rejected": [],
        },
    ],
)
def test_an_unsound_verdict_is_reported_and_not_compared(
    tmp_path: Path, threat: dict[str, Any]
) -> None:
    write_output(tmp_path, PICTURES)
    file = tmp_path / "final" / "hall" / "hall_2026-01-31T10-00-00Z.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "threat": threat}))
    result, _ = again(tmp_path, HEAD + "  objects: {person: {min_score: 0.99}}\n")
    assert (result.images, result.not_compared) == (3, 1)
    assert result.alerts.before == 1
    ((uri, why),) = result.problems
    assert uri == "/in/hall_2026-01-31T10-00-00Z.jpg"
    assert "no valid 'threat'" in why


# The command


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[Any, str]:
    """What the command prints as JSON, and what it says beside."""
    code = cli.main(["backtest", "--format", "json", *map(str, arguments)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out), captured.err


def test_the_rules_that_wrote_final_change_nothing_packed_or_not(
    samples_run: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, packed = samples_run[0], tmp_path / "packed"
    assert cli.main(["pack", "--archive", str(output), "--output", str(packed)]) == 0
    capsys.readouterr()
    text, _ = run(capsys, "--archive", output, "--rules", BUNDLED_RULES)
    assert text["images"] == 240
    assert text["alerts"]["before"] == text["alerts"]["after"] == 27
    assert text["alerts"]["gained"] == text["alerts"]["lost"] == 0
    again, _ = run(capsys, "--archive", packed, "--rules", BUNDLED_RULES)
    assert {**text, "archive": []} == {**again, "archive": []}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_output(tmp_path / "archive", PICTURES)
    return tmp_path / "archive"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    file = tmp_path / "new.yaml"
    file.write_text(
        "version: 1\nstrict_ids: true\ncameras:\n"
        "  hall: {objects: {person: {min_score: 0.7}, car: {min_score: 0.35}}}\n  attic: {}\n"
    )
    return file


def test_changes_are_reported_by_camera_and_rule_in_a_table(
    archive: Path, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["backtest", "--archive", str(archive), "--rules", str(new)]) == 0
    captured = capsys.readouterr()
    lines = [re.split(r"  +", line.strip()) for line in captured.out.splitlines()]
    assert captured.out.splitlines()[0].endswith(" against the stored verdicts")
    assert lines[1] == [f"5 images of 2 cameras in {archive}"]
    assert [
        "hall",
        "4",
        "2",
        "2",
        "1",
        "1",
        "lost to min_score 1; gained from min_score 1",
    ] in lines
    assert ["gate", "1", "1", "0", "0", "1", "lost to unknown_camera 1"] in lines
    assert lines[6][:6] == ["total", "5", "3", "2", "1", "2"]
    assert ["cameras.hall.objects.car", "0", "1", "1", "0", "gained from min_score 1"] in lines
    assert "names cameras that the archive does not have: attic\n" in captured.err
    assert "is strict and does not name gate" in captured.err


def test_images_with_other_tiles_than_those_of_the_rules_are_counted(
    archive: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, beside = run(capsys, "--archive", archive, "--rules", new)
    assert (text["other_tiles"], "other tiles" in beside) == (0, False)
    tiled = tmp_path / "tiled.yaml"
    tiled.write_text(f"{OLD}cameras: {{hall: {{tiles: {{columns: 3}}}}}}\n")
    page = tmp_path / "page.html"
    text, beside = run(capsys, "--archive", archive, "--rules", tiled, "--html", page)
    assert text["other_tiles"] == 4
    assert [camera["other_tiles"] for camera in text["by_id"]] == [0, 4]
    assert beside == (
        "4 images were detected with other tiles than these rules have: run the job with these "
        "rules to see what their tiles find\n"
    )
    assert "4 images were detected with other tiles than these rules have." in page.read_text()
    text, _ = run(capsys, "--archive", archive, "--rules", tiled, "--since", "2026-01-31T10:02:00Z")
    assert text["other_tiles"] == text["images"] - text["by_id"][0]["images"] > 0


def test_broken_json_is_counted_and_listed(
    archive: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = archive / "final" / "hall" / "hall_2026-01-31T10-01-00Z.json"
    broken.write_text("{")
    text, beside = run(capsys, "--archive", archive, "--rules", new)
    assert (text["images"], text["not_compared"]) == (4, 1)
    (problem,) = text["problems"]
    assert problem["uri"] == str(broken)
    assert problem["why"].startswith("not JSON")
    assert beside.startswith("problems with the archive, skipped: 1\n  " + str(broken))


def test_a_second_rule_file_is_compared_with_where_there_is_no_final(
    archive: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive / "final").rename(tmp_path / "away")
    assert cli.main(["backtest", "--archive", str(archive), "--rules", str(new)]) == 2
    assert "has no verdicts to compare with" in capsys.readouterr().err
    old = tmp_path / "old.yaml"
    old.write_text(OLD)
    text, _ = run(capsys, "--archive", archive, "--rules", new, "--against", old, "--id", "hall")
    assert text["against"]["file"] == str(old)
    assert text["images"] == 4
    assert text["alerts"]["gained_from"] == {"min_score": 1}
    assert text["alerts"]["lost_to"] == {"min_score": 1}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rules", "{tmp}/nowhere.yaml"], "--rules {tmp}/nowhere.yaml: no such file"),
        (["--rules", "{tmp}/wrong.yaml"], "wrong.yaml:2: "),
        (["--rules", "{new}", "--against", "{tmp}/wrong.yaml"], "wrong.yaml:2: "),
        (["--rules", "{new}", "--labels", "{tmp}/labels"], "the model does not have this label"),
        (["--rules", "{new}", "--id", "attic"], "there are gate, hall"),
        (["--rules", "{new}", "--runner", "PrismRunner"], "give --temp_location"),
        (["--rules", "{new}", "--html", "{tmp}"], "--html {tmp}: is a folder"),
        (["--rules", "{new}", "--html", "{new}/page"], "--html {new}: can't be written"),
    ],
)
def test_a_wrong_option_is_reported_in_one_line(
    arguments: list[str],
    says: str,
    archive: Path,
    new: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "wrong.yaml").write_text("version: 1\ncamera: {}\n")
    (tmp_path / "labels").write_text("dog\ncat\n")
    filled_arguments = [argument.format(tmp=tmp_path, new=new) for argument in arguments]
    assert cli.main(["backtest", "--archive", str(archive), *filled_arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says.format(tmp=tmp_path, new=new) in captured.err.splitlines()[-1]


# The page

HOSTILE = "<script>alert('label')</script>"


class _Page(HTMLParser):
    """The tags of a page, and the addresses that it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_shows_what_changed_and_trusts_no_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = jpeg()
    digest = hashlib.sha256(data).hexdigest()
    archive, elsewhere = tmp_path / "archive", tmp_path / "elsewhere.jpg"
    elsewhere.write_bytes(data)
    images = [
        seen("hall", f"2026-01-31T10:0{minute}:00Z", ("person", 0.9), (HOSTILE, 0.8), **where)
        for minute, where in enumerate(
            [
                {"sha256": digest},  # In validated/.
                {"sha256": digest, "uri": str(elsewhere)},
                {"sha256": "0" * 64, "uri": str(elsewhere)},
                {"sha256": digest, "uri": str(tmp_path / "<b>gone</b>.jpg")},
            ]
        )
    ]
    write_output(archive, images, HEAD + f'  objects: {{person: {{}}, "{HOSTILE}": {{}}}}\n')
    kept = archive / "validated" / "hall" / images[0].file
    kept.parent.mkdir(parents=True)
    kept.write_bytes(data)
    new = tmp_path / "<i>new.yaml"
    new.write_text(HEAD + "  objects: {person: {severity: detection}}\n")
    page = tmp_path / "page.html"
    run(capsys, "--archive", archive, "--rules", new, "--html", page)
    text = page.read_text()
    seen_by_a_browser = _Page(text)
    assert not {"script", "b", "i"} & set(seen_by_a_browser.tags)
    assert "&lt;script&gt;alert" in text
    assert "&lt;i&gt;new.yaml" in text
    assert len(seen_by_a_browser.addresses) == 4  # Two rules, two images of each.
    assert all(
        address.startswith("data:image/jpeg;base64,") for address in seen_by_a_browser.addresses
    )
    assert text.count("was replaced by another image") == 2
    assert text.count("can&#39;t be read") == 2


def test_a_picture_is_made_small_and_its_boxes_are_drawn() -> None:
    box = {"label": "a" * 500, "conf": 0.5, "bbox": (0.25, 0.25, 0.5, 0.5)}
    small = with_boxes(jpeg((0, 0, 0), (4000, 3000)), [box], (255, 0, 0), longest_side=480)
    with Image.open(io.BytesIO(small)) as image:
        assert image.size == (480, 360)
        red, green, _ = image.convert("RGB").getpixel((240, 270))
        assert red > 150 > green
        assert image.convert("RGB").getpixel((240, 320))[0] < 60
    assert len(small) < 50_000


def test_the_verdicts_of_track_depend_on_images_three_times_within_before() -> None:
    ruleset = rules.parse_rules(
        "version: 1\ndefaults: {objects: {person: }, track: {within: 4s}, confirm: {within: 30s}, "
        "cooldown: 0s}",
        "rules.yaml",
    )
    assert look_back(ruleset, "hall").total_seconds() == 42
