import copy
import json
from collections import Counter

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.testing import test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.search import search
from tests.transforms.results import judged
from transforms import count_threats
from transforms.count_threats import (
    TALLIES,
    CountedImage,
    CountThreats,
    SumTallies,
    _SumInBundle,
    _SumInStream,
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


def panes_of(events, expected, **options):
    """Runs a stream; `expected` holds (start, end, {id: images}) for each pane, in any order.

    Both ways of counting yield the same: by Beam's windows, and by state.
    """
    if "streaming" not in options:
        panes_of(events, expected, **options, streaming=False)
        options["streaming"] = True
    with beam.Pipeline(
        runner=BundleBasedDirectRunner(), options=PipelineOptions(streaming=True)
    ) as pipeline:
        panes = (
            pipeline
            | stream_of(*events)
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
    # This runner ends without timers that are due at infinity.
    return stream.advance_watermark_to(START + 200_000).advance_watermark_to_infinity()


def test_images_are_counted_in_the_window_of_their_own_time():
    panes_of(
        (at(0), at(59), at(60), at(125), at(61), 200),
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
    panes_of((at(5), at(45)), expected, window_seconds=seconds)


def test_the_rows_of_one_id_are_apart_from_another_s():
    panes_of(
        (at(1, "hall"), at(2, "yard"), at(3, "hall"), at(70, "attic", ())),
        [
            ("10:00:00", "10:01:00", {"hall": 2, "yard": 1}),
            ("10:01:00", "10:02:00", {"attic": 1}),
        ],
    )


def test_counts_come_once_when_the_watermark_passes_the_window_s_end():
    panes_of((at(1), 30, at(31), 59, at(2), 61), [("10:00:00", "10:01:00", {"hall": 3})])


def test_early_counts_hold_what_has_come_so_far():
    panes_of(
        (at(1), "11", at(2), at(3), "11", at(4), 60),
        [
            ("10:00:00", "10:01:00", {"hall": 1}),
            ("10:00:00", "10:01:00", {"hall": 3}),
            ("10:00:00", "10:01:00", {"hall": 4}),
        ],
        early_firing_seconds=10,
        streaming=False,  # Its timers of processing time are fired below.
    )


def test_without_early_counts_time_alone_gives_none():
    panes_of((at(1), "11", "1000", at(2), 60), [("10:00:00", "10:01:00", {"hall": 2})])


def test_an_image_within_the_allowed_lateness_revises_its_window():
    panes_of(
        (at(1), at(2, "yard"), 90, at(3), 119, at(4)),
        [
            ("10:00:00", "10:01:00", {"hall": 1, "yard": 1}),
            ("10:00:00", "10:01:00", {"hall": 2, "yard": 1}),
            ("10:00:00", "10:01:00", {"hall": 3, "yard": 1}),
        ],
        allowed_lateness_seconds=60,
    )


def test_an_image_later_than_that_is_not_counted():
    panes_of(
        (at(1), 90, at(2), 121, at(3), at(65)),
        [
            ("10:00:00", "10:01:00", {"hall": 1}),
            ("10:00:00", "10:01:00", {"hall": 2}),
            ("10:01:00", "10:02:00", {"hall": 1}),
        ],
        allowed_lateness_seconds=60,
        streaming=False,
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


class Cell:
    """A cell or a bag of a runner's state, stored in its encoded form."""

    def __init__(self, coder=None):
        self.coder, self.written = coder or VarIntCoder(), []

    def read(self):
        return self.coder.decode(self.written[-1]) if self.written else None

    def write(self, value):
        self.written = [self.coder.encode(value)]

    def clear(self):
        self.written = []


class Bag(Cell):
    def read(self):
        return [self.coder.decode(entry) for entry in self.written]

    def add(self, value):
        self.written = [*self.written, self.coder.encode(value)]


class Timer:
    at = None

    def set(self, at):
        self.at = at


class Counting:
    """The steps of a stream with a simulated runner.

    Attributes:
      panes: The newest counts of each window and shard.
    """

    def __init__(self, shards=1, lateness=600, early=30):
        self.now, self.watermark = 1e9, Timestamp(0)
        self.in_bundle = _SumInBundle(60, shards)
        self.in_stream = _SumInStream(60, lateness, early, clock=lambda: self.now)
        self.keys = {}
        self.panes = {}

    def cells(self, key):
        if key not in self.keys:
            self.keys[key] = Bag(TALLIES), Cell(TALLIES), Cell(), Timer(), Timer(), Timer()
        return self.keys[key]

    def bundle(self, images):
        self.in_bundle.start_bundle()
        for image in images:
            self.in_bundle.process(image, Timestamp(0))
        for sums in list(self.in_bundle.finish_bundle()):
            key, _ = sums.value
            self.take(self.in_stream.process(sums.value, *self.cells(key)))
        self.fire()

    def fire(self):
        """Fires the timers whose time has come."""
        for key, cells in self.keys.items():
            *states, early, end, forget = cells
            for timer, now, callback in (
                (early, Timestamp(self.now), self.in_stream.fire_early),
                (end, self.watermark, self.in_stream.fire_at_end),
                (forget, self.watermark, self.in_stream.forget),
            ):
                if timer.at is not None and timer.at <= now:
                    timer.at = None
                    self.take(callback(key, *states) or ())

    def take(self, panes):
        for pane in panes:
            before = self.panes.get((pane.start, pane.shard))
            assert before is None or before.added <= pane.added
            self.panes[pane.start, pane.shard] = pane

    def rows(self):
        return sorted(json.dumps(row) for pane in self.panes.values() for row in pane.rows)

    def state(self):
        """The number of bytes in the state of all windows."""
        return sum(
            len(entry)
            for *cells, _, _, _ in self.keys.values()
            for cell in cells
            for entry in cell.written
        )


def slow_rows(images):
    """The count rows of images and retractions, all added up."""
    rows = []
    for start, end in {window_of(image.timestamp, 60) for image in images}:
        tallies = {}
        for image in images:
            if window_of(image.timestamp, 60) == (start, end):
                SumTallies().add_input(tallies, (image.id, image.tally))
        rows += [json.dumps(row.to_json()) for row in count_rows(tallies, start, end)]
    return sorted(rows)


COUNTED = st.builds(
    lambda second, camera, threats: CountedImage.of(at(second, camera, threats)),
    st.integers(0, 179),
    st.sampled_from(["hall", "yard", "attic"]),
    st.lists(st.sampled_from([ALERT, DETECTION]), max_size=2),
)


class Streams(RuleBasedStateMachine):
    """Images come and are retracted in bundles, of which some fail; clocks go on."""

    @initialize(shards=st.integers(1, 3), early=st.sampled_from([None, 10, 30]))
    def begin(self, shards, early):
        self.stream, self.early = Counting(shards, early=early), early
        self.counted = []

    @rule(images=st.lists(COUNTED, min_size=1, max_size=5))
    def images_come(self, images):
        self.counted += images
        self.stream.bundle(images)

    @rule(images=st.lists(COUNTED, min_size=1, max_size=5))
    def a_bundle_is_lost(self, images):
        """The runner goes back to the state before it; what was written by then may stay."""
        kept = copy.deepcopy((self.stream.keys, self.stream.panes))
        self.stream.bundle(images)
        self.stream.keys, self.stream.panes = kept

    @rule(images=st.lists(COUNTED, min_size=1, max_size=5))
    def a_bundle_fails_half_way(self, images):
        self.stream.in_bundle.start_bundle()
        for image in images:
            self.stream.in_bundle.process(image, Timestamp(0))

    @rule(data=st.data())
    def an_image_is_retracted(self, data):
        if here := [image for image in self.counted if image.tally["images"] > 0]:
            image = data.draw(st.sampled_from(here)).retraction()
            self.counted.append(image)
            self.stream.bundle([image])

    @rule(seconds=st.integers(1, 40))
    def time_goes_on(self, seconds):
        self.stream.now += seconds
        self.stream.fire()

    @rule(second=st.integers(0, 400))
    def event_time_goes_on(self, second):
        at = Timestamp(START + second)
        self.stream.watermark = max(self.stream.watermark, at)
        self.stream.fire()

    @rule()
    def all_is_counted_in_the_end(self):
        before = copy.deepcopy((self.stream.keys, self.stream.watermark, self.stream.panes))
        self.stream.watermark = Timestamp(START + 599)
        self.stream.fire()
        assert self.stream.rows() == slow_rows(self.counted)
        self.stream.watermark = Timestamp(START + 180 + 600)
        self.stream.fire()
        assert self.stream.rows() == slow_rows(self.counted)
        assert self.stream.state() == 0
        self.stream.keys, self.stream.watermark, self.stream.panes = before

    @invariant()
    def windows_that_have_ended_are_whole(self):
        if not getattr(self, "counted", None):
            return
        ended = [
            image
            for image in self.counted
            if event_time(window_of(image.timestamp, 60)[1].isoformat()[:19] + "Z")
            <= self.stream.watermark
        ]
        ends = {window_of(image.timestamp, 60)[0].isoformat()[:19] + "Z" for image in ended}
        rows = [row for row in map(json.loads, self.stream.rows()) if row["window_start"] in ends]
        assert sorted(map(json.dumps, rows)) == slow_rows(ended)


Streams.TestCase.settings = search(200, stateful_step_count=15)
TestAStreamCountsWhatABatchCounts = pytest.mark.search(Streams.TestCase)


def test_a_stream_writes_early_counts_after_the_seconds_of_the_option():
    stream = Counting(early=30)
    for second in (1, 2):
        stream.bundle([CountedImage.of(at(second))])
        stream.now += 10
    assert stream.rows() == []
    stream.now += 10
    stream.fire()
    (row,) = map(json.loads, stream.rows())
    assert row["images"] == 2
    stream.now += 1000  # Nothing is new: nothing is written.
    stream.panes.clear()
    stream.fire()
    assert stream.panes == {}


def test_counts_are_written_though_the_state_ends_with_the_window():
    """Timers of one time fire in any order."""
    stream = Counting(lateness=0, early=None)
    stream.bundle([CountedImage.of(at(1))])
    ((key, cells),) = stream.keys.items()
    *states, _, end, forget = cells
    assert end.at == forget.at
    stream.take(stream.in_stream.forget(key, *states))
    stream.take(stream.in_stream.fire_at_end(key, *states))
    assert [json.loads(row)["images"] for row in stream.rows()] == [1]
    assert stream.state() == 0


def test_a_firing_costs_what_has_changed_and_not_the_whole_window(monkeypatch):
    additions = []
    add = count_threats._add_tallies
    monkeypatch.setattr(
        count_threats, "_add_tallies", lambda *both: (additions.append(1), add(*both))[1]
    )
    stream = Counting()
    for second in range(601):
        stream.bundle([CountedImage.of(at(second % 60, f"camera-{second % 300}"))])
        stream.now += 10
    stream.now += 30
    stream.fire()
    assert sum(json.loads(row)["images"] for row in stream.rows()) == 601
    additions.clear()
    stream.bundle([CountedImage.of(at(1, "camera-7"))])
    stream.now += 30
    stream.fire()
    assert sum(json.loads(row)["images"] for row in stream.rows()) == 602
    assert len(additions) == 1


def test_a_key_gets_the_sum_of_a_bundle_and_not_each_image():
    in_bundle = _SumInBundle(300, 1)
    in_bundle.start_bundle()
    for number in range(1000):
        in_bundle.process(at(number % 60, f"camera-{number % 10}"), Timestamp(number))
    (sums,) = in_bundle.finish_bundle()
    assert sums.timestamp == Timestamp(0)
    assert {camera: tally["images"] for camera, tally in sums.value[1].items()} == {
        f"camera-{number}": 100 for number in range(10)
    }


def test_the_state_of_a_window_has_few_bytes_for_each_camera():
    stream = Counting()
    for number in range(1000):
        stream.bundle([CountedImage.of(at(number % 60, f"camera-{number % 100}", ()))])
    stream.now += 30
    stream.fire()
    assert stream.state() < 100 * 20


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
