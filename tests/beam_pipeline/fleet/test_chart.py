"""Which ids stand out, what the chart says, and that the picture is one."""

import argparse
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

from beam_pipeline import chart, counts
from beam_pipeline.chart import Gap, chart_model, draw_chart, unusual_ids
from beam_pipeline.counts import CountRow, CountsError

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


def marks(events, images):
    return unusual_ids(
        {f"c{k}": row(f"c{k}", y, n) for k, (y, n) in enumerate(zip(events, images, strict=True))}
    )


def fleet(rng, size, spread, share=0.05):
    """Images and threat images of cameras whose log-odds differ by `spread`."""
    images = np.maximum(rng.lognormal(math.log(150), 1, size).astype(int), 1)
    centre = math.log(share / (1 - share))
    odds = np.exp(centre + spread * rng.standard_normal(size))
    return images, rng.binomial(images, odds / (1 + odds))


@pytest.mark.parametrize(
    ("size", "fleets", "spread", "share"),
    [(4, 50, 1.0, 0.05), (12, 40, 0.0, 0.05), (12, 50, 1.0, 0.05), (12, 30, 0.5, 0.003),
     (40, 40, 0.7, 0.05), (150, 10, 0.7, 0.05)],
)  # fmt: skip
def test_quiet_fleets_are_seldom_marked(size, fleets, spread, share):
    rng = np.random.default_rng(20260131)
    marked = 0
    for _ in range(fleets):
        images, events = fleet(rng, size, spread, share)
        marked += bool(marks(events, images))
    # 5 % are meant; with this many fleets, more than 15 % would not be chance.
    assert marked <= 0.15 * fleets


@pytest.mark.parametrize(
    ("size", "spread", "many", "few", "found"),
    [(8, 0.3, 1, 0, 0.6), (12, 0.3, 2, 0, 0.8), (40, 0.3, 3, 1, 0.9), (150, 0.5, 5, 3, 0.9)],
)
def test_planted_ids_are_found_on_their_side(size, spread, many, few, found):
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(8):
        images, events = fleet(rng, size, spread)
        images[:many], events[:many] = 250, rng.binomial(250, 0.5, many)
        images[many : many + few], events[many : many + few] = 900, 0
        expected = {f"c{k}": "many" if k < many else "few" for k in range(many + few)}
        marked = marks(events, images)
        hits += sum(marked.get(id_) == mark for id_, mark in expected.items())
    assert hits >= found * 8 * (many + few)


def test_one_outlier_does_not_hide_another():
    images = [240, 145, 332, 210, 247, 151, 83, 700]
    events = [149, 22, 19, 13, 14, 6, 4, 0]
    assert marks(events, images) == {"c0": "many", "c7": "few"}


def test_many_threats_in_many_images_are_not_unusual():
    assert marks([5, 6, 4, 5, 7, 500], [100, 110, 95, 105, 120, 10000]) == {}


@pytest.mark.parametrize(
    ("events", "images"),
    [([], []), ([9], [9]), ([0, 100], [100, 100]), ([0, 0, 0, 0], [10, 500, 5000, 100000]),
     ([7, 9, 11], [7, 9, 11]), ([1000000, 990000, 1010000], [2000000] * 3),
     ([0, 100, 0], [100, 100, 0])],
    ids=["none", "one", "two", "no threats", "all threats", "huge", "two with images"],
)  # fmt: skip
def test_nothing_is_marked_where_nothing_can_be_told(events, images):
    assert marks(events, images) == {}


def test_ids_without_images_are_neither_judged_nor_peers():
    events, images = [3, 4, 5, 3, 4, 5, 3, 90], [100] * 8
    assert marks(events, images) == marks([*events, 0], [*images, 0]) == {"c7": "many"}


def test_tails_agree_with_an_exact_binomial_sum():
    equal, low, high = chart._binomial_tables(3, 12, np.array([math.log(0.3 / 0.7)]))
    pmf = [math.comb(12, k) * 0.3**k * 0.7 ** (12 - k) for k in range(13)]
    assert (equal[0], low[0], high[0]) == pytest.approx((pmf[3], sum(pmf[:4]), sum(pmf[3:])))


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


def test_a_window_longer_than_the_period_is_shown_whole_and_said_so():
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
def test_too_few_ids_to_judge_is_said(size, note):
    model = chart_model([row(f"c{k}", 5, 10) for k in range(size)])
    assert any("Nothing can be marked" in text and note in text for text in model.notes)


def test_no_threats_and_no_rows_are_said():
    assert chart_model([row(f"c{k}", 0, 10) for k in range(4)]).notes == (
        "No threats in this period.",
    )
    empty = chart_model([])
    assert empty.lines == ()
    assert "No images" in empty.subtitle


def size_of(picture):
    with Image.open(io.BytesIO(picture)) as image:
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
    picture = draw_chart(rows)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        assert draw_chart(list(reversed(rows))) == picture
    assert b"Software" not in picture
    assert b"matplotlib" not in picture
    assert draw_chart(rows[1:]) != picture


def write_counts(output, *rows):
    for each in rows:
        name = f"{each.window_start:%Y%m%dT%H%M%SZ}_{each.window_end:%Y%m%dT%H%M%SZ}.jsonl"
        (output / "counts").mkdir(exist_ok=True)
        (output / "counts" / name).write_text(json.dumps(each.to_json()) + "\n")


def test_chart_is_written_whole_under_its_name_alone(tmp_path):
    write_counts(tmp_path, row("a", 1, 10))
    path = chart.write_chart(str(tmp_path), 24)
    assert path == str(tmp_path / "chart" / "threats.png")
    assert os.listdir(tmp_path / "chart") == ["threats.png"]
    with open(path, "rb") as file:
        assert file.read() == draw_chart([row("a", 1, 10)])


def test_a_failed_write_leaves_the_old_chart_and_no_rest(tmp_path, monkeypatch):
    write_counts(tmp_path, row("a", 1, 10))
    chart.write_chart(str(tmp_path), 24)
    before = (tmp_path / "chart" / "threats.png").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CountsError, match="cannot write the chart: disk full"):
        chart.write_chart(str(tmp_path), 1)
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
    assert chart.write_chart(str(tmp_path), 24, file=target) == target
    created = WriteOnlyFileSystem.CREATED
    assert created == {target: [draw_chart([row("a", 1, 10)])]}


def test_windows_before_the_period_are_not_read(tmp_path):
    write_counts(tmp_path, row("a", 1, 10))
    (tmp_path / "counts" / "20260101T000000Z_20260101T000500Z.jsonl").write_text("not to be read")
    chart.write_chart(str(tmp_path), 24)
    with pytest.raises(CountsError, match="line 1"):
        chart.write_chart(str(tmp_path), 24 * 40)


def test_without_counts_the_chart_is_refused_or_says_so(tmp_path):
    with pytest.raises(CountsError, match="run the job first"):
        chart.write_chart(str(tmp_path), 24)
    path = chart.write_chart(str(tmp_path), 24, missing_ok=True)
    with open(path, "rb") as file:
        assert file.read() == draw_chart([])


def test_command_writes_where_it_is_told_and_prints_it(tmp_path, capsys):
    write_counts(tmp_path, row("a", 1, 10))
    parser = argparse.ArgumentParser()
    chart.add_arguments(parser)
    target = tmp_path / "pictures" / "week.png"
    args = parser.parse_args(
        ["--output", str(tmp_path), "--file", str(target), "--chart_period_hours", "168"]
    )
    assert chart.main(args) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert "(168 h)" in chart_model([row("a", 1, 10)], period_hours=168).subtitle
    assert target.read_bytes() == draw_chart([row("a", 1, 10)], period_hours=168)


def test_the_chart_of_several_outputs_adds_them_up_and_goes_where_it_is_told(tmp_path, capsys):
    for name, images, threats in (("one", 10, 1), ("two", 30, 4)):
        (tmp_path / name).mkdir()
        write_counts(tmp_path / name, row("a", threats, images))
    parser = argparse.ArgumentParser()
    chart.add_arguments(parser)
    together = ["--output", f"{tmp_path}/*"]
    target = tmp_path / "all.png"
    assert chart.main(parser.parse_args([*together, "--file", str(target)])) == 0
    (summed,) = counts.read_counts([str(tmp_path / "one"), str(tmp_path / "two")])
    assert summed.images == 40
    assert target.read_bytes() == draw_chart([summed])
    with pytest.raises(CountsError, match="--file is missing"):
        chart.main(parser.parse_args(together))
    assert chart.main(parser.parse_args(["--output", f"{tmp_path}/on*"])) == 0
    assert (tmp_path / "one" / "chart" / "threats.png").exists()
    capsys.readouterr()
