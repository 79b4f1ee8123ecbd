"""The number of files for the counts of a window follows from the rules, or from the output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beam_pipeline.job.count_shards import choose_count_shards
from beam_pipeline.job.options import job_options
from beam_pipeline.job.preparation import prepare

OLDER, NEWER = "20260131T100000Z_20260131T100500Z", "20260131T100500Z_20260131T101000Z"


@pytest.mark.parametrize(
    ("cameras", "shards"), [(0, 1), (1, 1), (5000, 1), (5001, 2), (100_000, 20), (100_001, 21)]
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_file_has_the_counts_of_5000_cameras(
    tmp_path: Path, cameras: int, shards: int, streaming: bool
) -> None:
    assert choose_count_shards(cameras, str(tmp_path), streaming=streaming) == shards


@pytest.mark.parametrize(
    ("names", "shards"),
    [
        ([f"{OLDER}.jsonl"], 1),
        ([f"{OLDER}-0-of-7.jsonl"], 7),
        ([f"{NEWER}-3-of-4.jsonl", f"{OLDER}-0-of-7.jsonl"], 4),
        ([f"{NEWER}.jsonl", f"{NEWER}-0-of-3.jsonl"], 3),
        ([f"{NEWER}-0-of-3.jsonl", f"{NEWER}.jsonl"], 1),
        (["notes.txt", ".20260131T100000Z.part"], 2),
    ],
)
def test_a_stream_keeps_to_the_files_of_its_newest_window(
    tmp_path: Path, names: list[str], shards: int
) -> None:
    """Otherwise the images of a window that is open at a savepoint would be in no file."""
    (tmp_path / "counts").mkdir()
    for written, name in enumerate(names):
        (tmp_path / "counts" / name).touch()
        os.utime(tmp_path / "counts" / name, (written, written))
    assert choose_count_shards(5001, str(tmp_path), streaming=True) == shards
    assert choose_count_shards(5001, str(tmp_path), streaming=False) == 2


def test_the_cameras_are_those_of_the_rule_file(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    cameras = "".join(f"  camera-{number}: {{cooldown: 1s}}\n" for number in range(5001))
    rules.write_text(f"version: 1\ndefaults: {{objects: {{person: }}}}\ncameras:\n{cameras}")
    arguments = ["--output", str(tmp_path / "out"), "--rules", str(rules)]
    assert prepare(job_options(arguments)).count_shards == 2
    assert prepare(job_options([*arguments, "--count_shards", "3"])).count_shards == 3
