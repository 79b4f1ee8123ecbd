"""The command `pack`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from beam_pipeline import cli
from tests.beam_pipeline.conftest import tree
from tests.transforms.archives import seen, write_output

PICTURES = [
    seen(camera, f"2026-01-31T10:0{minute}:00Z", ("person", 0.1 + minute / 10))
    for camera in ("gate", "hall")
    for minute in range(6)
]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_output(tmp_path / "output", PICTURES)
    return tmp_path / "output"


def pack(*arguments: object) -> int:
    return cli.main(["pack", *map(str, arguments)])


def test_an_archive_is_packed_a_file_a_camera(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack("--archive", output, "--output", tmp_path / "packed") == 0
    assert capsys.readouterr().out == f"12 images of 2 cameras packed into {tmp_path}/packed\n"
    written = tree(tmp_path / "packed")
    assert sorted(written) == ["gate.parquet", "hall.parquet"]


def test_what_is_packed_a_part_at_a_time_packs_together_to_the_same_bytes(
    output: Path, tmp_path: Path
) -> None:
    noon = "2026-01-31T10:03:00Z"
    assert pack("--archive", output, "--output", tmp_path / "early", "--until", noon) == 0
    assert pack("--archive", output, "--output", tmp_path / "late", "--since", noon) == 0
    parts = ["--archive", tmp_path / "late", "--archive", tmp_path / "early"]
    assert pack(*parts, "--output", tmp_path / "both") == 0
    assert pack("--archive", output, "--output", tmp_path / "whole") == 0
    assert tree(tmp_path / "both") == tree(tmp_path / "whole")
    assert tree(tmp_path / "early") != tree(tmp_path / "whole")


def test_broken_json_is_counted_and_listed(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = output / "final" / "hall" / "hall_2026-01-31T10-01-00Z.json"
    broken.write_text("{")
    missing = output / "detections" / "gate" / "gate_2026-01-31T10-05-00Z.json"
    missing.unlink()
    assert pack("--archive", output, "--output", tmp_path / "packed") == 0
    captured = capsys.readouterr()
    assert "12 images" in captured.out
    assert captured.err.startswith("problems with the archive, skipped: 2\n")
    assert f"{missing}: not there" in captured.err
    listed = (tmp_path / "packed" / "problems.jsonl").read_text().splitlines()
    assert len(listed) == 2
    assert str(missing) in listed[0]
    assert str(broken) in listed[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--archive", "{output}"], "say by --to what is to be written"),
        (["--output", "{output}"], "say by --to what is to be written"),
        (["--to", "{tmp}/packed"], "give the job's output by --output DIR"),
        (["--archive", "{output}", "--output", "a", "--output", "b"], "say by --to what is to be"),
        (["--archive", "{tmp}/nowhere", "--output", "{tmp}/p"], "nowhere: no archive there"),
        (["--output", "", "--to", "{tmp}/p"], "--output is empty"),
        (["--archive", "{output}", "--output", "{output}/"], "is the archive itself"),
        (["--archive", "{output}", "--output", "{tmp}/a-file"], "a-file: can't be written"),
        (["--archive", "{output}", "--output", "{tmp}/p", "--id", "attic"], "there are gate, hall"),
        (
            ["--archive", "{output}", "--output", "{tmp}/p", "--since", "soon"],
            "--since: not a time",
        ),
        (
            [
                *("--archive", "{output}", "--output", "{tmp}/p"),
                *("--since", "2026-01-31T10:00:00Z", "--until", "2026-01-31T10:00:00Z"),
            ],
            "the period is empty",
        ),
        (["--archive", "{output}", "--output", "{tmp}/p", "--runer", "x"], "did you mean --runner"),
    ],
)
def test_a_wrong_option_is_reported_in_one_line(
    arguments: list[str],
    says: str,
    output: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a-file").write_text("")
    assert pack(*(argument.format(output=output, tmp=tmp_path) for argument in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert says in captured.err


def test_a_pack_is_not_written_over_another(output: Path, tmp_path: Path, capsys) -> None:
    assert pack("--archive", output, "--output", tmp_path / "packed") == 0
    before = tree(tmp_path / "packed")
    assert pack("--archive", output, "--output", tmp_path / "packed", "--id", "hall") == 2
    assert "holds a packed archive already" in capsys.readouterr().err
    assert tree(tmp_path / "packed") == before


@pytest.mark.parametrize(
    "words",
    [
        ["--output", "{output}", "--to", "{packed}"],
        ["--archive", "{output}", "--to", "{packed}"],
        ["--archive", "{output}", "--output", "{packed}"],  # As in earlier releases.
    ],
)
def test_what_is_read_and_what_is_written_have_one_word_each_and_the_earlier_ones(
    words: list[str], output: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    assert pack(*(word.format(output=output, packed=packed) for word in words)) == 0
    assert sorted(path.name for path in packed.glob("*.parquet")) == [
        "gate.parquet",
        "hall.parquet",
    ]


def test_several_outputs_are_packed_as_one(output: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    packed = tmp_path / "packed"
    assert pack("--output", output, "--output", copy, "--archive", output, "--to", packed) == 0
    assert len(list(packed.glob("*.parquet"))) == 2
