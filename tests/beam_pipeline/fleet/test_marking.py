"""The command `alerts mark`, and the marks in `alerts list`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rules
from beam_pipeline import cli
from beam_pipeline.fleet.pruning import shortened_record
from tests.beam_pipeline.conftest import refused
from tests.transforms.archives import seen, write_output
from transforms.alerting.alerts import alert_for
from transforms.alerting.ledger import Ledger, Outcome
from transforms.storage.marks import read_marks, standing

ALERTED, QUIET = "hall_20260131T100000Z.jpg", "hall_20260131T101000Z.jpg"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output with an alert for a person and a car, and an image without one."""
    images = [
        seen("hall", "2026-01-31T10:00:00Z", ("person", 0.9), ("car", 0.8), file=ALERTED),
        seen("hall", "2026-01-31T10:10:00Z", ("person", 0.1), file=QUIET),
    ]
    judged = write_output(tmp_path / "out", images)
    ruleset = rules.parse_rules("version: 1\n", "no rules")
    alert = alert_for(judged[0], str(tmp_path / "out"), ruleset)
    assert alert is not None
    Ledger(str(tmp_path / "out")).record(alert, Outcome("guard", "failed", "HTTP status 503"))
    return tmp_path / "out"


def alert_id(output: Path) -> str:
    (record,) = (output / "alerts" / "hall").iterdir()
    return record.stem


def marked(output: Path, *words: object) -> int:
    command = ["alerts", "mark", *words, "--output", output]
    return cli.main([str(word) for word in command])


def stands(output: Path) -> list[tuple[str, str, str | None]]:
    marks, problems = read_marks(str(output))
    assert problems == []
    return [(mark.by, mark.mark, mark.label) for mark in standing(marks)]


def test_an_alert_is_marked_by_its_id(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = "a coat on a hook"
    assert marked(output, alert_id(output), "false", "--note", note, "--by", "Anna") == 0
    assert capsys.readouterr().out == "hall 2026-01-31T10:00:00Z: false, by Anna\n"
    (mark,) = read_marks(str(output))[0]
    assert (mark.id, mark.timestamp, mark.alert_id) == (
        "hall", "2026-01-31T10:00:00Z", alert_id(output),
    )  # fmt: skip
    assert (mark.mark, mark.label, mark.note, mark.by) == ("false", None, note, "Anna")
    assert [(threat.label, threat.bbox) for threat in mark.threats] == [
        ("person", (0.1, 0.2, 0.3, 0.4)), ("car", (0.1, 0.2, 0.3, 0.4)),
    ]  # fmt: skip
    assert marked(output, alert_id(output), "right", "--label", "person", "--by", "Ben") == 0
    assert marked(output, alert_id(output), "right", "--by", "Anna", "--id", "hall") == 0
    assert stands(output) == [("Ben", "right", "person"), ("Anna", "right", None)]


def test_an_alert_is_marked_by_the_name_of_its_image(output: Path) -> None:
    for name in (ALERTED, f"validated/hall/{ALERTED}", ALERTED.replace(".jpg", ".json")):
        assert marked(output, name, "right", "--by", "Anna") == 0
    marks, _ = read_marks(str(output))
    assert [mark.alert_id for mark in marks] == [alert_id(output)] * 3


def test_what_was_missed_is_marked_with_its_boxes_and_taken_back(output: Path) -> None:
    words = ("missed", "--label", "person", "--bbox", "0.1,0.2,0.05,0.3", "--bbox", "0,0,1,1")
    assert marked(output, QUIET, *words, "--by", "Anna") == 0
    (mark,) = read_marks(str(output))[0]
    assert mark.bboxes == ((0.1, 0.2, 0.05, 0.3), (0.0, 0.0, 1.0, 1.0))
    # The id that the alert of this image would have had.
    assert mark.alert_id == rules.alert_id("hall", "2026-01-31T10:10:00Z", "alert")
    assert marked(output, QUIET, "unsure", "--label", "person", "--by", "Anna") == 0
    assert stands(output) == [("Anna", "unsure", "person")]
    assert marked(output, ALERTED, "missed", "--label", "dog", "--by", "Anna") == 0
    assert stands(output) == [("Anna", "unsure", "person"), ("Anna", "missed", "dog")]


def test_without_a_name_the_user_of_the_machine_marks(
    output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOGNAME", "dora")
    assert marked(output, ALERTED, "right") == 0
    assert stands(output) == [("dora", "right", None)]
    capsys.readouterr()

    def unknown() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert "give --by NAME" in refused(
        capsys, "alerts", "mark", ALERTED, "right", "--output", output
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("0" * 32, "right"), f"{'0' * 32}: no such alert under"),
        (("../" + "0" * 29, "right"), "neither the id of an alert (32 hex digits) nor the name"),
        (("../../etc/passwd.jpg", "missed", "--label", "car"), "not the name of a stored image"),
        (("hall_20260131T235959Z.jpg", "right"), "no such image under"),
        (("_limits_20260131T235959Z.jpg", "right"), "not the name of a stored image"),
        ((ALERTED, "wrong"), "invalid choice: 'wrong'"),
        ((ALERTED, "right", "--label", "dog"), "the alert does not name it, but person, car"),
        ((ALERTED, "right", "--bbox", "0,0,1,1"), "--bbox is for `missed`, and the mark is"),
        ((ALERTED, "right", "--note", "x" * 1001), "note has 1,001 characters; 1,000 are allowed"),
        ((ALERTED, "right", "--by", "x" * 101), "by has 101 characters; 100 are allowed"),
        ((ALERTED, "right", "--by", "A\nB"), "by is empty, or holds what can't be printed"),
        ((ALERTED, "right", "--id", "../hall"), "--id ../hall: no id of a camera"),
        ((QUIET, "right"), "no alert was raised for this image, so none can be right"),
        ((QUIET, "false", "--label", "person"), "no alert was raised for this image"),
        ((QUIET, "unsure"), "no alert was raised for this image"),
        (
            (ALERTED, "missed", "--label", "person"),
            "the alert names it; mark it `right`, or give the --bbox of another one",
        ),
        ((QUIET, "missed"), "a missed threat needs its label"),
        ((QUIET, "missed", "--label", "persom"), "did you mean 'person'?"),
        ((QUIET, "missed", "--label", "car", "--bbox", "0,0,1"), "--bbox 0,0,1: a box has four"),
        ((QUIET, "missed", "--label", "car", "--bbox", "a,b"), "write it as 0.1,0.2,0.05,0.3"),
        ((QUIET, "missed", "--label", "car", "--bbox", "0.5,0,0.6,1"), "lies inside the image"),
        ((QUIET, "missed", "--label", "car", "--bbox", "0,0,nan,1"), "--bbox 0,0,nan,1: a box"),
    ],
    ids=lambda part: None if isinstance(part, str) else " ".join(part)[:40],
)
def test_what_can_not_be_marked_is_refused_in_one_line(
    output: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    assert says in refused(capsys, "alerts", "mark", *words, "--output", output)
    assert not (output / "marks").exists()


def test_an_id_of_another_camera_finds_nothing(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(
        capsys, "alerts", "mark", alert_id(output), "right", "--output", output, "--id", "gate"
    )
    assert "no such alert of gate under" in line
    line = refused(capsys, "alerts", "mark", "0" * 32, "right", "--output", output / "nowhere")
    assert "no such alert" in line


def test_a_damaged_record_of_an_alert_is_named(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    id = alert_id(output)
    (output / "alerts" / "hall" / f"{id}.json").write_text("{")
    assert marked(output, id, "right") == 1
    assert f"{id}.json: is no record of an alert; is it damaged?" in capsys.readouterr().err


def test_an_alert_that_was_pruned_can_not_be_marked(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = (output / "alerts" / "hall").iterdir()
    content = json.loads(record.read_bytes())
    record.write_bytes(json.dumps(shortened_record(content)).encode())
    line = refused(capsys, "alerts", "mark", record.stem, "false", "--output", output)
    assert "does not say any more what it was for, as `prune` has shortened it" in line


def test_the_list_of_alerts_shows_their_marks(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed() -> list[str]:
        assert cli.main(["alerts", "list", "--output", str(output)]) == 0
        return capsys.readouterr().out.splitlines()

    assert [line.split()[4] for line in listed()[:2]] == ["mark", "-"]
    marked(output, ALERTED, "false", "--by", "Anna")
    marked(output, ALERTED, "right", "--label", "person", "--by", "Ben")
    capsys.readouterr()
    assert "  false, by Anna; right person, by Ben  HTTP status 503" in listed()[1]
    (output / "marks" / "hall" / f"{'0' * 32}_damaged.json").write_text(json.dumps({}))
    assert cli.main(["alerts", "list", "--output", str(output)]) == 1
    assert "damaged.json: ValueError: no mark" in capsys.readouterr().err
