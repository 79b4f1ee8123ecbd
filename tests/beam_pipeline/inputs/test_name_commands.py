"""`names check`: which preset reads the names of an input, and the options to use."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline import cli
from beam_pipeline.inputs.name_survey import shapes, survey
from beam_pipeline.job.options import job_options
from rules import PRESETS, Names
from tests.beam_pipeline.conftest import refused
from tests.rules.rendered_names import render
from transforms.records.file_names import InvalidNameError
from transforms.records.images import ImageFile
from transforms.records.received_names import read_name

UTC = timezone.utc


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "in"


def put(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def check(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert cli.main(["names", "check", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def test_one_preset_reads_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, *(f"Front Door_00_202601311752{second:02d}.jpg" for second in range(10)))
    put(folder, "Back Gate_01_20260131175217.jpg")
    said = check(capsys, folder)
    assert said[0] == f"{folder}: 11 files"
    assert "reolink      11        2" in said
    assert "options: --name_preset reolink" in said
    examples = said[said.index("reolink:") + 1 :][:3]
    assert [line.split()[-2:] for line in examples] == [
        ["Back-Gate", "2026-01-31T17:52:17Z"],
        ["Front-Door", "2026-01-31T17:52:00Z"],
        ["Front-Door", "2026-01-31T17:52:01Z"],
    ]
    assert said[-1].startswith("times without an offset are read as UTC")


def test_a_time_zone_is_used_and_repeated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, "Front Door_00_20260131175217.jpg")
    said = check(capsys, folder, "--timezone", "Europe/Berlin")
    assert said[-1] == "options: --name_preset reolink --timezone Europe/Berlin"
    assert any(line.endswith("2026-01-31T16:52:17Z") for line in said)


def test_cameras_of_several_makers_go_into_the_rule_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder, *(f"Front Door_00_202601311752{second:02d}.jpg" for second in range(3)))
    put(folder, "192.168.1.64_01_20260131175217123_MOTION_DETECTION.jpg")
    put(folder, "hall_20260131T175217Z.jpg")
    said = check(capsys, folder)
    assert "  names: {preset: reolink}" in said
    assert "    192.168.1.64: {names: {preset: hikvision}}" in said
    assert not any(line.startswith("options:") for line in said)


def test_canonical_names_need_no_option(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, "hall_20260131T175217Z.jpg", "hall_1769878337.jpg")
    said = check(capsys, folder)
    assert said[-1] == "options: none are needed for the names"


def test_two_cameras_that_would_have_one_id_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder, "Front Door_00_20260131175217.jpg", "Front  Door_00_20260131175217.jpg")
    (line,) = [line for line in check(capsys, folder) if "would both be" in line]
    assert line.startswith("reolink: 'Front  Door' (Front  Door_00_20260131175217.jpg) and 'Front")
    assert line.endswith("tell them apart by --name_pattern")


def test_a_canonical_name_that_a_preset_reads_otherwise_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder, "Garage_00_20260131175217.jpg")
    assert (
        "the preset reolink reads them too, with the cameras Garage: --name_preset reolink"
        in check(capsys, folder)
    )


def test_names_that_no_preset_reads_are_shown_with_the_way_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder, *(f"north/img-31.01.26-{second}.jpg" for second in range(175200, 175205)))
    put(folder, "notes.txt")
    said = check(capsys, folder)
    assert "1 of them do not end in .jpg or .jpeg, and are bad_name" in said
    assert "not read: 5 images, named like (# is a digit)" in said
    assert "  north/img-##.##.##-######.jpg (5)" in said
    assert "--name_pattern" in said[-1]
    pattern = "{camera}/img-{time:%d.%m.%y-%H%M%S}.jpg"
    said = check(capsys, folder, "--name_pattern", pattern)
    assert f"options: --name_pattern '{pattern}'" in said


@pytest.mark.parametrize(("is_copied", "claims"), [(False, True), (True, False)])
def test_local_time_is_found_out_where_files_are_not_copies(
    folder: Path, capsys: pytest.CaptureFixture[str], is_copied: bool, claims: bool
) -> None:
    start = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for minutes in range(0, 200, 20):
        moment = start + timedelta(minutes=minutes)
        name = f"hall_00_{moment + timedelta(hours=1):%Y%m%d%H%M%S}.jpg"
        put(folder, name)
        written = datetime(2026, 2, 1, tzinfo=UTC) if is_copied else moment
        os.utime(folder / name, (written.timestamp() + 2,) * 2)
    said = check(capsys, folder)
    line = "names of hall_00 seem to be local time (UTC+1): --timezone Europe/Berlin"
    assert (line in said) is claims


@pytest.mark.parametrize("make", [False, True])
def test_without_a_file_there_is_nothing_to_check(
    folder: Path, capsys: pytest.CaptureFixture[str], make: bool
) -> None:
    if make:
        folder.mkdir()
    assert "no file there" in refused(capsys, "names", "check", folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--timezone", "Mars/Olympus"], "there is no time zone 'Mars/Olympus'"),
        (["--name_pattern", "{camera}.jpg"], "has no {time}"),
    ],
)
def test_wrong_options_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert words in refused(capsys, "names", "check", folder, *options)


def test_a_link_is_followed_on_request(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "elsewhere", "hall_20260131T175217Z.jpg")
    put(folder, "hall_20260131T175218Z.jpg")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    assert check(capsys, folder)[0] == f"{folder}: 1 files"
    assert check(capsys, folder, "--follow_links")[0] == f"{folder}: 2 files"


FORMS = [(name, form) for name, forms in PRESETS.items() for form in forms]


@given(
    forms=st.lists(st.sampled_from(FORMS), min_size=1, max_size=6),
    strange=st.lists(st.text(st.characters(exclude_categories=()), min_size=1), max_size=5),
)
def test_what_is_proposed_reads_all_that_any_preset_reads(forms, strange):
    time = datetime(2026, 1, 31, 17, 52, 17, 123000)
    paths = {
        render(form, f"cam{number}", time, folders="x/") for number, (_, form) in enumerate(forms)
    }
    paths |= {f"{name}.jpg" for name in strange}
    found = survey([ImageFile(f"/in/{path}", 1) for path in sorted(paths)], "/in")
    unread = {image.path for image in found.unread()}
    proposed = [Names(way.settings) for way in (found.ways[0], *found.chosen())]
    for path in paths:
        assert (path in unread) == (not any(reads(path, names) for names in proposed))
    assert len(unread) <= len(strange)
    assert len(found.chosen()) <= len({name for name, _ in forms}) + len(strange)
    assert all(shape.encode() for shape in shapes(found.images))


def reads(path: str, names: Names) -> bool:
    try:
        read_name(path, names)
    except InvalidNameError:
        return False
    return True


def test_the_proposed_options_are_taken_by_the_job() -> None:
    for preset in PRESETS:
        assert job_options(["--name_preset", preset]).name_preset == preset
