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
    SumTallies,
    count_rows,
    event_time,
    is_too_late,
    shard_of,
    tally_image,
    window_of,
)
from transforms.records.times import parse_time

ALERT, DETECTION = ("person", "alert"), ("dog", "detection")
WINDOW = parse_time("2026-01-31T10:00:00Z"), parse_time("2026-01-31T10:05:00Z")
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
                lambda pane: (
                    pane.start[11:19],
                    pane.end[11:19],
                    {row["id"]: row["images"] for row in pane.rows},
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
def test_a_window_has_the_length_of_the_option(seconds, expected):
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

    _, outputs = run_pipeline(build)
    assert [(counts.start, counts.end) for counts in outputs["counts"]] == [window]


@pytest.mark.parametrize(
    ("threats", "expected"),
    [
        ([], (1, 0, 0, 0, {})),
        ([DETECTION], (1, 1, 1, 0, {"dog": 1})),
        ([ALERT, ALERT, DETECTION], (1, 1, 3, 1, {"dog": 1, "person": 2})),
    ],
)
def test_what_an_image_adds_to_the_counts(threats, expected):
    tally = tally_image(judged(threats=threats))
    keys = ("images", "threat_images", "threats", "alerts", "by_label")
    assert tuple(tally[key] for key in keys) == expected


def test_sums_are_the_same_in_any_order_and_grouping():
    combine = SumTallies()
    pairs = [("hall", tally_image(at(1))), ("yard", tally_image(at(2, "yard", ())))]
    pairs += [("hall", tally_image(at(3, threats=[DETECTION, ALERT])))]
    accumulator = combine.create_accumulator()
    for pair in pairs:
        accumulator = combine.add_input(accumulator, pair)
    parts = [combine.add_input(combine.create_accumulator(), pair) for pair in reversed(pairs)]
    merged = combine.extract_output(combine.merge_accumulators(parts))
    assert merged == combine.extract_output(accumulator)
    assert merged["hall"]["by_label"] == Counter(person=2, dog=1)
    assert pairs[0][1] == tally_image(at(1))  # The input is unchanged.


def test_rows_are_in_the_order_of_the_ids_and_have_every_id():
    tallies = {name: tally_image(at(1, name, ())) for name in ("yard", "Attic", "hall", "10", "9")}
    rows = [row.to_json() for row in count_rows(tallies, *WINDOW)]
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


@pytest.mark.parametrize("options", [{"window_seconds": 0}, {"shards": 0}, {"window_seconds": -5}])
def test_a_window_without_length_or_shards_is_refused(options):
    with pytest.raises(ValueError, match="at least 1 of each"):
        CountThreats(**options)


def counted_image(second, threats=(ALERT,)):
    return CountedImage.of(at(second, threats=threats))


def test_a_retracted_image_is_not_counted():
    first, second = counted_image(1), counted_image(1, [DETECTION])
    combine = SumTallies()
    accumulator = combine.create_accumulator()
    for image in (first, first.retraction(), second):
        combine.add_input(accumulator, (image.id, image.tally))
    (row,) = (row.to_json() for row in count_rows(accumulator, *WINDOW))
    assert (row["images"], row["alerts"], row["by_label"]) == (1, 0, {"dog": 1})


def test_an_id_whose_images_are_all_retracted_has_no_row():
    image = counted_image(1)
    combine = SumTallies()
    accumulator = combine.create_accumulator()
    for addend in (image.retraction(), image):  # In either order.
        combine.add_input(accumulator, (addend.id, addend.tally))
    assert count_rows(accumulator, *WINDOW) == ()


@pytest.mark.parametrize("timestamp", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("seconds", [7, 300, 86400 * 366])
def test_the_first_and_the_last_capture_time_have_windows(timestamp, seconds):
    start, end = window_of(timestamp, seconds)
    assert start <= parse_time(timestamp)
    assert end >= parse_time(timestamp)
    assert not is_too_late(timestamp, None, seconds, 0)
    assert is_too_late("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 300, 3600)
    assert not is_too_late("9999-12-31T23:59:59Z", "2026-01-31T10:00:00Z", seconds, 0)
