"""The command ``health`` on a drawn output: what is read, what is printed, what is sent once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beam_pipeline import cli
from tests.beam_pipeline.drawn_output import (
    END,
    HOUR,
    NOTHING,
    write,
    write_counts,
    write_picture,
)
from tests.transforms.web_service import WebService, status
from transforms.storage import stores

RULES = """\
version: 1
targets: {guards: {webhook: "${GUARDS_URL}"}}
health: {targets: [guards]}
defaults: {objects: {person: {}}}
cameras:
  hall: {}
  yard: {}
  attic: {}
"""


def write_invalid(output: Path, reason: str, name: str) -> None:
    write(output / "invalid" / reason / f"{name}.json", {"file": name, "reason": reason})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The yard is silent, the hall out of focus, and the attic has never sent."""
    output = tmp_path / "output"
    write_counts(output, silent=18)
    for back in range(80, 0, -1):
        blurred = back <= 20
        write_picture(output, END - back * HOUR, not blurred, 0.001 if blurred else 0.03)
    for minute in range(3):
        write_invalid(output, "not_jpeg", f"hall_20260209T20{minute:02}00Z.jpg")
    write_invalid(output, "bad_name", "holiday.jpg")
    window = {"window_start": "2026-02-09T20:00:00Z", "window_end": "2026-02-09T21:00:00Z"}
    late = {"id": "hall", **window, **NOTHING, "images": 1}
    write(output / "late" / "hall" / "hall_20260209T200000Z.json", late)
    (tmp_path / "rules.yaml").write_text(RULES)
    return output


def health(output: Path, *arguments: str) -> int:
    return cli.main(["health", "--output", str(output), *arguments])


def test_json_says_what_is_wrong_with_which_camera(output, tmp_path):
    file = tmp_path / "health.json"
    rules = str(tmp_path / "rules.yaml")
    assert health(output, "--rules", rules, "--format", "json", "--file", str(file)) == 0
    report = json.loads(file.read_text())
    assert [
        (finding["id"], finding["kind"], finding["severity"]) for finding in report["findings"]
    ] == [
        ("attic", "silent", "fault"),
        ("yard", "silent", "fault"),
        ("hall", "blind", "fault"),
    ]
    assert (report["since"], report["until"]) == ("2026-02-09T00:00:00Z", "2026-02-10T00:00:00Z")
    assert report["cameras"] == 3
    assert report["unplaced"] == {"bad_name": 1}
    assert report["problems"] == []
    assert report["findings"][1]["since"] == "2026-02-09T06:00:00Z"
    assert report["findings"][1]["expected"] == pytest.approx(108, abs=1)


def test_the_table_says_it_in_words(output, capsys):
    assert health(output) == 0
    printed = capsys.readouterr().out
    assert "2 cameras, 2 findings" in printed
    assert "yard  has sent nothing since 2026-02-09 06:00 UTC; about 108 are usual" in printed
    assert "hall  is blurred (sharpness 0.001, usually from 0.03 on)" in printed
    assert "bad_name 1" in printed


def test_the_table_counts_one_camera_in_the_singular(tmp_path, capsys):
    window = {"window_start": "2026-02-09T20:00:00Z", "window_end": "2026-02-09T21:00:00Z"}
    row = {"id": "hall", **window, **NOTHING, "images": 6}
    write(tmp_path / "counts" / "20260209T200000Z_20260209T210000Z.jsonl", row)
    assert health(tmp_path) == 0
    assert "1 camera, 0 findings\n" in capsys.readouterr().out


def test_a_period_ends_at_until(output, capsys):
    """Before the yard fell silent and the hall went out of focus."""
    assert health(output, "--until", "2026-02-09T03:00:00Z") == 0
    assert "0 findings" in capsys.readouterr().out


def test_what_a_camera_is_expected_to_send_is_held_against_it(output, capsys):
    assert health(output, "--expected", "5", "--expected", "hall=20", "--format", "json") == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    silent = {
        finding["id"]: finding["expected"] for finding in findings if finding["kind"] == "silent"
    }
    assert silent == {"hall": 480, "yard": 120}


def test_a_broken_record_is_reported_and_skipped(output, capsys):
    (output / "invalid" / "not_jpeg" / "hall_20260209T200000Z.jpg.json").write_text("[")
    assert health(output, "--format", "json") == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["problems"]) == 1
    assert "hall_20260209T200000Z.jpg.json: no record of an invalid image" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--since", "2026-02-10T00:00:00Z"), "the period is empty"),
        (("--until", "yesterday"), "--until: not a time"),
        (("--expected", "hall=often"), "--expected hall=often: give images an hour"),
        (("--expected", "-1"), "--expected"),
        (("--notify",), "--notify needs --rules with health targets"),
    ],
)
def test_a_wrong_option_is_reported_in_one_line(output, capsys, arguments, message):
    assert health(output, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_output_without_counts_is_reported_in_one_line(tmp_path, capsys):
    assert health(tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run the job first" in line


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch):
    """The health target of the rules."""
    with WebService() as service:
        monkeypatch.setenv("GUARDS_URL", f"{service.url}/hook?key=very-secret")
        yield service


def test_what_is_new_is_sent_once(output, tmp_path, guards, capsys):
    arguments = ("--rules", str(tmp_path / "rules.yaml"), "--notify")
    assert health(output, *arguments) == 0
    assert "3 health messages delivered" in capsys.readouterr().err
    sent = [json.loads(request.body) for request in guards.requests]
    assert [message["subject"] for message in sent] == [
        "Camera silent: attic",
        "Camera silent: yard",
        "Camera blind: hall",
    ]
    assert "yard has sent nothing since 2026-02-09 06:00 UTC" in sent[1]["text"]
    assert health(output, *arguments) == 0
    assert len(guards.requests) == 3
    ledger = sorted((output / "health").rglob("*.json"))
    records = [json.loads(file.read_text()) for file in ledger]
    assert [file.stem for file in ledger] == [record["finding_id"] for record in records]
    targets = [{"target": "guards", "outcome": "delivered", "detail": ""}]
    assert [record["targets"] for record in records] == [targets] * 3
    assert b"very-secret" not in b"".join(file.read_bytes() for file in ledger)


def test_a_target_that_is_not_there_is_given_up_on_and_reported_the_next_time(
    output, tmp_path, guards, capsys
):
    arguments = ("--rules", str(tmp_path / "rules.yaml"), "--notify")
    guards.answers = [status(503)]
    assert health(output, *arguments) == 0
    stderr = capsys.readouterr().err
    assert "0 health messages delivered" in stderr
    assert "not to guards: unavailable" in stderr
    assert not (output / "health").exists()
    guards.answers = [status(400), status(200)]
    assert health(output, *arguments) == 0
    assert "2 health messages delivered" in capsys.readouterr().err
    assert health(output, *arguments) == 0  # What was refused is not sent again.
    assert len(guards.requests) == 6


def test_a_breakdown_of_many_cameras_is_one_message(output, tmp_path, guards):
    cameras = "".join(f"  cam-{number}: {{}}\n" for number in range(30))
    (tmp_path / "rules.yaml").write_text(RULES + cameras)
    arguments = ("--rules", str(tmp_path / "rules.yaml"), "--notify")
    assert health(output, *arguments) == 0
    (request,) = guards.requests
    sent = json.loads(request.body)
    assert sent["subject"] == "33 findings on the health of cameras"
    assert sent["text"].count("\n") == 33
    assert health(output, *arguments) == 0
    assert len(guards.requests) == 1


@pytest.fixture
def nothing_valid(tmp_path):
    """What a job leaves of which every image was invalid."""
    for reason, names in (
        ("bad_name", ["DSC_0001.jpg", "DSC_0002.jpg"]),
        ("empty_file", ["h.jpg"]),
    ):
        for name in names:
            record = {"file": name, "reason": reason, "detail": "why", "uri": f"/in/{name}"}
            stores.write_bytes(
                str(tmp_path / "out" / "invalid" / reason / f"{name}.json"),
                stores.json_bytes(record),
            )
    return tmp_path / "out"


def test_where_every_image_was_invalid_it_says_so(nothing_valid, capsys):
    assert health(nothing_valid) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    (line,) = captured.out.splitlines()
    assert "no image was valid" in line
    assert "3 invalid (bad_name 2, empty_file 1), such as DSC_0001.jpg, which is bad_name" in line
    assert "run the job first" not in line
    assert line.endswith("`names check` finds the option that reads such names")


@pytest.mark.parametrize("command", ["counts", "chart"])
def test_other_commands_say_it_too_and_propose_no_run_of_the_samples(
    command, nothing_valid, capsys
):
    assert cli.main([command, "--output", str(nothing_valid)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no image was valid" in line
    assert "python -m beam_pipeline" not in line


def test_the_report_says_that_every_image_was_invalid(nothing_valid, capsys):
    assert cli.main(["report", "--output", str(nothing_valid)]) == 0
    captured = capsys.readouterr()
    assert "no image was valid" in captured.err
    page = (nothing_valid / "report" / "report.html").read_text()
    assert "No image was valid" in page
    assert "There are no findings" not in page
    assert "DSC_0001.jpg" in page
    assert "The names of 2 images can't be read" in page
    assert "names check" in page


def test_an_output_that_is_not_there_proposes_a_run_on_images_of_ones_own(tmp_path, capsys):
    assert cli.main(["counts", "--output", str(tmp_path / "none")]) == 2
    assert "run --input IMAGES --output" in capsys.readouterr().err
