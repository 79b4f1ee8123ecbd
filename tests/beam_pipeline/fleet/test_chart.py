"""What the chart says, and that the picture is one."""

import io
import json
import math
import os
from datetime import datetime, timedelta, timezone
from typing import ClassVar

import numpy as np
import pytest
from apache_beam.io.filesystem import FileSystem
from PIL import Image

from beam_pipeline.commands import chart as chart_command
from beam_pipeline.fleet import chart
from beam_pipeline.fleet.chart import Gap, chart_model, draw_chart
from beam_pipeline.fleet.output_scan import CountsError, OutputScan
from transforms.records.count_rows import CountRow

END = datetime(2026, 2, 1, tzinfo=timezone.utc)


def row(id_, threat_images, images, *, end=END, minutes=5, alerts=None):
    return CountRow(
        id_,
        end - timedelta(minutes=minutes),
        end,
        int(images),
        int(threat_images),
        int(threat_images),
        int(threat_images if alerts is None else alerts),
        {"person": int(threat_images)} if threat_images else {},
    )


def test_ids_are_ordered_by_threats_and_marked_in_words():
    rows = [row(f"c{k}", 3 + k % 3, 100) for k in range(10)] + [row("hot", 80, 100, alerts=3)]
    model = chart_model(rows)
    threats = [bar.row.threats for bar in model.bars]
    assert threats == sorted(threats, reverse=True)
    assert len(threats) == 11
    assert model.marks == {"hot": "many"}
    assert model.bars[0].text == "80  ▲ more: 80 % of images, peers 3.9 %"
    assert model.bars[1].text == "5"
    assert "2026-01-31 00:00 to 2026-02-01 00:00 UTC (24 h)" in model.subtitle
    assert "1,100 images from 11 ids" in model.subtitle
    assert "119 threats in 119 images" in model.subtitle
    assert "42 alerts" in model.subtitle


def test_period_ends_with_the_newest_window_and_leaves_older_ones_out():
    rows = [
        row("a", 1, 10),
        row("a", 2, 10, end=END - timedelta(hours=23)),
        row("a", 4, 10, end=END - timedelta(hours=24)),
    ]
    assert [bar.row.threats for bar in chart_model(rows).bars] == [3]
    assert [bar.row.threats for bar in chart_model(rows, period_hours=1).bars] == [1]
    assert [bar.row.threats for bar in chart_model(rows, period_hours=48).bars] == [7]


def test_a_window_longer_than_the_period_is_shown_whole_with_a_note():
    model = chart_model([row("a", 1, 10, minutes=48 * 60)])
    assert "(48 h)" in model.subtitle
    assert len(model.bars) == 1
    assert any("longer than the 24 h" in note for note in model.notes)


@pytest.mark.parametrize("hours", [0, -1, math.nan, math.inf, 1e9])
def test_impossible_periods_are_refused(hours):
    with pytest.raises(CountsError, match="chart_period_hours"):
        chart_model([row("a", 1, 10)], period_hours=hours)


def test_many_ids_are_cut_to_the_most_the_least_and_the_marked():
    rows = [row(f"c{k:03}", 40 + k // 6, 1000 + 20 * (k // 6)) for k in range(299)]
    rows.append(row("hot", 60, 80))
    model = chart_model(rows)
    assert model.marks == {"hot": "many"}
    gaps = [line for line in model.lines if isinstance(line, Gap)]
    assert len(gaps) == 2
    assert sum(gap.ids for gap in gaps) + len(model.bars) == 300
    assert f"… and {gaps[0].ids} more ids between, 61 to 84 threats each" == gaps[0].text
    assert {bar.row.threats for bar in model.bars[:30]} == {84, 85, 86, 87, 88, 89}


@pytest.mark.parametrize(("size", "note"), [(1, "with 1 id:"), (2, "with 2 ids:")])
def test_too_few_ids_to_judge_is_a_note(size, note):
    model = chart_model([row(f"c{k}", 5, 10) for k in range(size)])
    assert any("Nothing can be marked" in text and note in text for text in model.notes)


def test_no_threats_and_no_rows_are_notes():
    assert chart_model([row(f"c{k}", 0, 10) for k in range(4)]).notes == (
        "No threats in this period.",
    )
    empty = chart_model([])
    assert empty.lines == ()
    assert "No images" in empty.subtitle


def size_of(png):
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        assert image.format == "PNG"
        assert image.getextrema()[0][0] < 100
        return image.size


@pytest.mark.parametrize(
    ("ids", "height"), [(0, (100, 300)), (1, (200, 400)), (3, (250, 450)), (300, (1300, 3500))]
)
def test_picture_is_legible_in_size(ids, height):
    rng = np.random.default_rng(3)
    rows = [row(f"site-cam{k:03}", rng.binomial(100, 0.1), 100) for k in range(ids)]
    width, tall = size_of(draw_chart(rows))
    assert 1000 <= width <= 1600
    assert height[0] <= tall <= height[1]


def test_long_ids_widen_the_picture_instead_of_leaving_it():
    short, long = (size_of(draw_chart([row(id_, 2, 9)]))[0] for id_ in ("a", "w" * 64))
    assert long > short + 400


def test_same_rows_give_the_same_bytes_whatever_the_users_style():
    import matplotlib

    rows = [row(f"c{k}", 3, 100) for k in range(9)] + [row("hot", 90, 100)]
    png = draw_chart(rows)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        assert draw_chart(list(reversed(rows))) == png
    assert b"Software" not in png
    assert b"matplotlib" not in png
    assert draw_chart(rows[1:]) != png


def write_counts(output, *rows):
    for each in rows:
        name = f"{each.window_start:%Y%m%dT%H%M%SZ}_{each.window_end:%Y%m%dT%H%M%SZ}.jsonl"
        (output / "counts").mkdir(exist_ok=True)
        (output / "counts" / name).write_text(json.dumps(each.to_json()) + "\n")


def test_chart_is_written_whole_under_its_name_alone(tmp_path):
    write_counts(tmp_path, row("a", 1, 10))
    path = chart.write_chart(OutputScan(str(tmp_path)), 24)
    assert path == str(tmp_path / "chart" / "threats.png")
    assert os.listdir(tmp_path / "chart") == ["threats.png"]
    with open(path, "rb") as file:
        assert file.read() == draw_chart([row("a", 1, 10)])


def test_a_failed_write_leaves_the_old_chart_and_no_rest(tmp_path, monkeypatch):
    write_counts(tmp_path, row("a", 1, 10))
    chart.write_chart(OutputScan(str(tmp_path)), 24)
    before = (tmp_path / "chart" / "threats.png").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CountsError, match="cannot write the chart: disk full"):
        chart.write_chart(OutputScan(str(tmp_path)), 1)
    assert os.listdir(tmp_path / "chart") == ["threats.png"]
    assert (tmp_path / "chart" / "threats.png").read_bytes() == before


class WriteOnlyFileSystem(FileSystem):
    """A store that takes final keys and nothing else."""

    CREATED: ClassVar[dict] = {}

    @classmethod
    def scheme(cls):
        return "memchart"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def create(self, path, mime_type="", compression_type=""):
        assert mime_type == "image/png"
        created = self.CREATED

        class Stream(io.BytesIO):
            def close(self):
                if not self.closed:
                    created.setdefault(path, []).append(self.getvalue())
                super().close()

        return Stream()

    def _unused(self, *args, **kwargs):
        raise NotImplementedError

    split = mkdirs = has_dirs = _list = open = copy = rename = exists = size = _unused
    last_updated = checksum = metadata = delete = _unused


def test_in_a_store_the_final_key_is_written_once_and_nothing_else(tmp_path):
    write_counts(tmp_path, row("a", 1, 10))
    target = "memchart://bucket/o/chart/threats.png"
    assert chart.write_chart(OutputScan(str(tmp_path)), 24, file=target) == target
    created = WriteOnlyFileSystem.CREATED
    assert created == {target: [draw_chart([row("a", 1, 10)])]}


def test_windows_before_the_period_are_not_read(tmp_path):
    write_counts(tmp_path, row("a", 1, 10))
    (tmp_path / "counts" / "20260101T000000Z_20260101T000500Z.jsonl").write_text("not to be read")
    chart.write_chart(OutputScan(str(tmp_path)), 24)
    with pytest.raises(CountsError, match="line 1"):
        chart.write_chart(OutputScan(str(tmp_path)), 24 * 40)


def test_without_counts_the_chart_is_refused_or_says_so(tmp_path):
    with pytest.raises(CountsError, match="run the job first"):
        chart.write_chart(OutputScan(str(tmp_path)), 24)
    path = chart.write_chart(OutputScan(str(tmp_path)), 24, missing_ok=True)
    with open(path, "rb") as file:
        assert file.read() == draw_chart([])


def test_command_writes_the_file_of_the_option_and_prints_its_path(tmp_path, capsys):
    write_counts(tmp_path, row("a", 1, 10))
    target = tmp_path / "pictures" / "week.png"
    words = ["--output", str(tmp_path), "--file", str(target), "--chart_period_hours", "168"]
    assert chart_command.main(words) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert "(168 h)" in chart_model([row("a", 1, 10)], period_hours=168).subtitle
    assert target.read_bytes() == draw_chart([row("a", 1, 10)], period_hours=168)


def test_the_chart_of_several_outputs_adds_them_up_and_is_written_to_file(tmp_path, capsys):
    for name, images, threats in (("one", 10, 1), ("two", 30, 4)):
        (tmp_path / name).mkdir()
        write_counts(tmp_path / name, row("a", threats, images))
    together = ["--output", f"{tmp_path}/*"]
    target = tmp_path / "all.png"
    assert chart_command.main([*together, "--file", str(target)]) == 0
    (summed,) = OutputScan([str(tmp_path / "one"), str(tmp_path / "two")]).counts()
    assert summed.images == 40
    assert target.read_bytes() == draw_chart([summed])
    with pytest.raises(CountsError, match="--file is missing"):
        chart_command.main(together)
    assert chart_command.main(["--output", f"{tmp_path}/on*"]) == 0
    assert (tmp_path / "one" / "chart" / "threats.png").exists()
    capsys.readouterr()
