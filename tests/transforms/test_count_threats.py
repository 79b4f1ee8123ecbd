import json
from collections import Counter

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.testing import test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue

from tests.transforms.results import judged
from transforms.count_threats import (
    CountedImage,
    CountThreats,
    StoreCounts,
    SumTallies,
    _WriteCounts,
    count_rows,
    event_time,
    is_too_late,
    shard_of,
    tally,
    window_of,
)
from transforms.records import WindowCounts
from transforms.times import parse_time

ALERT, DETECTION = ("person", "alert"), ("dog", "detection")
START = event_time("2026-01-31T10:00:00Z").micros // 1_000_000


def at(second, camera="hall", threats=(ALERT,)):
    """An image of a second after 10:00."""
    minutes, seconds = divmod(second, 60)
    return judged(camera, f"2026-01-31T10:{minutes:02d}:{seconds:02d}Z", threats)


def panes_of(stream, expected, **options):
    """Runs a stream; `expected` holds (start, end, {id: images}) for each pane, in any order."""
    with beam.Pipeline(
        runner=BundleBasedDirectRunner(), options=PipelineOptions(streaming=True)
    ) as pipeline:
        panes = (
            pipeline
            | stream
            | CountThreats(**{"window_seconds": 60, "allowed_lateness_seconds": 0, **options})
            | beam.Map(
                lambda one: (
                    one.start[11:19],
                    one.end[11:19],
                    {row["id"]: row["images"] for row in one.rows},
                )
            )
        )
        assert_that(panes, equal_to(expected))


def stream_of(*events):
    """A number moves the watermark so many seconds after 10:00; an image comes before it."""
    stream = test_stream.TestStream().advance_watermark_to(START)
    for event in events:
        if isinstance(event, (int, float)):
            stream = stream.advance_watermark_to(START + event)
        elif isinstance(event, str):
            stream = stream.advance_processing_time(float(event))
        else:
            second = event_time(event.image.timestamp).micros // 1_000_000
            stream = stream.add_elements([TimestampedValue(event, second)])
    return stream.advance_watermark_to_infinity()


def test_images_are_counted_in_the_window_of_their_own_time():
    panes_of(
        stream_of(at(0), at(59), at(60), at(125), at(61), 200),
        [
            ("10:00:00", "10:01:00", {"hall": 2}),
            ("10:01:00", "10:02:00", {"hall": 2}),
            ("10:02:00", "10:03:00", {"hall": 1}),
        ],
    )


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (30, [("10:00:00", "10:00:30", {"hall": 1}), ("10:00:30", "10:01:00", {"hall": 1})]),
        (300, [("10:00:00", "10:05:00", {"hall": 2})]),
        (3600, [("10:00:00", "11:00:00", {"hall": 2})]),
        (86400, [("00:00:00", "00:00:00", {"hall": 2})]),
    ],
)
def test_a_window_is_as_long_as_was_asked(seconds, expected):
    panes_of(stream_of(at(5), at(45)), expected, window_seconds=seconds)


def test_the_rows_of_one_id_are_apart_from_another_s():
    panes_of(
        stream_of(at(1, "hall"), at(2, "yard"), at(3, "hall"), at(70, "attic", ())),
        [
            ("10:00:00", "10:01:00", {"hall": 2, "yard": 1}),
            ("10:01:00", "10:02:00", {"attic": 1}),
        ],
    )


def test_counts_come_once_when_the_watermark_passes_the_window_s_end():
    panes_of(stream_of(at(1), 30, at(31), 59, at(2), 61), [("10:00:00", "10:01:00", {"hall": 3})])


def test_early_counts_hold_what_has_come_so_far():
    panes_of(
        stream_of(at(1), "11", at(2), at(3), "11", at(4), 60),
        [
            ("10:00:00", "10:01:00", {"hall": 1}),
            ("10:00:00", "10:01:00", {"hall": 3}),
            ("10:00:00", "10:01:00", {"hall": 4}),
        ],
        early_firing_seconds=10,
    )


def test_without_early_counts_time_alone_gives_none():
    panes_of(stream_of(at(1), "11", "1000", at(2), 60), [("10:00:00", "10:01:00", {"hall": 2})])


def test_an_image_within_the_allowed_lateness_revises_its_window():
    panes_of(
        stream_of(at(1), at(2, "yard"), 90, at(3), 119, at(4)),
        [
            ("10:00:00", "10:01:00", {"hall": 1, "yard": 1}),
            ("10:00:00", "10:01:00", {"hall": 2, "yard": 1}),
            ("10:00:00", "10:01:00", {"hall": 3, "yard": 1}),
        ],
        allowed_lateness_seconds=60,
    )


def test_an_image_later_than_that_is_not_counted():
    panes_of(
        stream_of(at(1), 90, at(2), 121, at(3), at(65)),
        [
            ("10:00:00", "10:01:00", {"hall": 1}),
            ("10:00:00", "10:01:00", {"hall": 2}),
            ("10:01:00", "10:02:00", {"hall": 1}),
        ],
        allowed_lateness_seconds=60,
    )


@pytest.mark.parametrize(
    ("timestamp", "seconds", "window"),
    [
        ("0001-01-01T00:00:00Z", 300, ("0001-01-01T00:00:00Z", "0001-01-01T00:05:00Z")),
        ("0001-01-01T00:00:00Z", 31_000_000, ("0001-01-01T00:00:00Z", "0001-05-15T05:20:00Z")),
        ("1969-12-31T23:59:59Z", 300, ("1969-12-31T23:55:00Z", "1970-01-01T00:00:00Z")),
        ("2026-01-31T23:59:59.999999Z", 300, ("2026-01-31T23:55:00Z", "2026-02-01T00:00:00Z")),
        ("2026-02-01T00:00:00Z", 300, ("2026-02-01T00:00:00Z", "2026-02-01T00:05:00Z")),
        ("9999-12-31T23:59:59Z", 300, ("9999-12-31T23:55:00Z", "9999-12-31T23:59:59Z")),
    ],
)
def test_windows_reach_from_the_first_year_to_the_last(run_pipeline, timestamp, seconds, window):
    def build(pipeline):
        images = pipeline | beam.Create([judged("hall", timestamp)])
        return {"counts": images | CountThreats(window_seconds=seconds)}

    _, found = run_pipeline(build)
    assert [(one.start, one.end) for one in found["counts"]] == [window]


@pytest.mark.parametrize(
    ("threats", "expected"),
    [
        ([], (1, 0, 0, 0, {})),
        ([DETECTION], (1, 1, 1, 0, {"dog": 1})),
        ([ALERT, ALERT, DETECTION], (1, 1, 3, 1, {"dog": 1, "person": 2})),
    ],
)
def test_what_an_image_adds_to_the_counts(threats, expected):
    one = tally(judged(threats=threats))
    keys = ("images", "threat_images", "threats", "alerts", "by_label")
    assert tuple(one[key] for key in keys) == expected


def test_sums_are_the_same_in_any_order_and_grouping():
    added = SumTallies()
    pairs = [("hall", tally(at(1))), ("yard", tally(at(2, "yard", ())))]
    pairs += [("hall", tally(at(3, threats=[DETECTION, ALERT])))]
    whole = added.create_accumulator()
    for pair in pairs:
        whole = added.add_input(whole, pair)
    parts = [added.add_input(added.create_accumulator(), pair) for pair in reversed(pairs)]
    merged = added.extract_output(added.merge_accumulators(parts))
    assert merged == added.extract_output(whole)
    assert merged["hall"]["by_label"] == Counter(person=2, dog=1)
    assert pairs[0][1] == tally(at(1))  # What came in is left alone.


def test_rows_are_in_the_order_of_the_ids_and_have_every_id():
    tallies = {name: tally(at(1, name, ())) for name in ("yard", "Attic", "hall", "10", "9")}
    rows = count_rows(tallies, "start", "end")
    assert [row["id"] for row in rows] == ["10", "9", "Attic", "hall", "yard"]
    assert all(row["threats"] == 0 and row["by_label"] == {} for row in rows)


@pytest.mark.parametrize(
    ("camera", "shards", "shard"),
    [
        ("hall", 1, 0),
        ("hall", 4, 3),
        ("yard", 4, 0),
        ("front-door", 4, 2),
        ("front-door", 1000, 534),
    ],
)
def test_an_id_has_the_same_shard_on_every_machine_and_in_every_version(camera, shards, shard):
    assert shard_of(camera, shards) == shard


def store(run_pipeline, output, images, *, shards=1, **options):
    def build(pipeline):
        counts = pipeline | beam.Create(images) | CountThreats(shards=shards, **options)
        counts | StoreCounts(str(output), shards=shards)
        return {"counts": counts}

    _, found = run_pipeline(build)
    return found["counts"]


def test_the_counts_of_a_window_are_kept_to_the_letter(run_pipeline, tmp_path):
    images = [
        judged("yard", "2026-01-31T23:56:00Z"),
        judged("hall", "2026-01-31T23:55:00Z", [ALERT, ("zebra", "detection"), DETECTION]),
        judged("hall", "2026-01-31T23:59:59.999Z", [DETECTION]),
        judged("hall", "2026-02-01T00:00:00Z", [ALERT, ALERT]),
    ]
    store(run_pipeline, tmp_path, images)
    folder = tmp_path / "counts"
    assert sorted(path.name for path in folder.iterdir()) == [
        "20260131T235500Z_20260201T000000Z.jsonl",
        "20260201T000000Z_20260201T000500Z.jsonl",
    ]
    assert (folder / "20260131T235500Z_20260201T000000Z.jsonl").read_text() == (
        '{"id":"hall","window_start":"2026-01-31T23:55:00Z","window_end":"2026-02-01T00:00:00Z",'
        '"images":2,"threat_images":2,"threats":4,"alerts":1,'
        '"by_label":{"dog":2,"person":1,"zebra":1}}\n'
        '{"id":"yard","window_start":"2026-01-31T23:55:00Z","window_end":"2026-02-01T00:00:00Z",'
        '"images":1,"threat_images":0,"threats":0,"alerts":0,"by_label":{}}\n'
    )


def test_shards_split_the_ids_of_a_window_and_lose_none(run_pipeline, tmp_path):
    cameras = [f"cam-{number:02d}" for number in range(20)]
    images = [at(second, camera) for camera in cameras for second in (1, 2)]
    store(run_pipeline, tmp_path, images, shards=3)
    names = [f"20260131T100000Z_20260131T100500Z-{shard}-of-3.jsonl" for shard in range(3)]
    assert sorted(path.name for path in (tmp_path / "counts").iterdir()) == names
    seen = []
    for shard, name in enumerate(names):
        rows = [json.loads(line) for line in (tmp_path / "counts" / name).read_text().splitlines()]
        ids = [row["id"] for row in rows]
        assert ids == sorted(ids)
        assert {shard_of(camera, 3) for camera in ids} == {shard}
        assert {row["images"] for row in rows} == {2}
        seen += ids
    assert sorted(seen) == cameras


def test_the_order_of_the_images_changes_no_byte(run_pipeline, tmp_path):
    images = [at(second, camera) for camera in ("b", "a", "c") for second in range(7)]
    store(run_pipeline, tmp_path / "one", images)
    store(run_pipeline, tmp_path / "other", images[::-1])
    (one,), (other,) = ((tmp_path / name / "counts").iterdir() for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_a_later_pane_takes_the_place_of_an_earlier_one(run_pipeline, tmp_path):
    rows = [({"id": "hall", "images": images},) for images in (1, 2, 3)]
    bounds = "2026-01-31T10:00:00Z", "2026-01-31T10:05:00Z"

    def build(pipeline):
        panes = pipeline | beam.Create([[WindowCounts(*bounds, 0, one) for one in rows]])
        panes | beam.FlatMap(lambda panes: panes) | StoreCounts(str(tmp_path))
        return {}

    run_pipeline(build)
    (path,) = (tmp_path / "counts").iterdir()
    assert path.read_text() == '{"id":"hall","images":3}\n'


@pytest.mark.parametrize("options", [{"window_seconds": 0}, {"shards": 0}, {"window_seconds": -5}])
def test_a_window_without_length_or_shards_is_refused(options):
    with pytest.raises(ValueError, match="at least 1 of each"):
        CountThreats(**options)


def counted_image(second, threats=(ALERT,)):
    return CountedImage.of(at(second, threats=threats))


def test_what_is_taken_back_is_not_counted():
    first, second = counted_image(1), counted_image(1, [DETECTION])
    total = SumTallies()
    accumulator = total.create_accumulator()
    for one in (first, first.taken_back(), second):
        total.add_input(accumulator, (one.id, one.tally))
    (row,) = count_rows(accumulator, "a", "b")
    assert (row["images"], row["alerts"], row["by_label"]) == (1, 0, {"dog": 1})


def test_an_id_whose_images_are_all_taken_back_has_no_row():
    one = counted_image(1)
    total = SumTallies()
    accumulator = total.create_accumulator()
    for each in (one.taken_back(), one):  # Whichever comes first.
        total.add_input(accumulator, (each.id, each.tally))
    assert count_rows(accumulator, "a", "b") == ()


@pytest.mark.parametrize("timestamp", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("seconds", [7, 300, 86400 * 366])
def test_the_first_and_the_last_moment_have_windows(timestamp, seconds):
    start, end = window_of(timestamp, seconds)
    assert start <= parse_time(timestamp)
    assert end >= parse_time(timestamp)
    assert not is_too_late(timestamp, None, seconds, 0)
    assert is_too_late("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 300, 3600)
    assert not is_too_late("9999-12-31T23:59:59Z", "2026-01-31T10:00:00Z", seconds, 0)


def pane(images):
    row = {"id": "hall", "window_start": "a", "window_end": "b", "images": images}
    return WindowCounts("2026-01-31T10:00:00Z", "2026-01-31T10:05:00Z", 0, (row,))


@pytest.mark.parametrize(
    ("keep_newer", "images", "kept"),
    [(True, [3, 5], 5), (True, [5, 3], 5), (True, [5, 5], 5), (False, [5, 3], 3)],
)
def test_an_older_pane_of_a_stream_does_not_overwrite_a_newer_one(
    tmp_path, keep_newer, images, kept
):
    write = _WriteCounts(str(tmp_path), 1, keep_newer)
    for number in images:
        write.work(pane(number))
    (file,) = (tmp_path / "counts").iterdir()
    assert json.loads(file.read_text())["images"] == kept


def test_a_file_that_is_no_count_is_overwritten(tmp_path):
    write = _WriteCounts(str(tmp_path), 1, keep_newer=True)
    write.work(pane(1))
    (file,) = (tmp_path / "counts").iterdir()
    file.write_text("broken")
    write.work(pane(1))
    assert json.loads(file.read_text())["images"] == 1
