"""A short form of `python -m benchmarks.scale`: a small fleet, recounted."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale
from benchmarks.scale_source import Fleet


def test_a_small_fleet_is_recounted_and_measured(cluster: Any, tmp_path: Path) -> None:
    words = ["--window_seconds", "60", "--early_firing_seconds", "1"]
    streamed = scale.stream(
        cluster, tmp_path / "stream", 30, seconds=5, words=words, checkpoint_ms=1000
    )
    assert streamed.asked == 30
    assert 30 <= streamed.images <= 160
    assert scale._verdicts(tmp_path / "stream") == scale._counted(tmp_path / "stream")
    assert 0 < streamed.sustained < 60
    batched = scale.batch(cluster, tmp_path / "batch", 30, 300, words)
    assert batched.images == 300
    assert scale._verdicts(tmp_path / "batch") == scale._counted(tmp_path / "batch") == 300
    for one in (streamed, batched):
        assert one.worker_ms > 0
        assert one.flink_ms > 0
        assert one.worker_mib > 50
        assert one.flink_mib > 100
        assert 1 <= one.skew <= 2
    assert streamed.checkpoint_kib is not None
    assert streamed.drained_kib is not None
    assert min(streamed.checkpoint_kib, streamed.drained_kib) > 0
    assert streamed.longest_ms is not None
    assert streamed.checkpoint_ms is not None
    assert streamed.longest_ms >= streamed.checkpoint_ms > 0
    rows = [line.strip("| ").split(" | ") for line in scale.table([streamed, batched]).splitlines()]
    assert [row[0] for row in rows[2:]] == ["stream", "batch"]


def test_each_camera_has_an_image_a_minute_of_its_own_time() -> None:
    fleet = Fleet(cameras=50, start=1_800_000_000.0, shards=4)
    numbers = sorted(fleet.number_of(shard, index) for shard in range(4) for index in range(50))
    assert numbers == list(range(200))
    images = [fleet.image(number, streaming=False) for number in numbers]
    by_camera: dict[str, list[str]] = {}
    for image in images:
        by_camera.setdefault(image.id, []).append(image.timestamp[11:19])
    assert len(by_camera) == 50
    assert by_camera["camera-000000"] == ["08:00:00", "08:01:00", "08:02:00", "08:03:00"]
    assert images == [fleet.image(number, streaming=False) for number in numbers]


@pytest.mark.parametrize("missing", ["verdict", "count"])
def test_a_lost_record_fails_the_benchmark(missing: str, tmp_path: Path) -> None:
    (tmp_path / "final" / "a").mkdir(parents=True)
    (tmp_path / "counts").mkdir()
    for number in range(2 if missing == "verdict" else 3):
        (tmp_path / "final" / "a" / f"{number}.json").touch()
    counted = 3 if missing == "verdict" else 2
    (tmp_path / "counts" / "1.jsonl").write_text(f'{{"images": {counted}}}\n')
    with pytest.raises(SystemExit, match="3 records were fed"):
        scale._recount(tmp_path, 3)


def test_a_batch_has_no_figures_of_checkpoints() -> None:
    batch = scale.Figures("batch", 1000, None, 20_000, 500.0, 1.5, 0.5, 400.0, 900.0, 1.02)
    stream = replace(
        batch,
        kind="stream",
        asked=1000.0,
        checkpoint_kib=2048.0,
        drained_kib=10.0,
        checkpoint_ms=100.0,
        longest_ms=900.0,
    )
    batch_row, stream_row = scale.table([batch, stream]).splitlines()[2:]
    assert batch_row.endswith("| 1.02 |  |  |  |  |  |")
    assert stream_row.endswith("| 1.02 | 2,048 KiB | 105 bytes | 10 KiB | 100 ms | 900 ms |")


def test_the_pace_is_that_of_the_verdicts_without_the_first_and_last_tenth(tmp_path: Path) -> None:
    folder = tmp_path / "final" / "a"
    folder.mkdir(parents=True)
    for number in range(100):
        path = folder / f"{number}.json"
        path.touch()
        pause = 1000 if number >= 95 else 0  # The last ones come late.
        os.utime(path, (0, 1_800_000_000 + number / 20 + pause))
    assert scale._pace(tmp_path) == pytest.approx(20)
