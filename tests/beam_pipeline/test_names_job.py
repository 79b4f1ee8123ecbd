"""Images under the names that cameras give them: what is stored, and what can't be."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests import documented, warm
from tests.beam_pipeline.conftest import jpeg, read_json, refused, tree
from tests.conftest import Command
from tests.transforms.small_models import save_detector


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_detector(tmp_path_factory.mktemp("model") / "small")


class Job:
    """Jobs on one folder of images.

    Attributes:
      input: Their input.
      output: Their output.
      notes: What the last one has printed on standard error.
    """

    def __init__(self, top: Path, command: Command, model: Path) -> None:
        self.input, self.output = top / "in", top / "out"
        self._command, self._model = command, model
        self.notes = ""
        self.input.mkdir()

    def put(self, path: str, data: bytes | None = None, changed: datetime | None = None) -> Path:
        file = self.input / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg() if data is None else data)
        if changed is not None:
            os.utime(file, (changed.timestamp(),) * 2)
        return file

    def run(self, *arguments: str | Path, source: str | Path | None = None) -> str:
        done = self._command(
            *("--input", source or self.input, "--output", self.output, "--model", self._model),
            *arguments,
        )
        assert done.code == 0, done.err
        self.notes = done.err
        return done.out

    def finals(self) -> dict[str, tuple[str, str]]:
        """The received name and the capture time of what is in `final/`, by its stem."""
        records = {path.stem: read_json(path) for path in self.output.glob("final/*/*.json")}
        return {stem: (one["file"], one["timestamp"]) for stem, one in records.items()}

    def invalid(self) -> dict[str, Any]:
        """The records in `invalid/`, by their path below it."""
        top = self.output / "invalid"
        return {path.relative_to(top).as_posix(): read_json(path) for path in top.rglob("*.json")}


@pytest.fixture
def job(tmp_path: Path, command: Command, model: Path) -> Job:
    return Job(tmp_path, command, model)


def test_cameras_of_several_makers_share_an_input(job: Job, tmp_path: Path) -> None:
    job.put("Front Door_00_20260131175217.jpg")
    job.put("192.168.1.64_01_20260131175217123_MOTION_DETECTION.jpg")
    job.put("yard/2026-01-31/img_175217.jpg")
    job.put("hall_20260131T165217Z.jpg")
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        """\
version: 1
defaults:
  names: {preset: reolink, timezone: Europe/Berlin}
  objects: {person: {}}
cameras:
  192.168.1.64:
    names: {preset: hikvision}
  yard:
    names: {pattern: "{camera}/{time:%Y-%m-%d}/img_{time:%H%M%S}.jpg", timezone: Asia/Kolkata}
"""
    )
    job.run("--rules", rules)
    assert job.invalid() == {}
    assert job.finals() == {
        "Front-Door_20260131T165217Z": (
            "Front Door_00_20260131175217.jpg",
            "2026-01-31T16:52:17Z",
        ),
        "192.168.1.64_20260131T165217.123Z": (
            "192.168.1.64_01_20260131175217123_MOTION_DETECTION.jpg",
            "2026-01-31T16:52:17.123Z",
        ),
        "yard_20260131T122217Z": ("img_175217.jpg", "2026-01-31T12:22:17Z"),
        "hall_20260131T165217Z": ("hall_20260131T165217Z.jpg", "2026-01-31T16:52:17Z"),
    }


def test_two_images_of_one_second_are_both_judged_and_stored_apart(job: Job) -> None:
    colours = [(1, 2, 3), (90, 90, 90), (200, 10, 10)]
    for number, colour in enumerate(colours):
        job.put(f"yard_20260131175217_{number}_trg.jpg", jpeg(colour))
    job.run("--name_preset", "vivotek")
    assert list(job.finals()) == ["yard_20260131T175217Z"]
    records = job.invalid()
    assert {record["reason"] for record in records.values()} == {"duplicate"}
    assert all(name.startswith("duplicate/yard_20260131T175217Z-") for name in records)
    received = {record["file"] for record in records.values()}
    received |= {file for file, _ in job.finals().values()}
    assert received == {f"yard_20260131175217_{number}_trg.jpg" for number in range(3)}
    copies = {
        path.read_bytes()
        for path in job.output.rglob("*.jpg")
        if path.relative_to(job.output).parts[0] in ("validated", "invalid")
    }
    assert copies == {jpeg(colour) for colour in colours}


def test_the_same_input_gives_the_same_bytes_again_and_with_resume(job: Job) -> None:
    for second in range(4):
        job.put(f"Front Door_00_2026013117521{second}.jpg", jpeg((second, 90, 90)))
    job.put("Front Door_00_20260131175213.JPG", jpeg((200, 1, 1)))
    job.put("Front Door_00_20260231175213.jpg")
    options = ("--name_preset", "reolink", "--timezone", "Europe/Berlin")
    job.run(*options)
    first = tree(job.output, without=("report",))
    job.run(*options)
    assert tree(job.output, without=("report",)) == first
    said = job.run(*options, "--resume")
    assert "of them processed in an earlier run" in said
    assert tree(job.output, without=("report",)) == first


def test_what_was_a_bad_name_before_leaves_no_record(job: Job) -> None:
    job.put("Front Door_00_20260131175217.jpg")
    job.put("Front Door_00_20260131175218.jpg", b"no image")
    job.put("notes.txt", b"")
    job.run()
    assert {name.split("/")[0] for name in job.invalid()} == {"bad_name"}
    job.run("--name_preset", "reolink")
    assert list(job.finals()) == ["Front-Door_20260131T175217Z"]
    assert sorted(job.invalid()) == [
        "bad_name/notes.txt.json",
        "not_jpeg/Front-Door_20260131T175218Z.jpg.json",
    ]
    assert sorted(path.name for path in (job.output / "invalid").glob("*/*.jpg")) == [
        "Front-Door_20260131T175218Z.jpg"
    ]


def test_a_glob_and_a_file_are_matched_below_their_folders(job: Job) -> None:
    for camera in ("yard", "gate"):
        job.put(f"ftp/{camera}/20260131_175217.jpg")
    pattern = ("--name_pattern", "{camera}/{time:%Y%m%d_%H%M%S}.jpg")
    job.run(*pattern, source=f"{job.input}/ftp/*/*.jpg")
    assert sorted(job.finals()) == ["gate_20260131T175217Z", "yard_20260131T175217Z"]
    file = job.input / "ftp" / "yard" / "20260131_175217.jpg"
    said = job.run(*pattern, source=file)
    assert "invalid  " in said
    assert list(job.invalid()) == ["bad_timestamp/20260131_175217.jpg.json"]


def test_the_doubled_hour_is_told_by_the_times_of_the_files(job: Job) -> None:
    for hour in (0, 1):
        changed = datetime(2026, 10, 25, hour, 30, 2, tzinfo=timezone.utc)
        job.put(f"{hour}/a_00_20261025023000.jpg", jpeg((hour, 9, 9)), changed)
    now = ("--max_clock_skew_seconds", "31622400")
    job.run("--name_preset", "reolink", "--timezone", "Europe/Berlin", *now)
    assert sorted(job.finals()) == ["a_20261025T003000Z", "a_20261025T013000Z"]


def test_a_name_that_is_no_text_is_read_too(job: Job) -> None:
    os.makedirs(os.fsencode(job.input) + b"/ca\xff")
    with open(os.fsencode(job.input) + b"/ca\xff/20260131_175217.jpg", "wb") as file:
        file.write(jpeg())
    with open(os.fsencode(job.input) + b"/a_01_20260131175217123_\xff.jpg", "wb") as file:
        file.write(jpeg((9, 9, 9)))
    job.run("--name_preset", "folders")
    assert list(job.finals()) == ["ca_20260131T175217Z"]
    job.run("--name_preset", "hikvision")
    final = read_json(job.output / "final" / "a" / "a_20260131T175217.123Z.json")
    assert final["file"] == "a_01_20260131175217123_%FF.jpg"


def test_refused_images_of_one_second_have_a_record_each(job: Job) -> None:
    for number in range(2):
        job.put(f"yard_29991231000000_{number}_trg.jpg", jpeg((number, 9, 9)))
    job.run("--name_preset", "vivotek")
    records = job.invalid()
    assert all(name.startswith("timestamp_in_future/yard_29991231T000000Z-") for name in records)
    assert sorted(record["file"] for record in records.values()) == [
        "yard_29991231000000_0_trg.jpg",
        "yard_29991231000000_1_trg.jpg",
    ]
    assert len(list(job.output.glob("invalid/*/*.jpg"))) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--name_preset", "reolnk"], "there is no preset 'reolnk'; did you mean 'reolink'?"),
        (["--name_pattern", "{time:%s}.jpg"], "has no {camera}"),
        (["--name_pattern", "{camera}.jpg"], "has no {time}"),
        (["--name_pattern", "{camera}_{time:%Q}.jpg"], "%Q, which can't be read"),
        (["--timezone", "Mars/Olympus"], "there is no time zone 'Mars/Olympus'"),
        (
            ["--name_preset", "axis", "--name_pattern", "{camera}_{time:%s}.jpg"],
            "--name_preset and --name_pattern are two ways of naming",
        ),
    ],
)
def test_wrong_options_are_refused(
    job: Job, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    job.put("Front Door_00_20260131175217.jpg")
    assert words in refused(capsys, "--input", job.input, "--output", job.output, *options)
    assert not job.output.exists()


TWO_FIT = """\
version: 1
cameras:
  a: {names: {pattern: '{camera}/*_{time:%Y%m%d%H%M%S}.jpg'}}
  b: {names: {pattern: '*/{camera}_{time:%Y%m%d%H%M%S}.jpg'}}
"""


@pytest.mark.parametrize(
    ("names", "options", "rules", "words"),
    [
        (
            ["Front Door_00_20260131175217.jpg", "Front-Door_00_20260131175218.jpg"],
            ["--name_preset", "reolink"],
            None,
            "'Front Door' (Front Door_00_20260131175217.jpg) and 'Front-Door' "
            "(Front-Door_00_20260131175218.jpg) would both be the camera Front-Door",
        ),
        (
            ["a_00_20260131175217123.jpg", "a_01_20260131175217123.jpg"],
            ["--name_preset", "hikvision"],
            None,
            "channel 0 of 'a' (a_00_20260131175217123.jpg) and channel 1 of 'a'",
        ),
        (
            ["a/b_20260131175217.jpg"],
            [],
            TWO_FIT,
            "a/b_20260131175217.jpg: two ways of naming fit it",
        ),
        (
            ["a_00_20260131175217.jpg"],
            ["--name_preset", "axis"],
            "version: 1\ndefaults: {names: {preset: reolink}}\n",
            "names are read by the preset axis, say the options, and by the preset reolink",
        ),
        (
            ["a_00_20260131175217.jpg"],
            ["--timezone", "Asia/Kolkata"],
            "version: 1\nnames: {timezone: Europe/Berlin}\n",
            "--timezone Asia/Kolkata: names of the rule file says Europe/Berlin",
        ),
    ],
)
def test_names_that_can_not_be_told_apart_are_refused(
    job: Job,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    names: list[str],
    options: list[str],
    rules: str | None,
    words: str,
) -> None:
    for name in names:
        job.put(name)
    if rules is not None:
        (tmp_path / "rules.yaml").write_text(rules)
        options = [*options, "--rules", str(tmp_path / "rules.yaml")]
    said = refused(
        capsys,
        *("--input", job.input, "--output", job.output, "--model", "bundled", *options),
    )
    assert words in said
    assert not (job.output / "final").exists()


def test_commands_read_what_was_stored_under_canonical_names(job: Job, command: Command) -> None:
    for minute in range(3):
        job.put(f"Front Door_00_202601311752{minute:02d}.jpg", jpeg((minute, 90, 90)))
    job.put("Front Door_00_20260131175259.jpg", b"no image")
    job.run("--name_preset", "reolink", "--timezone", "Europe/Berlin")
    exported = job.output.parent / "exported.json"
    done = command("export", "--archive", job.output, "--id", "Front-Door", "--output", exported)
    assert done.code == 0, done.err
    files = [image["file"] for image in json.loads(exported.read_text())["images"]]
    assert len(files) == 4
    assert all((job.output / file).is_file() for file in files)
    done = command("backtest", "--archive", job.output, "--rules", _default_rules(job.output))
    assert done.code == 0, done.err
    assert "problems" not in done.err


def _default_rules(output: Path) -> Path:
    rules = output.parent / "rules.yaml"
    rules.write_text("version: 1\ndefaults: {objects: {person: {}}}\n")
    return rules


def summary(said: str, label: str) -> list[str]:
    """The lines of a summary with a label, without it."""
    return [line[len(label) :].strip() for line in said.splitlines() if line.startswith(label)]


VENDORS = [
    *(f"Front Door_00_202601311752{second:02d}.jpg" for second in range(4)),
    *(f"192.168.1.64_01_202601311752{second:02d}123_MOTION_DETECTION.jpg" for second in range(3)),
]


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (
            VENDORS[:4],
            "4 of 4 can't be read, such as Front Door_00_20260131175200.jpg: --name_preset "
            "reolink reads them; ",
        ),
        (
            VENDORS,
            f"7 of 7 can't be read, such as {VENDORS[4]}: --name_preset reolink and "
            "--name_preset hikvision each read some of them, which the rule file can set for each "
            "camera; ",
        ),
        (
            ["IMG 1.jpg", "IMG 2.jpg"],
            "2 of 2 can't be read, such as IMG 1.jpg: write their form as --name_pattern "
            "(docs/names.md); ",
        ),
        ([*VENDORS[:2], "hall_20260131T175217Z.jpg", "hall_20260131T175218Z.jpg"], None),
        (["hall_20260131T175217Z.jpg"], None),
    ],
)
def test_unusable_names_are_told_with_the_option_that_reads_them(
    job: Job, names: list[str], note: str | None
) -> None:
    for name in names:
        job.put(name)
    notes = summary(job.run(), "names ")
    assert notes == ([] if note is None else [f"{note}`names check {job.input}` shows more"])


def test_a_schedule_has_the_time_zone_of_the_names(job: Job, tmp_path: Path) -> None:
    """An image of 17:52 in Berlin was judged as one of 16:52, without a word."""
    job.put("hall_20260131175217.jpg")
    file = tmp_path / "schedule.yaml"
    text = (
        "version: 1\n{}defaults:\n  objects: {{person: {{}}}}\n"
        "  schedule: {{armed: [{{start: '17:00', end: '18:00'}}]}}\n"
    )

    def run(names: str, *options: str) -> tuple[bool, str]:
        file.write_text(text.format(names))
        job.run("--rules", file, *options)
        (verdict,) = (job.output / "final").glob("*/*.json")
        return read_json(verdict)["threat"]["is_threat"], job.notes

    is_threat, notes = run("names: {timezone: Europe/Berlin}\n")
    assert is_threat
    assert "UTC" not in notes
    is_threat, notes = run("", "--timezone", "Europe/Berlin")
    assert not is_threat
    assert (
        "schedule.yaml: the schedule or night of any other camera is in UTC, as the rule file has "
        "no time zone for it; write `timezone: Europe/Berlin` under `defaults` if it is meant in "
        "local time\n"
    ) in notes


def test_a_camera_that_the_rule_file_names_in_another_way_is_told(job: Job, tmp_path: Path) -> None:
    job.put("Front-Door_20260131T175217Z.jpg")
    job.put("yard_20260131T175217Z.jpg")
    file = tmp_path / "cameras.yaml"
    file.write_text("version: 1\ncameras: {front-door: {objects: {person: {}}}}\n")
    assert summary(job.run("--rules", file), "names ") == [
        "Front-Door is not in the rule file, so the defaults apply; did you mean front-door?"
    ]


def test_report_and_health_tell_of_names_that_can_not_be_read(job: Job, command: Command) -> None:
    job.put("hall_20260131T175217Z.jpg")
    job.put(VENDORS[0])
    job.run()
    page = job.output / "report" / "report.html"
    assert "names check" not in page.read_text()
    assert command("health", "--output", job.output).out.splitlines()[-1] == (
        "`names check` finds the option that reads such names"
    )
    job.put(VENDORS[1])
    job.run()
    assert "The names of 2 images can't be read" in page.read_text()
    assert "names check" in page.read_text()


@pytest.mark.parametrize(
    ("options", "is_copied", "note"),
    [
        ([], False, "names of hall seem to be local time (UTC+1): --timezone Europe/Berlin"),
        ([], True, None),
        (["--timezone", "Europe/Berlin"], False, None),
        (["--timezone", "UTC"], False, None),
    ],
)
def test_local_time_is_found_out(
    job: Job, options: list[str], is_copied: bool, note: str | None, command: Command
) -> None:
    start = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    for minutes in range(0, 200, 20):
        moment = start + timedelta(minutes=minutes)
        written = start + timedelta(days=1) if is_copied else moment
        name = f"hall_{moment + timedelta(hours=1):%Y%m%d%H%M%S}.jpg"
        job.put(name, changed=written + timedelta(seconds=2))
    assert summary(job.run(*options), "names ") == ([] if note is None else [note])
    if options != ["--timezone", "UTC"]:  # An output does not say that this option was given.
        lines = command("health", "--output", job.output).out.splitlines()
        assert [line for line in lines if "local time" in line] == ([] if note is None else [note])
        assert command("report", "--output", job.output).code == 0
        page = (job.output / "report" / "report.html").read_text()
        assert ("seem to be local time" in page) == (note is not None)
        assert note is None or note in page


def test_the_documented_commands_run(tmp_path: Path, model: Path) -> None:
    documented.make_checkout(tmp_path, warm.interpreter())
    images = tmp_path / "srv" / "pictures"
    images.mkdir(parents=True)
    (images / "Front Door_00_20260131175217.jpg").write_bytes(jpeg())
    places = {"/srv/": f"{tmp_path}/srv/"}
    check, run = documented.run_by(documented.NAMES, "docs/names.md")
    done = documented.shell(documented.substituted(check.text, places), tmp_path, {**os.environ})
    assert done.returncode == 0, done.stderr
    assert "options: --name_preset reolink" in done.stdout
    text = documented.substituted(run.text, places) + f" --model {model}"
    done = documented.shell(text, tmp_path, {**os.environ})
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.glob("srv/results/final/*/*")] == [
        "Front-Door_20260131T165217Z.json"
    ]
