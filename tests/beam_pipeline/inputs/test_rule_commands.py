"""`rules check` and `rules explain`."""

import hashlib
import json
from datetime import datetime, timedelta, timezone
from itertools import permutations
from pathlib import Path
from shutil import rmtree

import pytest
from apache_beam.io.filesystems import FileSystems

from beam_pipeline import cli
from beam_pipeline.bundled import BUNDLED_RULES
from rules import alert_id
from tests.rules.final_json import final_json
from tests.rules.one_camera import make_detection, make_image, rules_of
from tests.transforms.archives import seen, write_output
from transforms.storage import stores
from transforms.storage.packed_output import period_name, write_file
from transforms.storage.packed_rows import PackedRow

TEXT = "version: 1\ndefaults: {objects: {person: {min_score: 0.6}}}\ncameras: {hall: }\n"


@pytest.fixture
def rule_file(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(TEXT)
    return str(path)


@pytest.fixture
def final_file(tmp_path):
    path = tmp_path / "hall_20260131T120000Z.json"
    path.write_text(
        json.dumps(final_json(rules_of("objects: {person: }"), make_image(make_detection())))
    )
    return str(path)


def test_the_rules_of_a_camera_are_explained_with_their_origin(rule_file, capsys):
    assert cli.main(["rules", "explain", "hall", "--rules", rule_file]) == 0
    shown = capsys.readouterr().out.splitlines()[1:]
    assert shown == [
        "hall",
        "  person  severity alert (built in), min_score 0.6 (defaults)",
        "  cooldown: 30m (built in)",
        "  incident_gap: 5m (built in)",
    ]


def test_a_camera_that_is_not_named_is_reported(rule_file, capsys):
    assert cli.main(["rules", "explain", "yard", "--rules", rule_file]) == 0
    assert "yard: not named, so the defaults" in capsys.readouterr().out


def test_the_samples_cameras_are_known_without_a_rule_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["rules", "explain", "warehouse"]) == 0
    assert "warehouse (profile indoor)" in capsys.readouterr().out


ONE = "version: 1\ndefaults: {objects: {person: {min_score: 0.31}}}\n"
OTHER = ONE.replace("0.31", "0.32")


@pytest.mark.parametrize("words", [[], ["--output", "output"], ["--archive", "output"]])
@pytest.mark.parametrize("name", ["rules.yaml", "mine.yml"])
@pytest.mark.parametrize("is_beside", [True, False])
def test_without_a_rule_file_the_rules_of_the_output_are_explained(
    tmp_path, monkeypatch, capsys, words, name, is_beside
):
    here, results = tmp_path / "here", tmp_path / "results"
    here.mkdir()
    results.mkdir()
    write_output(results / "output", [seen("hall", "2026-01-30T10:00:00Z", ("person", 0.9))], OTHER)
    write_output(results / "output", [seen("hall", "2026-01-31T10:00:00Z", ("person", 0.9))], ONE)
    (here / "other.yaml").write_text(OTHER)
    if is_beside:
        (results / name).write_text(ONE)
        words = [words[0], str(results / "output")] if words else words
    else:
        (here / name).write_text(ONE)
    if not words or not is_beside:
        (here / "output").symlink_to(results / "output")
    monkeypatch.chdir(here if words or not is_beside else results)
    assert cli.main(["rules", "explain", "hall", *words]) == 0
    assert "min_score 0.31 (defaults)" in capsys.readouterr().out


def test_the_newest_image_of_an_output_tells_its_rules_whatever_its_name(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_output(tmp_path / "output", [seen("hall", "2026-01-31T10:00:00Z")], OTHER)
    newer = tmp_path / "newer"
    write_output(newer, [seen("hall", "2026-06-01T10:00:00Z")], ONE)
    (verdict,) = (newer / "final" / "hall").glob("*.json")
    verdict.rename(tmp_path / "output" / "final" / "hall" / "hall_1780308000.json")
    (tmp_path / "other.yaml").write_text(OTHER)
    (tmp_path / "rules.yaml").write_text(ONE)
    assert cli.main(["rules", "explain", "hall"]) == 0
    assert "min_score 0.31 (defaults)" in capsys.readouterr().out


def test_the_bundled_rules_of_an_output_are_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = BUNDLED_RULES.read_text()
    write_output(tmp_path / "output", [seen("hall", "2026-01-31T10:00:00Z")], text)
    assert cli.main(["rules", "explain", "hall"]) == 0
    assert "hall (profile indoor)" in capsys.readouterr().out


def test_rules_of_an_output_that_are_not_here_are_not_guessed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_output(tmp_path / "output", [seen("hall", "2026-01-31T10:00:00Z")], ONE)
    (tmp_path / "rules.yaml").write_text(OTHER)
    assert cli.main(["rules", "explain", "hall"]) == 2
    version = hashlib.sha256(ONE.encode()).hexdigest()[:12]
    assert f"judged by rules {version}, and no rule file here" in capsys.readouterr().err
    assert cli.main(["rules", "explain", "yard"]) == 2
    assert "output has no verdict on an image of this camera" in capsys.readouterr().err


def test_a_verdict_is_explained_without_the_rules(final_file, capsys):
    assert cli.main(["rules", "explain", "hall", final_file]) == 0
    shown = capsys.readouterr().out
    assert "It calls for an alert." in shown
    assert "profile" not in shown


@pytest.fixture(params=["final", "packed"])
def stored(tmp_path, request):
    """An output with a verdict that calls for no alert."""
    output = tmp_path / "stored"
    (judged,) = write_output(output, [seen("hall", "2026-01-31T12:00:00Z", ("person", 0.3))], ONE)
    if request.param == "packed":
        rmtree(output)
        start = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
        period = period_name(start, start + timedelta(minutes=5))
        row = PackedRow(judged.image, judged.to_json()["threat"])
        assert write_file(stores.packed_folder(str(output)), period, [row]) is not None
    return str(output)


STEM = "hall_2026-01-31T12-00-00Z"


@pytest.mark.parametrize("name", [f"{STEM}.jpg", f"/in/{STEM}.jpg", f"{STEM}.json", "final"])
def test_an_image_is_explained_by_its_name_in_either_form_of_output(
    stored, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.chdir(tmp_path)
    name = f"{stored}/final/hall/{STEM}.json" if name == "final" else name
    assert cli.main(["rules", "explain", "hall", name, "--output", stored]) == 0
    shown = capsys.readouterr().out
    assert "2026-01-31 12:00:00" in shown
    assert "person" in shown
    assert cli.main(["rules", "explain", "hall", STEM[:-3] + "1Z.jpg", "--output", stored]) == 2
    error = capsys.readouterr().err
    assert f"no such file, and no verdict on this image in {stored}/packed/; give the" in error
    assert cli.main(["rules", "explain", "yard", f"{STEM}.jpg", "--output", stored]) == 2
    assert "is of 'hall', not of 'yard'" in capsys.readouterr().err


@pytest.mark.parametrize("order", list(permutations(["image", "rules", "output", "store"])))
def test_options_may_stand_between_the_camera_and_the_image(
    final_file, rule_file, tmp_path, monkeypatch, capsys, order
):
    monkeypatch.setattr(FileSystems, "_pipeline_options", FileSystems._pipeline_options)
    words = {
        "image": [final_file],
        "rules": ["--rules", rule_file],
        "output": ["--output", str(tmp_path)],
        "store": ["--s3_region_name", "eu-central-1"],
    }
    given = [word for name in order for word in words[name]]
    assert cli.main(["rules", "explain", "hall", *given]) == 0
    assert "It calls for an alert." in capsys.readouterr().out
    assert cli.main(["rules", "explain", "hall", *given, "again.json"]) == 2
    error = capsys.readouterr().err
    assert "unrecognized arguments: again.json (see python -m beam_pipeline rules explain" in error


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ([f"out/final/hall/{STEM}.json"], f"explain hall out/final/hall/{STEM}.json"),
        ([f"{STEM}.jpg"], f"explain hall {STEM}.jpg"),
        ([f"{STEM}.jpg", "hall"], f"explain hall {STEM}.jpg"),
        (["in/image.json"], "explain ID in/image.json"),
    ],
)
def test_an_image_in_place_of_the_camera_is_refused(words, advice, capsys):
    assert cli.main(["rules", "explain", *words]) == 2
    assert capsys.readouterr().err == (
        f"beam_pipeline: rules explain {words[0]}: is no id of a camera; give the id first, then "
        f"the image, such as rules {advice}\n"
    )


def test_a_verdict_by_other_rules_is_reported_as_such(final_file, rule_file, capsys):
    assert cli.main(["rules", "explain", "hall", final_file, "--rules", rule_file]) == 0
    shown = capsys.readouterr().out
    assert "judged by other rules; a backtest shows what these rules would have done" in shown
    assert shown.index("min_score 0.6 (defaults)") < shown.index("It calls for an alert.")


@pytest.mark.parametrize(
    ("camera", "content", "message"),
    [
        ("hall", None, "no such file; give the stored name of an image"),
        ("hall", "{", "is not JSON; give a file of final/"),
        ("hall", '{"id": "hall", "detections": []}', "holds no verdict; give a file of final/"),
        ("hall", "[]", "holds no verdict; give a file of final/"),
        ("yard", '{"id": "hall", "threat": {}}', "is of 'hall', not of 'yard'"),
        ("hall", '{"id": "hall", "threat": {}}', "is not an image's JSON of final/"),
    ],
)
def test_a_file_that_is_no_verdict_is_refused_in_one_line(
    tmp_path, camera, content, message, capsys
):
    path = tmp_path / "one.json"
    if content is not None:
        path.write_text(content)
    assert cli.main(["rules", "explain", camera, str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"beam_pipeline: rules explain {path}: ")
    assert message in error
    assert error.count("\n") == 1


def test_rules_check_reports_every_mistake(tmp_path, capsys):
    path = tmp_path / "rules.yaml"
    path.write_text(
        "version: 1\ndefaults:\n  objects:\n    person: {min_scor: 0.5}\n    car: {min_area: 2}\n"
        "  cooldown: 5\n"
    )
    assert cli.main(["rules", "check", str(path)]) == 2
    stderr = capsys.readouterr().err.splitlines()
    assert [line.split("rules.yaml:")[1].split(":")[0] for line in stderr] == ["4", "5", "6"]


TRACKED = "version: 1\ncameras: {hall: {objects: {person: }, track: {min_score: 0.1}}}\n"


@pytest.mark.parametrize(("kept", "code"), [("0.05", 0), ("0.1", 0), ("0.11", 2)])
def test_rules_check_reports_that_track_needs_scores_that_are_dropped(tmp_path, kept, code, capsys):
    path = tmp_path / "rules.yaml"
    path.write_text(TRACKED)
    assert cli.main(["rules", "check", str(path), "--min_score_kept", kept]) == code
    captured = capsys.readouterr()
    if code:
        assert captured.out == ""
        assert captured.err == (
            f"beam_pipeline: {path}: track.min_score of hall is 0.1, but --min_score_kept drops "
            "detections below 0.11; give --min_score_kept 0.1, or raise track.min_score to 0.11\n"
        )
    else:
        assert "track: min_score 0.1 (cameras.hall), within 3s (built in)" in captured.out


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ("defaults: {track: {min_score: 0.01}}", 0),
        ("defaults: {track: {min_score: 0.01}, objects: {car: {track: false}}}", 0),
        ("defaults: {track: {min_score: 0.01}, objects: {car: {severity: ignore}}}", 0),
        ("defaults: {track: {min_score: 0.01}, objects: {car: }}", 2),
        ("defaults: {track: {min_score: 0.01}, zones: {door: {objects: {car: }}}}", 2),
    ],
)
def test_track_needs_no_scores_where_it_applies_to_no_label(tmp_path, settings, code, capsys):
    path = tmp_path / "rules.yaml"
    polygon = "polygon: [[0, 0], [1, 0], [1, 1]], "
    settings = settings.replace("door: {", f"door: {{{polygon}")
    hall = "hall: {objects: {person: }, track: {min_score: 0.2}}"
    path.write_text(f"version: 1\n{settings}\ncameras: {{{hall}}}\n")
    assert cli.main(["rules", "check", str(path)]) == code
    assert ("track.min_score of any other camera is 0.01" in capsys.readouterr().err) is bool(code)


def test_rules_check_supposes_the_jobs_default(tmp_path, capsys):
    path = tmp_path / "rules.yaml"
    path.write_text(TRACKED.replace("0.1", "0.04"))
    assert cli.main(["rules", "check", str(path)]) == 2
    assert "drops detections below 0.05; " in capsys.readouterr().err


CONFIRMED = """\
version: 1
defaults:
  objects: {person: {confirm: false}, car: , dog: {severity: ignore}}
  confirm: {pictures: 2, within: 30s}
cameras:
  single: {objects: {person: {confirm: true}}}
  burst:
  off: {confirm: {enabled: false}}
  sure: {confirm: {unless_score: 0.4}}
  partly: {confirm: {unless_score: 0.8}}
"""


def an_archive(folder, times_by_camera):
    write_output(
        folder,
        [
            seen(camera, f"2026-01-31T10:{seconds // 60:02}:{seconds % 60:02}Z")
            for camera, times in times_by_camera.items()
            for seconds in times
        ],
    )
    return str(folder)


def test_rules_check_warns_where_events_have_fewer_images_than_confirm_needs(tmp_path, capsys):
    path = tmp_path / "rules.yaml"
    path.write_text(CONFIRMED)
    archive = an_archive(
        tmp_path / "out",
        {
            "single": [0, 60, 120, 180, 200],
            "burst": [0, 30, 100],
            **{camera: [0, 60] for camera in ("off", "sure", "partly", "other")},
        },
    )
    assert cli.main(["rules", "check", str(path), "--archive", archive]) == 0
    captured = capsys.readouterr()
    assert "single" in captured.out
    assert captured.err.splitlines() == [
        "confirm is a trap for other: it needs 2 images within 30s, and 2 of 2 events in the "
        "archive have fewer (usually 1 an event), in which car can't be confirmed; set confirm: "
        "false for these labels, or confirm: {enabled: false} for the camera",
        "confirm is a trap for partly: it needs 2 images within 30s, and 2 of 2 events in the "
        "archive have fewer (usually 1 an event), in which car with scores below 0.8 can't be "
        "confirmed; set confirm: false for these labels, or confirm: {enabled: false} for the "
        "camera",
        "confirm is a trap for single: it needs 2 images within 30s, and 3 of 4 events in the "
        "archive have fewer (usually 1 an event), in which car, person can't be confirmed; set "
        "confirm: false for these labels, or confirm: {enabled: false} for the camera",
    ]
    assert cli.main(["rules", "check", str(path)]) == 0
    assert capsys.readouterr().err == ""


def test_rules_check_warns_of_what_has_another_effect_than_it_seems(tmp_path, capsys):
    path = tmp_path / "rules.yaml"
    path.write_text(
        """version: 1
strict_ids: true
defaults: {objects: {person: }}
cameras:
  hall:
    incident_gap: 5m
    cooldown: 0s
    zones:
      porch: {polygon: [[0, 0], [0.3, 0], [0.3, 1]], objects: {person: {severity: ignore}}}
      yard: {polygon: [[0, 0], [1, 0], [1, 1], [0, 1]]}
"""
    )
    assert cli.main(["rules", "check", str(path)]) == 0
    captured = capsys.readouterr()
    assert "hall" in captured.out
    assert captured.err.splitlines() == [
        "hall: incident_gap of cameras.hall has no effect, because there is no cooldown; set a "
        "cooldown that is longer than it, or leave it out",
        "hall: zone porch is stricter than zone yard (person: severity ignore), but where they "
        "overlap an object is a threat if either of them lets it through; use a mask, or polygons "
        "that do not overlap",
    ]


def test_cameras_that_strict_rules_refuse_are_not_checked(tmp_path, capsys):
    path = tmp_path / "rules.yaml"
    path.write_text(
        "version: 1\nstrict_ids: true\n"
        "defaults: {objects: {car: }, confirm: , track: {min_score: 0.01}}\n"
        "cameras: {hall: {track: {min_score: 0.2}}}\n"
    )
    archive = an_archive(tmp_path / "out", {"hall": [0, 10], "yard": [0, 60]})
    assert cli.main(["rules", "check", str(path), "--archive", archive]) == 0
    assert capsys.readouterr().err == ""


def test_events_that_are_long_but_slow_do_not_confirm(tmp_path, capsys):
    path = tmp_path / "rules.yaml"
    path.write_text("version: 1\ndefaults: {objects: {car: }, confirm: {pictures: 4, within: 10s}}")
    for step, is_trap in ((6, True), (5, False)):
        archive = an_archive(tmp_path / f"out-{step}", {"hall": range(0, 600, step)})
        assert cli.main(["rules", "check", str(path), "--archive", archive]) == 0
        assert ("confirm is a trap for hall" in capsys.readouterr().err) is is_trap


def test_rules_check_refuses_what_is_no_archive(rule_file, tmp_path, capsys):
    assert cli.main(["rules", "check", rule_file, "--archive", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"beam_pipeline: --output {tmp_path}: no archive there")


def test_a_misspelt_camera_is_reported_with_the_nearest(rule_file, capsys):
    assert cli.main(["rules", "explain", "hal", "--rules", rule_file]) == 0
    assert "hal: not named, so the defaults (did you mean hall?)" in capsys.readouterr().out


def test_an_alert_that_a_limit_held_is_explained_by_its_record(final_file, tmp_path, capsys):
    image = json.loads(Path(final_file).read_text())
    kept = tmp_path / "out" / "final" / "hall" / "image.json"
    record = (
        tmp_path
        / "out"
        / "alerts"
        / "hall"
        / f"{alert_id('hall', image['timestamp'], 'alert')}.json"
    )
    for path in (kept, record):
        path.parent.mkdir(parents=True)
    kept.write_text(json.dumps(image))
    assert cli.main(["rules", "explain", "hall", str(kept)]) == 0
    assert "Target" not in capsys.readouterr().out
    held = {"target": "guard", "outcome": "suppressed", "detail": "reported in digest abc"}
    sent = {"target": "mail", "outcome": "delivered", "detail": ""}
    record.write_text(json.dumps({"targets": [held, sent]}))
    assert cli.main(["rules", "explain", "hall", str(kept)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "Target guard: suppressed, reported in digest abc." in shown
    assert "Target mail: delivered." in shown


@pytest.mark.parametrize(
    ("recorded", "in_rules", "shown"),
    [
        (None, None, "hall at 2026-01-31 12:00:00 (UTC), judged"),
        (None, "Asia/Tokyo", "hall at 2026-01-31 21:00:00 (Asia/Tokyo, UTC+9), judged"),
        ("Europe/Berlin", None, "hall at 2026-01-31 13:00:00 (Europe/Berlin, UTC+1), judged"),
        ("Europe/Berlin", "Asia/Tokyo", "hall at 2026-01-31 13:00:00 (Europe/Berlin, UTC+1), jud"),
        ("Nowhere", "Asia/Tokyo", "hall at 2026-01-31 21:00:00 (Asia/Tokyo, UTC+9), judged"),
    ],
)
def test_the_capture_time_is_shown_as_in_the_alert(
    tmp_path, final_file, capsys, recorded, in_rules, shown
):
    final = tmp_path / "final" / "hall" / Path(final_file).name
    final.parent.mkdir(parents=True)
    final.write_text(Path(final_file).read_text())
    image = json.loads(final.read_text())
    if recorded is not None:
        name = alert_id("hall", image["timestamp"], "alert")
        record = tmp_path / "alerts" / "hall" / f"{name}.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"timezone": recorded, "targets": []}))
    arguments = []
    if in_rules is not None:
        file = tmp_path / "rules.yaml"
        file.write_text(f"version: 1\ndefaults: {{objects: {{person: }}, timezone: {in_rules}}}\n")
        arguments = ["--rules", str(file)]
    assert cli.main(["rules", "explain", "hall", str(final), *arguments]) == 0
    assert shown in capsys.readouterr().out
